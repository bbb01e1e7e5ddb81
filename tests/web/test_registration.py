"""A visitor opens an account: by page and letter, and learns nothing about anybody else's."""

from __future__ import annotations

from sqlalchemy import select

from allocator.models import OutboxItem, Person
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of

FORM = {
    "name": "Айгерім Сапар",
    "email": "Aigerim@Example.kz",
    "password": "four calm grey camels",
    "locale": "kk",
}


def letters(site: Site) -> list[OutboxItem]:
    with site.database.reader() as session:
        return list(session.scalars(select(OutboxItem).order_by(OutboxItem.id)))


def test_registers_confirms_with_a_button_and_signs_in(site: Site) -> None:
    browser = site.visitor()
    answer = submit(browser, "/account/register", FORM)
    assert (answer.status_code, answer.location) == (303, "/account/check-mail")
    assert "Open the link" in text_of(browser.get(answer.location))
    (letter,) = letters(site)
    assert letter.letter == "confirm_email"
    link = f"/account/confirm/{letter.details['token']}"

    for _ in range(3):  # a mail scanner looks, and the link still works
        assert browser.get(link).status_code == 200
    answer = submit(browser, link, {"password": "not the password"})
    assert answer.status_code == 422
    assert "This is not the password chosen at registration" in text_of(answer)
    assert 'href="/account/forgotten"' in answer.text
    answer = submit(browser, link, {"password": FORM["password"]})
    assert answer.location == "/account/sign-in"
    assert "Your address is confirmed" in text_of(browser.get(answer.location))

    answer = submit(browser, "/account/sign-in", {"email": FORM["email"], "password": FORM["password"]})
    assert (answer.status_code, answer.location) == (303, "/")
    assert FORM["name"] in text_of(browser.get("/account"))
    assert browser.get(link).status_code == 404
    assert browser.post(link, data={}).status_code in (400, 404)


def test_known_and_unknown_addresses_get_the_same_answer(site: Site) -> None:
    with site.data() as session:
        factories.person(session, email="known@example.kz")
    answers = [
        submit(site.visitor(), "/account/register", FORM | {"email": email})
        for email in ("known@example.kz", "unknown@example.kz")
    ]
    assert answers[0].status_code == answers[1].status_code == 303
    assert answers[0].location == answers[1].location
    assert answers[0].data == answers[1].data
    assert [letter.letter for letter in letters(site)] == ["already_registered", "confirm_email"]


def test_a_stranger_who_registered_an_address_first_gains_nothing(site: Site) -> None:
    stranger, owner = site.visitor(), site.visitor()
    theirs = FORM | {"password": "the stranger knows this", "name": "Somebody Else"}
    answers = [submit(stranger, "/account/register", theirs), submit(owner, "/account/register", FORM)]
    assert answers[0].location == answers[1].location
    assert answers[0].data == answers[1].data
    link = f"/account/confirm/{letters(site)[-1].details['token']}"
    assert submit(owner, link, {"password": FORM["password"]}).status_code == 422

    submit(owner, "/account/forgotten", {"email": FORM["email"]})
    reset = f"/account/reset/{letters(site)[-1].details['token']}"
    new = "five calm grey camels"
    assert submit(owner, reset, {"new_password": new}).status_code == 303
    assert owner.get(link).status_code == 404
    for browser, password, status in ((stranger, theirs["password"], 422), (owner, new, 303)):
        data = {"email": FORM["email"], "password": password}
        assert submit(browser, "/account/sign-in", data).status_code == status


def test_tries_at_the_password_of_a_link_are_counted_like_signing_in(site: Site) -> None:
    browser = site.visitor()
    submit(browser, "/account/register", FORM)
    link = f"/account/confirm/{letters(site)[0].details['token']}"
    answers = [submit(browser, link, {"password": "not the password"}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [422] * 10 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert "Too many tries" in text_of(answers[-1])
    assert submit(browser, link, {"password": FORM["password"]}).status_code == 429


def test_keeps_what_was_typed_and_names_every_fault(site: Site) -> None:
    answer = submit(
        site.visitor(),
        "/account/register",
        {"name": "Aigerim", "email": "not an address", "password": "short", "locale": "kk"},
    )
    assert answer.status_code == 422
    text = text_of(answer)
    assert "Enter an e-mail address" in text
    assert "at least 12 characters" in text
    assert 'value="Aigerim"' in answer.text
    assert 'value="not an address"' in answer.text
    assert "short" not in answer.text.replace("is-short", "")  # a password never comes back
    assert letters(site) == []


def test_a_repeated_post_registers_once(site: Site) -> None:
    browser = site.visitor()
    page = browser.get("/account/register")
    data = hidden_fields(page) | FORM
    first, second = browser.post("/account/register", data=data), browser.post("/account/register", data=data)
    assert first.location == second.location
    assert len(letters(site)) == 1
    with site.database.reader() as session:
        assert len(session.scalars(select(Person)).all()) == 1


def test_without_csrf_token_nothing_happens(site: Site) -> None:
    assert site.visitor().post("/account/register", data=FORM).status_code == 400
    assert letters(site) == []


def test_another_letter_replaces_the_first_link(site: Site) -> None:
    browser = site.visitor()
    submit(browser, "/account/register", FORM)
    submit(browser, "/account/confirm-again", {"email": FORM["email"].upper()})
    first, second = letters(site)
    assert browser.get(f"/account/confirm/{first.details['token']}").status_code == 404
    assert browser.get(f"/account/confirm/{second.details['token']}").status_code == 200


def test_one_letter_box_is_not_filled(site: Site) -> None:
    statuses = [
        submit(site.visitor(), "/account/forgotten", {"email": "victim@example.kz"}).status_code
        for _ in range(6)
    ]
    assert statuses == [303] * 5 + [429]
