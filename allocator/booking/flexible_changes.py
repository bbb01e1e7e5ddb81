"""Another window or length for what was promised some time, as long as no time of it is fixed.

What is planned for it today stays where it is, if the new promise allows that: others then need not move.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters, flexible, placing
from allocator.booking.flexible import FlexibleQuote, Room
from allocator.booking.offer_search import Search, Wish
from allocator.booking.placing import TAKEN
from allocator.errors import Invalid, NoCapacity, Stale, WrongState
from allocator.models import Booking
from allocator.policy import BookingRules, Policy
from allocator.states import BookingState
from config.i18n import N_


def quote(
    session: Session, actor: Actor, booking: Booking, wish: Wish, *, policy: Policy, now: datetime
) -> FlexibleQuote:
    """What ``change`` would do now, its own GPUs and hours counted as free. Raises WrongState."""
    _require(actor, booking)
    _require_planned(booking, now)
    rules, quota = policy.bookings, booking.quota
    wanted = _of(booking, wish)
    search = Search.read(session, quota, wanted, rules, now, booking)
    faults = flexible.faults_of(search)
    room = None if faults else _room(session, booking, search, rules, now)
    counted = booking.gpu_seconds
    return flexible.quoted(session, quota, search, faults, room, policy=policy, counted=counted)


def change(
    session: Session,
    actor: Actor,
    booking: Booking,
    wish: Wish,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> None:
    """Promise the wish's window and length instead; number and shape stay. Wrap in a savepoint like asking.

    Raises Invalid, NoCapacity (and the old promise stays), Stale, WrongState when its time is fixed already.
    """
    _require(actor, booking)
    _require_planned(booking, now)
    wanted, quota = _of(booking, wish), booking.quota
    search = Search.read(session, quota, wanted, rules, now, booking)
    if faults := flexible.faults_of(search):
        raise Invalid(faults)
    # looked for before the lock, as that may take a second; under it all is checked again
    room = _room(session, booking, search, rules, now)
    if room is None:
        raise NoCapacity(TAKEN)
    placing.take(session, booking, expected_version)
    session.refresh(quota)
    _require_planned(booking, now)
    before = _facts(booking)
    _write(session, booking, search, room, rules, now)
    after = _facts(booking)
    events.record(session, actor, booking, "booking.window_changed", now=now, before=before, after=after)
    if not flexible.is_due(booking, rules, now):  # else the next round fixes it, and one letter is enough
        booking_letters.planned(session, booking, now=now, by=actor)


def _room(
    session: Session, booking: Booking, search: Search, rules: BookingRules, now: datetime
) -> Room | None:
    """Today's start if it will do, then any that is free, then one for which others make way."""
    start, length = booking.starts_at, search.wish.length
    first, last = search.span(length)
    if first <= start <= last and search.ground.starts(search.wish.shape, length, start, start):
        return Room(start)
    return flexible.find_room(session, booking.quota, search, rules, now, booking)


def _write(
    session: Session, booking: Booking, search: Search, room: Room, rules: BookingRules, now: datetime
) -> None:
    quota = booking.quota
    try:
        # a savepoint: without the change nobody else is planned anew either
        with session.begin_nested():
            flexible.make_way(session, quota, room, rules, now)
            found = placing.must_fit(session, quota, search.wish.at(room.start), rules, now, booking)
            placing.replace(session, booking, found, rules=rules, now=now)
    except Stale as error:
        raise NoCapacity(TAKEN) from error
    booking.starts_at, booking.ends_at = found.ask.starts_at, found.ask.ends_at
    booking.earliest_at, booking.latest_at = search.window
    session.flush()


def _of(booking: Booking, wish: Wish) -> Wish:
    """The wish in the booking's own shape."""
    return replace(wish, nodes=booking.nodes, gpus_per_node=booking.gpus_per_node)


def _facts(booking: Booking) -> dict[str, object]:
    return {
        "earliest_at": booking.earliest_at,
        "latest_at": booking.latest_at,
        "starts_at": booking.starts_at,
        "ends_at": booking.ends_at,
        "gpu_seconds": booking.gpu_seconds,
    }


def _require(actor: Actor, booking: Booking) -> None:
    """Whose booking it is, and who may spend its quota: operators give back, but do not book for others."""
    require(actor, Action.BOOKING_CANCEL, booking)
    require(actor, Action.BOOKING_CREATE, booking.quota)


def _require_planned(booking: Booking, now: datetime) -> None:
    if booking.state is not BookingState.PLANNED or booking.starts_at <= now:
        raise WrongState(N_("The time of this booking is fixed: its window cannot be changed any more."))
