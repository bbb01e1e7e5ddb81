"""A person looks after the own account: profile, password, browsers."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from allocator.models import OutboxItem, Person, SignInSession
from tests import factories
from tests.browsing import Site, hidden_fields, sign_in, submit, text_of

NEW = "five calm grey camels"
PROFILE = {"name": "Dana Omar", "iin": "", "phone": "", "locale": "ru"}


@pytest.fixture
def person(site: Site) -> Person:
    with site.data() as session:
        return factories.person(session, email="person@example.kz", name="Dana Omar")


def stored(site: Site, person: Person) -> Person:
    with site.database.reader() as session:
        return session.get_one(Person, person.id)


@pytest.mark.parametrize("path", ["/account", "/account/password", "/account/sessions"])
def test_visitors_are_asked_to_sign_in(site: Site, path: str) -> None:
    answer = site.visitor().get(path)
    assert answer.status_code == 303
    assert answer.location == f"/account/sign-in?next={path}"


def test_edits_the_profile(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    iin = factories.identity_number(1)
    answer = submit(
        browser, "/account", PROFILE | {"iin": f"{iin[:6]} {iin[6:]}", "phone": "8 (701) 123-45-67"}
    )
    assert answer.status_code == 303
    row = stored(site, person)
    assert (row.iin, row.phone, row.locale) == (iin, "+77011234567", "ru")


def test_faults_stand_beside_the_fields_and_nothing_is_lost(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    answer = submit(browser, "/account", PROFILE | {"iin": "123456789012", "phone": "call me", "name": "x"})
    assert answer.status_code == 422
    text = text_of(answer)
    assert "This is not an IIN" in text
    assert "Enter a telephone number" in text
    assert 'value="call me"' in answer.text
    assert stored(site, person).name == "Dana Omar"


@pytest.mark.parametrize("name", ["A" * 1001, "A" * 121, "\u0000\u0007", "\u200b" * 50, "ﷺ" * 300])
def test_names_are_bounded(site: Site, person: Person, name: str) -> None:
    assert submit(site.browser_of(person), "/account", PROFILE | {"name": name}).status_code == 422


def test_a_login_on_the_cluster_is_not_the_persons_to_set(site: Site, person: Person) -> None:
    data = PROFILE | {
        "cluster_login": "root",
        "email": "other@example.kz",
        "id": "99",
        "roles": "administrator",
    }
    assert submit(site.browser_of(person), "/account", data).status_code == 303
    row = stored(site, person)
    assert (row.cluster_login, row.email, row.roles) == (None, "person@example.kz", frozenset())


def test_a_stale_page_says_what_changed_and_can_be_saved_then(site: Site, person: Person) -> None:
    one, other = site.browser_of(person), site.browser_of(person)
    old = hidden_fields(one.get("/account"))
    mine = PROFILE | {"locale": "en"}
    submit(other, "/account", mine | {"phone": "+77010000001"})
    answer = one.post("/account", data=old | mine | {"phone": "+77010000002"})
    assert answer.status_code == 409
    assert "Dana Omar changed this meanwhile." in text_of(answer)
    assert 'value="+77010000002"' in answer.text
    answer = one.post("/account", data=hidden_fields(answer) | PROFILE | {"phone": "+77010000002"})
    assert answer.status_code == 303
    assert stored(site, person).phone == "+77010000002"


def test_changes_the_password_and_signs_others_out(site: Site, person: Person) -> None:
    browser, other = site.browser_of(person), site.browser_of(person)
    answer = submit(
        browser, "/account/password", {"current_password": factories.PASSWORD, "new_password": NEW}
    )
    assert answer.location == "/account/sessions"
    assert browser.get("/account").status_code == 200
    assert other.get("/account").status_code == 303
    assert (
        submit(site.visitor(), "/account/sign-in", {"email": person.email, "password": NEW}).status_code
        == 303
    )


def test_a_wrong_present_password_is_counted(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    data = {"current_password": "not the password", "new_password": NEW}
    statuses = [submit(browser, "/account/password", data).status_code for _ in range(11)]
    assert statuses == [422] * 10 + [429]


def test_forgotten_password_by_letter(site: Site, person: Person) -> None:
    other, browser = site.browser_of(person), site.visitor()
    answers = [
        submit(browser, "/account/forgotten", {"email": email})
        for email in ("Person@example.kz", "nobody@example.kz")
    ]
    assert answers[0].location == answers[1].location
    with site.database.reader() as session:
        (letter,) = session.scalars(select(OutboxItem)).all()
    link = f"/account/reset/{letter.details['token']}"
    assert browser.get(link).status_code == 200
    assert submit(browser, link, {"new_password": "too short"}).status_code == 422
    assert submit(browser, link, {"new_password": NEW}).status_code == 303
    assert other.get("/account").status_code == 303
    assert browser.get(link).status_code == 404
    assert submit(browser, "/account/sign-in", {"email": person.email, "password": NEW}).status_code == 303


def test_a_link_that_nobody_sent(site: Site) -> None:
    for token in ("x", "x" * 500, "%00", "..%2f"):
        assert site.visitor().get(f"/account/reset/{token}").status_code == 404
        assert site.visitor().get(f"/account/confirm/{token}").status_code == 404


def test_lists_and_ends_own_sessions(site: Site, person: Person) -> None:
    browser, other = site.browser_of(person), site.visitor()
    number = sign_in(other, person)
    assert "this one" in text_of(browser.get("/account/sessions"))
    answer = submit(browser, "/account/sessions", {}, action=f"/account/sessions/{number}/end")
    assert answer.status_code == 303
    assert other.get("/account").status_code == 303
    assert browser.get("/account").status_code == 200


def test_ends_all_other_sessions(site: Site, person: Person) -> None:
    browser, others = site.browser_of(person), [site.browser_of(person) for _ in range(3)]
    submit(browser, "/account/sessions", {}, action="/account/sessions/end-others")
    assert [other.get("/account").status_code for other in others] == [303] * 3
    assert browser.get("/account").status_code == 200


def test_nobody_elses_session_can_be_ended(site: Site, person: Person) -> None:
    with site.data() as session:
        stranger = factories.person(session)
    theirs = site.visitor()
    number = sign_in(theirs, stranger)
    browser = site.browser_of(person)
    for path in (f"/account/sessions/{number}/end", "/account/sessions/999999/end"):
        assert submit(browser, "/account/sessions", {}, action=path).status_code == 404
    assert theirs.get("/account").status_code == 200


def test_a_strange_browser_name_is_shown_as_text(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    with site.data() as session:
        session.execute(update(SignInSession).values(user_agent="<script>alert(1)</script>"))
    assert "<script>alert(1)" not in browser.get("/account/sessions").text
