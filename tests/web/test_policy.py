"""The rules in plain words, and the merit band from the decision to the pages of the applicant."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from allocator.actors import Role
from allocator.models import Application, Decision, Organisation, Person
from allocator.policy import load_policy
from allocator.states import ApplicationState
from config.clock import utcnow
from tests import factories
from tests.browsing import Site, hidden_fields, text_of

POLICY = load_policy()


def test_everybody_reads_the_rules(site: Site) -> None:
    page = text_of(site.visitor().get("/policy"))
    for told in (
        POLICY.version,
        "the state pays 70 % for at most 24 months",
        "200 GPU-hours a year free, then at the tariff",
        "up to 5 000 GPU-hours, up to 16 GPUs at a time, up to 90 days",
        "an operator, after a technical check",
        "30 calendar days",
        "below 70 %",
        "Agriculture 01, 03 × 1,25",
        "Ordinary (the usual one)",
        "An offer is held for 10 minutes.",
        "It is not moved to an earlier start that is nearer than 1 day.",
        "The tariff has not been set yet",
        "Reserve 5 % 5 %",
        "One GPU-hour costs 1 400,00 ₸ before VAT of 16 %.",
        "487 200,00 ₸",  # 1,000 hours of a start-up: 420,000 and VAT
    ):
        assert told.replace(" ", "") in page.replace("\N{NO-BREAK SPACE}", " ").replace(" ", ""), told


@pytest.mark.parametrize(
    ("language", "told"), [("kk", "Басым сала бизнесі"), ("ru", "Бизнес приоритетной отрасли")]
)
def test_the_rules_are_in_the_readers_language(site: Site, language: str, told: str) -> None:
    browser = site.visitor()
    browser.get(f"/language/{language}")
    assert told in text_of(browser.get("/policy"))


def test_the_document_is_what_the_version_is_the_hash_of(site: Site) -> None:
    response = site.visitor().get("/policy.json")
    assert response.mimetype == "application/json"
    assert hashlib.sha256(response.data).hexdigest()[:12] == POLICY.version[-12:]
    assert json.loads(response.data)["effective"] == "2026-11-01"


def test_the_rules_are_linked_from_the_foot_and_the_help(site: Site) -> None:
    assert site.visitor().get("/help").text.count('href="/policy"') == 2


@pytest.fixture
def waiting(site: Site) -> tuple[Person, Person, int]:
    """An operator, an applicant whose company grows wheat, and their application."""
    now = utcnow()
    with site.data() as session:
        applicant = factories.person(session, cluster_login="dana")
        company: Organisation = factories.organisation(session, head=applicant)
        company.activity = "01111"
        row: Application = factories.application(
            session,
            applicant,
            factories.cluster(session),
            organisation=company,
            category="startup",
            state=ApplicationState.SUBMITTED,
            earliest=now + timedelta(days=7),
            latest=now + timedelta(days=67),
            now=now,
        )
        operator = factories.person(session, name="Oraz Operator", roles=[Role.OPERATOR])
        return operator, applicant, row.id


def test_a_band_goes_from_the_operator_to_the_applicants_pages(
    site: Site, waiting: tuple[Person, Person, int]
) -> None:
    operator, applicant, number = waiting
    browser = site.browser_of(operator)
    form = browser.get(f"/review/{number}")
    assert "Priority sector Agriculture, × 1,25" in text_of(form)
    answers = {
        "kind": "approved",
        "merit_band": "strong",
        "merit_reason": "Two papers\r\nfrom earlier hours.",
    }
    preview = browser.post(f"/review/{number}/decide", data=hidden_fields(form) | answers)
    assert "Merit band Strong, × 1,25: A clear plan" in text_of(preview)
    done = browser.post(f"/review/{number}/decide", data=hidden_fields(preview) | {"confirmed": "yes"})
    assert done.status_code == 303
    with site.database.reader() as session:
        decision = session.scalars(select(Decision)).one()
        assert (decision.merit_band, decision.merit_reason) == ("strong", "Two papers\nfrom earlier hours.")
    mine = site.browser_of(applicant)
    for path in (f"/applications/{number}", "/quotas/1"):
        page = text_of(mine.get(path))
        for told in ("Start-ups, 20 %", "Strong, × 1,25", "Two papers", "25/16, before a period’s credit"):
            assert told in page, (path, told)
    assert "Strong, × 1,25" in text_of(browser.get(f"/review/{number}"))


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"merit_band": "strong"}, "Give the reason for this band"),
        ({"merit_band": "strong", "merit_reason": "  "}, "Give the reason for this band"),
        ({"merit_band": "golden", "merit_reason": "A friend."}, "Choose one of the bands"),
    ],
)
def test_a_band_needs_to_be_one_and_to_have_a_reason(
    site: Site, waiting: tuple[Person, Person, int], answers: dict[str, str], told: str
) -> None:
    operator, _, number = waiting
    browser = site.browser_of(operator)
    data = hidden_fields(browser.get(f"/review/{number}")) | {"kind": "approved"} | answers
    response = browser.post(f"/review/{number}/decide", data=data)
    assert response.status_code == 422
    assert told in text_of(response)


def test_a_refusal_has_no_band(site: Site, waiting: tuple[Person, Person, int]) -> None:
    operator, applicant, number = waiting
    browser = site.browser_of(operator)
    answers = {"kind": "refused", "reason": "No data.", "merit_band": "strong"}
    preview = browser.post(
        f"/review/{number}/decide", data=hidden_fields(browser.get(f"/review/{number}")) | answers
    )
    assert preview.status_code == 200
    assert "Merit band" not in text_of(preview)
    browser.post(f"/review/{number}/decide", data=hidden_fields(preview) | {"confirmed": "yes"})
    assert "Merit band" not in text_of(site.browser_of(applicant).get(f"/applications/{number}"))
