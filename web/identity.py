"""Who is asking: the seam between sign-in (web.account) and everything else in the web.

Everything that wants to know the person calls `current_actor()`. It never touches cookies or the database
itself: the sign-in module gives Flask-Login a user loader, and the user that it loads has `.actor` (the
domain's Actor), `.name` (as the header shows it) and `.language` (of the profile, or None).
"""

from __future__ import annotations

from flask import Flask, g, has_request_context
from flask_login import LoginManager, current_user

from allocator.actors import ANONYMOUS, Actor

login_manager = LoginManager()
login_manager.session_protection = None  # sessions live in the database, where they can be listed and ended


def current_actor() -> Actor:
    """The domain's actor of the signed-in person, or ANONYMOUS."""
    actor = getattr(current_user, "actor", ANONYMOUS) if signed_in() else ANONYMOUS
    return actor if isinstance(actor, Actor) else ANONYMOUS


def signed_in() -> bool:
    """Whether this request comes from a signed-in person."""
    if not has_request_context() or g.get("forget_person", False):
        return False
    return bool(getattr(current_user, "is_authenticated", False))


def forget_person() -> None:
    """Answer the rest of this request as to a visitor.

    The page about a broken database cannot ask it who is reading.
    """
    g.forget_person = True


def preferred_language() -> str | None:
    """The language that the signed-in person has set in their profile, if any."""
    return getattr(current_user, "language", None) if signed_in() else None


def person_name() -> str | None:
    """The name that the header shows, or None for a visitor."""
    return getattr(current_user, "name", None) if signed_in() else None


@login_manager.user_loader  # type: ignore[untyped-decorator,unused-ignore]
def _nobody(_user_id: str) -> None:
    """Until a sign-in module registers its own loader, everybody is a visitor."""


def init_app(app: Flask) -> None:
    """Attach Flask-Login, without its context processor.

    That one would ask the database even for error pages.
    """
    login_manager.init_app(app, add_context_processor=False)
    app.add_template_global(current_actor)
    app.add_template_global(person_name)
