"""Nights, weekends, any days: previewed by date, booked at once, given back one by one or from a date."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, ledger, letters
from allocator.actors import Actor
from allocator.booking import bookings, series
from allocator.booking.booking_checks import ALMATY
from allocator.booking.series import EVERY_DAY, Pattern
from allocator.booking.windows import Shape
from allocator.errors import Forbidden, Invalid, NoCapacity, NotFound
from allocator.models import Booking, BookingSeries, Event, OutboxItem, Quota, QuotaMember
from allocator.policy import load_policy
from allocator.states import BookingState
from tests import factories
from tests.factories import HOUR, NOW

RULES = load_policy().bookings
NODE = Shape(1, 8)
MONDAY = date(2026, 11, 23)  # NOW's day


def day(number: int) -> date:
    return MONDAY + timedelta(days=number)


def at(number: int, hour: int) -> datetime:
    return datetime.combine(day(number), time(hour), ALMATY)


NIGHTS = series.nights(day(1), day(5), RULES)


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def book(
    session: Session,
    actor: Actor,
    quota: Quota,
    pattern: Pattern = NIGHTS,
    shape: Shape = NODE,
    only_fitting: bool = False,
) -> tuple[BookingSeries, list[Booking]]:
    return series.book_series(
        session, actor, quota, shape, pattern, only_fitting=only_fitting, rules=RULES, now=NOW
    )


def test_nights_end_where_days_begin() -> None:
    assert list(NIGHTS.starts()) == [at(number, 22) for number in range(1, 6)]
    weekends = series.weekends(day(0), day(20), RULES)
    assert list(weekends.starts()) == [at(5, 10), at(12, 10), at(19, 10)]
    assert weekends.length == timedelta(days=2)


def test_each_date_is_a_booking_of_one_series(session: Session, actor: Actor, quota: Quota) -> None:
    made, booked = book(session, actor, quota)
    assert [booking.starts_at for booking in booked] == [at(number, 22) for number in range(1, 6)]
    assert {booking.series_id for booking in booked} == {made.id}
    assert (made.weekdays, made.start_minute, made.length_seconds) == (127, 22 * 60, 12 * HOUR)
    assert series.of_series(session, made) == booked
    assert ledger.balance(session, quota).booked_ahead == 5 * 96 * HOUR
    assert session.scalars(select(OutboxItem.letter)).all() == ["series_booked"]
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == ["booking.confirmed"] * 5 + ["booking_series.booked"]
    events.verify(session)


def test_the_preview_says_which_dates_fit_and_why_not(session: Session, actor: Actor, quota: Quota) -> None:
    for node in quota.cluster.nodes:
        factories.booking(session, quota, on=[node], starts_at=at(3, 12), hours=24, gpus_per_node=1)
    quota.valid_until = at(5, 12)
    session.flush()
    found = series.preview(session, actor, quota, NODE, NIGHTS, rules=RULES, now=NOW)
    assert [one.fits for one in found.occurrences] == [True, True, False, True, False]
    taken, late = found.occurrences[2], found.occurrences[4]
    assert taken.faults == {}
    assert list(late.faults) == ["starts_at"]
    assert found.gpu_seconds == 3 * 96 * HOUR
    assert session.scalars(select(BookingSeries)).all() == []
    with pytest.raises(NoCapacity) as caught:
        book(session, actor, quota)
    assert caught.value.details["starts_at"] == at(3, 22)
    _, booked = book(session, actor, quota, only_fitting=True)
    assert [booking.starts_at for booking in booked] == [at(1, 22), at(2, 22), at(4, 22)]


def test_the_balance_is_counted_from_date_to_date(session: Session) -> None:
    quota = factories.quota(session, gpu_hours=200)
    actor = factories.actor_of(quota.application.applicant)
    found = series.preview(session, actor, quota, NODE, NIGHTS, rules=RULES, now=NOW)
    assert [list(one.faults) for one in found.occurrences] == [[], [], ["balance"], ["balance"], ["balance"]]
    with pytest.raises(Invalid):
        book(session, actor, quota)
    rules = replace(RULES, max_open=1)
    found = series.preview(session, actor, quota, NODE, NIGHTS, rules=rules, now=NOW)
    assert [list(one.faults) for one in found.occurrences][1] == ["limit"]


@pytest.mark.parametrize(
    ("pattern", "field"),
    [
        (replace(NIGHTS, last_day=day(0)), "last_day"),
        (replace(NIGHTS, last_day=day(200)), "last_day"),
        (replace(NIGHTS, weekdays=frozenset()), "weekdays"),
        (replace(NIGHTS, length=timedelta(hours=25)), "hours"),
        (replace(NIGHTS, length=timedelta(0)), "hours"),
    ],
)
def test_a_pattern_that_is_none_is_refused(
    session: Session, actor: Actor, quota: Quota, pattern: Pattern, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        book(session, actor, quota, pattern)
    assert list(caught.value.fields) == [field]


def test_cleaning_must_fit_between(session: Session, actor: Actor, quota: Quota) -> None:
    pattern = Pattern(EVERY_DAY, time(10), timedelta(hours=24), day(1), day(3))
    assert len(series.preview(session, actor, quota, NODE, pattern, rules=RULES, now=NOW).fitting) == 3
    rules = replace(RULES, cleaning=timedelta(hours=1))
    with pytest.raises(Invalid):
        series.preview(session, actor, quota, NODE, pattern, rules=rules, now=NOW)


def test_when_nothing_fits_nothing_is_made(session: Session, actor: Actor, quota: Quota) -> None:
    factories.booking(session, quota, on=quota.cluster.nodes, starts_at=NOW, hours=24 * 8, gpus_per_node=1)
    with pytest.raises(NoCapacity):
        book(session, actor, quota, only_fitting=True)
    assert session.scalars(select(BookingSeries)).all() == []


def test_one_date_is_given_back_like_any_booking(session: Session, actor: Actor, quota: Quota) -> None:
    made, booked = book(session, actor, quota)
    bookings.cancel(session, actor, booked[1], reason="", expected_version=1, now=NOW)
    states = [booking.state for booking in series.of_series(session, made)]
    assert states.count(BookingState.CONFIRMED) == 4


def test_from_a_date_on_everything_is_given_back(session: Session, actor: Actor, quota: Quota) -> None:
    made, booked = book(session, actor, quota)
    done = series.cancel_from(session, actor, made, at(3, 0), reason="Ready sooner.", now=NOW)
    assert done == 3 * 96 * HOUR
    assert [booking.state for booking in booked] == [BookingState.CONFIRMED] * 2 + [
        BookingState.CANCELLED
    ] * 3
    assert ledger.balance(session, quota).booked_ahead == 2 * 96 * HOUR
    assert series.cancel_from(session, actor, made, at(3, 0), reason="", now=NOW) == 0
    # what has begun runs on
    assert series.cancel_from(session, actor, made, at(0, 0), reason="", now=at(1, 23)) == 96 * HOUR
    assert booked[0].state is BookingState.CONFIRMED
    events.verify(session)


def test_only_those_whose_it_is(session: Session, actor: Actor, quota: Quota) -> None:
    made, _ = book(session, actor, quota)
    stranger = factories.actor_of(factories.person(session))
    with pytest.raises(NotFound):
        series.find(session, stranger, made.id)
    with pytest.raises(NotFound):
        series.find(session, stranger, 999)
    with pytest.raises(NotFound):
        series.cancel_from(session, stranger, made, NOW, reason="", now=NOW)
    with pytest.raises(NotFound):
        book(session, stranger, quota)
    assert series.find(session, actor, made.id) == made
    member = factories.person(session)
    quota.members.append(QuotaMember(person=member, is_lead=False))
    session.flush()
    with pytest.raises(Forbidden):
        series.cancel_from(session, factories.actor_of(member), made, NOW, reason="", now=NOW)


@pytest.mark.parametrize("lang", ["kk", "ru", "en"])
def test_one_letter_tells_of_all(session: Session, actor: Actor, quota: Quota, lang: str) -> None:
    made, booked = book(session, actor, quota)
    booked[0].booked_by = factories.person(session)
    session.flush()
    series.cancel_from(session, actor, made, NOW, reason="", now=NOW)
    for letter in session.scalars(select(OutboxItem)):
        subject, text = letters.render(letter.letter, lang, "Aigerim", letter.details, "https://kezek.kz")
        assert f"https://kezek.kz/series/{made.id}" in text
        assert "%(" not in subject + text


def test_names_given_early_are_no_obstacle_to_a_series(session: Session, actor: Actor, quota: Quota) -> None:
    """Free by the number of nodes on each night, but on no two as named today: others get other names."""
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    other = factories.quota(
        session, factories.application(session, factories.person(session), quota.cluster, gpu_hours=90_000)
    )
    first, last = date(2026, 12, 10), date(2026, 12, 11)
    pattern = series.nights(first, last, RULES)
    for start in pattern.starts():
        half = start + pattern.length / 2
        factories.booking(session, other, on=nodes[:2], starts_at=start, hours=6)
        factories.booking(session, other, on=nodes[2:], starts_at=half, hours=6)
    found = series.preview(session, actor, quota, Shape(2, 8), pattern, rules=RULES, now=NOW)
    assert [one.fits for one in found.occurrences] == [True, True]
    _, made = series.book_series(
        session, actor, quota, Shape(2, 8), pattern, only_fitting=False, rules=RULES, now=NOW
    )
    assert [booking.starts_at for booking in made] == list(pattern.starts())
    assert [len(booking.slots) for booking in made] == [2, 2]
    assert {booking.series_id for booking in made} != {None}
    assert "cluster.rebound" in set(session.scalars(select(Event.kind)))
