"""The operator's pages: the queue, one application, the decision and its confirmation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from werkzeug.test import TestResponse

from allocator.actors import Role
from allocator.models import Application, Cluster, Decision, DecisionKind, OutboxItem, Person, Quota
from allocator.states import ApplicationState
from config.clock import utcnow
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of

COUNTER = Callable[[Engine], AbstractContextManager[list[str]]]
REFUSE = {"kind": "refused", "reason": "The data is not described."}


@dataclass(frozen=True)
class Office:
    """Staff, an applicant and an application that waits."""

    operator: Person
    second: Person
    applicant: Person
    path: str
    readers: list[Person] = field(default_factory=list)

    @property
    def decide(self) -> str:
        return f"{self.path}/decide"


@pytest.fixture
def office(site: Site) -> Office:
    now = utcnow()
    with site.data() as session:
        applicant = factories.person(session, name="Dana Applicant")
        row = factories.application(
            session,
            applicant,
            factories.cluster(session),
            organisation=factories.organisation(session, name="Northern University", head=applicant),
            state=ApplicationState.SUBMITTED,
            earliest=now + timedelta(days=7),
            latest=now + timedelta(days=67),
            team=["new@example.kz"],
            now=now,
        )
        return Office(
            factories.person(session, name="Oraz Operator", roles=[Role.OPERATOR]),
            factories.person(session, name="Saule Second", roles=[Role.OPERATOR]),
            applicant,
            f"/review/{row.id}",
            [factories.person(session, roles=[role]) for role in (Role.COUNCIL_MEMBER, Role.AUDITOR)],
        )


def form_of(browser: FlaskClient, office: Office) -> dict[str, str]:
    """The tokens of the decision form and the login that it proposes."""
    login = {f"login_{office.applicant.id}": "dana"}
    return hidden_fields(browser.get(office.path)) | login


def confirm(browser: FlaskClient, office: Office, preview: TestResponse) -> TestResponse:
    return browser.post(office.decide, data=hidden_fields(preview) | {"confirmed": "yes"})


def decided(site: Site) -> list[Decision]:
    with site.database.reader() as session:
        return list(session.scalars(select(Decision)))


def test_approving_shows_first_what_it_will_do_and_then_does_it(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    page = text_of(browser.get(office.path))
    for told in (
        "Northern University",
        "Dana Applicant",
        "new@example.kz",
        "4 of 4 nodes are up",
        "There was none",
    ):
        assert told in page
    preview = browser.post(office.decide, data=form_of(browser, office) | {"kind": "approved"})
    assert preview.status_code == 200
    text = text_of(preview)
    for told in ("cannot be taken back", "Dana Applicant (dana)", "new@example.kz", "1 600"):
        assert told in text
    assert decided(site) == []
    done = confirm(browser, office, preview)
    assert done.status_code == 303
    assert "Decided by Oraz Operator" in text_of(browser.get(done.location))
    with site.database.reader() as session:
        quota = session.scalars(select(Quota)).one()
        assert quota.gpu_seconds == 1600 * 3600
        assert session.get_one(Person, office.applicant.id).cluster_login == "dana"
    mine = text_of(site.browser_of(office.applicant).get(office.path.replace("review", "applications")))
    assert "You have a quota of 1 600 GPU-hours" in mine


def test_a_refusal_reaches_the_applicant_with_its_reason(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    confirm(browser, office, browser.post(office.decide, data=form_of(browser, office) | REFUSE))
    mine = text_of(site.browser_of(office.applicant).get(office.path.replace("review", "applications")))
    assert "The data is not described." in mine
    assert "Apply again with these answers" in mine


def test_reducing_with_other_dates(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    first = (utcnow() + timedelta(days=9)).date().isoformat()
    last = (utcnow() + timedelta(days=20)).date().isoformat()
    answers = {
        "kind": "reduced",
        "gpu_hours": "712,25",
        "reason": "Line one.\r\nLine “two”.",
        "valid_from": first,
        "valid_until": last,
    }
    preview = browser.post(office.decide, data=form_of(browser, office) | answers)
    assert confirm(browser, office, preview).status_code == 303
    [decision] = decided(site)
    assert (decision.kind, decision.gpu_seconds) == (DecisionKind.REDUCED, 712 * 3600 + 900)
    assert decision.reason == "Line one.\nLine “two”."
    with site.database.reader() as session:
        quota = session.scalars(select(Quota)).one()
        assert (quota.valid_until - quota.valid_from) == timedelta(days=12)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "Choose one"),
        ({"kind": "blessed"}, "Choose one"),
        ({"kind": "refused"}, "Give the reason"),
        ({"kind": "refused", "reason": "ю" * 2001}, "Shorten this"),
        ({"kind": "reduced", "reason": "Less.", "gpu_hours": ""}, "how many GPU-hours"),
        ({"kind": "reduced", "reason": "Less.", "gpu_hours": "1600"}, "less than the 1 600"),
        ({"kind": "reduced", "reason": "Less.", "gpu_hours": "-5"}, "less than the 1 600"),
        ({"kind": "reduced", "reason": "Less.", "gpu_hours": "NaN"}, "Enter a number"),
        ({"kind": "approved", "valid_until": "2020-01-01"}, "before the earliest"),
        ({"kind": "approved", "valid_until": "2900-01-01"}, "within the next"),
        ({"kind": "approved", "valid_until": "soon"}, "Enter a day"),
    ],
)
def test_a_wrong_decision_is_told_and_nothing_is_lost(
    site: Site, office: Office, answers: dict[str, str], message: str
) -> None:
    browser = site.browser_of(office.operator)
    answer = browser.post(office.decide, data=form_of(browser, office) | answers)
    assert answer.status_code == 422
    assert message in text_of(answer)
    assert answers.get("reason", "") in answer.text
    assert decided(site) == []


def test_a_forbidden_login_is_told(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    data = form_of(browser, office) | {"kind": "approved", f"login_{office.applicant.id}": "root"}
    answer = browser.post(office.decide, data=data)
    assert answer.status_code == 422
    assert "belongs to the system" in text_of(answer)


def test_going_back_from_the_confirmation_keeps_everything(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    preview = browser.post(office.decide, data=form_of(browser, office) | REFUSE)
    back = browser.post(office.decide, data=hidden_fields(preview) | {"change": "yes"})
    assert back.status_code == 200
    assert "The data is not described." in back.text
    assert decided(site) == []


def test_a_second_operator_is_told_who_decided_and_keeps_what_was_typed(site: Site, office: Office) -> None:
    first, second = site.browser_of(office.operator), site.browser_of(office.second)
    theirs = second.post(
        office.decide, data=form_of(second, office) | {"kind": "approved", "reason": "Good."}
    )
    confirm(first, office, first.post(office.decide, data=form_of(first, office) | REFUSE))
    late = confirm(second, office, theirs)
    assert late.status_code == 409
    text = text_of(late)
    assert "changed after you opened the page" in text
    assert "Oraz Operator" in text
    assert "Good." in text
    assert len(decided(site)) == 1


def test_a_repeated_confirmation_decides_once(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    preview = browser.post(office.decide, data=form_of(browser, office) | REFUSE)
    assert [confirm(browser, office, preview).status_code for _ in range(2)] == [303, 303]
    assert len(decided(site)) == 1
    with site.database.reader() as session:
        assert len(session.scalars(select(OutboxItem)).all()) == 1


def test_who_may_see_the_queue_and_who_may_decide(site: Site, office: Office) -> None:
    for reader in office.readers:
        browser = site.browser_of(reader)
        assert browser.get("/review").status_code == 200
        page = browser.get(office.path)
        assert "You can read this application but not decide" in text_of(page)
        assert browser.post(office.decide, data=hidden_fields(page) | REFUSE).status_code == 403
    applicant = site.browser_of(office.applicant)
    for path in ("/review", "/review/export.csv", office.path):
        assert applicant.get(path).status_code == 403
        assert site.visitor().get(path).status_code == 303
    with site.data() as session:
        stranger = factories.person(session)
    assert site.browser_of(stranger).get(office.path).status_code == 404
    tokens = hidden_fields(site.browser_of(stranger).get("/applications/new"))
    assert site.browser_of(stranger).post(office.decide, data=tokens | REFUSE).status_code in (400, 404)


def test_an_operator_cannot_decide_on_an_own_application(site: Site, office: Office) -> None:
    with site.data() as session:
        own = factories.application(
            session,
            session.get_one(Person, office.operator.id),
            session.scalars(select(Cluster)).one(),
            state=ApplicationState.SUBMITTED,
        )
    browser = site.browser_of(office.operator)
    page = browser.get(f"/review/{own.id}")
    assert "never on an application of their own" in text_of(page)
    answer = browser.post(f"/review/{own.id}/decide", data=hidden_fields(page) | REFUSE)
    assert answer.status_code == 403


def test_the_queue_is_filtered_and_what_is_shown_can_be_downloaded(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    assert "Northern University" in text_of(browser.get("/review?q=northern&category=science&cluster=alem"))
    assert "No application answers to this" in text_of(browser.get("/review?q=southern"))
    assert "No application answers to this" in text_of(browser.get("/review?state=refused"))
    # nonsense in the address is left out, not an error
    assert "Northern University" in text_of(browser.get("/review?state=x&category=x&page=-3&q=%00"))
    assert "Northern University" in browser.get("/review/export.csv?q=northern").text
    assert "Northern University" not in browser.get("/review/export.csv?q=southern").text


def test_the_queue_with_a_thousand_waiting_stays_within_its_budget(
    site: Site, office: Office, count_queries: COUNTER
) -> None:
    with site.data() as session:
        cluster = session.scalars(select(Cluster)).one()
        for _ in range(1000):
            applicant = session.get_one(Person, office.applicant.id)
            factories.application(session, applicant, cluster, state=ApplicationState.SUBMITTED)
    browser = site.browser_of(office.operator)
    with count_queries(site.database.engine) as statements:
        page = browser.get("/review?limit=100")
    assert "1 001" in text_of(page)
    assert len(statements) <= 12, statements
    with site.database.reader() as session:
        assert session.scalars(select(Application)).first() is not None


def test_the_stored_page_of_a_decision_names_the_version_of_the_policy(site: Site, office: Office) -> None:
    browser = site.browser_of(office.operator)
    confirm(browser, office, browser.post(office.decide, data=form_of(browser, office) | REFUSE))
    assert "2026-11-01-" in text_of(browser.get(office.path))
    assert submit(browser, office.path, REFUSE, action=office.decide).status_code in (400, 409)
