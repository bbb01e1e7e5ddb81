"""A form that is sent twice is acted on once.

Every form made with `ui.form(...)` carries a random token. A view that changes something wears the guard:

    @bp.post("/applications")
    @once.guard
    def submit() -> ResponseReturnValue:
        form = ApplicationForm()
        if not form.validate_on_submit():
            return render_template("applications/new.html", form=form), 422
        application = applications.submit(db(), current_actor(), …, now=utcnow())
        return redirect(url_for("applications.show", id=application.id), 303)

The token is stored in the transaction of the change, together with the address that the view redirects to.
A repeat (an impatient second click, a reload after a lost answer) finds the token and is sent to the same
address, 303; the view is not called. Of two at the same moment the database lets one pass: the other waits
at the unique constraint (PostgreSQL) or at BEGIN IMMEDIATE (SQLite) and then goes where the first one went.
If the first one fails, its token is gone with it, and the other does the work. A form that comes back with
errors (anything but a redirect) keeps its token unused.

A POST without a token is let through: a script that leaves it out has asked for no protection.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import Flask, Response, current_app, redirect, request
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import BadRequest

from allocator.errors import Conflict
from allocator.models.records import SubmittedForm
from config.clock import utcnow
from config.i18n import N_
from web.identity import current_actor
from web.session import db

FIELD = "submission"
TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")  # 16 random bytes in base64url
P = ParamSpec("P")


def token() -> str:
    """A new token for one rendered form."""
    return secrets.token_urlsafe(16)


def guard(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """Let the view act once for each rendered form; see the module's text.

    Raises Conflict for somebody else's token.
    """

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        sent = request.form.get(FIELD)
        if sent is None:
            return view(*args, **kwargs)
        if not TOKEN.fullmatch(sent):
            raise BadRequest
        record = _claim(sent)
        if record is None:
            return _repeat(sent)
        response: Response = current_app.make_response(view(*args, **kwargs))
        if 300 <= response.status_code < 400 and response.location:
            record.location = response.location[:500]
        else:
            db().delete(record)
        return response

    return guarded


def _claim(sent: str) -> SubmittedForm | None:
    """Write the token down, or None when it stands there already (waiting for whoever is just writing it)."""
    session = db()
    record = SubmittedForm(
        token=sent, person_id=current_actor().person_id, path=request.path[:500], location="", at=utcnow()
    )
    session.add(record)
    try:
        session.flush()
    except IntegrityError:
        # A whole rollback, not a savepoint: only a new snapshot is sure to see what the winner has written.
        session.rollback()
        return None
    return record


def _repeat(sent: str) -> ResponseReturnValue:
    """Lead a repeat to the result of the first one."""
    first = db().scalar(select(SubmittedForm).where(SubmittedForm.token == sent))
    if first is None or first.path != request.path or first.person_id != current_actor().person_id:
        raise Conflict(N_("This form was already sent. Go back, reload the page and fill it in again."))
    return redirect(first.location or "/", 303)


def init_app(app: Flask) -> None:
    """Let the form macro write the hidden field."""
    app.add_template_global(token, "submission_token")
