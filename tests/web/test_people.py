"""The administrator's pages about people, and the operator's one page about logins on the cluster."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from allocator.actors import Role
from allocator.models import Event, Person
from tests import factories
from tests.browsing import Site, submit, text_of


@pytest.fixture
def admin(site: Site) -> Person:
    with site.data() as session:
        return factories.person(session, name="Admin Adminov", roles=[Role.ADMINISTRATOR])


@pytest.fixture
def person(site: Site) -> Person:
    with site.data() as session:
        return factories.person(session, email="dana@example.kz", name="Dana Omar")


def stored(site: Site, person: Person) -> Person:
    with site.database.reader() as session:
        return session.get_one(Person, person.id)


@pytest.mark.parametrize("role", [None, Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR])
def test_only_administrators_manage_people(site: Site, person: Person, role: Role | None) -> None:
    with site.data() as session:
        other = factories.person(session, roles=[role] if role else [])
    browser, one = site.browser_of(other), f"/people/{person.id}"
    assert browser.get("/people").status_code == 403
    for path in (one, f"{one}/disable", f"{one}/roles/operator/revoke", "/people/424242"):
        assert browser.get(path).status_code == 404
    for path in (f"{one}/roles", f"{one}/enable", f"{one}/disable"):
        answer = submit(browser, "/account", {"role": "operator", "reason": "so"}, action=path)
        assert answer.status_code == 404
    assert stored(site, person).roles == frozenset()
    expected = 200 if role is Role.OPERATOR else 404
    assert browser.get(f"{one}/cluster-login").status_code == expected


def test_finds_people(site: Site, admin: Person, person: Person) -> None:
    browser = site.browser_of(admin)
    assert "Dana Omar" in text_of(browser.get("/people?q=DANA"))
    assert "Dana Omar" not in text_of(browser.get("/people?q=admin&role=administrator"))
    assert "Nobody fits" in text_of(browser.get("/people?q=%25"))
    assert browser.get("/people?role=nonsense&sort=password_hash&page=-1&limit=x").status_code == 200


def test_gives_and_takes_a_role_on_record(site: Site, admin: Person, person: Person) -> None:
    browser, path = site.browser_of(admin), f"/people/{person.id}"
    assert submit(browser, path, {"role": "auditor"}, action=f"{path}/roles").status_code == 303
    assert stored(site, person).roles == {Role.AUDITOR}
    assert "Auditor" in text_of(browser.get(f"{path}/roles/auditor/revoke"))
    assert submit(browser, f"{path}/roles/auditor/revoke", {}).status_code == 303
    assert stored(site, person).roles == frozenset()
    assert submit(browser, path, {"role": "emperor"}, action=f"{path}/roles").status_code == 422
    assert browser.get(f"{path}/roles/emperor/revoke").status_code == 404
    with site.database.reader() as session:
        events = session.scalars(select(Event).order_by(Event.seq)).all()
    assert [(event.kind, event.actor_id) for event in events] == [
        ("person.role_granted", admin.id),
        ("person.role_revoked", admin.id),
    ]


def test_the_last_administrator_stays(site: Site, admin: Person) -> None:
    browser, path = site.browser_of(admin), f"/people/{admin.id}"
    answer = submit(browser, f"{path}/roles/administrator/revoke", {})
    assert answer.status_code == 409
    assert "last administrator" in text_of(answer)
    assert submit(browser, f"{path}/disable", {"reason": "I leave"}).status_code == 409
    assert browser.get("/people").status_code == 200


def test_closes_and_opens_an_account(site: Site, admin: Person, person: Person) -> None:
    browser, theirs, path = site.browser_of(admin), site.browser_of(person), f"/people/{person.id}"
    assert submit(browser, f"{path}/disable", {"reason": " "}).status_code == 422
    assert submit(browser, f"{path}/disable", {"reason": "Left the institute"}).status_code == 303
    assert theirs.get("/account").status_code == 303
    assert "closed" in text_of(browser.get(path))
    assert submit(browser, path, {}, action=f"{path}/enable").status_code == 303
    assert stored(site, person).disabled_at is None
    assert theirs.get("/account").status_code == 303  # sessions do not come back


def test_an_operator_sets_the_login_on_the_cluster(site: Site, person: Person) -> None:
    with site.data() as session:
        operator = factories.person(session, roles=[Role.OPERATOR])
    browser, path = site.browser_of(operator), f"/people/{person.id}/cluster-login"
    assert 'value="domar"' in browser.get(path).text
    for bad in ("root", "Dana", "1dana", "a" * 33, "dana;rm", "д", ""):
        assert submit(browser, path, {"cluster_login": bad}).status_code == 422, bad
    assert submit(browser, path, {"cluster_login": "dana_o"}).status_code == 303
    assert stored(site, person).cluster_login == "dana_o"


def test_a_login_belongs_to_one_person(site: Site, admin: Person, person: Person) -> None:
    with site.data() as session:
        factories.person(session, cluster_login="domar")
    browser, path = site.browser_of(admin), f"/people/{person.id}/cluster-login"
    assert 'value="domar2"' in browser.get(path).text
    assert submit(browser, path, {"cluster_login": "domar"}).status_code == 422


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 30, "-1", "x"])
def test_odd_numbers_are_not_found(site: Site, admin: Person, number: str) -> None:
    assert site.browser_of(admin).get(f"/people/{number}").status_code == 404
    assert site.browser_of(admin).get(f"/organisations/{number}").status_code == 404
