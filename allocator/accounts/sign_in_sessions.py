"""Signed-in browsers: recognised by a token, over when idle or old, listed and ended by their person."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, select, update
from sqlalchemy.orm import Session, contains_eager

from allocator import events
from allocator.accounts.tokens import MAX_TOKEN_LENGTH, token_hash
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.errors import NotFound, SignInRequired
from allocator.models import Person, SignInSession

# `last_seen_at` is written at most this often: not every page viewed should cost a write.
TOUCH_EVERY = timedelta(minutes=1)


def resume(session: Session, token: str, *, idle: timedelta, now: datetime) -> SignInSession | None:
    """The living session of a token, with its person loaded, or None."""
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    return session.scalar(
        select(SignInSession)
        .join(SignInSession.person)
        .options(contains_eager(SignInSession.person))
        .where(
            SignInSession.token_hash == token_hash(token),
            _living(idle, now),
            Person.disabled_at.is_(None),
        )
    )


def needs_touch(current: SignInSession, *, now: datetime) -> bool:
    """Whether it is time to write down that the session is in use."""
    return now - current.last_seen_at >= TOUCH_EVERY


def touch(session: Session, session_id: int, *, now: datetime) -> None:
    """Write down that the session is in use; no event, nothing changes for anybody."""
    session.execute(update(SignInSession).where(SignInSession.id == session_id).values(last_seen_at=now))


def list_own(actor: Actor, *, idle: timedelta, now: datetime) -> Select[SignInSession]:
    """The actor's living sessions, the last used first."""
    if not actor.is_signed_in:
        raise SignInRequired()
    return (
        select(SignInSession)
        .where(SignInSession.person_id == actor.person_id, _living(idle, now))
        .order_by(SignInSession.last_seen_at.desc(), SignInSession.id.desc())
    )


def end(session: Session, actor: Actor, session_id: int, *, now: datetime) -> None:
    """End one of the actor's own sessions; NotFound for anybody else's. Ending it twice changes nothing."""
    found = session.get(SignInSession, session_id)
    if found is None:
        raise NotFound()
    require(actor, Action.SIGN_IN_SESSION_END, found)
    if found.ended_at is None:
        found.ended_at = now
        events.record(session, actor, found, "sign_in_session.ended", now=now)


def end_others(session: Session, actor: Actor, keep_id: int, *, now: datetime) -> int:
    """End all of the actor's sessions but one; returns how many."""
    if not actor.is_signed_in:
        raise SignInRequired()
    ended = end_all(session, actor.person_id or 0, keep_id=keep_id, now=now)
    if ended:
        person = session.get_one(Person, actor.person_id)
        events.record(
            session, actor, person, "person.sessions_ended", now=now, after={"sessions_ended": ended}
        )
    return ended


def end_all(session: Session, person_id: int, *, keep_id: int | None = None, now: datetime) -> int:
    """End a person's sessions without an event: the use case that gives cause records it."""
    which = [SignInSession.person_id == person_id, SignInSession.ended_at.is_(None)]
    if keep_id is not None:
        which.append(SignInSession.id != keep_id)
    result = session.execute(update(SignInSession).where(*which).values(ended_at=now))
    count: int = result.rowcount  # type: ignore[attr-defined]
    return count


def _living(idle: timedelta, now: datetime) -> ColumnElement[bool]:
    return and_(
        SignInSession.ended_at.is_(None),
        SignInSession.expires_at > now,
        SignInSession.last_seen_at > now - idle,
    )
