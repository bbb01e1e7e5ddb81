"""Changes of a booking by those whose it is: longer, shorter, at another time (R-15).

Longer keeps its number and its GPUs, so that jobs run on; that is possible in the last hours alone, and only
if nobody has booked what follows. Another time is possible until it begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import capacity, events, states
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters, grounds, placing
from allocator.booking.booking_checks import Ask, grid_of
from allocator.booking.placing import TAKEN, Quote, take
from allocator.booking.windows import nearest_after, nearest_before
from allocator.dividing import grants
from allocator.errors import Fault, Invalid, NoCapacity, WrongState
from allocator.models import Booking, BookingKind, BookingMove, NodeSlot, Quota
from allocator.policy import BookingRules
from allocator.states import BookingState, MoveState, QuotaState
from config.i18n import N_

FIXED = (BookingState.CONFIRMED, BookingState.STARTED)
TOO_LONG = N_("This is as long as a booking may be.")


@dataclass(frozen=True)
class Limit:
    """Until when something allows a booking to last, and the sentence that says what it is."""

    until: datetime
    why: Fault
    taken: bool = False  # somebody else has the GPUs then


@dataclass(frozen=True)
class Extension:
    """Until when a booking could last, ``until`` None if no longer than now; ``why`` says what limits it."""

    until: datetime | None
    why: Fault
    taken: bool = False

    @property
    def possible(self) -> bool:
        return self.until is not None


def extension(session: Session, booking: Booking, *, rules: BookingRules, now: datetime) -> Extension:
    """How much longer the booking could last, decided by the tightest limit; nothing is held by asking."""
    if fault := no_extension(booking, rules, now):
        return Extension(None, fault)
    limit = min(_limits(session, booking, rules, now), key=lambda limit: limit.until)
    until = grid_of(rules).floor(limit.until)
    return Extension(until if until > booking.ends_at else None, limit.why, limit.taken)


def no_extension(booking: Booking, rules: BookingRules, now: datetime) -> Fault | None:
    """Why it cannot be made longer at all now, whatever is free; asks the database nothing."""
    if booking.state not in FIXED or booking.ends_at <= now:
        return Fault(N_("Only a booking that is fixed and not over can be made longer."))
    if booking.quota.state is not QuotaState.ACTIVE:
        return Fault(N_("This quota is closed: nothing can be booked on it any more."))
    opens = booking.ends_at - rules.extend_within
    if now >= opens:
        return None
    return Fault(N_("It can be made longer from %(opens)s on."), {"opens": opens})


def _limits(session: Session, booking: Booking, rules: BookingRules, now: datetime) -> Iterator[Limit]:
    quota, ends_at = booking.quota, booking.ends_at
    gpus = booking.nodes * booking.gpus_per_node
    yield Limit(booking.starts_at + rules.max_length, Fault(TOO_LONG))
    until = {"until": quota.valid_until}
    yield Limit(quota.valid_until, Fault(N_("The quota is valid until %(until)s."), until))
    available = placing.balance_besides(session, quota, None).available
    spent = Fault(N_("The quota has no more GPU-hours for it."))
    yield Limit(ends_at + timedelta(seconds=available // gpus), spent)
    if booking.starts_at > now and rules.max_open_percent < 100:
        ahead = quota.gpu_seconds * rules.max_open_percent // 100
        left = max(ahead - placing.opened(session, quota, now).gpu_seconds, 0)
        hoarded = Fault(N_("No more of the quota may lie in bookings that have not begun."))
        yield Limit(ends_at + timedelta(seconds=left // gpus), hoarded)
    furthest = booking.starts_at + rules.max_length
    for room in grants.rooms(session, quota, ends_at, max(furthest, ends_at)):
        begins = max(ends_at, room.period.starts_at)
        most = begins + timedelta(seconds=room.available // gpus)
        if most < room.period.ends_at:
            yield Limit(most, Fault(N_("What was granted for these days does not suffice for more.")))
    yield from _free_until(session, booking, furthest, rules)


def _free_until(
    session: Session, booking: Booking, furthest: datetime, rules: BookingRules
) -> Iterator[Limit]:
    """When somebody else has booked its GPUs, or its nodes are not there."""
    until = max(furthest, booking.ends_at) + rules.cleaning
    gpu_type = booking.quota.gpu_type
    nodes = capacity.held(session, booking.cluster, gpu_type, booking.ends_at, until, booking.id)
    held = {node.id: node.held for node in nodes}
    slots = session.scalars(select(NodeSlot).where(NodeSlot.booking_id == booking.id))
    for slot in slots:
        if slot.node_id not in held:
            yield Limit(booking.ends_at, Fault(N_("One of its nodes is out of service.")), taken=True)
        for other in held.get(slot.node_id, ()):
            if other.gpu_from < slot.gpu_to and slot.gpu_from < other.gpu_to:
                yield Limit(
                    other.starts_at - rules.cleaning, Fault(N_("Its GPUs are taken then.")), taken=True
                )


def extend(
    session: Session,
    actor: Actor,
    booking: Booking,
    ends_at: datetime,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> None:
    """Let it last until ``ends_at`` on the same GPUs, under the same number.

    Raises NoCapacity when these are taken, Invalid (``ends_at``) for other limits, Stale, WrongState.
    """
    _require(actor, booking)
    take(session, booking, expected_version)
    session.refresh(booking.quota)
    found = extension(session, booking, rules=rules, now=now)
    if ends_at <= booking.ends_at or not grid_of(rules).holds(ends_at):
        raise Invalid({"ends_at": [Fault(N_("Choose a later end, on a boundary of bookings."))]})
    if found.until is None or ends_at > found.until:
        if found.taken:
            raise NoCapacity(TAKEN)
        if no_extension(booking, rules, now):
            raise WrongState(found.why.message, found.why.details)
        raise Invalid({"ends_at": [found.why]})
    _set_end(session, actor, booking, ends_at, "booking.extended", rules, now)


def least_end(booking: Booking, *, rules: BookingRules, now: datetime) -> datetime | None:
    """The earliest end that ``shorten`` would take, None when there is no earlier one than now."""
    least = max(booking.starts_at + rules.min_length, grid_of(rules).ceil(now))
    fixed = booking.state in FIXED
    return least if fixed and least < booking.ends_at else None


def shorten(
    session: Session,
    actor: Actor,
    booking: Booking,
    ends_at: datetime,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> int:
    """End it earlier, on a boundary; returns the GPU-seconds given back. Raises Invalid, Stale, WrongState.

    Who wants to end it at once gives it back (``bookings.cancel``).
    """
    require(actor, Action.BOOKING_CANCEL, booking)
    take(session, booking, expected_version)
    least = least_end(booking, rules=rules, now=now)
    if least is None:
        raise WrongState(N_("This booking cannot be made shorter; it can be given back."))
    if not least <= ends_at < booking.ends_at or not grid_of(rules).holds(ends_at):
        raise Invalid({"ends_at": [Fault(N_("Choose an end from %(least)s on."), {"least": least})]})
    given_back = int((booking.ends_at - ends_at).total_seconds()) * booking.nodes * booking.gpus_per_node
    _set_end(session, actor, booking, ends_at, "booking.shortened", rules, now)
    return given_back


def _set_end(
    session: Session,
    actor: Actor,
    booking: Booking,
    ends_at: datetime,
    kind: str,
    rules: BookingRules,
    now: datetime,
) -> None:
    before: dict[str, Any] = {"ends_at": booking.ends_at, "gpu_seconds": booking.gpu_seconds}
    # what it has kept free so far may be less than today's rules ask for, but nobody else can need it
    kept = max((slot.ends_at for slot in booking.slots), default=booking.ends_at) - booking.ends_at
    cleaning = rules.cleaning if ends_at > booking.ends_at else kept
    slots = update(NodeSlot).where(NodeSlot.booking_id == booking.id)
    try:
        with session.begin_nested():
            session.execute(
                slots.values(ends_at=ends_at + cleaning),
                execution_options={"synchronize_session": False},
            )
    except IntegrityError as error:
        raise NoCapacity(TAKEN) from error
    session.expire(booking, ["slots"])
    window = _set_window(booking, booking.starts_at, ends_at)
    after = {"ends_at": ends_at, "gpu_seconds": booking.gpu_seconds, **dict.fromkeys(window)}
    events.record(session, actor, booking, kind, now=now, before={**before, **window}, after=after)
    booking_letters.changed(session, booking, actor, now=now)


def _set_window(booking: Booking, starts_at: datetime, ends_at: datetime) -> dict[str, datetime]:
    """Write its time; whoever takes a flexible one out of its window has a firm one from then on.

    Returns the window that it had, where it has none any more.
    """
    booking.starts_at, booking.ends_at = starts_at, ends_at
    earliest_at, latest_at = booking.earliest_at, booking.latest_at
    if earliest_at is None or latest_at is None or earliest_at <= starts_at < ends_at <= latest_at:
        return {}
    booking.kind, booking.earliest_at, booking.latest_at = BookingKind.FIRM, None, None
    return {"earliest_at": earliest_at, "latest_at": latest_at}


def move_quote(
    session: Session,
    actor: Actor,
    booking: Booking,
    starts_at: datetime,
    *,
    rules: BookingRules,
    now: datetime,
) -> Quote:
    """Whether the same booking would fit at another start; its own GPUs and hours count as free.

    If it does not, ``before`` and ``after`` are the nearest starts at which it would.
    """
    _require(actor, booking)
    ask = _moved(booking, starts_at)
    found = placing.find(session, booking.quota, ask, rules, now, booking)
    if found.fits or not found.faults.keys() <= {"starts_at"}:
        return found
    first, last = grounds.span(booking.quota, ask.length, rules, now)
    if first > last:
        return found
    here = grounds.ground(session, booking.quota, first, last + ask.length, rules, booking)
    starts, grid = here.starts(ask.shape, ask.length, first, last), grid_of(rules)
    return replace(
        found,
        before=nearest_before(starts, starts_at, grid),
        after=nearest_after(starts, starts_at, grid),
    )


def move(
    session: Session,
    actor: Actor,
    booking: Booking,
    starts_at: datetime,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> None:
    """Take another start for a booking that has not begun, with its length and shape.

    Raises Invalid for broken rules, NoCapacity when nothing is free there, Stale, WrongState. An answer that
    was due to an earlier move counts as given.
    """
    _require(actor, booking)
    take(session, booking, expected_version)
    session.refresh(booking.quota)
    if booking.state is not BookingState.CONFIRMED or booking.starts_at <= now:
        raise WrongState(N_("Only a booking that is fixed and has not begun can be moved."))
    ask = _moved(booking, starts_at)
    found = placing.must_fit(session, booking.quota, ask, rules, now, booking)
    before = {"starts_at": booking.starts_at, "ends_at": booking.ends_at}
    placing.replace(session, booking, found, rules=rules, now=now)
    window = _set_window(booking, ask.starts_at, ask.ends_at)
    # what the cluster held at the old time says nothing of the new one
    booking.reservation.seen_at = None
    after = {
        "starts_at": ask.starts_at,
        "ends_at": ask.ends_at,
        "nodes": [place.name for place in found.places],
        **dict.fromkeys(window),
    }
    before |= window
    events.record(session, actor, booking, "booking.moved", now=now, before=before, after=after)
    _answer_moves(session, actor, booking, now)
    booking_letters.changed(session, booking, actor, now=now)


def _answer_moves(session: Session, actor: Actor, booking: Booking, now: datetime) -> None:
    columns = {"answered_by_id": actor.person_id, "answered_at": now}
    told = select(BookingMove).where(
        BookingMove.booking_id == booking.id, BookingMove.state == MoveState.TOLD
    )
    for one in session.scalars(told).all():
        states.move(one, MoveState.CHANGED, actor=actor, now=now, columns=columns)


def _moved(booking: Booking, starts_at: datetime) -> Ask:
    length = booking.ends_at - booking.starts_at
    return Ask(booking.nodes, booking.gpus_per_node, starts_at, starts_at + length)


def _require(actor: Actor, booking: Booking) -> None:
    """Whose booking it is, and who may spend its quota: operators give back, but do not book for others."""
    quota: Quota = booking.quota
    require(actor, Action.BOOKING_CANCEL, booking)
    require(actor, Action.BOOKING_CREATE, quota)
