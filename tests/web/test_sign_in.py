"""Signing in and out, and what a person sees when it does not work."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from allocator.models import Person, SignInAttempt, SignInSession
from config.clock import utcnow
from tests import factories
from tests.browsing import Site, hidden_fields, sign_in, submit, text_of

PAGE = "/account/sign-in"


@pytest.fixture
def person(site: Site) -> Person:
    with site.data() as session:
        return factories.person(session, email="person@example.kz", name="Dana Omar")


def try_once(site: Site, email: str, password: str) -> tuple[int, str]:
    answer = submit(site.visitor(), PAGE, {"email": email, "password": password})
    return answer.status_code, text_of(answer)


def test_goes_on_to_the_page_that_asked_for_it(site: Site, person: Person) -> None:
    browser = site.visitor()
    answer = browser.get("/account/sessions?x=1")
    assert answer.status_code == 303
    assert answer.location.startswith("/account/sign-in?next=")
    answer = submit(browser, answer.location, {"email": "PERSON@example.kz", "password": factories.PASSWORD})
    assert (answer.status_code, answer.location) == (303, "/account/sessions?x=1")
    assert browser.get(PAGE).status_code == 303


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "\t//evil.example"],
)
def test_goes_nowhere_else(site: Site, person: Person, target: str) -> None:
    browser = site.visitor()
    page = browser.get(PAGE)
    data = hidden_fields(page) | {"email": person.email, "password": factories.PASSWORD}
    answer = browser.post(PAGE, query_string={"next": target}, data=data)
    assert (answer.status_code, answer.location) == (303, "/")


def test_wrong_password_and_unknown_account_look_the_same(site: Site, person: Person) -> None:
    wrong = try_once(site, person.email, "not the password")
    unknown = try_once(site, "nobody@example.kz", "not the password")
    assert wrong[0] == unknown[0] == 422
    assert "do not fit together" in wrong[1]
    assert wrong[1].replace(person.email, "") == unknown[1].replace("nobody@example.kz", "")


def test_failed_tries_are_kept_and_throttle_the_account(site: Site, person: Person) -> None:
    for _ in range(10):
        assert try_once(site, person.email, "not the password")[0] == 422
    browser = site.visitor()
    answer = submit(browser, PAGE, {"email": person.email, "password": factories.PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 900
    assert "Too many tries" in text_of(answer)
    with site.database.reader() as session:
        assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 10


def test_unconfirmed_is_offered_another_letter(site: Site) -> None:
    with site.data() as session:
        factories.person(session, email="new@example.kz", confirmed=False)
    status, text = try_once(site, "new@example.kz", factories.PASSWORD)
    assert status == 403
    assert "Send me another letter" in text
    # only who knows the password learns that the account waits
    assert "Send me another letter" not in try_once(site, "new@example.kz", "not the password")[1]


def test_closed_account_is_told(site: Site) -> None:
    with site.data() as session:
        factories.person(session, email="gone@example.kz", disabled=True)
    assert try_once(site, "gone@example.kz", factories.PASSWORD)[0] == 403


def test_signing_in_makes_a_new_cookie(site: Site, person: Person) -> None:
    browser = site.visitor()
    browser.get(PAGE)
    with browser.session_transaction() as cookie:
        cookie["planted"] = "yes"
    submit(browser, PAGE, {"email": person.email, "password": factories.PASSWORD})
    with browser.session_transaction() as cookie:
        assert "planted" not in cookie
        assert cookie["_user_id"] != str(person.id)


def test_signing_out_ends_the_session_itself(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    with browser.session_transaction() as cookie:
        stolen = cookie["_user_id"]
    assert submit(browser, "/account", {}, action="/account/sign-out").status_code == 303
    assert browser.get("/account").status_code == 303
    thief = site.visitor()
    with thief.session_transaction() as cookie:
        cookie["_user_id"] = stolen
    assert thief.get("/account").status_code == 303


def test_signing_out_wants_a_post_with_a_token(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    assert browser.get("/account/sign-out").status_code == 405
    assert browser.post("/account/sign-out").status_code == 400
    assert browser.get("/account").status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        {"last_seen_at": utcnow() - timedelta(minutes=61)},
        {"expires_at": utcnow() - timedelta(seconds=1)},
        {"ended_at": utcnow()},
    ],
)
def test_idle_old_and_ended_sessions_are_over(site: Site, person: Person, values: dict[str, object]) -> None:
    browser = site.visitor()
    number = sign_in(browser, person)
    assert browser.get("/account").status_code == 200
    with site.data() as session:
        session.execute(update(SignInSession).where(SignInSession.id == number).values(**values))
    assert browser.get("/account").status_code == 303


def test_a_page_keeps_the_session_alive_with_few_writes(site: Site, person: Person) -> None:
    browser = site.visitor()
    number = sign_in(browser, person)
    before = utcnow() - timedelta(minutes=30)
    with site.data() as session:
        session.execute(update(SignInSession).where(SignInSession.id == number).values(last_seen_at=before))
    browser.get("/account")
    with site.database.reader() as session:
        touched = session.get_one(SignInSession, number).last_seen_at
    assert touched > before + timedelta(minutes=29)
    browser.get("/account")
    with site.database.reader() as session:
        assert session.get_one(SignInSession, number).last_seen_at == touched


def test_closing_an_account_signs_it_out(site: Site, person: Person) -> None:
    browser = site.browser_of(person)
    with site.data() as session:
        session.get_one(Person, person.id).disabled_at = utcnow()
    assert browser.get("/account").status_code == 303
