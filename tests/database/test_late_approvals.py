"""Who is approved after a division is told what that means: the reserve, or the next period."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import letters
from allocator.applying import decisions
from allocator.applying.decisions import Verdict
from allocator.dividing import grants, late_approvals, periods
from allocator.models import Application, DecisionKind, Event, OutboxItem, Period, Quota
from allocator.states import ApplicationState
from config.i18n import LANGUAGES
from tests import factories
from tests.dividing import DECEMBER, KEY, POLICY, Site, make_site
from tests.factories import NOW

DAY = timedelta(days=1)
LATER = NOW + DAY


@pytest.fixture
def site(session: Session) -> Site:
    return make_site(session)


def application(site: Site, **given: object) -> Application:
    head = factories.person(site.session)
    organisation = factories.organisation(site.session, head=head)
    row = factories.application(
        site.session,
        head,
        site.cluster,
        organisation=organisation,
        category="startup",
        gpu_hours=100,
        earliest=DECEMBER[0],
        latest=DECEMBER[1] + 30 * DAY,
    )
    row.state = ApplicationState.SUBMITTED
    row.submitted_at = NOW
    site.session.flush()
    return row


def approve(site: Site, row: Application) -> Quota:
    verdict = Verdict(DecisionKind.APPROVED)
    decisions.decide(
        site.session, site.one, row, verdict, expected_version=row.version, policy=POLICY, now=LATER
    )
    return site.session.scalars(select(Quota).where(Quota.application_id == row.id)).one()


def told(site: Site, quota: Quota) -> list[str]:
    mine = OutboxItem.recipient_id == quota.application.applicant_id
    return list(site.session.scalars(select(OutboxItem.letter).where(mine).order_by(OutboxItem.id)))


def test_an_approval_after_publication_is_told_that_it_waits(site: Site) -> None:
    site.quota("science", 100)
    period = site.publish(site.propose())
    quota = approve(site, application(site))
    assert told(site, quota) == ["application_approved", "quota_waits"]
    item = site.session.scalars(select(OutboxItem).where(OutboxItem.letter == "quota_waits")).one()
    for lang in LANGUAGES:
        _, text = letters.render("quota_waits", lang, "Dana", item.details, "https://kezek.example")
        assert {"01.12.2026", "31.12.2026", "01.01.2027"} <= set(text.replace(",", " ").split()), text
    (event,) = site.session.scalars(select(Event).where(Event.kind == "quota.waits"))
    assert (event.subject_id, event.after) == (quota.id, {"period": period.name})
    assert [one.id for one in late_approvals.missed(site.session, quota, LATER)] == [period.id]


def test_served_from_the_reserve_it_is_told_that_and_waits_no_more(site: Site) -> None:
    site.quota("science", 100)
    period = site.publish(site.propose())
    quota = approve(site, application(site))
    grants.serve_from_reserve(site.session, site.one, period, quota, 40, "Approved late.", now=LATER)
    assert told(site, quota) == ["application_approved", "quota_waits", "grant_raised"]
    assert late_approvals.missed(site.session, quota, LATER) == []


def test_it_takes_part_in_the_next_division_by_itself(site: Site) -> None:
    site.quota("science", 100)
    site.publish(site.propose())
    quota = approve(site, application(site))
    opening = periods.Opening(site.cluster.id, "h200", DECEMBER[1], DECEMBER[1] + 31 * DAY)
    january = periods.open_period(site.session, site.one, opening, policy=POLICY, key=KEY, now=LATER)
    assert [(claim.quota_id, claim.request) for claim in january.claims if claim.quota_id == quota.id] == [
        (quota.id, 50)
    ]


def test_an_approval_between_proposal_and_publication_hears_of_it_at_publication(site: Site) -> None:
    site.quota("science", 100)
    proposal = site.propose()
    quota = approve(site, application(site))
    quota.created_at = LATER
    site.session.flush()
    assert told(site, quota) == ["application_approved"]
    site.publish(proposal)
    assert told(site, quota) == ["application_approved", "quota_waits"]
    # who was in the division got its own letter, and only that
    assert site.session.query(OutboxItem).filter(OutboxItem.letter == "quota_waits").count() == 1


def test_without_a_divided_period_nobody_waits(site: Site) -> None:
    site.quota("science", 100)
    site.propose()
    quota = approve(site, application(site))
    assert told(site, quota) == ["application_approved"]
    assert site.session.scalars(select(Period)).one().grants == []
    assert late_approvals.missed(site.session, quota, LATER) == []
