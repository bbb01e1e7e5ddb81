"""Several people at one period at once, each as their page loads it: one wins, nothing is given twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor, Role
from allocator.booking import bookings
from allocator.booking.booking_checks import Ask
from allocator.db import Database
from allocator.dividing import (
    adjustments,
    grants,
    period_queries,
    periods,
    publication,
    replay,
    what_if,
)
from allocator.dividing.period_plans import set_plan
from allocator.errors import KezekError
from allocator.models import Booking, Grant, GrantChange, Period, PeriodClaim, Proposal, Quota
from tests import factories
from tests.dividing import DECEMBER, HOUR, KEY, POLICY, make_site
from tests.factories import NOW

RIVALS = 6
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Known:
    """Numbers and actors that every thread may use; rows belong to one session."""

    one: Actor
    other: Actor
    third: Actor
    owner: Actor
    period: int
    quotas: tuple[int, int]


@pytest.fixture
def known(database: Database) -> Known:
    """A draft of two claims that want more than there is."""
    with database.transaction() as session:
        site = make_site(session)
        quotas = [site.quota("science", 40_000) for _ in range(2)]
        third = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        owner = factories.actor_of(quotas[0].application.applicant)
        period = site.open()
        return Known(site.one, site.other, third, owner, period.id, (quotas[0].id, quotas[1].id))


def at_once(database: Database, *jobs: Callable[[Session], object]) -> Counter[str]:
    """Run the jobs at one moment, each in its own transaction; counts "done" and the errors' codes."""
    barrier = Barrier(len(jobs))

    def run(job: Callable[[Session], object]) -> str:
        barrier.wait()
        try:
            with database.transaction() as session:
                job(session)
        except KezekError as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(len(jobs)) as pool:
        return Counter(pool.map(run, jobs))


def propose(known: Known, session: Session) -> Proposal:
    period = period_queries.find_period(session, known.one, known.period)
    return periods.propose(session, known.one, period, now=NOW)


def proposed(database: Database, known: Known) -> int:
    with database.transaction() as session:
        return propose(known, session).id


def publish(known: Known, session: Session, proposal_id: int, actor: Actor | None = None) -> Period:
    actor = actor or known.other
    proposal = period_queries.find_proposal(session, actor, proposal_id)
    version = proposal.period.version
    return publication.publish(session, actor, proposal, expected_version=version, now=NOW)


def published(database: Database, known: Known) -> None:
    proposal_id = proposed(database, known)
    with database.transaction() as session:
        publish(known, session, proposal_id)


def assert_sound(database: Database, known: Known) -> None:
    with database.reader() as session:
        found = replay.replay(session, session.get_one(Period, known.period))
        assert found.identical, found.mismatches
        events.verify(session)


def test_every_step_holds_a_period_as_its_page_loads_it(database: Database, known: Known) -> None:
    with database.transaction() as session:
        period = period_queries.find_period(session, known.one, known.period)
        set_plan(session, known.owner, period, session.get_one(Quota, known.quotas[0]), 30_000, 0, now=NOW)
        periods.collect(session, known.one, period, policy=POLICY, key=KEY, now=NOW)
    proposal_id = proposed(database, known)
    with database.transaction() as session:
        proposal = period_queries.find_proposal(session, known.one, proposal_id)
        adjustments.preview(session, known.one, proposal, known.quotas[0], 100)
        made = adjustments.adjust(session, known.one, proposal, known.quotas[0], 100, "Late.", now=NOW).id
    with database.transaction() as session:
        period = period_queries.find_period(session, known.one, known.period)
        what_if.keep(session, known.one, period, what_if.Scenario(capacity=9), "Nine", now=NOW)
    with database.transaction() as session:
        publish(known, session, made)
    with database.transaction() as session:
        period = period_queries.find_period(session, known.one, known.period)
        assert periods.close_due(session, period.ends_at) == 1
    assert_sound(database, known)


def test_a_discarded_period_was_held_too(database: Database, known: Known) -> None:
    with database.transaction() as session:
        period = period_queries.find_period(session, known.one, known.period)
        periods.discard(session, known.one, period, "A mistake", expected_version=period.version, now=NOW)


def test_two_publishers_publish_once(database: Database, known: Known) -> None:
    first, second = proposed(database, known), proposed(database, known)
    jobs = [
        lambda session, who=who, which=which: publish(known, session, which, who)
        for who in (known.other, known.third)
        for which in (first, second, first)
    ]
    answers = at_once(database, *jobs)
    assert answers["done"] == 1, answers
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(Grant)) == 2
    assert_sound(database, known)


def test_proposers_and_collectors_keep_out_of_each_others_way(database: Database, known: Known) -> None:
    def collect(session: Session) -> object:
        period = period_queries.find_period(session, known.one, known.period)
        return periods.collect(session, known.one, period, policy=POLICY, key=KEY, now=NOW)

    def divide(session: Session) -> object:
        return propose(known, session)

    answers = at_once(database, *([collect, divide] * (RIVALS // 2)))
    assert answers["done"] >= RIVALS // 2, answers
    assert set(answers) <= {"done", "wrong_state"}
    with database.reader() as session:
        numbers = session.scalars(select(Proposal.number).order_by(Proposal.number)).all()
        assert list(numbers) == list(range(1, RIVALS // 2 + 1))
    assert_sound(database, known)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.integration
def test_what_was_collected_while_a_page_waited_is_what_is_divided(database: Database, known: Known) -> None:
    """SQLite cannot come here: whoever is about to write is alone from the first look on."""
    with database.transaction() as session:
        period = period_queries.find_period(session, known.one, known.period)
        assert [claim.request for claim in period.claims] == [40_000, 40_000]
        with database.transaction() as other:
            again = other.get_one(Period, known.period)
            set_plan(other, known.owner, again, other.get_one(Quota, known.quotas[0]), 500, 0, now=NOW)
            periods.collect(other, known.other, again, policy=POLICY, key=KEY, now=NOW)
        proposal = periods.propose(session, known.one, period, now=NOW)
        assert min(share.gpu_hours for share in proposal.shares) == 500
    assert_sound(database, known)


def book(known: Known, session: Session, hours: int, nodes: int = 4) -> Booking:
    quota = session.get_one(Quota, known.quotas[0])
    ask = Ask(nodes, 8, DECEMBER[0] + DAY, DECEMBER[0] + DAY + timedelta(hours=hours))
    return bookings.book(session, known.owner, quota, ask, rules=POLICY.bookings, now=NOW)


def test_the_last_hours_of_a_grant_are_booked_once(database: Database, known: Known) -> None:
    published(database, known)
    with database.reader() as session:
        granted = session.scalars(select(Grant).where(Grant.quota_id == known.quotas[0])).one().gpu_seconds
    hours = granted // HOUR // 16 * 2 // 3  # there are GPUs for two of these, but no grant

    answers = at_once(database, *([lambda session: book(known, session, hours, 2)] * RIVALS))
    assert answers == {"done": 1, "invalid": RIVALS - 1}
    with database.reader() as session:
        quota = session.get_one(Quota, known.quotas[0])
        (room,) = grants.rooms(session, quota, *DECEMBER)
        assert room.charged == hours * 16 * HOUR <= room.granted


def test_hours_are_either_booked_or_given_back(database: Database, known: Known) -> None:
    published(database, known)

    def give_back(session: Session) -> object:
        grant = session.scalars(select(Grant).where(Grant.quota_id == known.quotas[0])).one()
        return grants.give_back(
            session, known.owner, grant, grants.room(session, grant).granted // HOUR, policy=POLICY, now=NOW
        )

    answers = at_once(database, give_back, lambda session: book(known, session, 24), give_back)
    assert answers["done"] == 1, answers
    with database.reader() as session:
        (room,) = grants.rooms(session, session.get_one(Quota, known.quotas[0]), *DECEMBER)
        assert room.charged <= room.granted


def test_what_came_back_is_divided_once(database: Database, known: Known) -> None:
    published(database, known)
    with database.transaction() as session:
        grant = session.scalars(select(Grant).where(Grant.quota_id == known.quotas[0])).one()
        grants.give_back(session, known.owner, grant, 1_000, policy=POLICY, now=NOW)

    def redivide(session: Session) -> object:
        return grants.redivide(session, known.one, session.get_one(Period, known.period), now=NOW)

    at_once(database, *([redivide] * RIVALS))
    with database.reader() as session:
        assert session.scalar(select(func.sum(GrantChange.gpu_seconds))) == 0
        assert grants.returned_left(session, session.get_one(Period, known.period)) == 0


def test_the_reserve_is_never_given_twice(database: Database, known: Known) -> None:
    published(database, known)
    with database.transaction() as session:
        first = session.get_one(Quota, known.quotas[0])
        application = factories.application(
            session, factories.person(session), first.cluster, gpu_hours=10_000
        )
        late = factories.quota(session, application, valid_from=DECEMBER[0], valid_until=DECEMBER[1]).id
        reserve = grants.reserve_of(session, session.get_one(Period, known.period))

    def serve(session: Session) -> object:
        period, quota = session.get_one(Period, known.period), session.get_one(Quota, late)
        hours = reserve * 2 // 3
        return grants.serve_from_reserve(session, known.one, period, quota, hours, "Late.", now=NOW)

    assert at_once(database, *([serve] * RIVALS)) == {"done": 1, "invalid": RIVALS - 1}
    with database.reader() as session:
        assert (
            grants.reserve_left(session, session.get_one(Period, known.period)) == reserve - reserve * 2 // 3
        )
    assert_sound(database, known)


def test_a_claim_is_never_lost_between_two_collections(database: Database, known: Known) -> None:
    def collect(session: Session) -> object:
        period = session.get_one(Period, known.period)
        assert len(period.claims) == 2
        return periods.collect(session, known.one, period, policy=POLICY, key=KEY, now=NOW)

    assert at_once(database, *([collect] * RIVALS)) == {"done": RIVALS}
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(PeriodClaim)) == 2


def test_publishing_reads_in_few_queries_however_many_there_are(
    database: Database,
    known: Known,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    with database.transaction() as session:
        cluster = session.get_one(Period, known.period).cluster
        for _ in range(12):
            application = factories.application(session, factories.person(session), cluster, gpu_hours=900)
            factories.quota(session, application, valid_from=DECEMBER[0], valid_until=DECEMBER[1])
        period = session.get_one(Period, known.period)
        assert periods.collect(session, known.one, period, policy=POLICY, key=KEY, now=NOW) == 14
    with count_queries(database.engine) as statements:
        published(database, known)
    reads = Counter(one for one in statements if one.startswith("SELECT"))
    chain = sum(count for one, count in reads.items() if "event_chain" in one)
    assert reads.total() - chain < 40, reads.most_common(3)
    assert all(count < 8 for one, count in reads.items() if "event_chain" not in one), reads.most_common(3)
