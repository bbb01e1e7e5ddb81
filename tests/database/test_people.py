"""Accounts, roles and organisations on both databases, also when two people act at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.accounts import administration, organisations, password_changes, people
from allocator.accounts.cluster_logins import suggest_cluster_login
from allocator.accounts.people import CLUSTER_LOGIN
from allocator.accounts.sign_in import Proof, find_account, prove
from allocator.actors import SYSTEM, Actor, MembershipRole, Role
from allocator.db import Database
from allocator.errors import Conflict, Forbidden, Invalid, NotFound, Stale
from allocator.models import Event, Membership, Organisation, OutboxItem, Person, RoleGrant
from tests import factories
from tests.factories import actor_of

NOW = factories.NOW
DAY = timedelta(days=1)


def register(session: Session, email: str = "a@example.kz", password: str = "four calm grey camels") -> None:
    people.register(
        session, email=email, name="Dana Omar", password=password, locale="ru", confirm_within=DAY, now=NOW
    )


def last_token(session: Session) -> str:
    item = session.scalars(select(OutboxItem).order_by(OutboxItem.id.desc())).first()
    assert item is not None
    return str(item.details["token"])


def together(database: Database, acts: list[Callable[[Session], object]]) -> list[Exception]:
    """Run each in its own thread and transaction, all at once; returns what went wrong."""
    barrier, problems = Barrier(len(acts)), list[Exception]()

    def run(act: Callable[[Session], object]) -> None:
        try:
            with database.writer() as session, session.begin():
                barrier.wait()
                act(session)
        except Exception as error:  # noqa: BLE001 - handed to the test, which says what it expects
            problems.append(error)

    threads = [Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


THIEFS, OWNERS = "the thief knows this one", "the owner knows this one"


def knows(session: Session, password: str) -> Proof | None:
    return prove(find_account(session, "a@example.kz"), password)


def test_registering_an_unconfirmed_address_again_only_sends_the_letter_again(session: Session) -> None:
    register(session, password=THIEFS)
    first = last_token(session)
    people.register(
        session,
        email="A@example.kz",
        name="Other Name",
        password=OWNERS,
        locale="kk",
        confirm_within=DAY,
        now=NOW,
    )
    person = session.scalars(select(Person)).one()
    assert (person.name, person.locale, person.email_confirmed_at) == ("Dana Omar", "ru", None)
    assert knows(session, THIEFS)
    assert not knows(session, OWNERS)
    assert session.scalars(select(OutboxItem.letter)).all() == ["confirm_email"] * 2
    assert session.scalars(select(Event.kind)).all() == ["person.registered"]
    with pytest.raises(NotFound):
        people.confirm(session, first, knows(session, THIEFS), now=NOW)


def test_a_link_confirms_only_with_the_password_and_survives_a_wrong_one(session: Session) -> None:
    register(session)
    token = last_token(session)
    other = factories.person(session)
    for proof in (knows(session, OWNERS), prove(find_account(session, other.email), factories.PASSWORD)):
        with pytest.raises(Invalid) as refused:
            people.confirm(session, token, proof, now=NOW)
        assert list(refused.value.fields) == ["password"]
    right = knows(session, "four calm grey camels")
    assert people.confirm(session, token, right, now=NOW).email_confirmed_at == NOW
    with pytest.raises(NotFound):
        people.confirm(session, token, right, now=NOW)


def test_the_owner_of_an_address_registered_by_another_gets_the_account_alone(session: Session) -> None:
    register(session, password=THIEFS)
    link = last_token(session)
    password_changes.request_reset(session, "a@example.kz", lifetime=DAY, now=NOW)
    person = password_changes.reset_password(session, last_token(session), OWNERS, secret="s", now=NOW)
    assert person.email_confirmed_at == NOW
    assert knows(session, OWNERS)
    assert not knows(session, THIEFS)
    with pytest.raises(NotFound):
        people.confirm(session, link, knows(session, OWNERS), now=NOW)


def test_a_confirmed_account_is_not_touched_by_registering_again(session: Session) -> None:
    person = factories.person(session, email="a@example.kz")
    before = person.password_hash
    register(session, email="A@example.kz")
    assert (person.password_hash, person.name) == (before, "Aigerim Sapar")
    assert session.scalars(select(OutboxItem.letter)).all() == ["already_registered"]


def test_registering_the_same_address_at_once_makes_one_account(database: Database) -> None:
    assert together(database, [register] * 3) == []
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(Person)) == 1
        assert events.verify(session) >= 1


def test_links_grow_old(session: Session) -> None:
    register(session)
    with pytest.raises(NotFound):
        people.confirm(session, last_token(session), knows(session, "four calm grey camels"), now=NOW + DAY)


def test_a_reset_confirms_the_address_and_works_once(session: Session) -> None:
    register(session)
    password_changes.request_reset(session, "a@example.kz", lifetime=DAY, now=NOW)
    token = last_token(session)
    with pytest.raises(Invalid):
        password_changes.reset_password(session, token, "short", secret="s", now=NOW)
    person = password_changes.reset_password(session, token, "five calm grey camels", secret="s", now=NOW)
    assert person.email_confirmed_at == NOW
    with pytest.raises(NotFound):
        password_changes.reset_password(session, token, "six calm grey camels", secret="s", now=NOW)


def test_personal_data_stays_out_of_events(session: Session) -> None:
    person = factories.person(session, name="Dana Omar")
    iin = factories.identity_number(7)
    people.edit_profile(
        session, Actor(person.id), name="Dana Omarova", iin=iin, phone="+77011234567", locale="en", now=NOW
    )
    event = session.scalars(select(Event)).one()
    assert event.after == {"fields": ["name", "iin", "phone"]}


def test_an_iin_belongs_to_one_account(session: Session) -> None:
    iin = factories.identity_number(7)
    factories.person(session, iin=iin)
    other = factories.person(session)
    with pytest.raises(Invalid) as refused:
        people.edit_profile(session, Actor(other.id), name="Dana", iin=iin, phone="", locale="en", now=NOW)
    assert list(refused.value.fields) == ["iin"]


def test_a_stale_profile_is_not_saved(session: Session) -> None:
    person = factories.person(session)
    old = person.version
    actor = Actor(person.id)
    people.edit_profile(session, actor, name="Dana Omar", iin="", phone="", locale="en", now=NOW)
    with pytest.raises(Stale):
        people.edit_profile(
            session, actor, name="Other", iin="", phone="", locale="en", expected_version=old, now=NOW
        )


def test_two_administrators_cannot_both_leave(database: Database) -> None:
    with database.transaction() as session:
        pair = [factories.person(session, roles=[Role.ADMINISTRATOR]).id for _ in range(2)]

    def leave(number: int) -> Callable[[Session], object]:
        def act(session: Session) -> None:
            person = session.get_one(Person, number)
            administration.revoke_role(session, actor_of(person), person, Role.ADMINISTRATOR, now=NOW)

        return act

    problems = together(database, [leave(number) for number in pair])
    assert [type(problem) for problem in problems] == [Conflict]
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(RoleGrant)) == 1


def test_two_administrators_cannot_close_each_other(database: Database) -> None:
    with database.transaction() as session:
        first, second = (factories.person(session, roles=[Role.ADMINISTRATOR]).id for _ in range(2))

    def close(who: int, whom: int) -> Callable[[Session], object]:
        def act(session: Session) -> None:
            actor = actor_of(session.get_one(Person, who))
            person = people.get(session, actor, whom)
            administration.disable(session, actor, person, "a quarrel", now=NOW)

        return act

    problems = together(database, [close(first, second), close(second, first)])
    assert [type(problem) for problem in problems] == [Conflict]
    with database.reader() as session:
        assert len(session.scalars(select(Person).where(Person.disabled_at.is_(None))).all()) == 1


def test_two_heads_cannot_both_leave(database: Database) -> None:
    with database.transaction() as session:
        pair = [factories.person(session) for _ in range(2)]
        house = factories.organisation(session, head=pair[0], members={pair[1]: MembershipRole.HEAD}).id
        rows = {
            membership.person_id: membership.id for membership in session.scalars(select(Membership)).all()
        }

    def leave(person: int, membership: int) -> Callable[[Session], object]:
        def act(session: Session) -> None:
            actor = Actor(person, organisations={house: MembershipRole.HEAD})
            organisations.remove_member(session, actor, house, membership, now=NOW)

        return act

    problems = together(database, [leave(*row) for row in rows.items()])
    assert [type(problem) for problem in problems] == [Conflict]
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(Membership)) == 1


def test_one_bin_one_organisation_also_at_once(database: Database) -> None:
    with database.transaction() as session:
        founders = [factories.person(session).id for _ in range(3)]

    def found(number: int) -> Callable[[Session], object]:
        return lambda session: organisations.create(
            session, Actor(number), bin="490140000012", name="Til Labs", now=NOW
        )

    problems = together(database, [found(number) for number in founders])
    assert [type(problem) for problem in problems] == [Invalid] * 2
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(Organisation)) == 1


@pytest.mark.parametrize(
    ("name", "login"),
    [
        ("Айгерім Сапарқызы", "asaparqyzy"),
        ("Dana Omar", "domar"),
        ("Ақжол Жұмабаев", "azhumabaev"),
        ("Müller", "muller"),
        ("李 小龍", None),
    ],
)
def test_suggested_logins_can_be_set(session: Session, name: str, login: str | None) -> None:
    person = factories.person(session, name=name)
    suggestion = suggest_cluster_login(session, person)
    assert CLUSTER_LOGIN.fullmatch(suggestion)
    if login:
        assert suggestion == login
    people.set_cluster_login(session, SYSTEM, person, suggestion, forbidden=(), now=NOW)
    double = factories.person(session, name=name)
    assert suggest_cluster_login(session, double) != suggestion


def test_auditors_and_the_person_do_not_set_logins(session: Session) -> None:
    person = factories.person(session)
    auditor = factories.person(session, roles=[Role.AUDITOR])
    for who, refusal in ((person, Forbidden), (auditor, NotFound)):
        with pytest.raises(refusal):
            people.set_cluster_login(session, actor_of(who), person, "dana", forbidden=(), now=NOW)
