"""An applicant's pages: from the empty form to what became of it, and who may see which of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from allocator.actors import Role
from allocator.models import Application, Cluster, Event, Organisation, Person
from allocator.states import ApplicationState
from config.clock import utcnow
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of

NEW = "/applications/new"
SOON, LATER = (utcnow().date() + timedelta(days=days) for days in (10, 60))


@dataclass(frozen=True)
class Lab:
    """A cluster, a university's head and people around it."""

    head: Person
    stranger: Person
    operator: Person
    organisation: Organisation

    def answers(self, **changes: str) -> dict[str, str]:
        """The form, filled in rightly."""
        return {
            "category": "science",
            "organisation": str(self.organisation.id),
            "title": "Speech of the villages",
            "purpose": "Train an acoustic model.",
            "hardware": "alem/h200",
            "nodes": "2",
            "gpus_per_node": "8",
            "gpu_hours": "1 600,5",
            "earliest": SOON.isoformat(),
            "latest": LATER.strftime("%d.%m.%Y"),
            "team": "Dana@example.kz\r\n",
        } | changes


@pytest.fixture
def lab(site: Site) -> Lab:
    with site.data() as session:
        factories.cluster(session)
        head = factories.person(session, name="Dana Head")
        return Lab(
            head,
            factories.person(session),
            factories.person(session, roles=[Role.OPERATOR]),
            factories.organisation(session, name="Northern University", head=head),
        )


def only_application(site: Site) -> Application:
    with site.database.reader() as session:
        return session.scalars(select(Application)).one()


def waiting(site: Site, lab: Lab, state: ApplicationState = ApplicationState.SUBMITTED) -> str:
    """The address of an application of the lab's head in that state."""
    with site.data() as session:
        cluster = session.scalars(select(Cluster)).one()
        now = utcnow()
        row = factories.application(
            session,
            session.get_one(Person, lab.head.id),
            cluster,
            organisation=session.get_one(Organisation, lab.organisation.id),
            state=state,
            earliest=now + timedelta(days=7),
            latest=now + timedelta(days=67),
            now=now,
        )
        return f"/applications/{row.id}"


def test_from_the_empty_list_to_a_submitted_application(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    assert "You have no applications yet" in text_of(browser.get("/applications"))
    saved = submit(browser, NEW, lab.answers())
    assert saved.status_code == 303, text_of(saved)
    assert saved.location.endswith("/check")
    check = text_of(browser.get(saved.location))
    for told in ("Northern University", "1 600,5", "dana@example.kz", "2 × 8 GPUs (H200)"):
        assert told in check
    sent = submit(browser, saved.location, {}, action=saved.location.replace("check", "submit"))
    page = text_of(browser.get(sent.location))
    assert "Being considered" in page
    assert "number 1 in the queue" in page
    assert "Dana Head" in page
    assert "Speech of the villages" in text_of(browser.get("/applications"))
    row = only_application(site)
    assert (row.gpu_seconds, row.state) == (1600 * 3600 + 1800, ApplicationState.SUBMITTED)
    # the window is whole days as the site's zone (UTC+5) has them
    assert (row.earliest.hour, row.latest.hour) == (19, 19)
    assert (row.latest - row.earliest).days == (LATER - SOON).days + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu_hours": "NaN"}, "Enter a number"),
        ({"gpu_hours": "1e400"}, "Enter a number"),
        ({"gpu_hours": "-5"}, "more than 0"),
        ({"gpu_hours": "0"}, "more than 0"),
        ({"gpu_hours": "0,001"}, "two decimals"),
        ({"gpu_hours": ""}, "Fill this in"),
        ({"nodes": "-5"}, "1 or more"),
        ({"nodes": "1.5"}, "whole number"),
        ({"nodes": "9" * 5000}, "whole number"),
        ({"nodes": "٣"}, "whole number"),
        ({"title": ""}, "Fill this in"),
        ({"title": "Ә" * 201}, "Shorten this"),
        ({"title": "a\x00b"}, "invisible control characters"),
        ({"purpose": "ю" * 20_001}, "too long"),
        ({"category": "nobility"}, "one of the categories"),
        ({"category": ""}, "Choose one"),
        ({"hardware": "mars/h200"}, "Choose a cluster"),
        ({"organisation": "999999"}, "organisation that you belong to"),
        ({"organisation": "1; DROP TABLE"}, "organisation that you belong to"),
        ({"organisation": "9" * 40}, "organisation that you belong to"),
        ({"earliest": "31.02.2027"}, "Enter a day"),
        ({"earliest": "0001-01-01"}, "Enter a day"),
        ({"latest": "9999-12-31"}, "Enter a day"),
        ({"latest": SOON.replace(year=SOON.year - 1).isoformat()}, "before the earliest"),
        ({"team": "nobody"}, "not an e-mail address"),
        ({"team": "a@example.kz, a@example.kz"}, "twice"),
    ],
)
def test_what_cannot_be_stored_is_told_and_nothing_is_lost(
    site: Site, lab: Lab, changes: dict[str, str], message: str
) -> None:
    browser = site.browser_of(lab.head)
    answer = submit(browser, NEW, lab.answers(**changes))
    assert answer.status_code == 422
    assert message in text_of(answer)
    assert "Train an acoustic model." in answer.text or "purpose" in changes
    with site.database.reader() as session:
        assert session.scalars(select(Application)).all() == []


def test_a_draft_with_open_questions_is_saved_and_told_beside_the_fields(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    saved = submit(browser, NEW, lab.answers(organisation="", purpose="", nodes="64", latest="2900-01-01"))
    assert saved.status_code == 303
    page = text_of(browser.get(saved.location))
    for told in (
        "Say what the hours are for",
        "applies for an organisation",
        "has 4 nodes",
        "within the next",
    ):
        assert told in page
    assert browser.get(saved.location.replace("edit", "check")).status_code == 303
    better = submit(browser, saved.location, lab.answers(), action=saved.location.partition("?")[0])
    assert better.location.endswith("/check")


def test_a_form_that_is_sent_twice_makes_one_draft(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    data = hidden_fields(browser.get(NEW)) | lab.answers()
    first, second = browser.post(NEW, data=data), browser.post(NEW, data=data)
    assert first.location == second.location
    assert only_application(site).title == "Speech of the villages"


def test_a_stale_page_says_what_changed_and_keeps_what_was_typed(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    edit = submit(browser, NEW, lab.answers()).location.replace("check", "edit")
    opened = hidden_fields(browser.get(edit))
    submit(browser, edit, lab.answers(nodes="3"))
    late = browser.post(edit, data=opened | lab.answers(title="My other title"))
    assert late.status_code == 409
    text = text_of(late)
    assert "changed after you opened the page" in text
    assert "Nodes at a time" in text
    assert "My other title" in late.text
    again = browser.post(edit, data=hidden_fields(late) | lab.answers(title="My other title"))
    assert again.status_code == 303
    assert only_application(site).title == "My other title"


def test_submitting_from_a_stale_check_page_submits_nothing(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    check = submit(browser, NEW, lab.answers()).location
    opened = hidden_fields(browser.get(check))
    submit(browser, check.replace("check", "edit"), lab.answers(nodes="3"))
    late = browser.post(check.replace("check", "submit"), data=opened)
    assert late.status_code == 409
    assert "Draft changed" in text_of(late)
    assert only_application(site).state is ApplicationState.DRAFT


def test_withdrawing_asks_first(site: Site, lab: Lab) -> None:
    path = waiting(site, lab)
    browser = site.browser_of(lab.head)
    assert "leaves the queue for good" in text_of(browser.get(f"{path}/withdraw"))
    assert only_application(site).state is ApplicationState.SUBMITTED
    done = submit(browser, f"{path}/withdraw", {})
    assert done.status_code == 303
    page = browser.get(done.location)
    assert "Withdrawn" in text_of(page)
    again = browser.get(f"{NEW}?from={path.rpartition('/')[2]}")
    assert "Speech recognition for village schools" in again.text
    assert submit(browser, f"{path}/withdraw", {}).status_code == 409


def test_answers_of_somebody_else_cannot_be_copied(site: Site, lab: Lab) -> None:
    path = waiting(site, lab)
    for person, status in ((lab.stranger, 404), (lab.operator, 403)):
        number = path.rpartition("/")[2]
        assert site.browser_of(person).get(f"{NEW}?from={number}").status_code == status
    assert site.browser_of(lab.head).get(f"{NEW}?from=x").status_code == 200


def statuses(browser: FlaskClient, path: str) -> dict[str, int]:
    """What each address of an application answers to this browser."""
    found = {name: browser.get(path + name).status_code for name in ("", "/edit", "/check", "/withdraw")}
    for name in ("/submit", "/withdraw", "/edit"):
        token = (
            hidden_fields(browser.get(NEW))
            if found[""] != 303
            else hidden_fields(browser.get("/account/sign-in"))
        )
        found[f"POST {name}"] = browser.post(path + name, data=token).status_code
    return found


def test_who_may_open_an_application_of_somebody_else(site: Site, lab: Lab) -> None:
    draft, sent = waiting(site, lab, ApplicationState.DRAFT), waiting(site, lab)
    nothing = dict.fromkeys(
        ("", "/edit", "/check", "/withdraw", "POST /submit", "POST /withdraw", "POST /edit")
    )
    for path in (draft, sent):
        assert statuses(site.browser_of(lab.stranger), path) == dict.fromkeys(nothing, 404)
        assert statuses(site.visitor(), path) == dict.fromkeys(nothing, 303)
    assert statuses(site.browser_of(lab.operator), draft) == dict.fromkeys(nothing, 404)
    assert statuses(site.browser_of(lab.operator), sent) == dict.fromkeys(nothing, 403) | {"": 200}
    for number in ("999999", "9" * 19, "9" * 40):
        assert site.browser_of(lab.head).get(f"/applications/{number}").status_code == 404
    assert site.visitor().get("/applications").status_code == 303


def test_the_list_can_be_downloaded_and_holds_no_formula(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    submit(browser, NEW, lab.answers(title='=HYPERLINK("http://evil")'))
    answer = browser.get("/applications/export.csv")
    assert answer.mimetype == "text/csv"
    assert "\"'=HYPERLINK(" in answer.text
    assert "1600.50" in answer.text


def test_a_revision_is_on_record(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    edit = submit(browser, NEW, lab.answers()).location.replace("check", "edit")
    submit(browser, edit, lab.answers(gpu_hours="100"))
    with site.database.reader() as session:
        event = session.scalars(select(Event).where(Event.kind == "application.revised")).one()
        assert (event.before["gpu_seconds"], event.after["gpu_seconds"]) == (1600 * 3600 + 1800, 360_000)


def test_faults_of_every_stage_are_told_in_one_round(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    wrong = lab.answers(title="", gpu_hours="many", purpose="", gpus_per_node="99")
    text = text_of(submit(browser, NEW, wrong))
    for fault in ("Fill this in", "Enter a number", "Say what the hours are for", "GPUs at most"):
        assert fault in text
    assert "Not saved yet" in text
    assert "are saved as a draft" not in text


def test_an_incomplete_draft_says_that_it_is_saved(site: Site, lab: Lab) -> None:
    browser = site.browser_of(lab.head)
    page = browser.get(submit(browser, NEW, lab.answers(purpose="")).location)
    assert "Your draft is saved. Before you submit it" in text_of(page)


def test_a_citizen_hears_that_an_organisation_does_not_fit(site: Site, lab: Lab) -> None:
    text = text_of(submit(site.browser_of(lab.head), NEW, lab.answers(category="citizen")))
    assert "A citizen applies without an organisation" in text
    assert "Add your IIN to your profile" in text
