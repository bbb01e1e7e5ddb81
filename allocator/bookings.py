"""Use cases of bookings: ask what is possible, book, give back, and let time pass.

Whoever books or gives back holds the cluster's row until the commit, so that free GPUs and balances are
counted by one at a time. The database's own refusal of overlapping slots is the last word, should anybody
not have asked for the lock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import booking_letters, capacity, events, grants, ledger
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.booking_checks import Ask, check, grid_of
from allocator.errors import Fault, Invalid, NoCapacity, Stale, WrongState
from allocator.ledger import Balance
from allocator.locks import hold
from allocator.models import Booking, NodeSlot, Quota, Reservation
from allocator.policy import BookingRules
from allocator.states import BookingState, ReservationState, move
from allocator.windows import Place, Shape, nearest_after, nearest_before, pick
from config.i18n import N_

__all__ = ["Ask", "Cancellation", "Quote", "advance", "book", "cancel", "cancellation", "earliest", "quote"]

BATCH = 500  # bookings that one call of advance() moves at most: every event in it holds the chain
TAKEN = N_("These GPUs are not free in that window.")
NEVER_RESERVED = N_("The cluster could not reserve it; nothing is charged.")


@dataclass(frozen=True)
class Quote:
    """What an ask would cost and whether it is possible now; nothing is held by it.

    ``faults`` are rules that it breaks, by field. Without faults but without ``places`` the GPUs are taken:
    ``before`` and ``after`` are then the nearest starts at which the same ask would fit.
    """

    ask: Ask
    balance: Balance
    faults: Mapping[str, list[Fault]]
    places: tuple[Place, ...] = ()
    before: datetime | None = None
    after: datetime | None = None

    @property
    def fits(self) -> bool:
        return not self.faults and bool(self.places)

    @property
    def remaining(self) -> int:
        """GPU-seconds that stay available after booking; negative when the ask is more than there is."""
        return self.balance.available - self.ask.gpu_seconds


@dataclass(frozen=True)
class Cancellation:
    """What giving a booking back now means: GPU-seconds returned and still charged, and when it ends."""

    given_back: int
    charged: int
    ends_at: datetime | None  # None: it never took place


def quote(
    session: Session, actor: Actor, quota: Quota, ask: Ask, *, rules: BookingRules, now: datetime
) -> Quote:
    """Whether the ask would fit now, and if not why; raises only what ``require`` raises."""
    require(actor, Action.BOOKING_CREATE, quota)
    found = _find(session, quota, ask, rules, now)
    # a wrong shape or length can start at no time at all; only a wrong start has alternatives
    if found.fits or not found.faults.keys() <= {"starts_at"}:
        return found
    before, after = _nearest(session, quota, ask, rules, now)
    return replace(found, before=before, after=after)


def _find(session: Session, quota: Quota, ask: Ask, rules: BookingRules, now: datetime) -> Quote:
    """The quote without alternatives: all that booking needs, and quick enough to ask under the lock."""
    balance = ledger.balance(session, quota)
    types = capacity.gpu_types(session, quota.cluster)
    rooms = grants.rooms(session, quota, ask.starts_at, ask.ends_at)
    faults = check(ask, quota, balance, types.get(quota.gpu_type), rules, now, rooms)
    return Quote(ask, balance, faults, () if faults else tuple(_places(session, quota, ask)))


def earliest(
    session: Session, quota: Quota, shape: Shape, length: timedelta, *, rules: BookingRules, now: datetime
) -> datetime | None:
    """As soon as possible: the first start that the rules, the quota's validity and the free GPUs allow."""
    first, last = _span(quota, length, rules, now)
    if first > last:
        return None
    starts = capacity.possible_starts(session, quota.cluster, quota.gpu_type, shape, length, (first, last))
    return nearest_after(starts, first, grid_of(rules))


def _span(quota: Quota, length: timedelta, rules: BookingRules, now: datetime) -> tuple[datetime, datetime]:
    """The first and last start that the rules allow for a booking of that length."""
    first = grid_of(rules).ceil(max(now + rules.lead_time, quota.valid_from))
    return first, min(now + rules.max_ahead, quota.valid_until - length)


def _nearest(
    session: Session, quota: Quota, ask: Ask, rules: BookingRules, now: datetime
) -> tuple[datetime | None, datetime | None]:
    span = _span(quota, ask.length, rules, now)
    if span[0] > span[1]:
        return None, None
    starts = capacity.possible_starts(session, quota.cluster, quota.gpu_type, ask.shape, ask.length, span)
    grid = grid_of(rules)
    return nearest_before(starts, ask.starts_at, grid), nearest_after(starts, ask.starts_at, grid)


def _places(session: Session, quota: Quota, ask: Ask) -> list[Place]:
    free = capacity.free(session, quota.cluster, quota.gpu_type, ask.starts_at, ask.ends_at)
    return pick(free, ask.shape, whole=not quota.cluster.shares_nodes) or []


def book(
    session: Session, actor: Actor, quota: Quota, ask: Ask, *, rules: BookingRules, now: datetime
) -> Booking:
    """Book named nodes. Raises Invalid when a rule is broken, NoCapacity when the GPUs are taken.

    ``quote()`` has the nearest other starts; ask it when the lock is given up.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None:
        raise ValueError("a booking is made by a person")
    capacity.lock(session, quota.cluster)
    session.refresh(quota)  # it may have been closed while we waited
    found = _find(session, quota, ask, rules, now)
    if found.faults:
        raise Invalid(found.faults)
    if not found.places:
        raise NoCapacity(TAKEN)
    booking = _insert(session, actor.person_id, quota, found, now)
    facts: dict[str, object] = {
        "quota": quota.id,
        "gpu_seconds": ask.gpu_seconds,
        "starts_at": ask.starts_at,
        "ends_at": ask.ends_at,
        "nodes": [place.name for place in found.places],
        "gpus_per_node": ask.gpus_per_node,
    }
    events.record(
        session, actor, booking, "booking.confirmed", now=now, after={"state": booking.state, **facts}
    )
    booking_letters.booked(session, booking, now=now)
    return booking


def _insert(session: Session, person_id: int, quota: Quota, found: Quote, now: datetime) -> Booking:
    ask = found.ask
    booking = Booking(
        quota=quota,
        cluster=quota.cluster,
        booked_by_id=person_id,
        nodes=ask.nodes,
        gpus_per_node=ask.gpus_per_node,
        starts_at=ask.starts_at,
        ends_at=ask.ends_at,
        created_at=now,
    )
    booking.slots = [
        NodeSlot(
            node_id=place.node_id,
            gpu_from=place.gpu_from,
            gpu_to=place.gpu_to,
            starts_at=ask.starts_at,
            ends_at=ask.ends_at,
        )
        for place in found.places
    ]
    try:
        # a savepoint, so that a refusal leaves the caller's transaction alive to answer with
        with session.begin_nested():
            session.add(booking)
            session.flush()
            booking.reservation = Reservation(
                cluster_id=quota.cluster_id,
                name=booking.reservation_name,
                state=ReservationState.PENDING,
                state_since=now,
            )
    except IntegrityError as error:
        raise NoCapacity(TAKEN) from error
    return booking


def cancellation(booking: Booking, now: datetime) -> Cancellation:
    """What ``cancel`` would do now. Raises WrongState when the booking is over.

    Before its start everything is given back; so it is when the cluster never reserved it. A running
    booking ends now and is charged up to this moment, in whole seconds.
    """
    if booking.state not in (BookingState.CONFIRMED, BookingState.STARTED) or booking.ends_at <= now:
        raise WrongState(N_("This booking is already over."))
    if booking.starts_at > now or _never_delivered(booking):
        return Cancellation(booking.gpu_seconds, 0, None)
    ends_at = max(_whole_second(now), booking.starts_at + timedelta(seconds=1))
    left = int((booking.ends_at - ends_at).total_seconds()) * booking.nodes * booking.gpus_per_node
    return Cancellation(left, booking.gpu_seconds - left, ends_at)


def _whole_second(now: datetime) -> datetime:
    return now.replace(microsecond=0) + timedelta(seconds=bool(now.microsecond))


def _never_delivered(booking: Booking) -> bool:
    # Not only where it refused: a cluster that was away all the time has delivered nothing either.
    return booking.reservation.seen_at is None


def cancel(
    session: Session, actor: Actor, booking: Booking, *, reason: str, expected_version: int, now: datetime
) -> Cancellation:
    """Give the booking back. Raises Stale when it is not as the person saw it, WrongState when it is over."""
    require(actor, Action.BOOKING_CANCEL, booking)
    capacity.lock(session, booking.cluster)
    hold(session, booking)
    session.refresh(booking.reservation)
    if booking.version != expected_version:
        raise Stale(
            N_("This booking has changed since you opened the page."),
            {"state": booking.state.value, "ends_at": booking.ends_at, "version": booking.version},
        )
    done = cancellation(booking, now)
    facts = {"given_back": done.given_back, "charged": done.charged}
    slots = NodeSlot.booking_id == booking.id
    if done.ends_at is None:
        session.execute(delete(NodeSlot).where(slots))
        _move(booking, BookingState.CANCELLED, actor, now, reason, facts)
    else:
        session.execute(update(NodeSlot).where(slots).values(ends_at=done.ends_at))
        if booking.state == BookingState.CONFIRMED:  # it has started, only nobody has written that down yet
            _move(booking, BookingState.STARTED, SYSTEM, now, "", {})
        _move(booking, BookingState.ENDED, actor, now, reason, facts, done.ends_at)
    session.expire(booking, ["slots"])
    booking_letters.cancelled(session, booking, done.given_back, actor, now=now)
    return done


def _move(
    booking: Booking,
    target: BookingState,
    actor: Actor,
    now: datetime,
    reason: str,
    facts: Mapping[str, Any],
    ends_at: datetime | None = None,
) -> None:
    """``move()`` with the version counted up in the same statement, so that an open page turns stale."""
    columns: dict[str, Any] = {"version": booking.version + 1}
    if ends_at is not None:
        columns["ends_at"] = ends_at
        facts = {**facts, "ends_at": ends_at}
    move(booking, target, actor=actor, now=now, reason=reason, columns=columns, **facts)


def advance(session: Session, now: datetime) -> dict[BookingState, int]:
    """Let time pass: what has reached its start is STARTED, what has reached its end ENDED.

    What the cluster never held is CANCELLED instead, and nothing is charged. Returns how many went to each
    state, at most ``BATCH`` each.
    """
    counts = {
        BookingState.STARTED: _advance(
            session, now, BookingState.CONFIRMED, BookingState.STARTED, Booking.starts_at <= now
        )
    }
    undelivered = select(Reservation.booking_id).where(Reservation.seen_at.is_(None))
    over = Booking.ends_at <= now
    for target, which in (
        (BookingState.CANCELLED, over & Booking.id.in_(undelivered)),
        (BookingState.ENDED, over & Booking.id.not_in(undelivered)),
    ):
        counts[target] = _advance(session, now, BookingState.STARTED, target, which)
    return counts


def _advance(
    session: Session, now: datetime, current: BookingState, target: BookingState, which: ColumnElement[bool]
) -> int:
    """Compare-and-set a batch in one statement, then an event for each that really moved."""
    due = (
        select(Booking.id)
        .where(Booking.state == current, which)
        .order_by(Booking.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)  # somebody is just giving it back: the next round will see
    )
    moved = session.scalars(
        update(Booking)
        .where(Booking.id.in_(due.scalar_subquery()), Booking.state == current)
        .values(state=target, version=Booking.version + 1)
        .returning(Booking)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    reason = NEVER_RESERVED if target == BookingState.CANCELLED else ""
    if target == BookingState.CANCELLED:
        session.execute(delete(NodeSlot).where(NodeSlot.booking_id.in_([b.id for b in moved])))
    for booking in sorted(moved, key=lambda booking: booking.id):
        events.record(
            session,
            SYSTEM,
            booking,
            f"booking.{target.value}",
            now=now,
            reason=reason,
            before={"state": current},
            after={"state": target},
        )
        if target == BookingState.CANCELLED:
            booking_letters.cancelled(session, booking, booking.gpu_seconds, SYSTEM, now=now)
    return len(moved)
