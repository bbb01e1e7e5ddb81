"""Lists of nodes as people and Slurm write them: ``gpu07, gpu[08-12]``; ``all`` for every node there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.errors import Fault, Invalid
from allocator.models import Cluster, Node, NodeState
from config.i18n import N_

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RANGE = re.compile(r"([A-Za-z0-9._-]*)\[([0-9]{1,6})-([0-9]{1,6})\]")
NUMBERED = re.compile(r"(.*?)([0-9]+)")
MOST_NODES = 1_000
ALL = "all"


def expand(text: str) -> list[str]:
    """Names from a list with ranges, in order and each once; what is no name stays as it was typed."""
    names: list[str] = []
    for word in re.split(r"[,\s]+", text.strip()):
        names += _range(word) if word else []
        if len(names) > MOST_NODES:
            break
    return list(dict.fromkeys(names))


def _range(word: str) -> Iterable[str]:
    found = RANGE.fullmatch(word)
    if not found:
        return [word]
    prefix, low, high = found.groups()
    if int(high) - int(low) > MOST_NODES:
        return [word]
    return (f"{prefix}{number:0{len(low)}d}" for number in range(int(low), int(high) + 1))


def fold(names: Iterable[str]) -> str:
    """The shortest such list of these names: what ``expand`` reads back."""
    runs: list[tuple[str, str, str]] = []
    for name in sorted(set(names)):
        found = NUMBERED.fullmatch(name)
        prefix, digits = found.groups() if found else (name, "")
        if runs and digits and runs[-1][0] == prefix and _follows(runs[-1][2], digits):
            runs[-1] = (prefix, runs[-1][1], digits)
        else:
            runs.append((prefix, digits, digits))
    return ", ".join(
        f"{prefix}{low}" if low == high else f"{prefix}[{low}-{high}]" for prefix, low, high in runs
    )


def _follows(before: str, after: str) -> bool:
    return len(before) == len(after) and before != "" and int(after) == int(before) + 1


def named(session: Session, cluster: Cluster, text: str, *, field: str = "nodes") -> list[Node]:
    """The nodes of the cluster that the list means. Raises Invalid for ``field`` when one is unknown."""
    names = expand(text[:20_000])
    statement = select(Node).where(Node.cluster_id == cluster.id, Node.state != NodeState.GONE)
    if names != [ALL]:
        statement = statement.where(Node.name.in_(names[: MOST_NODES + 1]))
    nodes: Sequence[Node] = session.scalars(statement.order_by(Node.name)).all()
    unknown = [] if names == [ALL] else sorted(set(names) - {node.name for node in nodes})
    if unknown:
        shown = ", ".join(name[:64] for name in unknown[:5])
        raise Invalid({field: [Fault(N_("No such nodes here: %(names)s."), {"names": shown})]})
    if not nodes:
        raise Invalid({field: [Fault(N_("Choose at least one node of this cluster."))]})
    return list(nodes)
