"""Periods: opened, divided, corrected by one person, published by another, and kept as they were."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.dividing import adjustments, grants, period_queries, periods, publication, replay
from allocator.dividing.period_comparison import compare
from allocator.dividing.period_plans import set_plan
from allocator.errors import Conflict, Forbidden, Invalid, NotFound, Stale, WrongState
from allocator.models import (
    Cluster,
    Credit,
    Decision,
    Event,
    Node,
    NodeSlot,
    NodeState,
    Outage,
    OutageKind,
    OutboxItem,
)
from allocator.states import OutageState, PeriodState, ProposalState
from tests import factories
from tests.dividing import DECEMBER, HOUR, KEY, POLICY, Site, make_site, shares
from tests.factories import NOW


@pytest.fixture
def site(session: Session) -> Site:
    return make_site(session)


def kinds(session: Session) -> list[str]:
    return list(session.scalars(select(Event.kind).order_by(Event.seq)))


def test_a_month_is_the_peoples_month(site: Site) -> None:
    opening = periods.suggestion(site.session, site.cluster, "h200", NOW)
    assert (opening.starts_at, opening.ends_at) == DECEMBER
    site.open()
    assert periods.suggestion(site.session, site.cluster, "h200", NOW).starts_at == DECEMBER[1]


def test_capacity_is_calendar_less_maintenance_less_reserve(site: Site) -> None:
    period = site.open(maintenance=808)
    assert (period.calendar, period.maintenance) == (32 * 24 * 31, 808)
    assert period.reserve == 23_000 * 5 // 100
    assert period.capacity == 23_000 - 1_150
    assert sum(pool.guarantee for pool in period.pools) <= period.capacity
    science = next(pool for pool in period.pools if pool.slug == "science")
    assert science.guarantee == 23_000 * 30 // 100


def test_nodes_count_while_they_are_there_and_not_in_an_outage(site: Site) -> None:
    """Of four nodes with eight GPUs: one comes late and has an outage, one leaves, one is down."""
    session, (first, last) = site.session, DECEMBER
    late, leaving, broken, _ = session.scalars(select(Node).order_by(Node.name))
    late.joins_at, late.state = first + timedelta(days=10), NodeState.EXPECTED
    leaving.leaves_at, broken.state = first + timedelta(days=1), NodeState.DOWN
    outage = Outage(
        cluster=site.cluster,
        kind=OutageKind.MAINTENANCE,
        state=OutageState.PUBLISHED,
        starts_at=last - timedelta(hours=5),
        ends_at=last + timedelta(hours=7),
        reason="New firmware.",
        created_by_id=site.one.person_id,
        created_at=NOW,
    )
    outage.slots = [
        NodeSlot(node_id=late.id, gpu_from=0, gpu_to=8, starts_at=outage.starts_at, ends_at=outage.ends_at)
    ]
    session.add(outage)
    session.flush()
    period = site.open()
    assert period.calendar == 8 * 24 * (21 + 1 + 31 + 31)
    assert period.maintenance == 8 * 24 * 31 + 8 * 5
    assert (period.details["gpus_partly"], period.details["outages"]) == (16, 8 * 5)


def test_claims_record_what_their_weight_came_from(site: Site) -> None:
    quota = site.quota("startup", 500, activity="01610")
    reviewer = factories.person(site.session, roles=[Role.OPERATOR])
    site.session.add(
        Decision(
            application=quota.application,
            kind="approved",
            gpu_seconds=quota.gpu_seconds,
            decided_by=reviewer,
            decided_at=NOW,
            policy_version=POLICY.version,
            merit_band="outstanding",
        )
    )
    period = site.open()
    (claim,) = period.claims
    assert claim.pool == "startups"
    assert (claim.remaining, claim.planned, claim.request, claim.minimum) == (500, None, 500, 0)
    assert claim.weight == Fraction(5, 4) * Fraction(3, 2)
    assert [(factor["factor"], factor["name"], factor["value"]) for factor in claim.factors] == [
        ("sector", "agriculture", "5/4"),
        ("merit", "outstanding", "3/2"),
        ("credit", None, "1"),
    ]
    assert str(quota.id) != claim.reference


def test_a_plan_counts_when_claims_are_collected(site: Site) -> None:
    quota = site.quota("science", 500)
    period = site.open()
    owner = factories.actor_of(quota.application.applicant)
    set_plan(site.session, owner, period, quota, 300, 100, now=NOW)
    periods.collect(site.session, site.one, period, policy=POLICY, key=KEY, now=NOW)
    assert [(claim.planned, claim.request, claim.minimum) for claim in period.claims] == [(300, 300, 100)]
    with pytest.raises(Invalid):
        set_plan(site.session, owner, period, quota, 300, 301, now=NOW)
    stranger = factories.actor_of(factories.person(site.session))
    with pytest.raises(NotFound):
        set_plan(site.session, stranger, period, quota, 300, 0, now=NOW)


def test_two_periods_never_share_a_day(site: Site) -> None:
    period = site.open()
    with pytest.raises(Conflict):
        site.open()
    periods.discard(site.session, site.one, period, "A mistake", expected_version=period.version, now=NOW)
    again = site.open()
    assert again.name == f"{period.name}.2"


def test_only_operators_open_and_propose(site: Site) -> None:
    period = site.open()
    for role in (Role.AUDITOR, Role.COUNCIL_MEMBER, Role.ADMINISTRATOR):
        person = factories.actor_of(factories.person(site.session, roles=[role]))
        with pytest.raises(Forbidden):
            periods.propose(site.session, person, period, now=NOW)
    applicant = factories.actor_of(factories.person(site.session))
    with pytest.raises(Forbidden):
        periods.propose(site.session, applicant, period, now=NOW)


def test_the_machine_proposes_and_a_person_corrects(site: Site) -> None:
    big, small = site.quota("science", 30_000), site.quota("science", 30_000)
    lender = site.quota("startup", 1_000)
    first = site.propose()
    capacity = first.period.capacity
    assert shares(first)[lender.id] == 1_000
    assert sum(shares(first).values()) == capacity
    preview = adjustments.preview(site.session, site.one, first, small.id, 2_000)
    second = adjustments.adjust(
        site.session, site.one, first, small.id, 2_000, "Their data is late.", now=NOW
    )
    assert shares(second)[small.id] == 2_000
    assert sum(shares(second).values()) == capacity
    assert compare(first, second) == preview
    gains = {row.claim.quota_id: row.change > 0 for row in preview.rows}
    assert gains == {big.id: True, small.id: False}
    assert preview.gained == preview.lost
    third = adjustments.adjust(
        site.session, site.one, second, lender.id, 900, "They asked for less.", now=NOW
    )
    assert (shares(third)[small.id], shares(third)[lender.id]) == (2_000, 900)
    assert [one.reason for one in third.adjustments] == ["Their data is late.", "They asked for less."]
    assert [proposal.number for proposal in (first, second, third)] == [1, 2, 3]


def test_an_adjustment_needs_a_reason_and_breaks_no_guarantee(site: Site) -> None:
    quota = site.quota("startup", 40_000)
    site.quota("science", 40_000)
    proposal = site.propose()
    with pytest.raises(Invalid) as caught:
        adjustments.adjust(site.session, site.one, proposal, quota.id, 10, " ", now=NOW)
    assert set(caught.value.fields) == {"reason"}
    with pytest.raises(Invalid) as caught:
        adjustments.adjust(site.session, site.one, proposal, quota.id, proposal.capacity, "All", now=NOW)
    assert set(caught.value.fields) == {"hours"}
    with pytest.raises(NotFound):
        adjustments.adjust(site.session, site.one, proposal, quota.id + 1_000, 1, "Nobody", now=NOW)


def test_nobody_adjusts_the_own_organisations_share(site: Site) -> None:
    quota = site.quota("science", 400)
    proposal = site.propose()
    head = quota.application.applicant
    own = Actor(head.id, frozenset({Role.OPERATOR}), factories.actor_of(head).organisations)
    with pytest.raises(Forbidden):
        adjustments.adjust(site.session, own, proposal, quota.id, 1, "Mine", now=NOW)


def test_four_eyes(site: Site) -> None:
    quota = site.quota("science", 400)
    first = site.propose()
    version = first.period.version
    with pytest.raises(Forbidden):
        publication.publish(site.session, site.one, first, expected_version=version, now=NOW)
    second = adjustments.adjust(site.session, site.other, first, quota.id, 10, "Less is enough.", now=NOW)
    for actor in (site.one, site.other):
        assert not publication.may_publish(actor, second)
        with pytest.raises(Forbidden):
            publication.publish(site.session, actor, second, expected_version=version, now=NOW)
    third = factories.actor_of(factories.person(site.session, roles=[Role.OPERATOR]))
    with pytest.raises(Stale):
        publication.publish(site.session, third, second, expected_version=version + 1, now=NOW)
    period = publication.publish(site.session, third, second, expected_version=version, now=NOW)
    assert (period.state, second.state) == (PeriodState.PUBLISHED, ProposalState.PUBLISHED)
    with pytest.raises((WrongState, Stale)):
        publication.publish(site.session, third, first, expected_version=period.version, now=NOW)


def test_publishing_grants_and_tells(site: Site) -> None:
    quotas = [site.quota("science", 30_000), site.quota("startup", 500)]
    proposal = site.propose()
    period = site.publish(proposal)
    made = {grant.quota_id: grant.gpu_seconds for grant in grants.of_period(site.session, period)}
    assert made == {quota: hours * HOUR for quota, hours in shares(proposal).items()}
    letters = site.session.scalars(select(OutboxItem).where(OutboxItem.letter == "grant_published")).all()
    assert {item.recipient_id for item in letters} == {quota.application.applicant_id for quota in quotas}
    credits = site.session.scalars(select(Credit)).all()
    assert {(credit.pool, credit.requested) for credit in credits} == {("science", 30_000), ("startups", 500)}
    assert kinds(site.session)[-3:] == ["proposal.published", "period.published", "period.granted"]


CHANGES = [
    "UPDATE periods SET capacity = capacity - 1, reserve = reserve + 1",
    "UPDATE periods SET state = 'proposed', published_at = NULL",
    "DELETE FROM periods",
    "UPDATE period_claims SET request = 1",
    "DELETE FROM period_claims",
    "UPDATE period_pools SET guarantee = 0",
    "UPDATE proposals SET name = 'another'",
    "DELETE FROM proposals",
    "UPDATE proposal_shares SET gpu_hours = 1",
    "DELETE FROM proposal_shares",
    "UPDATE grants SET gpu_seconds = 1",
    "DELETE FROM grants",
    "UPDATE credits SET requested = 1",
    "INSERT INTO proposal_shares (proposal_id, claim_id, gpu_hours, is_fixed, is_set_aside)"
    " SELECT proposal_id, claim_id, 1, is_fixed, is_set_aside FROM proposal_shares",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_the_database_keeps_a_published_period(site: Site, statement: str) -> None:
    site.quota("science", 30_000)
    site.publish(site.propose())
    site.session.flush()
    with pytest.raises(DBAPIError, match=r"kept as (it|they) w|append-only"):
        site.session.execute(text(statement))


def test_inputs_are_frozen_with_the_first_proposal(site: Site) -> None:
    site.quota("science", 30_000)
    proposal = site.propose()
    with pytest.raises(WrongState):
        periods.collect(site.session, site.one, proposal.period, policy=POLICY, key=KEY, now=NOW)
    with pytest.raises(DBAPIError, match="kept as they were"):
        site.session.execute(text("UPDATE period_claims SET weight = '2/1'"))


def test_a_published_period_is_closed_when_it_is_over(site: Site) -> None:
    site.quota("science", 300)
    period = site.publish(site.propose())
    assert periods.close_due(site.session, DECEMBER[1] - timedelta(seconds=1)) == 0
    assert periods.close_due(site.session, DECEMBER[1]) == 1
    assert period.state is PeriodState.CLOSED


def test_replay_is_identical(site: Site) -> None:
    quota = site.quota("science", 30_000, activity="01610")
    site.quota("startup", 700)
    first = site.propose()
    second = adjustments.adjust(site.session, site.one, first, quota.id, 12_345, "By order 7.", now=NOW)
    period = site.publish(second)
    site.session.expire_all()
    found = replay.replay(site.session, period)
    assert (found.identical, found.policy_found, found.proposals, found.shares) == (True, True, 2, 4)


def disarm(session: Session, *tables: str) -> None:
    """What somebody with full rights on the database could do before rewriting a period."""
    for table in tables:
        if session.get_bind().dialect.name == "sqlite":
            for event in ("insert", "update", "delete"):
                session.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_{event}"))
        else:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))


@pytest.mark.parametrize(
    ("table", "statement", "what"),
    [
        ("proposal_shares", "UPDATE proposal_shares SET gpu_hours = gpu_hours - 1", "share"),
        ("period_claims", "UPDATE period_claims SET weight = '3/1'", "weight"),
        ("period_claims", "UPDATE period_claims SET request = request - 1", "request"),
        ("period_pools", "UPDATE period_pools SET guarantee = guarantee - 1", "pool"),
        ("grants", "UPDATE grants SET gpu_seconds = gpu_seconds + 3600", "grant"),
    ],
)
def test_replay_says_where_it_differs(site: Site, table: str, statement: str, what: str) -> None:
    site.quota("science", 30_000)
    period = site.publish(site.propose())
    disarm(site.session, table)
    site.session.execute(text(statement))
    site.session.expire_all()
    found = replay.replay(site.session, period)
    assert not found.identical
    assert what in {mismatch.what for mismatch in found.mismatches}


def test_shortfall_earns_credit_in_the_next_period(site: Site) -> None:
    short, full = site.quota("science", 30_000), site.quota("science", 30_000)
    apart = site.quota("startup", 500)
    for quota in (short, full, apart):
        quota.valid_until = DECEMBER[1] + timedelta(days=31)
    first = site.propose()
    second = adjustments.adjust(site.session, site.one, first, short.id, 1_000, "Too early.", now=NOW)
    december = site.publish(second)
    opening = periods.Opening(site.cluster.id, "h200", DECEMBER[1], DECEMBER[1] + timedelta(days=31))
    january = periods.open_period(
        site.session, site.one, opening, policy=POLICY, key=KEY, now=december.ends_at - timedelta(days=1)
    )
    credit = {claim.quota_id: claim.factors[2] for claim in january.claims}
    assert Fraction(3, 2) < Fraction(credit[short.id]["value"]) <= 2
    assert Fraction(1, 2) <= Fraction(credit[full.id]["value"]) < 1
    assert Fraction(credit[apart.id]["value"]) == 1  # pool by pool
    assert Fraction(credit[short.id]["entitled"]) > Fraction(credit[short.id]["served"])
    again = periods.propose(site.session, site.one, january, now=NOW)
    assert shares(again)[short.id] > shares(again)[full.id]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(["science", "startup", "citizen", "strategic"]), st.integers(1, 40_000)),
        min_size=1,
        max_size=6,
    ),
    data=st.data(),
)
def test_hours_are_conserved(site: Site, asked: list[tuple[str, int]], data: st.DataObject) -> None:
    cluster = site.cluster.id
    # Hypothesis ends an example wherever it draws: what stays of it would meet the next one's ids.
    with ExitStack() as stack:
        stack.callback(_forget, site, cluster)
        stack.callback(site.session.begin_nested().rollback)
        quotas = [site.quota(category, hours) for category, hours in asked]
        proposal = site.propose()
        first = shares(proposal)
        assert sum(first.values()) == min(proposal.capacity, sum(hours for _, hours in asked))
        fixed = data.draw(st.sampled_from(quotas))
        hours = data.draw(st.integers(0, first[fixed.id]))
        second = adjustments.adjust(site.session, site.one, proposal, fixed.id, hours, "Drawn", now=NOW)
        after = shares(second)
        assert after[fixed.id] == hours
        assert sum(after.values()) <= proposal.capacity
        wanted = sum(
            min(claim.request, 10**9) for claim in proposal.period.claims if claim.quota_id != fixed.id
        )
        assert sum(after.values()) == hours + min(proposal.capacity - hours, wanted)


def _forget(site: Site, cluster_id: int) -> None:
    site.session.expunge_all()
    site.cluster = site.session.get_one(Cluster, cluster_id)


def test_everything_is_on_record(site: Site) -> None:
    quota = site.quota("science", 400)
    proposal = site.propose()
    adjustments.adjust(site.session, site.one, proposal, quota.id, 10, "Less is enough.", now=NOW)
    assert kinds(site.session) == [
        "policy_version.recorded",
        "period.opened",
        "period.collected",
        "period.proposed",
        "proposal.kept",
        "proposal.kept",
        "proposal.adjusted",
    ]


def test_a_pool_was_asked_for_what_its_quotas_asked_for(site: Site) -> None:
    """Also where a claim was set aside or a person fixed less, which the division itself leaves out."""
    aside, cut = site.quota("science", 30_000), site.quota("strategic", 9_000)
    period = site.open()
    set_plan(
        site.session, factories.actor_of(aside.application.applicant), period, aside, 30_000, 30_000, now=NOW
    )
    periods.collect(site.session, site.one, period, policy=POLICY, key=KEY, now=NOW)
    proposal = periods.propose(site.session, site.one, period, now=NOW)
    made = adjustments.adjust(site.session, site.one, proposal, cut.id, 400, "The data are late.", now=NOW)
    rows = {row.slug: row for row in period_queries.pool_rows(made)}
    assert (rows["science"].demand, rows["science"].share) == (30_000, 0)
    assert rows["science"].bound == period_queries.SET_ASIDE
    assert (rows["state"].demand, rows["state"].share, rows["state"].bound) == (9_000, 400, "fixed")
    with pytest.raises(Invalid):
        adjustments.preview(site.session, site.one, proposal, cut.id, 9_001)
