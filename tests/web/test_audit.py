"""Auditors and administrators read the record of events; nobody else does."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from pathlib import Path

import pytest

from allocator import events
from allocator.accounts import administration
from allocator.actors import SYSTEM, Role
from allocator.models import Person
from allocator.states import (
    TRANSITIONS,
    ApplicationState,
    BookingState,
    MoveState,
    OutageState,
    PeriodState,
    ProposalState,
    QuotaState,
    ReclaimState,
    RepairState,
    ReservationState,
    WaitlistState,
)
from tests import factories
from tests.browsing import Site, text_of
from web import audit_words

NOW = factories.NOW


@pytest.fixture
def auditor(site: Site) -> Person:
    with site.data() as session:
        row = factories.person(session, name="Auditor", roles=[Role.AUDITOR])
        other = factories.person(session, name="Dana Omar")
        administration.grant_role(session, SYSTEM, other, Role.OPERATOR, now=NOW)
        actor = factories.actor_of(other)
        events.record(session, actor, other, "person.edited", now=NOW + timedelta(days=2), reason="=1+1")
        return row


SOURCE = Path(events.__file__).parent
RECORDED = re.compile(r'record\([^()]*?(?:\([^()]*\)[^()]*?)*?[ (]"([a-z_]+\.[a-z_]+)"')


def test_every_event_has_a_word() -> None:
    told = {kind for path in SOURCE.rglob("*.py") for kind in RECORDED.findall(path.read_text())}
    assert len(told) > 40
    named = {
        ApplicationState: "application",
        QuotaState: "quota",
        BookingState: "booking",
        ReservationState: "reservation",
        OutageState: "outage",
        RepairState: "repair",
        MoveState: "booking_move",
        WaitlistState: "waitlist_entry",
        PeriodState: "period",
        ProposalState: "proposal",
        ReclaimState: "reclaim",
    }
    assert named.keys() == TRANSITIONS.keys()
    for states, name in named.items():
        targets = {target for aims in TRANSITIONS[states].values() for target in aims}
        told |= {f"{name}.{target.value}" for target in targets}
    assert told - audit_words.WHAT.keys() == set()
    assert {kind.partition(".")[0] for kind in told} <= audit_words.SUBJECTS.keys()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


@pytest.mark.parametrize("role", [None, Role.OPERATOR, Role.COUNCIL_MEMBER])
def test_others_may_not_look(site: Site, auditor: Person, role: Role | None) -> None:
    with site.data() as session:
        other = factories.person(session, roles=[role] if role else [])
    browser = site.browser_of(other)
    for path in ("/audit", "/audit/events.csv", "/audit/person/1"):
        assert browser.get(path).status_code == 403
        assert site.visitor().get(path).status_code == 303


def test_lists_and_narrows(site: Site, auditor: Person) -> None:
    browser = site.browser_of(auditor)
    text = text_of(browser.get("/audit"))
    assert "person.role_granted" in text
    assert "Person: Was given a role" in text
    assert "role: operator" in text
    assert "=1+1" not in text_of(browser.get("/audit?kind=person.role_granted"))
    assert "=1+1" in text_of(browser.get("/audit?since=2026-11-25&subject_type=person"))
    assert "=1+1" not in text_of(browser.get("/audit?until=2026-11-24"))
    assert "No event fits" in text_of(browser.get("/audit?subject_type=quota"))


def test_an_auditors_first_page_has_the_latest_events(site: Site, auditor: Person) -> None:
    assert "Dana Omar Person: Changed" in text_of(site.browser_of(auditor).get("/"))
    with site.data() as session:
        operator = factories.person(session, roles=[Role.OPERATOR])
    assert "Latest events" not in text_of(site.browser_of(operator).get("/"))


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "until=9999-12-31",
        "subject_id=9999999999999999999999",
        "actor_id=NaN",
        "since=0001-01-01",
    ],
)
def test_says_what_it_could_not_read(site: Site, auditor: Person, query: str) -> None:
    answer = site.browser_of(auditor).get(f"/audit?{query}")
    assert answer.status_code == 200
    assert "is not a" in text_of(answer)


def test_exports_what_was_found_without_formulas(site: Site, auditor: Person) -> None:
    answer = site.browser_of(auditor).get("/audit/events.csv")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    found = rows(answer.text)
    assert [row["seq"] for row in found] == ["1", "2"]
    assert found[0]["actor"] == "Kezek"
    assert found[1]["reason"] == "'=1+1"
    assert found[1]["previous_hash"] == found[0]["hash"]
    assert len(rows(site.browser_of(auditor).get("/audit/events.csv?kind=person.edited").text)) == 1


def test_tells_one_subjects_story(site: Site, auditor: Person) -> None:
    browser = site.browser_of(auditor)
    assert "=1+1" in text_of(browser.get(f"/audit/person/{auditor.id + 1}"))
    assert browser.get("/audit/person/424242").status_code == 404
    assert browser.get("/audit/nonsense/1").status_code == 404
