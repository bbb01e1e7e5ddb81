"""From a file, or a recorded document, to a policy that can be used, or to one error with every fault."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

from allocator.policy.build import build
from allocator.policy.consistency import check
from allocator.policy.errors import PolicyError, PolicyFault
from allocator.policy.lines import KeyPath, lines_of
from allocator.policy.policy import Policy
from allocator.policy.reading import Faults, Table

SHIPPED = "policy.toml"
# Tables whose order is content: forms, bars and tiers follow it.
ORDERED: frozenset[KeyPath] = frozenset(
    {("pools",), ("categories",), ("tiers",), ("sectors",), ("merit", "bands"), ("bodies",)}
)
PLACE = re.compile(r" \(at line (\d+), column \d+\)$")


def load_policy(path: Path | None = None) -> Policy:
    """Read the policy at ``path``, or the shipped one. Raises PolicyError with every fault."""
    name = path.name if path else SHIPPED
    try:
        content = path.read_bytes() if path else resources.files("config").joinpath(SHIPPED).read_bytes()
        text = content.decode()
        data = tomllib.loads(text)
    except OSError as error:
        raise PolicyError(str(path), [PolicyFault("", None, error.strerror or str(error))]) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PolicyError(name, [PolicyFault("", line, "is not UTF-8")]) from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(name, [_not_toml(str(error), text)]) from error
    return _policy(data, name, lambda: lines_of(text))


def policy_of(document: str, name: str = "policy") -> Policy:
    """The policy that ``Policy.document()`` was made of. Raises PolicyError for what never was one."""
    try:
        data = json.loads(document)
    except json.JSONDecodeError as error:
        raise PolicyError(name, [PolicyFault("", error.lineno, error.msg)]) from error
    if not isinstance(data, dict):
        raise PolicyError(name, [PolicyFault("", None, "is no policy")])
    return _policy(data, name, dict)


def _policy(data: Mapping[str, Any], name: str, lines: Callable[[], dict[KeyPath, int]]) -> Policy:
    canonical = json.dumps(_plain(data, ()), ensure_ascii=False, separators=(",", ":"))
    sha256 = hashlib.sha256(canonical.encode()).hexdigest()
    faults = Faults(lines)
    root = Table(data, (), faults)
    # Comments and spaces are no content, so the version is that of the document and not of the file.
    policy = build(root, f"{root.day('effective').isoformat()}-{sha256[:12]}", sha256, canonical)
    check(policy, faults)
    if listed := faults.listed():
        raise PolicyError(name, listed)
    return policy


def _plain(value: Any, path: KeyPath) -> Any:
    """As JSON has it, with keys sorted wherever their order says nothing."""
    if isinstance(value, Mapping):
        keys = list(value) if path in ORDERED else sorted(value)
        return {key: _plain(value[key], (*path, key)) for key in keys}
    if isinstance(value, list):
        return [_plain(entry, (*path, number)) for number, entry in enumerate(value)]
    # tomllib's dates and times; a float stays one and is refused by whoever reads it
    return value if isinstance(value, str | int | float) else _iso(value)


def _iso(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _not_toml(message: str, text: str) -> PolicyFault:
    found = PLACE.search(message)
    # tomllib says "at end of document" where the last line breaks off
    line = int(found.group(1)) if found else text.count("\n") + 1
    return PolicyFault("", line, f"is not TOML: {PLACE.sub('', message)}")
