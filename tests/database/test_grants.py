"""Grants: what they let people book, what can be given back, taken back, and given to others."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.booking import bookings
from allocator.booking.booking_checks import Ask
from allocator.dividing import adjustments, grants, period_limits, periods, reclaim, what_if
from allocator.errors import Forbidden, Invalid, NotFound, WrongState
from allocator.models import (
    Booking,
    Credit,
    Grant,
    JobRecord,
    OutboxItem,
    Period,
    Quota,
    QuotaMember,
    Reclaim,
)
from allocator.states import QuotaState, ReclaimState
from scheduler.desired import read_desired
from tests import factories
from tests.dividing import DECEMBER, HOUR, KEY, POLICY, Site, make_site, shares
from tests.factories import NOW

MIDDLE = DECEMBER[0] + timedelta(days=16)
DAY = timedelta(days=1)


@pytest.fixture
def site(session: Session) -> Site:
    return make_site(session)


def published(site: Site) -> Period:
    return site.publish(site.propose())


def grant_of(site: Site, quota: Quota) -> Grant:
    return site.session.scalars(select(Grant).where(Grant.quota_id == quota.id)).one()


def owner_of(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def book(site: Site, quota: Quota, starts_at: datetime, hours: int, now: datetime = NOW) -> Booking:
    ask = Ask(1, 8, starts_at, starts_at + timedelta(hours=hours))
    return bookings.book(site.session, owner_of(quota), quota, ask, rules=POLICY.bookings, now=now)


def letters(site: Site, letter: str) -> list[OutboxItem]:
    return list(site.session.scalars(select(OutboxItem).where(OutboxItem.letter == letter)))


def crowded(site: Site) -> tuple[Quota, Quota]:
    """Two of science that want more than there is: each gets half."""
    return site.quota("science", 40_000), site.quota("science", 40_000)


def test_without_a_published_period_the_quota_alone_limits(site: Site) -> None:
    quota = site.quota("science", 100)
    site.propose()
    assert grants.rooms(site.session, quota, *DECEMBER) == []
    book(site, quota, DECEMBER[0] + DAY, 12)


def test_a_booking_keeps_to_the_grant(site: Site) -> None:
    quota, _ = crowded(site)
    period = published(site)
    granted = grant_of(site, quota).gpu_seconds
    assert granted == period.capacity // 2 * HOUR
    book(site, quota, DECEMBER[0] + DAY, 24 * 20)
    (room,) = grants.rooms(site.session, quota, *DECEMBER)
    assert (room.granted, room.charged) == (granted, 24 * 20 * 8 * HOUR)
    ask = Ask(3, 8, DECEMBER[0], DECEMBER[0] + timedelta(hours=24 * 20))
    found = bookings.quote(site.session, owner_of(quota), quota, ask, rules=POLICY.bookings, now=NOW)
    assert list(found.faults) == ["balance"]
    (fault,) = found.faults["balance"]
    assert fault.details["starts_at"] == date(2026, 12, 1)
    assert fault.details["ends_at"] == date(2026, 12, 31)


def test_a_quota_without_a_grant_books_nothing_in_a_published_period(site: Site) -> None:
    site.quota("science", 100)
    period = published(site)
    late = site.quota("startup", 50)
    with pytest.raises(Invalid):
        book(site, late, DECEMBER[0] + DAY, 1)
    assert [quota.id for quota in grants.waiting(site.session, period)] == [late.id]


def test_only_the_part_inside_the_period_needs_room(site: Site) -> None:
    quota, _ = crowded(site)
    quota.valid_until = DECEMBER[1] + timedelta(days=10)
    published(site)
    granted = grant_of(site, quota).gpu_seconds // HOUR
    # one hour of December, the rest in January, where nothing is published
    ask = Ask(4, 8, DECEMBER[1] - timedelta(hours=1), DECEMBER[1] + timedelta(days=9))
    assert granted > 32 * 24 * 9
    found = bookings.quote(
        site.session, owner_of(quota), quota, ask, rules=POLICY.bookings, now=DECEMBER[0] + DAY
    )
    assert found.fits


def test_late_approvals_are_served_from_the_reserve(site: Site) -> None:
    site.quota("science", 100)
    period = published(site)
    late = site.quota("startup", 50)
    reserve = grants.reserve_left(site.session, period)
    # what nobody asked for when the period was divided is there for late approvals too
    assert reserve == period.reserve + period.capacity - 100
    with pytest.raises(Invalid) as caught:
        grants.serve_from_reserve(site.session, site.one, period, late, 51, "", now=NOW)
    assert set(caught.value.fields) == {"gpu_hours", "reason"}
    grant = grants.serve_from_reserve(site.session, site.one, period, late, 40, "Approved late.", now=NOW)
    assert (grant.gpu_seconds, grant.current) == (0, 40 * HOUR)
    assert grants.reserve_left(site.session, period) == reserve - 40
    assert len(letters(site, "grant_raised")) == 1
    book(site, late, DECEMBER[0] + DAY, 5)
    with pytest.raises(Invalid):
        book(site, late, DECEMBER[0] + 3 * DAY, 1)


def test_hours_given_back_go_to_others_and_earn_credit(site: Site) -> None:
    giver, taker = crowded(site)
    period = published(site)
    grant = grant_of(site, giver)
    before = sum(one.current for one in grants.of_period(site.session, period))
    with pytest.raises(NotFound):
        grants.give_back(site.session, owner_of(taker), grant, 10, policy=POLICY, now=NOW)
    with pytest.raises(Invalid):
        grants.give_back(
            site.session, owner_of(giver), grant, grant.gpu_seconds // HOUR + 1, policy=POLICY, now=NOW
        )
    grants.give_back(site.session, owner_of(giver), grant, 1_001, policy=POLICY, now=NOW)
    assert grants.returned_left(site.session, period) == 1_001
    earned = site.session.scalars(select(Credit).where(Credit.cause == "returned")).one()
    assert (earned.pool, earned.served) == ("science", -500)
    ((who, hours),) = grants.redivision(site.session, period)
    assert (who.quota_id, hours) == (taker.id, 1_001)
    auditor = factories.actor_of(factories.person(site.session, roles=[Role.AUDITOR]))
    with pytest.raises(Forbidden):
        grants.redivide(site.session, auditor, period, now=NOW)
    grants.redivide(site.session, site.one, period, now=NOW)
    assert grants.returned_left(site.session, period) == 0
    assert sum(one.current for one in grants.of_period(site.session, period)) == before
    assert grants.redivision(site.session, period) == []


def test_booked_hours_cannot_be_given_back(site: Site) -> None:
    quota = site.quota("science", 100)
    published(site)
    book(site, quota, DECEMBER[0] + DAY, 10)
    with pytest.raises(Invalid) as caught:
        grants.give_back(site.session, owner_of(quota), grant_of(site, quota), 21, policy=POLICY, now=NOW)
    assert caught.value.fields["gpu_hours"][0].details["most"] == 20


def test_nothing_moves_once_the_period_is_over(site: Site) -> None:
    quota = site.quota("science", 100)
    period = published(site)
    with pytest.raises(WrongState):
        grants.give_back(
            site.session, owner_of(quota), grant_of(site, quota), 1, policy=POLICY, now=DECEMBER[1]
        )
    periods.close_due(site.session, DECEMBER[1])
    with pytest.raises(WrongState):
        grants.redivide(site.session, site.one, period, now=DECEMBER[1])


def test_the_warning_comes_before_anything_is_taken(site: Site) -> None:
    idle, busy = site.quota("science", 1_000), site.quota("science", 1_000)
    period = published(site)
    book(site, busy, DECEMBER[0] + DAY, 100)
    early = DECEMBER[0] + timedelta(days=10)
    assert reclaim.warn_due(site.session, policy=POLICY, now=early) == 0
    assert reclaim.warn_due(site.session, policy=POLICY, now=MIDDLE) == 1
    assert reclaim.warn_due(site.session, policy=POLICY, now=MIDDLE + DAY) == 0
    (letter,) = letters(site, "grant_warning")
    assert letter.recipient_id == idle.application.applicant_id
    (warned,) = site.session.scalars(select(Reclaim))
    assert (warned.state, warned.used, warned.take_back) == (ReclaimState.WARNED, 0, 800 * HOUR)
    assert warned.planned == 1_000 * HOUR * 16 // 31
    assert reclaim.propose_due(site.session, policy=POLICY, now=warned.answer_until - DAY) == 0
    assert reclaim.propose_due(site.session, policy=POLICY, now=warned.answer_until) == 1
    assert grant_of(site, idle).current == 1_000 * HOUR
    auditor = factories.actor_of(factories.person(site.session, roles=[Role.AUDITOR]))
    with pytest.raises(Forbidden):
        reclaim.confirm(site.session, auditor, warned, now=warned.answer_until)
    assert reclaim.confirm(site.session, site.one, warned, now=warned.answer_until) == 800 * HOUR
    assert grant_of(site, idle).current == 200 * HOUR
    assert grants.returned_left(site.session, period) == 800
    assert len(letters(site, "grant_reclaimed")) == 1


def test_who_books_in_time_keeps_everything(site: Site) -> None:
    quota = site.quota("science", 1_000)
    published(site)
    reclaim.warn_due(site.session, policy=POLICY, now=MIDDLE)
    (warned,) = site.session.scalars(select(Reclaim))
    book(site, quota, MIDDLE + 2 * DAY, 120, now=MIDDLE + DAY)
    assert reclaim.propose_due(site.session, policy=POLICY, now=warned.answer_until) == 0
    assert warned.state is ReclaimState.DROPPED


def test_hours_booked_after_the_proposal_are_not_taken(site: Site) -> None:
    quota = site.quota("science", 1_000)
    published(site)
    reclaim.warn_due(site.session, policy=POLICY, now=MIDDLE)
    (proposed,) = site.session.scalars(select(Reclaim))
    reclaim.propose_due(site.session, policy=POLICY, now=proposed.answer_until)
    book(site, quota, proposed.answer_until + DAY, 100, now=proposed.answer_until)
    assert reclaim.confirm(site.session, site.one, proposed, now=proposed.answer_until) == 200 * HOUR
    (room,) = grants.rooms(site.session, quota, *DECEMBER)
    assert room.available == 0


def test_a_what_if_shows_who_gains_and_stores_nothing(site: Site) -> None:
    science, startup = site.quota("science", 40_000), site.quota("startup", 40_000)
    period = site.propose().period
    references = {claim.quota_id: claim.reference for claim in period.claims}
    more = what_if.what_if(site.session, site.one, period, what_if.Scenario(capacity=period.capacity + 100))
    assert (more.gained, more.lost) == (100, 0)
    heavier = what_if.Scenario(pool_weights={"startups": Fraction(60)})
    moved = what_if.what_if(site.session, site.one, period, heavier)
    assert moved.gained == moved.lost > 0
    assert {row.claim.quota_id: row.change > 0 for row in moved.rows} == {startup.id: True, science.id: False}
    assert len(period.proposals) == 1
    with pytest.raises(Invalid):
        what_if.keep(site.session, site.one, period, heavier, " ", now=NOW)
    kept = what_if.keep(site.session, site.one, period, heavier, "Start-ups first", now=NOW)
    assert shares(kept)[startup.id] == shares(period.proposals[0])[startup.id] + moved.gained
    with pytest.raises(Invalid) as caught:
        what_if.what_if(
            site.session,
            site.one,
            period,
            what_if.Scenario(guarantees={"science": 101}, requests={references[science.id]: -1}),
        )
    assert set(caught.value.fields) == {"pools", "requests"}


def test_an_applicant_sees_that_asking_for_more_would_not_have_helped(site: Site) -> None:
    quota, _ = crowded(site)
    period = site.propose().period
    more = what_if.if_asked(site.session, owner_of(quota), period, quota, 40_000)
    less = what_if.if_asked(site.session, owner_of(quota), period, quota, 500)
    assert more.share_before == more.share_after == period.capacity // 2
    assert (less.request_after, less.share_after) == (500, 500)
    with pytest.raises(NotFound):
        what_if.if_asked(site.session, factories.actor_of(factories.person(site.session)), period, quota, 1)


def test_the_cluster_stops_at_the_grant(site: Site) -> None:
    quota, _ = crowded(site)
    quota.valid_from = NOW
    published(site)
    granted = grant_of(site, quota).gpu_seconds
    began = DECEMBER[0] - timedelta(hours=1)
    site.session.add(
        JobRecord(
            cluster_id=site.cluster.id,
            job_id=1,
            submitted_at=began,
            login="u",
            account=quota.account,
            state="COMPLETED",
            started_at=began,
            ended_at=DECEMBER[0] + timedelta(hours=1),
            elapsed_seconds=7_200,
            gpus=8,
            gpu_seconds=8 * 7_200,
            quota_id=quota.id,
            read_at=DECEMBER[0] + timedelta(hours=1),
        )
    )
    site.session.flush()
    assert period_limits.current_limits(site.session, site.cluster.id, NOW) == {}
    during = DECEMBER[0] + DAY
    assert period_limits.current_limits(site.session, site.cluster.id, during)[quota.id] == (
        granted,
        8 * HOUR,
    )
    wanted = {}
    for moment in (NOW, during, DECEMBER[1]):
        desired = read_desired(site.session, site.cluster.slug, timedelta(days=7), moment)
        assert desired is not None
        wanted[moment] = desired.wanted.accounts[quota.account].gpu_minutes
        shares_wanted = desired.wanted.accounts[quota.account].shares
        assert shares_wanted == (granted // HOUR if moment == during else 1)
    assert wanted[NOW] == wanted[DECEMBER[1]] == 40_000 * 60
    assert wanted[during] == (granted + 8 * HOUR) // 60


def test_the_reserve_gives_no_more_than_the_quota_can_spend(site: Site) -> None:
    site.quota("science", 100)
    period = published(site)
    late = site.quota("startup", 50)
    grants.serve_from_reserve(site.session, site.one, period, late, 40, "Approved late.", now=NOW)
    with pytest.raises(Invalid) as caught:
        grants.serve_from_reserve(site.session, site.other, period, late, 40, "Approved late.", now=NOW)
    assert caught.value.fields["gpu_hours"][0].details["most"] == 10
    late.state = QuotaState.CLOSED
    with pytest.raises(WrongState):
        grants.serve_from_reserve(site.session, site.other, period, late, 10, "More.", now=NOW)


def test_nobody_serves_a_quota_that_one_may_use(site: Site) -> None:
    site.quota("science", 100)
    period = published(site)
    late = site.quota("startup", 50)
    operator = factories.person(site.session, roles=[Role.OPERATOR])
    late.members.append(QuotaMember(person=operator, is_lead=False))
    site.session.flush()
    with pytest.raises(Forbidden):
        grants.serve_from_reserve(
            site.session, factories.actor_of(operator), period, late, 10, "For my own work.", now=NOW
        )


def test_the_cluster_lets_run_what_was_booked_before_there_were_grants(site: Site) -> None:
    quota, _ = crowded(site)
    quota.valid_from = NOW
    for day in range(3):
        book(site, quota, DECEMBER[0] + day * DAY, 24 * 20)
    book(site, quota, DECEMBER[0] - timedelta(hours=20), 20 + 24 * 14)  # only a part of it is in December
    published(site)
    granted = grant_of(site, quota).gpu_seconds
    booked = (3 * 20 + 14) * 24 * 8 * HOUR
    assert booked > granted
    during = DECEMBER[0] + DAY
    assert period_limits.current_limits(site.session, site.cluster.id, during)[quota.id] == (booked, 0)


def test_a_what_if_is_kept_only_of_claims_that_stay(site: Site) -> None:
    site.quota("science", 100)
    period = site.open()
    scenario = what_if.Scenario(capacity=10)
    assert what_if.what_if(site.session, site.one, period, scenario).lost == 90
    with pytest.raises(WrongState):
        what_if.keep(site.session, site.one, period, scenario, "Ten", now=NOW)
    periods.collect(site.session, site.one, period, policy=POLICY, key=KEY, now=NOW)
    for huge in (
        what_if.Scenario(capacity=10**30),
        what_if.Scenario(pool_weights={"science": Fraction(10**30)}),
    ):
        with pytest.raises(Invalid):
            what_if.what_if(site.session, site.one, period, huge)


def test_what_another_request_would_have_brought_counts_what_persons_fixed(site: Site) -> None:
    quota, other = crowded(site)
    first = site.propose()
    second = adjustments.adjust(site.session, site.one, first, other.id, 1_000, "Too early.", now=NOW)
    period = site.publish(second)
    answer = what_if.if_asked(site.session, owner_of(quota), period, quota, 500)
    assert answer.share_before * HOUR == grant_of(site, quota).gpu_seconds
    mine = what_if.if_asked(site.session, owner_of(other), period, other, 400)
    assert (mine.share_before, mine.share_after) == (1_000, 400)
