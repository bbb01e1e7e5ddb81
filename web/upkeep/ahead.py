"""Looking before leaping: the slow, reading part of a form's work, done before it takes the database.

On SQLite whoever writes stops everybody else who wants to, and a view that changes something holds that lock
from its first question on. What takes seconds to work out is worked out on a session that only reads:

    @bp.post("/outages")
    @ahead.looks(_survey)
    @once.guard
    def new(*, found: Found = ()) -> ResponseReturnValue:

`_survey(session, actor, …)` gets the view's own arguments and returns what the view is then given as
`found`. It asks for its rights like any view. Where the form has errors it returns nothing: the view, which
checks the form again, shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, cast

from flask import g, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from allocator.actors import Actor
from allocator.errors import Invalid
from allocator.upkeep.repairs import Finding
from config.clock import utcnow
from web.identity import current_actor
from web.session import database, db

Found = Sequence[Finding]
View = Callable[..., ResponseReturnValue]
Look = Callable[..., Found]


def moment() -> datetime:
    """One now for the look and the view, for what is lost from now on."""
    if "ahead_moment" not in g:
        g.ahead_moment = utcnow()
    return cast(datetime, g.ahead_moment)


def looks(look: Look) -> Callable[[View], View]:
    """Call `look` before a POST begins to write, and give the view what it found."""

    def wrap(view: View) -> View:
        @wraps(view)
        def looked(**arguments: Any) -> ResponseReturnValue:
            if request.method != "POST":
                return view(**arguments)
            return view(**arguments, found=_look(look, arguments))

        return looked

    return wrap


def _look(look: Callable[..., Found], arguments: dict[str, Any]) -> Found:
    actor: Actor = current_actor()
    # who is asking was read on the session that writes: it lets go until there is something to write
    db().rollback()
    session: Session
    with database().reader() as session:
        try:
            return look(session, actor, **arguments)
        except Invalid:
            return ()
