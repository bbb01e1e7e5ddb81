"""Carrying a repair out: what the proposal says, if the world is still the one that it was made for.

Everything happens in the caller's transaction under the cluster's lock: slots, bookings, moves, letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters
from allocator.errors import NotFound, Stale, WrongState
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    Node,
    NodeSlot,
    NodeState,
    Repair,
    RepairCause,
)
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import BookingState, MoveState, RepairState, move
from allocator.upkeep import own_interest, phases
from allocator.upkeep.mending import Change, ChangeKind, Variant
from allocator.upkeep.repair_inputs import affected, hold_bookings, is_tied, nodes_named, soonest
from allocator.upkeep.repairs import (
    BELONGS,
    CHANGED,
    affected_of,
    losses_of,
    refuse_unfinished,
    take,
    variants_of,
)

USABLE = (NodeState.UP, NodeState.EXPECTED)


@dataclass(frozen=True)
class Why:
    """What people are told about a move: the reason, who decided, and the repair if there is one."""

    reason: str
    actor: Actor
    rules: BookingRules
    now: datetime
    repair: Repair | None = None


def apply(
    session: Session,
    actor: Actor,
    repair: Repair,
    variant: str,
    *,
    reason: str,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> list[BookingMove]:
    """Move and drop as the variant says; ``reason`` is what people read.

    Raises Invalid, Stale, WrongState, or Forbidden where a booking of one's own is at stake.

    The repair of an outage is applied by publishing that.
    """
    require(actor, Action.CLUSTER_CHANGE)
    if repair.cause is RepairCause.OUTAGE:
        raise WrongState(BELONGS)
    why = Why(given(reason), actor, rules, now, repair)
    capacity.lock(session, repair.cluster)
    take(session, repair, expected_version)
    made = carry_out(session, repair, variant, why)
    if repair.cause is RepairCause.NODES_LEAVE:
        phases.set_leaving(session, actor, repair, now=now)
    return made


def carry_out(session: Session, repair: Repair, variant: str, why: Why) -> list[BookingMove]:
    """``apply`` for whoever holds the cluster and the repair already."""
    refuse_unfinished(repair)
    chosen = variants_of(repair).get(variant)
    if chosen is None:
        raise NotFound()
    own_interest.refuse(session, why.actor, repair)
    _check_affected(session, repair, chosen, why.now)
    bookings = _held(session, repair.cluster, chosen, why)
    swap_slots(session, chosen.changes, bookings)
    made = [_told(session, bookings[change.booking_id], change, why) for change in chosen.changes]
    columns = {
        "chosen": variant,
        "decided_by_id": why.actor.person_id,
        "decided_at": why.now,
        "version": repair.version + 1,
    }
    rebound = [change.booking_id for change in chosen.of(ChangeKind.REBIND)]
    move(
        repair,
        RepairState.APPLIED,
        actor=why.actor,
        now=why.now,
        reason=why.reason,
        columns=columns,
        chosen=variant,
        rebound=rebound,
    )
    return [one for one in made if one is not None]


def _check_affected(session: Session, repair: Repair, chosen: Variant, now: datetime) -> None:
    """Nobody may have booked into the loss since; who was there before is checked by version.

    Nor may a booking be moved without need that late binding has put elsewhere since: that changes no
    version.
    """
    changed = {change.booking_id for change in chosen.changes}
    hit = affected(session, losses_of(repair), now).keys()
    if not hit <= changed | set(chosen.stuck) or not changed & affected_of(repair).keys() <= hit:
        raise Stale(CHANGED)


def _held(session: Session, cluster: Cluster, chosen: Variant, why: Why) -> dict[int, Booking]:
    """The bookings to change, held until the commit. Raises Stale unless each is as it was.

    And unless each may still be moved like that: a proposal may be days old when a person decides.
    """
    bookings = hold_bookings(session, [change.booking_id for change in chosen.changes])
    for change in chosen.changes:
        booking = bookings.get(change.booking_id)
        if booking is None or booking.version != change.version or is_tied(booking, cluster, why.now):
            raise Stale(CHANGED)
        start = change.to_starts_at
        if start not in (None, booking.starts_at) and start < soonest(booking, why.rules, why.now):
            raise Stale(CHANGED)
    return bookings


def swap_slots(session: Session, changes: Sequence[Change], bookings: Mapping[int, Booking]) -> None:
    """All old slots go before the new ones come: bookings may change places with each other. Raises Stale."""
    gaps = {
        number: max((slot.ends_at for slot in booking.slots), default=booking.ends_at) - booking.ends_at
        for number, booking in bookings.items()
    }
    _check_nodes(session, changes)
    rows = [
        NodeSlot(
            booking_id=change.booking_id,
            node_id=place.node_id,
            gpu_from=place.gpu_from,
            gpu_to=place.gpu_to,
            starts_at=change.to_starts_at,
            ends_at=change.to_ends_at + gaps[change.booking_id],
        )
        for change in changes
        if change.to_starts_at and change.to_ends_at
        for place in change.places
    ]
    try:
        with session.begin_nested():
            session.execute(delete(NodeSlot).where(NodeSlot.booking_id.in_(list(bookings))))
            session.add_all(rows)
    except IntegrityError as error:
        raise Stale(CHANGED) from error
    for booking in bookings.values():
        session.expire(booking, ["slots"])


def _check_nodes(session: Session, changes: Iterable[Change]) -> None:
    nodes = nodes_named(session, {place.node_id for change in changes for place in change.places})
    for change in changes:
        if change.to_starts_at is None or change.to_ends_at is None:
            continue
        if not all(
            is_there(nodes[place.node_id], change.to_starts_at, change.to_ends_at) for place in change.places
        ):
            raise Stale(CHANGED)


def is_there(node: Node, starts_at: datetime, ends_at: datetime) -> bool:
    """Whether the node works, or is announced, for all of the window."""
    joined = node.joins_at is None or node.joins_at <= starts_at
    return node.state in USABLE and joined and (node.leaves_at is None or node.leaves_at >= ends_at)


def _told(session: Session, booking: Booking, change: Change, why: Why) -> BookingMove | None:
    if change.kind is ChangeKind.REBIND:
        return None
    if change.kind is ChangeKind.DROP:
        return drop(session, booking, why)
    if change.to_starts_at is None or change.to_ends_at is None:
        raise ValueError("a change that drops nothing has another window")
    if change.kind is ChangeKind.REPLAN:
        set_window(session, booking, change.to_starts_at, change.to_ends_at, "booking.replanned", why)
        return None
    return move_to(session, booking, change.to_starts_at, change.to_ends_at, why)


def move_to(
    session: Session, booking: Booking, starts_at: datetime, ends_at: datetime, why: Why
) -> BookingMove:
    """Write the other window, the move that people may answer and the letter; slots are moved already."""
    settle(session, booking, why)
    row = _row(booking, why, starts_at, ends_at)
    set_window(session, booking, starts_at, ends_at, "booking.moved", why)
    session.add(row)
    session.flush()
    booking_letters.moved(session, row, now=why.now)
    return row


def settle(session: Session, booking: Booking, why: Why) -> None:
    """A newer move takes an unanswered older one's place: nobody has answered that."""
    older = session.scalars(
        select(BookingMove).where(BookingMove.booking_id == booking.id, BookingMove.state == MoveState.TOLD)
    ).all()
    for one in older:
        move(one, MoveState.CHANGED, actor=why.actor, now=why.now, columns={"answered_at": why.now})


def set_window(
    session: Session, booking: Booking, starts_at: datetime, ends_at: datetime, kind: str, why: Why
) -> None:
    """Write the other window with its event; nobody is told."""
    before = {"starts_at": booking.starts_at, "ends_at": booking.ends_at}
    booking.starts_at, booking.ends_at = starts_at, ends_at
    after = {
        "starts_at": starts_at,
        "ends_at": ends_at,
        "repair": why.repair.id if why.repair else None,
    }
    events.record(
        session, why.actor, booking, kind, now=why.now, reason=why.reason, before=before, after=after
    )


def drop(session: Session, booking: Booking, why: Why) -> BookingMove | None:
    """Give everything back; its slots are gone already. An offer that nobody accepted only lapses."""
    offer = booking.state is BookingState.HELD
    target = BookingState.LAPSED if offer else BookingState.CANCELLED
    given_back = booking.gpu_seconds
    move(
        booking,
        target,
        actor=why.actor,
        now=why.now,
        reason=why.reason,
        columns={"version": booking.version + 1},
        given_back=given_back,
        charged=0,
    )
    if offer:
        return None
    settle(session, booking, why)
    row = _row(booking, why, None, None)
    # there is nothing left to answer: the hours are back
    row.state, row.answered_at = MoveState.REFUNDED, why.now
    session.add(row)
    session.flush()
    booking_letters.dropped(session, row, now=why.now)
    return row


def _row(
    booking: Booking, why: Why, to_starts_at: datetime | None, to_ends_at: datetime | None
) -> BookingMove:
    answer_until = why.now + why.rules.move_answer
    if to_starts_at is not None:
        # once it has begun there is nothing to choose any more
        answer_until = min(answer_until, to_starts_at)
    return BookingMove(
        booking_id=booking.id,
        repair_id=why.repair.id if why.repair else None,
        from_starts_at=booking.starts_at,
        from_ends_at=booking.ends_at,
        to_starts_at=to_starts_at,
        to_ends_at=to_ends_at,
        reason=why.reason,
        answer_until=answer_until,
        moved_by_id=why.actor.person_id,
        moved_at=why.now,
    )
