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
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters
from allocator.booking.booking_checks import Ask, grid_of
from allocator.booking.grounds import ground, span
from allocator.booking.placing import Quote, find, look_ahead, make, take
from allocator.booking.windows import Shape, nearest_after, nearest_before
from allocator.errors import WrongState
from allocator.models import Booking, NodeSlot, Quota, Reservation
from allocator.policy import BookingRules
from allocator.states import VOID_BOOKINGS, BookingState, ReservationState, move
from config.i18n import N_

__all__ = [
    "Ask",
    "Cancellation",
    "Quote",
    "advance",
    "book",
    "cancel",
    "cancellation",
    "earliest",
    "end_now",
    "quote",
]

BATCH = 500  # bookings that one call of advance() moves at most: every event in it holds the chain
NEVER_RESERVED = N_("The cluster could not reserve it; nothing is charged.")
NOT_BEGUN = N_("It has not begun: others can still take its time, so all of it is given back.")
ONLY_HELD = N_("It was only held for you and not booked yet: nothing is charged.")
RUNNING = N_(
    "It has begun: the time that has passed was kept free for you and stays charged, the rest is given back."
)


@dataclass(frozen=True)
class Cancellation:
    """What giving a booking back now means: GPU-seconds returned and still charged, when it ends, and why."""

    given_back: int
    charged: int
    ends_at: datetime | None  # None: it never took place
    why: str  # a msgid


def quote(
    session: Session, actor: Actor, quota: Quota, ask: Ask, *, rules: BookingRules, now: datetime
) -> Quote:
    """Whether the ask would fit now, and if not why; raises only what ``require`` raises."""
    require(actor, Action.BOOKING_CREATE, quota)
    found = find(session, quota, ask, rules, now)
    # a wrong shape or length can start at no time at all; only a wrong start has alternatives
    if found.fits or not found.faults.keys() <= {"starts_at"}:
        return found
    before, after = _nearest(session, quota, ask, rules, now)
    return replace(found, before=before, after=after)


def earliest(
    session: Session, quota: Quota, shape: Shape, length: timedelta, *, rules: BookingRules, now: datetime
) -> datetime | None:
    """As soon as possible: the first start that the rules, the quota's validity and the free GPUs allow."""
    first, last = span(quota, length, rules, now)
    if first > last:
        return None
    starts = ground(session, quota, first, last + length, rules).starts(shape, length, first, last)
    return nearest_after(starts, first, grid_of(rules))


def _nearest(
    session: Session, quota: Quota, ask: Ask, rules: BookingRules, now: datetime
) -> tuple[datetime | None, datetime | None]:
    first, last = span(quota, ask.length, rules, now)
    if first > last:
        return None, None
    here = ground(session, quota, first, last + ask.length, rules)
    starts, grid = here.starts(ask.shape, ask.length, first, last), grid_of(rules)
    return nearest_before(starts, ask.starts_at, grid), nearest_after(starts, ask.starts_at, grid)


def book(
    session: Session, actor: Actor, quota: Quota, ask: Ask, *, rules: BookingRules, now: datetime
) -> Booking:
    """Book named nodes. Raises Invalid when a rule is broken, NoCapacity when the GPUs are taken.

    ``quote()`` has the nearest other starts; ask it when the lock is given up.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None:
        raise ValueError("a booking is made by a person")
    look_ahead(session, quota, ask, rules, now)
    booking = make(session, actor, quota, ask, rules=rules, now=now)
    booking_letters.booked(session, booking, now=now)
    return booking


def cancellation(booking: Booking, now: datetime) -> Cancellation:
    """What ``cancel`` would do now. Raises WrongState when the booking is over.

    Before its start everything is given back; so it is when the cluster never reserved it. A running
    booking ends now and is charged up to this moment, in whole seconds.
    """
    if booking.state is BookingState.HELD:
        return Cancellation(booking.gpu_seconds, 0, None, ONLY_HELD)
    if booking.state is BookingState.PLANNED:
        return Cancellation(booking.gpu_seconds, 0, None, NOT_BEGUN)
    if booking.state not in (BookingState.CONFIRMED, BookingState.STARTED) or booking.ends_at <= now:
        raise WrongState(N_("This booking is already over."))
    if booking.starts_at > now:
        return Cancellation(booking.gpu_seconds, 0, None, NOT_BEGUN)
    if never_delivered(booking):
        return Cancellation(booking.gpu_seconds, 0, None, NEVER_RESERVED)
    ends_at = max(_whole_second(now), booking.starts_at + timedelta(seconds=1))
    left = int((booking.ends_at - ends_at).total_seconds()) * booking.nodes * booking.gpus_per_node
    return Cancellation(left, booking.gpu_seconds - left, ends_at, RUNNING)


def _whole_second(now: datetime) -> datetime:
    return now.replace(microsecond=0) + timedelta(seconds=bool(now.microsecond))


def never_delivered(booking: Booking) -> bool:
    """Whether the cluster held nothing for it in its own time.

    Not only where it refused: a cluster that was away all the time has delivered nothing either. What it
    held in the days before, or for a time that was given up since, is no delivery if it refuses now.
    """
    row = booking.reservation
    if row.seen_at is None:
        return True
    return row.state is not ReservationState.RESERVED and row.seen_at < booking.starts_at


def cancel(
    session: Session, actor: Actor, booking: Booking, *, reason: str, expected_version: int, now: datetime
) -> Cancellation:
    """Give the booking back. Raises Stale when it is not as the person saw it, WrongState when it is over."""
    require(actor, Action.BOOKING_CANCEL, booking)
    take(session, booking, expected_version)
    done = end_now(session, actor, booking, reason, now)
    if booking.state is not BookingState.LAPSED:
        booking_letters.cancelled(session, booking, done.given_back, actor, now=now)
    return done


def end_now(session: Session, actor: Actor, booking: Booking, reason: str, now: datetime) -> Cancellation:
    """``cancel`` for whoever holds the cluster and the booking: asks nobody's rights and writes no letter."""
    done = cancellation(booking, now)
    facts = {"given_back": done.given_back, "charged": done.charged}
    slots = NodeSlot.booking_id == booking.id
    if done.ends_at is None:
        held = booking.state is BookingState.HELD
        session.execute(delete(NodeSlot).where(slots))
        _move(booking, BookingState.LAPSED if held else BookingState.CANCELLED, actor, now, reason, facts)
    else:
        # its time for cleaning moves with its end
        gap = max((slot.ends_at for slot in booking.slots), default=booking.ends_at) - booking.ends_at
        session.execute(update(NodeSlot).where(slots).values(ends_at=done.ends_at + gap))
        if booking.state == BookingState.CONFIRMED:  # it has started, only nobody has written that down yet
            _move(booking, BookingState.STARTED, SYSTEM, now, "", {})
        _move(booking, BookingState.ENDED, actor, now, reason, facts, done.ends_at)
    session.expire(booking, ["slots"])
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

    What the cluster never held is CANCELLED instead, and nothing is charged; an offer that nobody accepted in
    time has LAPSED. Returns how many went to each state, at most ``BATCH`` each.
    """
    row = select(Reservation.booking_id).where(Reservation.booking_id == Booking.id)
    refused = (Reservation.state != ReservationState.RESERVED) & (Reservation.seen_at < Booking.starts_at)
    # never_delivered() as SQL
    undelivered = row.where(Reservation.seen_at.is_(None) | refused).correlate(Booking).exists()
    over = Booking.ends_at <= now
    held, confirmed, started = BookingState.HELD, BookingState.CONFIRMED, BookingState.STARTED
    steps = (
        (held, BookingState.LAPSED, Booking.held_until <= now),
        (confirmed, started, Booking.starts_at <= now),
        (started, BookingState.CANCELLED, over & undelivered),
        (started, BookingState.ENDED, over & ~undelivered),
    )
    return {target: _advance(session, now, current, target, which) for current, target, which in steps}


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
    if target in VOID_BOOKINGS:
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
