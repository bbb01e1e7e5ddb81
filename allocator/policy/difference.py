"""What changes from one policy to another, key by key."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from allocator.policy.lines import KeyPath
from allocator.policy.loading import ORDERED
from allocator.policy.policy import Policy
from allocator.policy.reading import dotted


@dataclass(frozen=True)
class Change:
    """One key with its value before and after, as JSON; None where the key is not there."""

    key: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        """As a line of a diff."""
        if self.before is None:
            return f"+ {self.key} = {self.after}"
        if self.after is None:
            return f"- {self.key} = {self.before}"
        return f"~ {self.key}: {self.before} -> {self.after}"


def differences(old: Policy, new: Policy) -> list[Change]:
    """Every key that is not the same, in the order of the new policy; what has gone stands last."""
    return document_differences(old.document(), new.document())


def document_differences(old: str, new: str) -> list[Change]:
    """The same for recorded documents, which need not be policies to the program of today."""
    older, newer = json.loads(old), json.loads(new)
    before, after = _flat(older), _flat(newer)
    keys = [*after, *(key for key in before if key not in after)]
    changes = [Change(key, before.get(key), after.get(key)) for key in keys]
    return [*_moved(older, newer), *(change for change in changes if change.before != change.after)]


def _moved(old: Any, new: Any) -> Iterator[Change]:
    """Entries whose order is content and is another one now; what came or went is told anyway."""
    for path in sorted(ORDERED):
        before, after = _names(old, path), _names(new, path)
        kept = [name for name in before if name in after]
        now = [name for name in after if name in before]
        if kept != now:
            yield Change(f"{dotted(path)} (order)", ", ".join(kept), ", ".join(now))


def _names(document: Any, path: KeyPath) -> list[str]:
    for key in path:
        document = document.get(key, {})
    return list(document)


def _flat(document: Any) -> dict[str, str]:
    return {dotted(path): json.dumps(value, ensure_ascii=False) for path, value in _leaves(document)}


def _leaves(document: Any) -> Iterator[tuple[KeyPath, Any]]:
    waiting: list[tuple[KeyPath, Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(((*path, key), value[key]) for key in reversed(value))
        elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            waiting.extend(((*path, n), entry) for n, entry in reversed(list(enumerate(value))))
        else:
            yield path, value
