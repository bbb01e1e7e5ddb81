"""Throttling, sessions and hashes on both databases."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Thread

import argon2
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator.accounts import sign_in, sign_in_sessions, tokens
from allocator.actors import Actor
from allocator.db import Database
from allocator.errors import NotFound, Throttled
from allocator.models import Event, OneTimeToken, Person, SignInAttempt, SignInSession, TokenPurpose
from tests import factories

NOW = factories.NOW
SECRET = "a secret for tests that is long enough"
IDLE = timedelta(hours=1)


def attempt(session: Session, email: str, address: str = "192.0.2.1", minutes: int = 0) -> None:
    now = NOW + timedelta(minutes=minutes)
    sign_in.note_attempt(session, email, secret=SECRET, address=address, now=now)


def enter(session: Session, person: Person, minutes: int = 0) -> str:
    account = sign_in.find_account(session, person.email)
    proof = sign_in.prove(account, factories.PASSWORD)
    assert proof is not None
    return sign_in.open_session(
        session,
        proof,
        person.email,
        secret=SECRET,
        address="192.0.2.1",
        user_agent="Browser\x00\n" * 100,
        lifetime=timedelta(hours=12),
        now=NOW + timedelta(minutes=minutes),
    )


def test_ten_tries_an_account_however_it_is_written(session: Session) -> None:
    for number in range(10):
        attempt(session, ["a@example.kz", " A@EXAMPLE.KZ"][number % 2], f"192.0.2.{number}", number)
    with pytest.raises(Throttled) as refused:
        attempt(session, "a@example.kz", "198.51.100.1", 10)
    assert refused.value.details["seconds"] == 5 * 60
    attempt(session, "b@example.kz", minutes=10)
    attempt(session, "a@example.kz", minutes=15)  # the first try has left the window


def test_thirty_tries_an_address_whatever_the_account(session: Session) -> None:
    for number in range(30):
        attempt(session, f"p{number}@example.kz")
    with pytest.raises(Throttled):
        attempt(session, "new@example.kz")
    attempt(session, "new@example.kz", "192.0.2.2")


def test_an_ipv6_subscriber_is_one_address(session: Session) -> None:
    for number in range(30):
        attempt(session, f"p{number}@example.kz", f"2001:db8:1:2::{number:x}")
    with pytest.raises(Throttled):
        attempt(session, "new@example.kz", "2001:db8:1:2:ffff::1")
    attempt(session, "new@example.kz", "2001:db8:1:3::1")
    assert sign_in.network("::ffff:192.0.2.1") == "192.0.2.1"
    assert sign_in.network("not an address") == "unknown"


def test_addresses_typed_in_are_not_stored(session: Session) -> None:
    attempt(session, "my password, typed into the wrong field")
    row = session.scalars(select(SignInAttempt)).one()
    assert "password" not in row.account
    assert len(row.account) == 64


def test_success_takes_own_tries_back_only(session: Session) -> None:
    person = factories.person(session, email="a@example.kz")
    for email in ("a@example.kz", "a@example.kz", "b@example.kz"):
        attempt(session, email)
    enter(session, person)
    assert session.scalar(select(func.count()).select_from(SignInAttempt)) == 1


def test_only_the_hash_of_a_token_is_stored(session: Session) -> None:
    person = factories.person(session)
    token = enter(session, person)
    row = session.scalars(select(SignInSession)).one()
    assert token not in (row.token_hash, row.user_agent)
    assert row.token_hash == tokens.token_hash(token)
    assert row.user_agent.startswith("Browser Browser")
    assert len(row.user_agent) <= 200
    event = session.scalars(select(Event)).one()
    assert (event.kind, event.actor_id, event.after) == ("sign_in_session.opened", person.id, {})


def test_a_weak_hash_is_renewed_without_making_pages_stale(session: Session) -> None:
    person = factories.person(session)
    person.password_hash = argon2.PasswordHasher(time_cost=1, memory_cost=1024).hash(factories.PASSWORD)
    session.flush()
    weak, version = person.password_hash, person.version
    enter(session, person)
    session.refresh(person)
    assert person.password_hash != weak
    assert person.version == version
    assert sign_in.prove(sign_in.find_account(session, person.email), factories.PASSWORD)


def test_sessions_end_by_idleness_age_and_command(session: Session) -> None:
    person = factories.person(session)
    token = enter(session, person)

    def alive(minutes: int) -> bool:
        now = NOW + timedelta(minutes=minutes)
        return sign_in_sessions.resume(session, token, idle=IDLE, now=now) is not None

    assert alive(59)
    assert not alive(60)
    row = session.scalars(select(SignInSession)).one()
    for hour in range(1, 12):
        sign_in_sessions.touch(session, row.id, now=NOW + timedelta(minutes=59 * hour))
    assert alive(690)
    assert not alive(720)
    sign_in_sessions.end(session, Actor(person.id), row.id, now=NOW)
    assert not alive(1)


def test_nobody_ends_a_strangers_session(session: Session) -> None:
    person, stranger = factories.person(session), factories.person(session)
    enter(session, person)
    row = session.scalars(select(SignInSession)).one()
    with pytest.raises(NotFound):
        sign_in_sessions.end(session, Actor(stranger.id), row.id, now=NOW)
    assert row.ended_at is None


def test_old_rows_are_forgotten(session: Session) -> None:
    person = factories.person(session)
    attempt(session, "a@example.kz")
    enter(session, person)
    tokens.issue(session, person, TokenPurpose.RESET_PASSWORD, timedelta(hours=1), now=NOW)
    assert sign_in.forget_old(session, now=NOW) == 0
    assert sign_in.forget_old(session, now=NOW + timedelta(days=91)) == 3


def test_a_link_used_twice_at_once_works_once(database: Database) -> None:
    with database.transaction() as session:
        person = factories.person(session, confirmed=False)
        token = tokens.issue(session, person, TokenPurpose.CONFIRM_EMAIL, timedelta(hours=1), now=NOW)
    barrier, found = Barrier(4), list[bool]()

    def use() -> None:
        barrier.wait()
        with database.transaction() as session:
            found.append(tokens.redeem(session, token, TokenPurpose.CONFIRM_EMAIL, now=NOW) is not None)

    threads = [Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, False, True]
    with database.reader() as session:
        assert session.scalars(select(OneTimeToken)).one().used_at == NOW
