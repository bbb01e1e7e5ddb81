"""Nobody has to remember the next period: its draft opens in time and stays fresh, operators are reminded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.dividing import period_opening, periods, publication
from allocator.dividing.period_plans import set_plan
from allocator.models import Cluster, Event, Node, NodeState, OutboxItem, Period
from allocator.states import PeriodState
from tests import factories
from tests.dividing import DECEMBER, KEY, POLICY, Site, make_site
from tests.factories import NOW

DAY = timedelta(days=1)
EARLY = DECEMBER[0] - timedelta(days=POLICY.periods.open_days)


@pytest.fixture
def site(session: Session) -> Site:
    return make_site(session)


def opened(site: Site, now: object = EARLY) -> int:
    return period_opening.open_due(site.session, policy=POLICY, key=KEY, now=now)  # type: ignore[arg-type]


def only_period(site: Site) -> Period:
    return site.session.scalars(select(Period)).one()


def letters(site: Site, letter: str) -> list[int]:
    found = select(OutboxItem.recipient_id).where(OutboxItem.letter == letter)
    return sorted(site.session.scalars(found.order_by(OutboxItem.recipient_id)))


def test_the_next_months_draft_opens_in_time_and_once(site: Site) -> None:
    quota = site.quota("science", 100)
    assert opened(site, EARLY - timedelta(seconds=1)) == 0
    assert opened(site) == 1
    assert opened(site) == opened(site, NOW) == 0
    period = only_period(site)
    assert (period.starts_at, period.ends_at) == DECEMBER
    assert (period.state, period.opened_by_id) == (PeriodState.DRAFT, None)
    assert [claim.quota_id for claim in period.claims] == [quota.id]
    (event,) = site.session.scalars(select(Event).where(Event.kind == "period.opened"))
    assert event.actor_id is None
    # both operators, and nobody else
    assert letters(site, "period_opened") == sorted([site.one.person_id or 0, site.other.person_id or 0])


def test_the_month_after_follows_in_its_time(site: Site) -> None:
    opened(site)
    january = DECEMBER[1] - timedelta(days=POLICY.periods.open_days)
    assert opened(site, january - DAY) == 0
    assert opened(site, january) == 1


def test_each_kind_of_gpu_is_opened_by_itself_and_none_that_is_gone(site: Site) -> None:
    other = factories.cluster(site.session, slug="bilim", gpu_type="a100", nodes=2)
    gone = factories.cluster(site.session, slug="old", gpu_type="v100", nodes=1)
    for node in site.session.scalars(select(Node).where(Node.cluster_id == gone.id)):
        node.state = NodeState.GONE
    site.session.flush()
    assert opened(site) == 2
    pairs = select(Cluster.slug, Period.gpu_type).join(Cluster, Cluster.id == Period.cluster_id)
    assert sorted(map(tuple, site.session.execute(pairs))) == [("alem", "h200"), (other.slug, "a100")]


def test_a_period_that_a_person_opened_or_gave_up_is_left_alone(site: Site) -> None:
    period = site.open()
    assert opened(site, NOW) == 0
    periods.discard(site.session, site.one, period, "Moved.", expected_version=period.version, now=NOW)
    assert opened(site, NOW) == 0
    assert letters(site, "period_opened") == []


def test_a_policy_that_leaves_it_to_people(site: Site) -> None:
    rules = replace(POLICY, periods=replace(POLICY.periods, open_days=0))
    assert period_opening.open_due(site.session, policy=rules, key=KEY, now=NOW) == 0


def test_a_draft_takes_in_what_was_planned_and_approved_since(site: Site) -> None:
    quota = site.quota("science", 100)
    opened(site)
    period = only_period(site)
    set_plan(site.session, factories.actor_of(quota.application.applicant), period, quota, 40, 0, now=NOW)
    late = site.quota("startup", 50)
    site.session.flush()

    def refresh() -> int:
        return period_opening.refresh_due(site.session, policy=POLICY, key=KEY, now=NOW + DAY)

    assert [refresh(), refresh()] == [1, 0]
    site.session.expire_all()
    assert {claim.quota_id: claim.request for claim in period.claims} == {quota.id: 40, late.id: 50}
    # what was proposed is frozen: nothing is taken in any more
    periods.propose(site.session, site.one, period, now=NOW + DAY)
    site.quota("startup", 70)
    assert period_opening.refresh_due(site.session, policy=POLICY, key=KEY, now=NOW + 2 * DAY) == 0


def test_a_plan_saved_the_moment_before_counts(site: Site) -> None:
    quota = site.quota("science", 100)
    opened(site)
    period = only_period(site)
    set_plan(site.session, factories.actor_of(quota.application.applicant), period, quota, 40, 0, now=NOW)
    made = period_opening.propose(site.session, site.one, period, policy=POLICY, key=KEY, now=NOW)
    assert [share.gpu_hours for share in made.shares] == [40]
    # the next proposal divides the same frozen inputs
    again = period_opening.propose(site.session, site.one, period, policy=POLICY, key=KEY, now=NOW + DAY)
    assert [share.gpu_hours for share in again.shares] == [40]


def test_operators_are_reminded_of_each_step_once(site: Site) -> None:
    opened(site)
    period = only_period(site)

    def remind(days: int) -> int:
        return period_opening.remind_due(site.session, policy=POLICY, now=DECEMBER[0] - days * DAY)

    rules = POLICY.periods
    assert remind(rules.proposal_days + 1) == 0
    assert [remind(rules.proposal_days), remind(rules.proposal_days - 1)] == [1, 0]
    assert len(letters(site, "period_proposal_due")) == 2
    proposal = periods.propose(site.session, site.one, period, now=DECEMBER[0] - 9 * DAY)
    assert remind(rules.publication_days + 1) == 0
    assert [remind(rules.publication_days), remind(1)] == [1, 0]
    assert len(letters(site, "period_publication_due")) == 2
    publication.publish(
        site.session, site.other, proposal, expected_version=period.version, now=DECEMBER[0] - DAY
    )
    assert remind(0) == 0
    told = site.session.scalars(select(Event).where(Event.kind == "period.reminded").order_by(Event.seq))
    assert [event.after["due"] for event in told] == ["proposal", "publication"]


def test_who_was_late_hears_of_the_later_step_only(site: Site) -> None:
    site.open()
    assert period_opening.remind_due(site.session, policy=POLICY, now=DECEMBER[0] - DAY) == 1
    assert letters(site, "period_proposal_due") == []
    assert len(letters(site, "period_publication_due")) == 2
