"""Series: the same booking on many days, such as nights or weekends (R-15).

A preview says of each date whether it fits and why not; booking takes all of them, or those that fit, under
one lock. Each date is a booking of its own: one can be given back, moved or ended like any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, may, require
from allocator.booking import booking_letters, bookings, grounds, placing
from allocator.booking.booking_checks import ALMATY, Ask, Circumstances, Opened, faults_of
from allocator.booking.grounds import Ground
from allocator.booking.placing import TAKEN, Terms
from allocator.booking.windows import Place, Shape
from allocator.dividing.grants import Room
from allocator.errors import Fault, Forbidden, Invalid, NoCapacity, NotFound
from allocator.ledger import Balance
from allocator.models import Booking, BookingSeries, Quota
from allocator.policy import BookingRules
from allocator.states import BookingState
from config.i18n import N_

DAY = timedelta(days=1)
MOST_BY_COUNT = 10  # dates of a series for which other names are looked for: each takes a moment
NIGHT, WEEKEND = timedelta(hours=12), timedelta(days=2)
EVERY_DAY = frozenset(range(7))
SATURDAY = 5
COMING = (BookingState.HELD, BookingState.PLANNED, BookingState.CONFIRMED)


@dataclass(frozen=True)
class Pattern:
    """``length`` from ``start`` (the site's clock) on each of ``weekdays`` (0: Monday) of [first, last]."""

    weekdays: frozenset[int]
    start: time
    length: timedelta
    first_day: date
    last_day: date

    def starts(self) -> Iterator[datetime]:
        """Every start, in order."""
        for number in range((self.last_day - self.first_day).days + 1):
            day = self.first_day + number * DAY
            if day.weekday() in self.weekdays:
                yield datetime.combine(day, self.start, ALMATY)


@dataclass(frozen=True)
class Occurrence:
    """One date: ``faults`` are rules that it breaks, by field; without faults and ``places`` it is taken."""

    ask: Ask
    faults: Mapping[str, list[Fault]]
    places: tuple[Place, ...] = ()
    by_count: bool = False  # without places: others would get other names of nodes for it

    @property
    def fits(self) -> bool:
        return not self.faults and (bool(self.places) or self.by_count)


@dataclass(frozen=True)
class Preview:
    """Every date of a pattern, each counted with those before it that fit."""

    pattern: Pattern
    occurrences: tuple[Occurrence, ...]

    @property
    def fitting(self) -> tuple[Occurrence, ...]:
        return tuple(one for one in self.occurrences if one.fits)

    @property
    def gpu_seconds(self) -> int:
        """Of those that fit."""
        return sum(one.ask.gpu_seconds for one in self.fitting)


def nights(first_day: date, last_day: date, rules: BookingRules) -> Pattern:
    """The twelve hours before each day of booking begins; ``first_day`` is that of the first evening."""
    return Pattern(EVERY_DAY, _before(rules.day_starts_at, NIGHT), NIGHT, first_day, last_day)


def weekends(first_day: date, last_day: date, rules: BookingRules) -> Pattern:
    """Two days from each Saturday on, as days of booking begin."""
    return Pattern(frozenset({SATURDAY}), rules.day_starts_at, WEEKEND, first_day, last_day)


def _before(moment: time, length: timedelta) -> time:
    return (datetime.combine(date(2026, 1, 2), moment) - length).time()


def preview(
    session: Session,
    actor: Actor,
    quota: Quota,
    shape: Shape,
    pattern: Pattern,
    *,
    rules: BookingRules,
    now: datetime,
) -> Preview:
    """Which dates fit now, and why the others do not; holds nothing. Raises Invalid for a wrong pattern."""
    require(actor, Action.BOOKING_CREATE, quota)
    return _preview(session, quota, shape, pattern, rules, now)


def _preview(
    session: Session, quota: Quota, shape: Shape, pattern: Pattern, rules: BookingRules, now: datetime
) -> Preview:
    starts = _starts(pattern, rules)
    ground = grounds.ground(session, quota, starts[0], starts[-1] + pattern.length, rules)
    around = Circumstances(
        quota,
        placing.balance_besides(session, quota, None),
        capacity.gpu_types(session, quota.cluster).get(quota.gpu_type),
        rules,
        now,
        ground.rooms,
        placing.opened(session, quota, now),
    )
    found, tries = [], MOST_BY_COUNT
    for start in starts:
        ask = Ask(shape.nodes, shape.gpus, start, start + pattern.length)
        one = _occurrence(ask, ground, around)
        if not one.faults and not one.places and tries:
            tries -= 1
            by_count = placing.by_count(session, quota, ask, rules, now) is not None
            one = replace(one, by_count=by_count)
        if one.fits:
            around = _after(around, ask)
        found.append(one)
    return Preview(pattern, tuple(found))


def _starts(pattern: Pattern, rules: BookingRules) -> list[datetime]:
    """All starts. Raises Invalid unless they are some, not too far apart, and none runs into the next."""
    faults: dict[str, list[Fault]] = {}
    if pattern.last_day < pattern.first_day:
        faults["last_day"] = [Fault(N_("The last day lies before the first."))]
    elif pattern.last_day - pattern.first_day > rules.max_ahead:
        days = {"days": rules.max_ahead.days}
        faults["last_day"] = [Fault(N_("A series lasts at most %(days)s days."), days)]
    starts = [] if faults else list(pattern.starts())
    if not faults and not starts:
        faults["weekdays"] = [
            Fault(N_("None of these days of the week lies between the first and last day."))
        ]
    gap = min((later - one for one, later in pairwise(starts)), default=pattern.length)
    if pattern.length <= timedelta(0) or (len(starts) > 1 and pattern.length + rules.cleaning > gap):
        faults["hours"] = [Fault(N_("Each booking of a series ends before the next one begins."))]
    if faults:
        raise Invalid(faults)
    return starts


def _occurrence(ask: Ask, ground: Ground, around: Circumstances) -> Occurrence:
    faults = faults_of(ask, around)
    places = () if faults else tuple(ground.places(ask.shape, ask.starts_at, ask.ends_at))
    return Occurrence(ask, faults, places)


def _after(around: Circumstances, ask: Ask) -> Circumstances:
    """What the next date is measured by, once this one is booked."""
    spent: Balance = replace(around.balance, booked_ahead=around.balance.booked_ahead + ask.gpu_seconds)
    opened = Opened(around.opened.count + 1, around.opened.gpu_seconds + ask.gpu_seconds)
    rooms = tuple(_spent(room, ask) for room in around.rooms)
    return replace(around, balance=spent, rooms=rooms, opened=opened)


def _spent(room: Room, ask: Ask) -> Room:
    inside = min(ask.ends_at, room.period.ends_at) - max(ask.starts_at, room.period.starts_at)
    seconds = max(int(inside.total_seconds()), 0)
    return replace(room, charged=room.charged + seconds * ask.nodes * ask.gpus_per_node)


def book_series(
    session: Session,
    actor: Actor,
    quota: Quota,
    shape: Shape,
    pattern: Pattern,
    *,
    only_fitting: bool,
    rules: BookingRules,
    now: datetime,
) -> tuple[BookingSeries, list[Booking]]:
    """Book every date, or with ``only_fitting`` those that fit; one letter for all of them.

    Raises Invalid with the first date's broken rules, NoCapacity when GPUs are taken on one of the dates
    (``details['starts_at']``), or on all of them.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None:
        raise ValueError("a series is booked by a person")
    capacity.lock(session, quota.cluster)
    session.refresh(quota)
    found = _preview(session, quota, shape, pattern, rules, now)
    wrong = [one for one in found.occurrences if not one.fits]
    if wrong and not (only_fitting and found.fitting):
        if wrong[0].faults:
            raise Invalid(wrong[0].faults)
        raise NoCapacity(TAKEN, {"starts_at": wrong[0].ask.starts_at})
    series = _write(session, actor, quota, pattern, now)
    made = _make(session, actor, quota, found, Terms(series_id=series.id), only_fitting, rules, now)
    after = {
        "quota": quota.id,
        "bookings": len(made),
        "left_out": len(found.occurrences) - len(made),
        "gpu_seconds": sum(booking.gpu_seconds for booking in made),
    }
    events.record(session, actor, series, "booking_series.booked", now=now, after=after)
    booking_letters.series_booked(session, made, now=now)
    return series, made


def _make(
    session: Session,
    actor: Actor,
    quota: Quota,
    found: Preview,
    terms: Terms,
    only_fitting: bool,
    rules: BookingRules,
    now: datetime,
) -> list[Booking]:
    """All that have places, then those for which others get other names, each on what the one before left."""
    fitting = found.fitting
    made = [
        placing.write(session, actor, quota, one.ask, one.places, terms=terms, rules=rules, now=now)
        for one in fitting
        if one.places
    ]
    for one in (one for one in fitting if not one.places):
        try:
            made.append(placing.make(session, actor, quota, one.ask, terms=terms, rules=rules, now=now))
        except NoCapacity as error:
            if not only_fitting:
                raise NoCapacity(TAKEN, {"starts_at": one.ask.starts_at}) from error
    if not made:
        raise NoCapacity(TAKEN, {"starts_at": fitting[0].ask.starts_at})
    return sorted(made, key=lambda booking: booking.starts_at)


def _write(session: Session, actor: Actor, quota: Quota, pattern: Pattern, now: datetime) -> BookingSeries:
    series = BookingSeries(
        quota_id=quota.id,
        weekdays=sum(1 << day for day in pattern.weekdays),
        start_minute=pattern.start.hour * 60 + pattern.start.minute,
        length_seconds=int(pattern.length.total_seconds()),
        first_day=pattern.first_day,
        last_day=pattern.last_day,
        created_by_id=actor.person_id,
        created_at=now,
    )
    session.add(series)
    session.flush()
    return series


def find(session: Session, actor: Actor, series_id: int) -> BookingSeries:
    """One series. Raises NotFound for what the actor may not see."""
    series = session.get(BookingSeries, series_id)
    if series is None:
        require(actor, Action.APPLICATION_CREATE)
        raise NotFound()
    require(actor, Action.QUOTA_VIEW, series.quota)
    return series


def of_series(session: Session, series: BookingSeries) -> Sequence[Booking]:
    """Its bookings in order of time."""
    statement = select(Booking).where(Booking.series_id == series.id)
    return session.scalars(statement.order_by(Booking.starts_at, Booking.id)).all()


def cancel_from(
    session: Session,
    actor: Actor,
    series: BookingSeries,
    since: datetime,
    *,
    reason: str,
    now: datetime,
) -> int:
    """Give back every booking of the series that has not begun and starts at ``since`` or later.

    Returns the GPU-seconds given back; one letter for all of them. Raises Forbidden if one of them is
    somebody else's to give back.
    """
    require(actor, Action.QUOTA_VIEW, series.quota)
    capacity.lock(session, series.quota.cluster)
    coming = session.scalars(
        select(Booking)
        .where(
            Booking.series_id == series.id,
            Booking.state.in_(COMING),
            Booking.starts_at >= max(since, now),
        )
        .order_by(Booking.starts_at)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    if not all(may(actor, Action.BOOKING_CANCEL, booking) for booking in coming):
        raise Forbidden()
    done = [bookings.end_now(session, actor, booking, reason, now) for booking in coming]
    given_back = sum(one.given_back for one in done)
    if coming:
        after = {"bookings": len(coming), "given_back": given_back, "since": since}
        events.record(
            session, actor, series, "booking_series.given_back", now=now, reason=reason, after=after
        )
        booking_letters.series_cancelled(session, coming, given_back, actor, now=now)
    return given_back
