"""Links sent by mail: random, used once, short-lived; the database holds only their hash."""

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from allocator.models import OneTimeToken, Person, TokenPurpose

TOKEN_BYTES = 32
# What a token may look like at most; longer text from an address bar is not even hashed.
MAX_TOKEN_LENGTH = 64


def new_token() -> str:
    """256 random bits in base64url."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> str:
    """The stored form; the token is random, so a plain SHA-256 is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue(
    session: Session, person: Person, purpose: TokenPurpose, lifetime: timedelta, *, now: datetime
) -> str:
    """A new token for a person; earlier ones for the same purpose stop working."""
    session.flush()
    revoke(session, person, purpose, now=now)
    token = new_token()
    session.add(
        OneTimeToken(
            token_hash=token_hash(token), person_id=person.id, purpose=purpose, expires_at=now + lifetime
        )
    )
    return token


def revoke(session: Session, person: Person, purpose: TokenPurpose, *, now: datetime) -> None:
    """Use up what a person still holds for a purpose."""
    session.execute(
        update(OneTimeToken)
        .where(
            OneTimeToken.person_id == person.id,
            OneTimeToken.purpose == purpose,
            OneTimeToken.used_at.is_(None),
        )
        .values(used_at=now)
    )


def holder(session: Session, token: str, purpose: TokenPurpose, *, now: datetime) -> Person | None:
    """Whom a token that can still be used belongs to; looking does not use it up."""
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    return session.scalar(
        select(Person)
        .join(OneTimeToken, OneTimeToken.person_id == Person.id)
        .where(
            OneTimeToken.token_hash == token_hash(token),
            OneTimeToken.purpose == purpose,
            OneTimeToken.used_at.is_(None),
            OneTimeToken.expires_at > now,
            Person.disabled_at.is_(None),
        )
    )


def redeem(session: Session, token: str, purpose: TokenPurpose, *, now: datetime) -> Person | None:
    """Use a token up: its person the first time, None ever after (of two at once, one gets None)."""
    person = holder(session, token, purpose, now=now)
    if person is None:
        return None
    used = session.execute(
        update(OneTimeToken)
        .where(OneTimeToken.token_hash == token_hash(token), OneTimeToken.used_at.is_(None))
        .values(used_at=now)
    )
    return person if used.rowcount == 1 else None  # type: ignore[attr-defined]
