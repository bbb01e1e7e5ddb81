"""What the calendar reads: nodes, what holds them, whose it is, and what an hour costs in congestion.

Each function is one query, however many nodes and bookings there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import literal, select
from sqlalchemy.orm import Session, contains_eager, joinedload

from allocator.actors import Actor
from allocator.authorization import Action, own_quotas, require
from allocator.booking.windows import natural
from allocator.models import Application, Booking, Cluster, Node, NodeSlot, NodeState, PlanRun, Quota
from allocator.models.base import UtcDateTime
from allocator.sqltime import Window, seconds_between
from allocator.states import BookingState, QuotaState

# What a person has there; what lapsed or was given back holds nothing any more.
SHOWN = (
    BookingState.HELD,
    BookingState.PLANNED,
    BookingState.CONFIRMED,
    BookingState.STARTED,
    BookingState.ENDED,
)


class CalendarNode(NamedTuple):
    """A row of the calendar; it can be booked from ``joins_at`` until ``leaves_at`` while it is UP."""

    id: int
    name: str
    gpus: int
    state: NodeState
    switch: str | None
    joins_at: datetime | None
    leaves_at: datetime | None


class Taken(NamedTuple):
    """GPUs [gpu_from, gpu_to) of a node for [first, last) seconds, counted from where the asker says."""

    node_id: int
    gpu_from: int
    gpu_to: int
    first: int
    last: int
    booking_id: int | None
    outage_id: int | None


class Own(NamedTuple):
    """A booking of the person's own quotas."""

    id: int
    title: str
    state: BookingState
    nodes: int
    gpus_per_node: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Demand:
    """Prices of congestion by the hour from ``starts_at``: 0 is free, 1 an average booking's worth."""

    made_at: datetime
    starts_at: datetime
    prices: Sequence[float]

    def mean(self, since: datetime, until: datetime) -> float | None:
        """The mean price of the hours that [since, until) touches; None where the plan does not reach."""
        first = int((since - self.starts_at).total_seconds() // 3600)
        last = -int((self.starts_at - until).total_seconds() // 3600)
        known = self.prices[max(first, 0) : max(last, 0)]
        return sum(known) / len(known) if known else None


def nodes(session: Session, cluster: Cluster, gpu_type: str) -> list[CalendarNode]:
    """The nodes of the type that are or will be there, in the order in which people count."""
    rows = session.execute(
        select(Node.id, Node.name, Node.gpus, Node.state, Node.switch, Node.joins_at, Node.leaves_at).where(
            Node.cluster_id == cluster.id, Node.gpu_type == gpu_type, Node.state != NodeState.GONE
        )
    )
    return sorted((CalendarNode(*row) for row in rows), key=lambda node: natural(node.name))


def taken(
    session: Session, cluster: Cluster, gpu_type: str, window: Window, since: datetime | None = None
) -> list[Taken]:
    """What bookings and outages hold at any moment of the window, in seconds from ``since`` or its start."""
    # Seconds come as plain integers: thirty thousand datetimes would cost more than all the rest.
    origin = literal(since or window[0], UtcDateTime())
    rows = session.execute(
        select(
            NodeSlot.node_id,
            NodeSlot.gpu_from,
            NodeSlot.gpu_to,
            seconds_between(origin, NodeSlot.starts_at),
            seconds_between(origin, NodeSlot.ends_at),
            NodeSlot.booking_id,
            NodeSlot.outage_id,
        )
        .join(Node, Node.id == NodeSlot.node_id)
        .where(
            Node.cluster_id == cluster.id,
            Node.gpu_type == gpu_type,
            NodeSlot.ends_at > window[0],
            NodeSlot.starts_at < window[1],
        )
        .order_by(NodeSlot.starts_at, NodeSlot.id)
    )
    return [Taken(*row) for row in rows]


def own_bookings(
    session: Session, actor: Actor, cluster: Cluster, gpu_type: str, window: Window
) -> Mapping[int, Own]:
    """Bookings of one's own quotas in the window, by their number, in order of time."""
    require(actor, Action.APPLICATION_CREATE)
    rows = session.execute(
        select(
            Booking.id,
            Application.title,
            Booking.state,
            Booking.nodes,
            Booking.gpus_per_node,
            Booking.starts_at,
            Booking.ends_at,
        )
        .join(Booking.quota)
        .join(Quota.application)
        .where(
            Booking.cluster_id == cluster.id,
            Quota.gpu_type == gpu_type,
            Booking.state.in_(SHOWN),
            Booking.ends_at > window[0],
            Booking.starts_at < window[1],
            own_quotas(actor),
        )
        .order_by(Booking.starts_at, Booking.id)
    )
    return {row.id: Own(*row) for row in rows}


def demand(session: Session, cluster: Cluster, gpu_type: str) -> Demand | None:
    """The prices of the latest plan, or None before the first one."""
    run = session.scalar(
        select(PlanRun)
        .where(PlanRun.cluster_id == cluster.id, PlanRun.gpu_type == gpu_type)
        .order_by(PlanRun.made_at.desc(), PlanRun.id.desc())
        .limit(1)
    )
    return Demand(run.made_at, run.starts_at, run.prices["hours"]) if run else None


def quotas_to_book(session: Session, actor: Actor, now: datetime) -> Sequence[Quota]:
    """One's own quotas that can still be spent, the newest first, with application and cluster."""
    require(actor, Action.APPLICATION_CREATE)
    return session.scalars(
        select(Quota)
        .join(Quota.application)
        .options(contains_eager(Quota.application), joinedload(Quota.cluster))
        .where(Quota.state == QuotaState.ACTIVE, Quota.valid_until > now, own_quotas(actor))
        .order_by(Quota.id.desc())
    ).all()
