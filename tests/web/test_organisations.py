"""Organisations: a founder becomes head, heads appoint, managers add members, strangers see nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import select

from allocator.actors import MembershipRole, Role
from allocator.models import Membership, Organisation, OutboxItem, Person
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of

BIN = "490140000012"
FORM = {"bin": BIN, "name": "Til Labs", "region": "", "activity": ""}


@dataclass(frozen=True)
class House:
    """An organisation with one person of each kind around it."""

    path: str
    head: Person
    manager: Person
    member: Person
    stranger: Person

    def membership_path(self, site: Site, person: Person) -> str:
        with site.database.reader() as session:
            number = session.scalar(select(Membership.id).where(Membership.person_id == person.id))
        return f"{self.path}/members/{number}"


@pytest.fixture
def house(site: Site) -> House:
    with site.data() as session:
        head, manager, member, stranger = (
            factories.person(session, email=f"{name}@example.kz", name=name.capitalize())
            for name in ("head", "manager", "member", "stranger")
        )
        belongs = {manager: MembershipRole.MANAGER, member: MembershipRole.MEMBER}
        row = factories.organisation(session, head=head, members=belongs)
        return House(f"/organisations/{row.id}", head, manager, member, stranger)


def roles(site: Site) -> dict[str, str]:
    with site.database.reader() as session:
        rows = session.execute(select(Person.name, Membership.role).join(Membership.person)).all()
        return {name: role.value for name, role in rows}


def test_the_founder_becomes_head(site: Site) -> None:
    with site.data() as session:
        founder = factories.person(session)
    browser = site.browser_of(founder)
    answer = submit(browser, "/organisations/new", FORM | {"bin": "4901 4000 0012", "region": "750000000"})
    assert answer.status_code == 303
    text = text_of(browser.get(answer.location))
    assert "Til Labs" in text
    assert BIN in text
    assert "Head" in text
    assert "Til Labs" in text_of(browser.get("/organisations"))


def test_a_known_bin_says_whom_to_ask(site: Site, house: House) -> None:
    with site.data() as session:
        factories.organisation(session, bin=BIN, name="Secret Ltd")
    answer = submit(site.browser_of(house.stranger), "/organisations/new", FORM)
    assert answer.status_code == 422
    assert "Ask its head to add you" in text_of(answer)
    assert "Secret" not in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("bin", "490140000013"), ("bin", "٤٩٠١٤٠٠٠٠٠١٢"), ("name", ""), ("region", "75"), ("activity", "abcde")],
)
def test_faults_are_shown(site: Site, house: House, field: str, value: str) -> None:
    answer = submit(site.browser_of(house.stranger), "/organisations/new", FORM | {field: value})
    assert answer.status_code == 422
    assert f'id="{field}-error"' in answer.text


@pytest.mark.parametrize("rest", ["", "/edit", "/members/new", "/members/1", "/members/1/remove"])
def test_strangers_find_nothing(site: Site, house: House, rest: str) -> None:
    stranger = site.browser_of(house.stranger)
    assert stranger.get(house.path + rest).status_code == 404
    assert stranger.get("/organisations/424242" + rest).status_code == 404
    assert site.visitor().get(house.path + rest).status_code == 303


def test_members_look_and_change_nothing(site: Site, house: House) -> None:
    browser = site.browser_of(house.member)
    page = browser.get(house.path)
    assert "Add a member" not in text_of(page)
    for rest in ("/edit", "/members/new"):
        assert browser.get(house.path + rest).status_code == 403
    path = house.membership_path(site, house.manager)
    assert submit(browser, house.path, {}, action=path + "/remove").status_code in (403, 404)
    assert len(roles(site)) == 3


def test_a_manager_adds_members_but_appoints_nobody(site: Site, house: House) -> None:
    browser, path = site.browser_of(house.manager), f"{house.path}/members/new"
    assert submit(browser, path, {"email": "stranger@example.kz", "role": "head"}).status_code == 403
    assert submit(browser, path, {"email": "Stranger@Example.kz", "role": "member"}).status_code == 303
    assert roles(site)["Stranger"] == "member"
    with site.database.reader() as session:
        assert session.scalars(select(OutboxItem.letter)).all() == ["membership_added"]
    head = house.membership_path(site, house.head)
    assert submit(browser, house.path, {}, action=head + "/remove").status_code == 403
    assert submit(browser, house.path, {"role": "member"}, action=head).status_code == 403


def test_only_people_with_an_account_can_be_added_once(site: Site, house: House) -> None:
    browser, path = site.browser_of(house.head), f"{house.path}/members/new"
    for email in ("nobody@example.kz", "member@example.kz", "no address"):
        answer = submit(browser, path, {"email": email, "role": "member"})
        assert answer.status_code == 422
        assert 'id="email-error"' in answer.text


def test_a_head_appoints_and_removes(site: Site, house: House) -> None:
    browser = site.browser_of(house.head)
    assert submit(browser, house.membership_path(site, house.member), {"role": "head"}).status_code == 303
    assert roles(site)["Member"] == "head"
    assert submit(browser, house.membership_path(site, house.manager) + "/remove", {}).status_code == 303
    assert "Manager" not in roles(site)


def test_the_last_head_must_stay(site: Site, house: House) -> None:
    browser, own = site.browser_of(house.head), house.membership_path(site, house.head)
    assert submit(browser, own, {"role": "member"}).status_code == 409
    answer = submit(browser, own + "/remove", {})
    assert answer.status_code == 409
    assert "needs a head" in text_of(answer)
    assert roles(site)["Head"] == "head"


def test_a_member_can_leave(site: Site, house: House) -> None:
    browser = site.browser_of(house.member)
    answer = submit(browser, house.membership_path(site, house.member) + "/remove", {})
    assert answer.location == "/organisations"
    assert browser.get(house.path).status_code == 404


def test_a_stale_page_says_what_changed(site: Site, house: House) -> None:
    one, other = site.browser_of(house.head), site.browser_of(house.manager)
    path = f"{house.path}/edit"
    old = hidden_fields(one.get(path))
    submit(other, path, {"name": "Newer", "region": "", "activity": ""})
    answer = one.post(path, data=old | {"name": "Mine", "region": "", "activity": ""})
    assert answer.status_code == 409
    assert "Manager changed this meanwhile." in text_of(answer)
    data = hidden_fields(answer) | {"name": "Mine", "region": "", "activity": ""}
    assert one.post(path, data=data).status_code == 303
    with site.database.reader() as session:
        assert session.scalars(select(Organisation.name)).all() == ["Mine"]


def test_staff_see_all_and_change_none(site: Site, house: House) -> None:
    with site.data() as session:
        operator = factories.person(session, roles=[Role.OPERATOR])
    browser = site.browser_of(operator)
    assert browser.get(house.path).status_code == 200
    assert "Dala Labs" in text_of(browser.get("/organisations?q=dala"))
    assert "No organisation fits" in text_of(browser.get("/organisations?q=%25"))
    assert browser.get(house.path + "/edit").status_code == 403
