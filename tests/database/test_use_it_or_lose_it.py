"""A whole month in simulated time through the scheduler's own job: plans, forecasts, warnings, reclaims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import letters
from allocator.booking import bookings
from allocator.booking.booking_checks import Ask
from allocator.db import Database
from allocator.dividing import grants, periods, reclaim
from allocator.dividing.period_plans import set_plan
from allocator.errors import Invalid
from allocator.models import Event, Grant, OutboxItem, Period, PeriodClaim, Quota, Reclaim
from allocator.states import PeriodState, ReclaimState
from config.i18n import LANGUAGES
from scheduler.jobs import watch_periods
from tests import factories
from tests.dividing import DECEMBER, HOUR, KEY, POLICY, Site, make_site
from tests.factories import NOW

DAY = timedelta(days=1)
GRANT = 1_000


def plan(site: Site, period: Period, quota: Quota, first: int, last: int) -> None:
    """The whole quota, evenly from one day of December to the end of another."""
    since, until = DECEMBER[0] + (first - 1) * DAY, DECEMBER[0] + last * DAY
    actor = factories.actor_of(quota.application.applicant)
    set_plan(site.session, actor, period, quota, GRANT, 0, uses_from=since, uses_until=until, now=NOW)


def book(site: Site, quota: Quota, starts_at: datetime, gpu_hours: int, now: datetime) -> None:
    actor = factories.actor_of(quota.application.applicant)
    ask = Ask(1, 8, starts_at, starts_at + timedelta(hours=gpu_hours // 8))
    bookings.book(site.session, actor, quota, ask, rules=POLICY.bookings, now=now)


@dataclass
class Month:
    """A published December; quotas by name, each granted all of its 1,000 GPU-hours."""

    database: Database
    quotas: dict[str, int]
    site: Site

    def day(self, day: int, hour: int = 0) -> datetime:
        return DECEMBER[0] + (day - 1) * DAY + hour * timedelta(hours=1)

    def runs(self, first: int, last: int) -> list[tuple[int, dict[str, int]]]:
        """The scheduler's job once a day; what it did on the days when it did anything."""
        told = [(day, watch_periods(self.database, POLICY, KEY, self.day(day))) for day in range(first, last)]
        keys = ("warned", "proposed", "closed")
        return [
            (day, {key: did[key] for key in keys if did[key]})
            for day, did in told
            if any(did[key] for key in keys)
        ]

    def state(self, name: str) -> tuple[ReclaimState | None, int]:
        """The reclaim's state and the grant's GPU-hours."""
        with self.database.reader() as session:
            grant = session.scalars(select(Grant).where(Grant.quota_id == self.quotas[name])).one()
            found = session.scalar(select(Reclaim.state).where(Reclaim.grant_id == grant.id))
            return found, grant.current // HOUR


@pytest.fixture
def month(database: Database) -> Month:
    with database.transaction() as session:
        site = make_site(session)
        names = ("idle", "steady", "late", "early", "giver")
        quotas = {name: site.quota("science", GRANT) for name in names}
        period = site.open()
        plan(site, period, quotas["late"], 12, 31)
        plan(site, period, quotas["early"], 1, 10)
        periods.collect(session, site.one, period, policy=POLICY, key=KEY, now=NOW)
        site.publish(periods.propose(session, site.one, period, now=NOW))
        book(site, quotas["steady"], DECEMBER[0] + DAY, 960, NOW)
        ids = {name: quota.id for name, quota in quotas.items()}
    return Month(database, ids, site)


def test_each_is_warned_by_its_own_plan_and_only_a_person_takes_hours(month: Month) -> None:
    # Early said it would use all in ten days: half of them gone, it is asked first. The even pace of those
    # who made no plan is judged in the middle of the month, late's when half of its own days have passed.
    assert month.runs(1, 7) == [(6, {"warned": 1})]
    assert month.state("early") == (ReclaimState.WARNED, GRANT)
    assert month.runs(7, 22) == [(13, {"proposed": 1}), (17, {"warned": 2})]
    assert month.state("late") == (None, GRANT)
    assert month.runs(22, 24) == [(22, {"warned": 1})]
    # Whoever books in time keeps everything.
    with month.database.transaction() as session:
        session.expire_on_commit = False
        quota = session.get_one(Quota, month.quotas["giver"])
        actor = factories.actor_of(quota.application.applicant)
        ask = Ask(1, 8, month.day(25), month.day(25) + timedelta(hours=100))
        bookings.book(session, actor, quota, ask, rules=POLICY.bookings, now=month.day(23))
    assert month.runs(24, 30) == [(24, {"proposed": 1}), (29, {"proposed": 1})]
    # The machine only proposes: everybody has every hour still.
    expected = {
        "idle": ReclaimState.PROPOSED,
        "early": ReclaimState.PROPOSED,
        "late": ReclaimState.PROPOSED,
        "giver": ReclaimState.DROPPED,
        "steady": None,
    }
    assert {name: month.state(name) for name in expected} == {
        name: (state, GRANT) for name, state in expected.items()
    }
    assert month.runs(30, 31) == []
    assert month.runs(32, 33) == [(32, {"closed": 1})]


def test_what_a_person_takes_back_goes_to_others_and_the_month_closes(month: Month) -> None:
    month.runs(1, 25)
    with month.database.transaction() as session:
        operator = month.site.one
        due = session.scalars(select(Reclaim).where(Reclaim.state == ReclaimState.PROPOSED)).all()
        taken = {
            one.grant.quota_id: reclaim.confirm(session, operator, one, now=month.day(25)) for one in due
        }
        # the same job has opened January meanwhile
        found = select(Period).where(Period.state == PeriodState.PUBLISHED)
        period = session.scalars(found).one()
        assert taken == {month.quotas[name]: 800 * HOUR for name in ("idle", "early", "giver")}
        # 80 % of what was left, as the published table says of who used less than a fifth
        assert grants.returned_left(session, period) == 2_400
        # Everybody has all that was asked for, so nobody is served what came back: it stays for late ones.
        assert grants.redivision(session, period) == []
        kinds = session.scalars(select(Event.kind).where(Event.kind.like("reclaim.%"))).all()
        assert {"reclaim.warned"} <= set(kinds)
    assert month.state("idle") == (ReclaimState.CONFIRMED, 200)


def test_hours_taken_back_are_divided_again_among_who_asked_for_more(session: Session) -> None:
    site = make_site(session)
    idle, busy = site.quota("science", 40_000), site.quota("science", 40_000)
    period = site.publish(site.propose())
    asked = Ask(2, 8, DECEMBER[0], DECEMBER[0] + 27 * DAY)
    actor = factories.actor_of(busy.application.applicant)
    bookings.book(session, actor, busy, asked, rules=POLICY.bookings, now=NOW)
    middle = DECEMBER[0] + 16 * DAY
    assert reclaim.warn_due(session, policy=POLICY, now=middle) == 1
    week = middle + 7 * DAY
    assert reclaim.propose_due(session, policy=POLICY, now=week) == 1
    proposed = session.scalars(select(Reclaim)).one()
    assert proposed.grant.quota_id == idle.id
    taken = reclaim.confirm(session, site.one, proposed, now=week)
    (change,) = grants.redivide(session, site.one, period, now=week)
    assert (change.grant.quota_id, change.gpu_seconds) == (busy.id, taken)
    assert sum(one.current for one in grants.of_period(session, period)) == period.capacity * HOUR


def test_booking_in_time_and_cancelling_afterwards_is_no_way_around(session: Session) -> None:
    site = make_site(session)
    quota = site.quota("science", GRANT)
    site.publish(site.propose())
    middle = DECEMBER[0] + 16 * DAY
    assert reclaim.warn_due(session, policy=POLICY, now=middle) == 1
    actor = factories.actor_of(quota.application.applicant)
    ask = Ask(1, 8, middle + 10 * DAY, middle + 10 * DAY + timedelta(hours=100))
    booking = bookings.book(session, actor, quota, ask, rules=POLICY.bookings, now=middle + DAY)
    answered = middle + 7 * DAY
    assert reclaim.propose_due(session, policy=POLICY, now=answered) == 0
    assert reclaim.warn_due(session, policy=POLICY, now=answered) == 0
    version = booking.version
    bookings.cancel(session, actor, booking, reason="", expected_version=version, now=answered)
    assert reclaim.warn_due(session, policy=POLICY, now=answered) == 1
    # but what a person left to its holder stays so
    first, again = session.scalars(select(Reclaim).order_by(Reclaim.id))
    assert (first.state, first.decided_by_id) == (ReclaimState.DROPPED, None)
    reclaim.drop(session, site.one, again, "The data came late.", now=answered)
    assert reclaim.warn_due(session, policy=POLICY, now=answered) == 0


def test_the_warning_tells_everything_in_each_language(month: Month) -> None:
    month.runs(1, 18)
    with month.database.reader() as session:
        found = session.scalars(select(OutboxItem).where(OutboxItem.letter == "grant_warning")).all()
        idle = session.get_one(Quota, month.quotas["idle"]).application.applicant_id
        details = next(item.details for item in found if item.recipient_id == idle)
    texts = {
        lang: letters.render("grant_warning", lang, "Aigerim", details, "https://kezek.example")
        for lang in LANGUAGES
    }
    assert len({subject for subject, _ in texts.values()}) == len(LANGUAGES)
    for _, body in texts.values():
        for number in ("516,1", "800", "24.12.2026", f"/quotas/{month.quotas['idle']}"):
            assert number in body.replace("\u00a0", " "), body


def test_giving_back_earns_weight_in_the_next_period(month: Month) -> None:
    with month.database.transaction() as session:
        quota = session.get_one(Quota, month.quotas["giver"])
        actor = factories.actor_of(quota.application.applicant)
        grant = session.scalars(select(Grant).where(Grant.quota_id == quota.id)).one()
        grants.give_back(session, actor, grant, 600, policy=POLICY, now=month.day(3))
    # Nothing idle is left to warn of: 400 remain and are used.
    with month.database.transaction() as session:
        for name in ("giver", "steady"):
            quota = session.get_one(Quota, month.quotas[name])
            quota.valid_until = DECEMBER[1] + 31 * DAY
        january = periods.Opening(
            session.scalars(select(Period.cluster_id)).one(), "h200", DECEMBER[1], DECEMBER[1] + 31 * DAY
        )
        opened = periods.open_period(
            session, month.site.one, january, policy=POLICY, key=KEY, now=DECEMBER[1] - DAY
        )
        factors = {claim.quota_id: credit_of(claim) for claim in opened.claims}
    assert factors[month.quotas["giver"]] > 1
    assert factors[month.quotas["giver"]] > factors[month.quotas["steady"]]
    assert max(factors.values()) <= POLICY.credit.maximum


def credit_of(claim: PeriodClaim) -> Fraction:
    return next(Fraction(one["value"]) for one in claim.factors if one["factor"] == "credit")


@pytest.mark.parametrize(
    ("since", "until", "wrong"),
    [
        (DECEMBER[0] - DAY, None, {"uses_from"}),
        (DECEMBER[1], None, {"uses_from"}),
        (DECEMBER[0] + 16 * DAY, None, {"uses_from"}),
        (None, DECEMBER[1] + DAY, {"uses_until"}),
        (None, DECEMBER[0], {"uses_until"}),
        (DECEMBER[0] + 5 * DAY, DECEMBER[0] + 5 * DAY, {"uses_until"}),
        (DECEMBER[0] - DAY, DECEMBER[1] + DAY, {"uses_from", "uses_until"}),
    ],
)
def test_days_of_a_plan_that_cannot_be(
    session: Session, since: datetime | None, until: datetime | None, wrong: set[str]
) -> None:
    site = make_site(session)
    quota = site.quota("science", GRANT)
    period = site.open()
    actor = factories.actor_of(quota.application.applicant)
    with pytest.raises(Invalid) as caught:
        set_plan(session, actor, period, quota, 10, 0, uses_from=since, uses_until=until, now=NOW)
    assert set(caught.value.fields) == wrong
