"""What somebody with full rights on the database could try: refused, or found by the replay."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from allocator.actors import MembershipRole, Role
from allocator.dividing import adjustments, grants, periods, publication, replay
from allocator.errors import Forbidden
from allocator.models import Event, Membership, Period
from tests import factories
from tests.dividing import DECEMBER, KEY, POLICY, Site, make_site
from tests.factories import NOW

KEPT = r"kept as (it|they) w|append-only"
# Moved out of the way, so that rows themselves can be tampered with.
TABLES = (
    "periods",
    "period_claims",
    "period_pools",
    "proposals",
    "proposal_shares",
    "adjustments",
    "grants",
    "credits",
    "policy_versions",
)


@pytest.fixture
def site(session: Session) -> Site:
    return make_site(session)


def disarm(session: Session) -> None:
    """Drop or disable every trigger that keeps periods as they were."""
    if session.get_bind().dialect.name == "sqlite":
        rows = session.execute(text("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'"))
        for name, table in rows.all():
            if table in TABLES:
                session.execute(text(f"DROP TRIGGER {name}"))
        return
    for table in TABLES:
        session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "table", ["proposals", "proposal_shares", "adjustments", "grants", "credits", "policy_versions"]
)
def test_no_row_is_put_in_the_place_of_another(site: Site, table: str) -> None:
    """SQLite's REPLACE deletes the old row without a word to triggers on DELETE."""
    quota = site.quota("science", 30_000)
    adjusted = adjustments.adjust(site.session, site.one, site.propose(), quota.id, 9, "Less.", now=NOW)
    site.publish(adjusted)
    site.session.flush()
    with pytest.raises(DBAPIError, match=KEPT):
        site.session.execute(text(f"REPLACE INTO {table} SELECT * FROM {table}"))


@pytest.mark.integration
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("table", ["period_pools", "period_claims", "proposals", "periods", "grants"])
def test_no_table_is_emptied(site: Site, table: str) -> None:
    site.quota("science", 30_000)
    site.publish(site.propose())
    with pytest.raises(DBAPIError, match=KEPT):
        site.session.execute(text(f"TRUNCATE {table} CASCADE"))


def test_a_proposed_period_is_no_draft_again(site: Site) -> None:
    site.quota("science", 30_000)
    site.propose()
    with pytest.raises(DBAPIError, match=KEPT):
        site.session.execute(text("UPDATE periods SET state = 'draft'"))


def test_no_period_is_born_published(site: Site) -> None:
    site.open()
    site.session.flush()
    columns = "cluster_id, gpu_type, calendar, maintenance, reserve, capacity, details"
    columns += ", policy_version, opened_at, version"
    copy = text(
        f"INSERT INTO periods (name, starts_at, ends_at, state, published_at, {columns})"
        f" SELECT 'forged', :starts, :ends, 'published', opened_at, {columns} FROM periods"
    )
    moments = {"starts": "2027-06-01 00:00:00", "ends": "2027-07-01 00:00:00"}
    with pytest.raises(DBAPIError, match=KEPT):
        site.session.execute(copy, moments)


def test_no_grant_comes_from_nowhere(site: Site) -> None:
    site.quota("science", 30_000)
    site.publish(site.propose())
    late = site.quota("startup", 50)
    forged = text(
        "INSERT INTO grants (period_id, quota_id, gpu_seconds, granted_at)"
        " SELECT period_id, :quota, 3600, granted_at FROM grants"
    )
    with pytest.raises(DBAPIError, match="given_to_a_claim"):
        site.session.execute(forged, {"quota": late.id})


def january(site: Site) -> Period:
    """The month after a published December, with credits from it."""
    short, full = site.quota("science", 60_000), site.quota("science", 60_000)
    for quota in (short, full):
        quota.valid_until = DECEMBER[1] + timedelta(days=31)
    first = site.propose()
    second = adjustments.adjust(site.session, site.one, first, short.id, 1_000, "Too early.", now=NOW)
    december = site.publish(second)
    before = december.ends_at - timedelta(days=1)
    opening = periods.Opening(site.cluster.id, "h200", DECEMBER[1], DECEMBER[1] + timedelta(days=31))
    period = periods.open_period(site.session, site.one, opening, policy=POLICY, key=KEY, now=before)
    proposal = periods.propose(site.session, site.one, period, now=before)
    publication.publish(site.session, site.other, proposal, expected_version=period.version, now=before)
    return period


def test_replay_finds_the_same_credit_whatever_came_later(site: Site) -> None:
    period = january(site)
    assert any(claim.factors[2]["value"] != "1" for claim in period.claims)
    december = site.session.query(Period).order_by(Period.starts_at).first()
    assert december is not None
    later = december.ends_at - timedelta(hours=1)
    grant = december.grants[1]
    owner = factories.actor_of(grant.quota.application.applicant)
    grants.give_back(site.session, owner, grant, 500, policy=POLICY, now=later)
    site.session.expire_all()
    assert replay.replay(site.session, period).mismatches == ()


FACTORS = (
    "UPDATE period_claims SET factors = {0}, weight = '2/1' WHERE id = (SELECT max(id) FROM period_claims)"
)
TAMPERED = [
    (
        FACTORS.format("""'[{"factor": "sector", "name": null, "value": "1"}, {"factor": "merit", "name": \
"ordinary", "value": "1"}, {"factor": "credit", "name": null, "value": "2"}]'"""),
        "credit",
    ),
    (FACTORS.format("""'[{"factor": "merit", "name": "of my own", "value": "2"}]'"""), "merit"),
    (FACTORS.format("""'[{"factor": "sector", "name": "of my own", "value": "2"}]'"""), "sector"),
    (FACTORS.format("""'[{"factor": "merit"}]'"""), "weight"),
    ("UPDATE period_claims SET request = 59999, planned = 59999", "inputs"),
    ("UPDATE period_claims SET category = 'strategic'", "inputs"),
    ("UPDATE credits SET served = served + 5000 WHERE id = 1", "credit"),
    ("DELETE FROM proposal_shares WHERE id = (SELECT max(id) FROM proposal_shares)", "share"),
    ("UPDATE proposal_shares SET is_fixed = NOT is_fixed", "share"),
    ("UPDATE proposals SET pools = '[]'", "pool"),
    ("UPDATE proposals SET state = 'kept'", "division"),
    ("DELETE FROM grants WHERE id = (SELECT max(id) FROM grants)", "grant"),
    ("UPDATE grants SET claim_id = NULL, gpu_seconds = 0", "grant"),
    ("DELETE FROM policy_versions", "policy"),
    ("UPDATE policy_versions SET document = '{}'", "policy"),
    ("UPDATE policy_versions SET document = replace(document, '\"strength\":1', '\"strength\":2')", "policy"),
    ("UPDATE periods SET name = name || 'x'", "inputs"),
    ("UPDATE periods SET maintenance = maintenance + 1, reserve = reserve - 1", "inputs"),
]


@pytest.mark.parametrize(("statement", "what"), TAMPERED)
def test_replay_says_what_was_tampered_with(site: Site, statement: str, what: str) -> None:
    period = january(site)
    site.session.flush()
    disarm(site.session)
    site.session.execute(text(statement.replace(":", r"\:")))
    site.session.expire_all()
    found = replay.replay(site.session, period)
    assert what in {mismatch.what for mismatch in found.mismatches}


def test_everything_rewritten_alike_still_breaks_with_the_chain(site: Site) -> None:
    """Shares, adjustments and grants made to fit each other: only the chain of events knows better."""
    quota = site.quota("science", 30_000)
    adjusted = adjustments.adjust(site.session, site.one, site.propose(), quota.id, 9, "Less.", now=NOW)
    period = site.publish(adjusted)
    site.session.flush()
    disarm(site.session)
    for statement in (
        "UPDATE adjustments SET after = 90",
        "UPDATE proposal_shares SET gpu_hours = 90 WHERE is_fixed",
        "UPDATE grants SET gpu_seconds = 90 * 3600",
    ):
        site.session.execute(text(statement))
    site.session.expire_all()
    found = replay.replay(site.session, period)
    assert {mismatch.what for mismatch in found.mismatches} >= {"share", "grant"}


def test_nobody_makes_the_own_adjusted_share_binding(site: Site) -> None:
    quota = site.quota("science", 30_000)
    adjusted = adjustments.adjust(site.session, site.one, site.propose(), quota.id, 20_000, "More.", now=NOW)
    operator = factories.person(site.session, roles=[Role.OPERATOR])
    organisation = quota.application.organisation
    operator.memberships.append(
        Membership(organisation=organisation, role=MembershipRole.MEMBER, created_at=NOW)
    )
    site.session.flush()
    own = factories.actor_of(operator)
    with pytest.raises(Forbidden):
        publication.publish(site.session, own, adjusted, expected_version=adjusted.period.version, now=NOW)
    site.publish(adjusted)


def test_who_collected_is_on_record(site: Site) -> None:
    period = site.open()
    periods.collect(site.session, site.other, period, policy=POLICY, key=KEY, now=NOW)
    rows = site.session.query(Event).filter(Event.kind == "period.collected").order_by(Event.seq)
    assert [event.actor_id for event in rows] == [site.one.person_id, site.other.person_id]
