"""What a cluster should hold for published outages: maintenance that keeps every job off their nodes.

As soon as an outage is published, however far away: a job may be allowed to run for longer than the days that
bookings are told ahead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from allocator.models import Node, NodeSlot, NodeState, Outage
from allocator.states import OutageState
from scheduler.clusters import base
from scheduler.plan import OUR_OUTAGE

MADE = (OutageState.PUBLISHED, OutageState.ENDED, OutageState.CANCELLED)


@dataclass(frozen=True)
class TrackedOutage:
    """An outage with the names of its reservations, and what was written down of them last."""

    id: int
    names: tuple[str, ...]
    reserved_at: datetime | None
    problem: str | None


@dataclass(frozen=True)
class Outages:
    """``reservations`` by name; ``tracked`` are the outages that they are made for."""

    reservations: Mapping[str, base.Reservation] = field(default_factory=dict)
    tracked: tuple[TrackedOutage, ...] = ()


def read_outages(session: Session, cluster_id: int, now: datetime) -> Outages:
    """Published outages that are not over at ``now`` (the cluster's clock), in one query.

    Where jobs of a booking still run an outage begins later: for each beginning there is a reservation, the
    first called ``kezek-outage-7``, the next ``kezek-outage-7-2``. Nodes that never were on the cluster are
    left out: it would refuse the rest with them.
    """
    rows = session.execute(
        select(
            Outage.id,
            Outage.reserved_at,
            Outage.problem,
            NodeSlot.starts_at,
            NodeSlot.ends_at,
            Node.name,
            Node.state,
            or_(Node.joins_at.is_(None), Node.seen_at >= Node.joins_at).label("seen"),
        )
        .join(NodeSlot, NodeSlot.outage_id == Outage.id)
        .join(Node, Node.id == NodeSlot.node_id)
        .where(Outage.cluster_id == cluster_id, Outage.state == OutageState.PUBLISHED)
        .where(Outage.ends_at > now)
        .order_by(Outage.id, NodeSlot.starts_at, Node.name)
    ).all()
    windows: dict[int, dict[tuple[datetime, datetime], list[str]]] = defaultdict(dict)
    for row in rows:
        nodes = windows[row.id].setdefault((row.starts_at, row.ends_at), [])
        if _is_there(row.state, row.seen):
            nodes.append(row.name)
    made = {one.name: one for number, parts in windows.items() for one in _reservations(number, parts, now)}
    names: dict[int, list[str]] = defaultdict(list)
    for name in made:
        names[outage_of(name) or 0].append(name)
    tracked = {
        row.id: TrackedOutage(row.id, tuple(names[row.id]), row.reserved_at, row.problem) for row in rows
    }
    return Outages(made, tuple(tracked.values()))


def _is_there(state: NodeState, seen: bool) -> bool:
    if state is NodeState.DOWN:  # an announced one that never came is called down too
        return seen
    return state in (NodeState.UP, NodeState.DRAINED)


def _reservations(
    outage_id: int, parts: Mapping[tuple[datetime, datetime], list[str]], now: datetime
) -> Iterator[base.Reservation]:
    for number, ((starts_at, ends_at), nodes) in enumerate(parts.items(), start=1):
        if nodes and ends_at > now:
            yield base.Reservation(
                name=f"kezek-outage-{outage_id}" + (f"-{number}" if number > 1 else ""),
                starts_at=starts_at.replace(microsecond=0),
                ends_at=ends_at.replace(microsecond=0),
                nodes=tuple(nodes),
                accounts=(),
                maintenance=True,
            )


def outage_of(name: str) -> int | None:
    """The number of the outage that a reservation is named for, if it is."""
    match = OUR_OUTAGE.fullmatch(name)
    return int(match["id"]) if match else None


def retired_outages(session: Session, cluster_id: int, names: Iterable[str]) -> list[str]:
    """Those of ``names``, none of which is wanted, that an outage of the cluster has had."""
    numbers = {name: number for name in names if (number := outage_of(name)) and number < 2**63}
    if not numbers:
        return []
    ids = set(numbers.values())
    made = select(Outage.id).where(
        Outage.cluster_id == cluster_id, Outage.id.in_(ids), Outage.state.in_(MADE)
    )
    known = set(session.scalars(made))
    return sorted(name for name, number in numbers.items() if number in known)
