"""Signing in: throttled in the database by account and address, with no lock held while hashing.

The caller's order: ``note_attempt``, ``find_account``, commit (the try counts in any case), ``prove``,
then ``open_session`` and commit. A success takes its own account's tries back.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from allocator import events
from allocator.accounts import passwords, tokens
from allocator.actors import Actor
from allocator.errors import Throttled
from allocator.inputs import email_key, one_line
from allocator.models import OneTimeToken, Person, SignInAttempt, SignInSession
from config.i18n import N_

WINDOW = timedelta(minutes=15)
MOST_PER_ACCOUNT = 10
MOST_PER_ADDRESS = 30
USER_AGENT_LENGTH = 200
# A /64 is one subscriber's: counting single IPv6 addresses would count nothing.
IPV6_PREFIX = 64
KEEP_ENDED = timedelta(days=90)


@dataclass(frozen=True)
class Account:
    """What proving a password needs, detached from the session that found it."""

    person_id: int
    password_hash: str
    is_confirmed: bool
    is_disabled: bool


@dataclass(frozen=True)
class Proof:
    """A password was right; ``renewed_hash`` is set when its hash should be replaced by a stronger one."""

    account: Account
    renewed_hash: str | None


def account_key(secret: str, email: str) -> str:
    """What failed tries of an address are counted under: hashed, as people type passwords here."""
    return hmac.new(secret.encode(), email_key(email).encode(), hashlib.sha256).hexdigest()


def network(address: str) -> str:
    """The address, or for IPv6 its /64; at most 45 characters."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)


def note_attempt(session: Session, email: str, *, secret: str, address: str, now: datetime) -> None:
    """Count a try before it is made, so that many at once count too. Raises Throttled."""
    account, source = account_key(secret, email), network(address)
    _check_limit(session, SignInAttempt.account == account, MOST_PER_ACCOUNT, now)
    _check_limit(session, SignInAttempt.address == source, MOST_PER_ADDRESS, now)
    session.add(SignInAttempt(account=account, address=source, at=now))
    session.flush()


def find_account(session: Session, email: str) -> Account | None:
    """The account of an address as plain data, or None."""
    person = session.scalar(select(Person).where(Person.email == email_key(email)))
    return _account(person) if person else None


def prove(account: Account | None, password: str) -> Proof | None:
    """Whether the password is right, None if not; takes as long for an unknown account. No database."""
    if not passwords.verify_password(account.password_hash if account else None, password):
        return None
    if account is None:
        return None
    renewed = passwords.needs_rehash(account.password_hash)
    return Proof(account, passwords.hash_password(password) if renewed else None)


def open_session(
    session: Session,
    proof: Proof,
    email: str,
    *,
    secret: str,
    address: str,
    user_agent: str,
    lifetime: timedelta,
    now: datetime,
) -> str:
    """Sign the person in; returns the token for the browser, of which only the hash is kept."""
    person_id = proof.account.person_id
    forgive(session, email, secret=secret)
    if proof.renewed_hash:
        # Not through the mapped object: nobody's open profile page should count as stale for this.
        session.execute(
            update(Person)
            .where(Person.id == person_id, Person.password_hash == proof.account.password_hash)
            .values(password_hash=proof.renewed_hash)
        )
    token = tokens.new_token()
    opened = SignInSession(
        token_hash=tokens.token_hash(token),
        person_id=person_id,
        created_at=now,
        last_seen_at=now,
        expires_at=now + lifetime,
        address=address[:45],
        user_agent=one_line(user_agent[: USER_AGENT_LENGTH * 2])[:USER_AGENT_LENGTH],
    )
    session.add(opened)
    session.flush()
    # Neither address nor browser: events stay for ever, sessions do not.
    events.record(session, Actor(person_id), opened, "sign_in_session.opened", now=now)
    return token


def forgive(session: Session, email: str, *, secret: str) -> None:
    """Take an account's failed tries back; those on other accounts from the same address still count."""
    session.execute(delete(SignInAttempt).where(SignInAttempt.account == account_key(secret, email)))


def forget_old(session: Session, *, now: datetime) -> int:
    """Delete what no longer serves: old tries, dead links, sessions long over. Returns the number of rows."""
    long_over = now - KEEP_ENDED
    return sum(
        session.execute(statement).rowcount  # type: ignore[attr-defined]
        for statement in (
            delete(SignInAttempt).where(SignInAttempt.at < now - WINDOW),
            delete(OneTimeToken).where(OneTimeToken.expires_at < now),
            delete(SignInSession).where(SignInSession.expires_at < long_over),
        )
    )


def _check_limit(session: Session, which: ColumnElement[bool], most: int, now: datetime) -> None:
    recent = select(SignInAttempt.at).where(which, SignInAttempt.at > now - WINDOW)
    # The try that made the window full: when it leaves, there is room again.
    at = session.scalar(recent.order_by(SignInAttempt.at.desc()).offset(most - 1).limit(1))
    if at is not None:
        seconds = max(1, int((at + WINDOW - now).total_seconds()))
        raise Throttled(
            N_("Too many tries. Wait %(minutes)s min or ask for a new password."),
            {"seconds": seconds, "minutes": -(-seconds // 60)},
        )


def _account(person: Person) -> Account:
    return Account(
        person_id=person.id,
        password_hash=person.password_hash,
        is_confirmed=person.email_confirmed_at is not None,
        is_disabled=person.disabled_at is not None,
    )
