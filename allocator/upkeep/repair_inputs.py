"""What a repair reads: the bookings of one GPU type with the starts that would do for each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session, contains_eager, selectinload

from allocator import capacity
from allocator.booking.rebinding import loose_from
from allocator.booking.windows import Held, NodeHeld, Place, Shape
from allocator.models import Booking, Cluster, Node, NodeSlot, Period, Quota
from allocator.policy import BookingRules
from allocator.sqltime import Window
from allocator.states import BookingState, PeriodState
from allocator.upkeep.mending import Claim, Loss

# What holds GPUs now or later.
LIVE = (BookingState.HELD, BookingState.PLANNED, BookingState.CONFIRMED, BookingState.STARTED)


def read_claims(
    session: Session, cluster: Cluster, gpu_type: str, *, rules: BookingRules, now: datetime
) -> list[Claim]:
    """Every booking of the type that is not over, by its number. A constant number of queries."""
    periods = _published(session, cluster, gpu_type, now)
    rows = session.scalars(
        _bookings(
            (Booking.cluster_id == cluster.id) & (Quota.gpu_type == gpu_type) & (Booking.ends_at > now)
            # what the session has seen before it waited for the lock may have changed since
        ).execution_options(populate_existing=True)
    )
    return [_claim(booking, cluster, periods, rules, now) for booking in rows if booking.slots]


def read_nodes(
    session: Session, cluster: Cluster, gpu_type: str, claimed: Collection[int], *, now: datetime
) -> list[NodeHeld]:
    """The bookable nodes with what none of these bookings may ever have. Two queries.

    That is what published outages hold, and what is left of bookings that are over: their cleaning.
    """
    rows = session.execute(
        capacity.slots()
        .join(Node, Node.id == NodeSlot.node_id)
        .where(Node.cluster_id == cluster.id, Node.gpu_type == gpu_type, NodeSlot.ends_at > now)
        .order_by(NodeSlot.id)
    )
    held: dict[int, list[Held]] = {}
    for booking_id, node_id, gpu_from, gpu_to, starts_at, ends_at in rows:
        if booking_id not in claimed:
            held.setdefault(node_id, []).append(Held(gpu_from, gpu_to, starts_at, ends_at))
    nodes = capacity.bookable(session, cluster, gpu_type)
    return [replace(node, held=(*node.held, *held.get(node.id, ()))) for node in nodes]


def affected(session: Session, losses: Sequence[Loss], now: datetime) -> dict[int, int]:
    """The bookings that lose GPUs as the database has it now: their versions by their numbers. One query."""
    if not losses:
        return {}
    nodes: dict[Window, list[int]] = {}
    for loss in losses:
        nodes.setdefault((loss.starts_at, loss.ends_at), []).append(loss.node_id)
    # by windows, of which there are few: SQLite takes no chain of a thousand ORs
    overlaps = (
        NodeSlot.node_id.in_(ids) & (NodeSlot.starts_at < ends_at) & (NodeSlot.ends_at > starts_at)
        for (starts_at, ends_at), ids in nodes.items()
    )
    rows = session.execute(
        select(Booking.id, Booking.version)
        .join(NodeSlot, NodeSlot.booking_id == Booking.id)
        .where(or_(*overlaps), Booking.ends_at > now, Booking.state.in_(LIVE))
        .distinct()
    )
    return {number: version for number, version in rows}  # noqa: C416 - a Row is no pair to mypy


def hold_bookings(session: Session, ids: Iterable[int]) -> dict[int, Booking]:
    """The bookings as they stand now, held until the commit; in the order of their numbers."""
    rows = session.scalars(
        _bookings(Booking.id.in_(list(ids)))
        .with_for_update(key_share=True, of=Booking)
        .execution_options(populate_existing=True)
    )
    return {booking.id: booking for booking in rows}


def nodes_named(session: Session, ids: Iterable[int]) -> dict[int, Node]:
    """Nodes by their numbers. One query."""
    return {node.id: node for node in session.scalars(select(Node).where(Node.id.in_(list(ids))))}


def has_begun(booking: Booking, now: datetime) -> bool:
    return booking.state is BookingState.STARTED or booking.starts_at <= now


def is_frozen(booking: Booking, cluster: Cluster) -> bool:
    return cluster.frozen_until is not None and booking.starts_at < cluster.frozen_until


def is_tied(booking: Booking, cluster: Cluster, now: datetime) -> bool:
    """Whether no machine may move it: it has begun, is pinned, or begins inside of the freeze."""
    return booking.pin is not None or has_begun(booking, now) or is_frozen(booking, cluster)


def soonest(booking: Booking, rules: BookingRules, now: datetime) -> datetime:
    """Before this nobody may be moved by others: people need to hear of it in time."""
    if booking.state is BookingState.PLANNED:
        return now + rules.lead_time
    return max(now + rules.lead_time, min(booking.starts_at, now + rules.move_notice))


def _bookings(which: ColumnElement[bool]) -> Select[Booking]:
    return (
        select(Booking)
        .join(Booking.quota)
        .where(which, Booking.state.in_(LIVE))
        .options(
            contains_eager(Booking.quota),
            selectinload(Booking.slots).joinedload(NodeSlot.node),
        )
        .order_by(Booking.id)
    )


def _published(session: Session, cluster: Cluster, gpu_type: str, now: datetime) -> list[Window]:
    rows = session.execute(
        select(Period.starts_at, Period.ends_at)
        .where(
            Period.cluster_id == cluster.id,
            Period.gpu_type == gpu_type,
            Period.state == PeriodState.PUBLISHED,
            Period.ends_at > now,
        )
        .order_by(Period.starts_at)
    )
    return [(starts_at, ends_at) for starts_at, ends_at in rows]


def _claim(
    booking: Booking, cluster: Cluster, periods: Sequence[Window], rules: BookingRules, now: datetime
) -> Claim:
    first, last = _starts(booking, periods, rules, now)
    slots = booking.slots
    return Claim(
        id=booking.id,
        version=booking.version,
        shape=Shape(booking.nodes, booking.gpus_per_node),
        starts_at=booking.starts_at,
        ends_at=booking.ends_at,
        places=tuple(Place(slot.node_id, slot.node.name, slot.gpu_from, slot.gpu_to) for slot in slots),
        first=first,
        last=last,
        gap=max((slot.ends_at for slot in slots), default=booking.ends_at) - booking.ends_at,
        movable=not is_tied(booking, cluster, now),
        silent=booking.state is BookingState.PLANNED,
        told=booking.state is BookingState.CONFIRMED and booking.starts_at < loose_from(rules, now),
    )


def _starts(booking: Booking, periods: Sequence[Window], rules: BookingRules, now: datetime) -> Window:
    """The first and the last start to which a machine may move the booking."""
    length = booking.ends_at - booking.starts_at
    if booking.state is BookingState.HELD:  # an offer is for this time or for none
        return booking.starts_at, booking.starts_at - length
    quota = booking.quota
    since, until = _same_periods(booking, periods)
    first = max(soonest(booking, rules, now), quota.valid_from, since)
    last = min(quota.valid_until - length, until - length, now + rules.max_ahead)
    if booking.earliest_at and booking.latest_at:
        first, last = max(first, booking.earliest_at), min(last, booking.latest_at - length)
    return first, last


def _same_periods(booking: Booking, periods: Sequence[Window]) -> Window:
    """As far as the booking may go without being charged to the grant of another period."""
    touched = [(s, e) for s, e in periods if s < booking.ends_at and e > booking.starts_at]
    if touched:
        return touched[0][0], touched[-1][1]
    before = [ends_at for _, ends_at in periods if ends_at <= booking.starts_at]
    after = [starts_at for starts_at, _ in periods if starts_at >= booking.ends_at]
    quota = booking.quota
    return max(before, default=quota.valid_from), min(after, default=quota.valid_until)
