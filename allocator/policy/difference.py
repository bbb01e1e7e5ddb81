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
    before, after = _flat(old), _flat(new)
    keys = [*after, *(key for key in before if key not in after)]
    changes = [Change(key, before.get(key), after.get(key)) for key in keys]
    return [*_moved(old, new), *(change for change in changes if change.before != change.after)]


def _moved(old: Policy, new: Policy) -> Iterator[Change]:
    """Entries whose order is content and is another one now; what came or went is told anyway."""
    for path in sorted(ORDERED):
        before, after = _names(old, path), _names(new, path)
        kept = [name for name in before if name in after]
        now = [name for name in after if name in before]
        if kept != now:
            yield Change(f"{dotted(path)} (order)", ", ".join(kept), ", ".join(now))


def _names(policy: Policy, path: KeyPath) -> list[str]:
    value = json.loads(policy.document())
    for key in path:
        value = value[key]
    return list(value)


def _flat(policy: Policy) -> dict[str, str]:
    return {dotted(path): json.dumps(value, ensure_ascii=False) for path, value in _leaves(policy)}


def _leaves(policy: Policy) -> Iterator[tuple[KeyPath, Any]]:
    waiting: list[tuple[KeyPath, Any]] = [((), json.loads(policy.document()))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(((*path, key), value[key]) for key in reversed(value))
        elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            waiting.extend(((*path, n), entry) for n, entry in reversed(list(enumerate(value))))
        else:
            yield path, value
