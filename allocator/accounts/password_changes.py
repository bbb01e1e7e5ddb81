"""Changing a password one knows, and replacing a forgotten one through a mailed link."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from allocator import events, outbox
from allocator.accounts import people, sign_in, sign_in_sessions, tokens
from allocator.accounts.passwords import hash_password, password_faults
from allocator.actors import Actor
from allocator.authorization import Action
from allocator.errors import Fault, Invalid, NotFound
from allocator.models import Person, TokenPurpose
from config.i18n import N_
from config.settings import FORBIDDEN_LOGINS


def change_password(
    session: Session,
    actor: Actor,
    proof: sign_in.Proof | None,
    new_password: str,
    *,
    keep_session_id: int,
    now: datetime,
) -> None:
    """Set a new password; ``proof`` is of the present one. Every other session ends. Raises Invalid."""
    person = people.get(session, actor, actor.person_id or 0, Action.PERSON_EDIT)
    faults = password_faults(new_password, email=person.email, name=person.name)
    wrong = (
        [] if proof and proof.account.person_id == person.id else [Fault(N_("This is not your password."))]
    )
    if faults or wrong:
        found = {"current_password": wrong, "new_password": faults}
        raise Invalid({field: problems for field, problems in found.items() if problems})
    _set_password(session, actor, person, new_password, "person.password_changed", keep_session_id, now)


def request_reset(session: Session, email: str, *, lifetime: timedelta, now: datetime) -> None:
    """Send a link if the address has an open account; otherwise nothing, and nobody can tell."""
    person = people.find_by_email(session, email)
    if person is None or person.disabled_at is not None:
        return
    token = tokens.issue(session, person, TokenPurpose.RESET_PASSWORD, lifetime, now=now)
    minutes = int(lifetime.total_seconds() // 60)
    outbox.post(session, "reset_password", person.id, {"token": token, "minutes": minutes}, now=now)
    session.flush()
    events.record(session, Actor(person.id), person, "person.reset_requested", now=now)


def may_reset(session: Session, token: str, *, now: datetime) -> bool:
    """Whether a link still works; looking does not use it up (mail scanners look)."""
    return tokens.holder(session, token, TokenPurpose.RESET_PASSWORD, now=now) is not None


def reset_password(
    session: Session,
    token: str,
    new_password: str,
    *,
    secret: str,
    now: datetime,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
) -> Person:
    """Set a new password by link: confirms the address, ends every session, forgives failed tries.

    Raises Invalid, which leaves the link usable, and NotFound for a link that is unknown, used or too old.
    """
    person = tokens.holder(session, token, TokenPurpose.RESET_PASSWORD, now=now)
    if person is not None:
        faults = password_faults(new_password, email=person.email, name=person.name)
        if faults:
            raise Invalid({"new_password": faults})
        person = tokens.redeem(session, token, TokenPurpose.RESET_PASSWORD, now=now)
    if person is None:
        raise NotFound(N_("This link does not work any more. Ask for a new one."))
    tokens.revoke(session, person, TokenPurpose.CONFIRM_EMAIL, now=now)
    people.mark_confirmed(session, person, now=now, forbidden_logins=forbidden_logins)
    sign_in.forgive(session, person.email, secret=secret)
    _set_password(session, Actor(person.id), person, new_password, "person.password_reset", None, now)
    return person


def _set_password(
    session: Session,
    actor: Actor,
    person: Person,
    password: str,
    kind: str,
    keep_session_id: int | None,
    now: datetime,
) -> None:
    person.password_hash = hash_password(password)
    tokens.revoke(session, person, TokenPurpose.RESET_PASSWORD, now=now)
    ended = sign_in_sessions.end_all(session, person.id, keep_id=keep_session_id, now=now)
    # If it was somebody else, this letter is how the person learns of it.
    outbox.post(session, "password_changed", person.id, {}, now=now)
    events.record(session, actor, person, kind, now=now, after={"sessions_ended": ended})
