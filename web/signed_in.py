"""The person behind a request: Flask-Login's user, loaded by the token of a session in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flask import g, request, session
from flask_login import UserMixin, current_user, login_user, logout_user

from allocator.accounts import people, sign_in_sessions
from allocator.actors import Actor
from allocator.errors import SignInRequired
from allocator.models import SignInSession
from config.clock import utcnow
from web.identity import login_manager, signed_in
from web.session import SAFE_METHODS, database, db, settings


@dataclass(frozen=True, eq=False)
class SignedIn(UserMixin):  # type: ignore[misc,unused-ignore]
    """Plain data, so that a rollback of the request's session cannot take it away."""

    token: str
    session_id: int
    person_id: int
    email: str
    name: str
    language: str
    actor: Actor

    def get_id(self) -> str:
        """What the browser's cookie carries: the token, not the number of the person."""
        return self.token


def idle_limit() -> timedelta:
    """How long a session may go unused."""
    return timedelta(minutes=settings().session_idle_minutes)


@login_manager.user_loader  # type: ignore[untyped-decorator,unused-ignore]
def load(token: str) -> SignedIn | None:
    """The person of a living session, or None."""
    now = utcnow()
    found = sign_in_sessions.resume(db(), token, idle=idle_limit(), now=now)
    if found is None:
        return None
    # The session's map of rows holds on weakly: kept here, a view that needs the person asks no second time.
    g.person = found.person
    user = _user(token, found)
    if sign_in_sessions.needs_touch(found, now=now):
        if request.method in SAFE_METHODS:
            # Reading ends without a commit, so this one write has its own transaction.
            with database().transaction() as own:
                sign_in_sessions.touch(own, user.session_id, now=now)
        else:
            sign_in_sessions.touch(db(), user.session_id, now=now)
    return user


def enter(token: str) -> None:
    """Sign the browser in with a fresh token; whatever its cookie held before is gone (fixation)."""
    session.clear()
    user = load(token)
    if user is None:
        raise SignInRequired()
    login_user(user)


def leave() -> None:
    """Forget the person in this browser; ending the session is the domain's."""
    logout_user()
    session.clear()


def me() -> SignedIn:
    """The signed-in person of this request. Raises SignInRequired."""
    if not signed_in():
        raise SignInRequired()
    user = current_user._get_current_object()
    assert isinstance(user, SignedIn)
    return user


def _user(token: str, found: SignInSession) -> SignedIn:
    person = found.person
    return SignedIn(
        token, found.id, person.id, person.email, person.name, person.locale, people.load_actor(db(), person)
    )
