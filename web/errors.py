"""The one place that makes HTTP of what went wrong.

A page in the reader's language, or JSON for a machine.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from flask import (
    Flask,
    Response,
    current_app,
    g,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.exceptions import HTTPException, InternalServerError

from allocator.errors import Fault, Invalid, SignInRequired
from config.errors import KezekError
from config.i18n import N_
from web.formats import in_words, number
from web.identity import forget_person


class Explanation(NamedTuple):
    """What a page about an error says: code for machines, heading, and what the reader can do."""

    code: str
    title: str
    advice: str


EXPLANATIONS = {
    400: Explanation(
        "bad_request", N_("We could not read this request"), N_("Go back, reload the page and try again.")
    ),
    401: Explanation(
        "sign_in_required", N_("Please sign in"), N_("This page is for people who have signed in.")
    ),
    403: Explanation(
        "forbidden", N_("You may not do this"), N_("If you think that you should, write to the operator.")
    ),
    404: Explanation(
        "not_found", N_("Page not found"), N_("Check the address, or start again from the first page.")
    ),
    405: Explanation(
        "method_not_allowed", N_("This page works differently"), N_("Open it from the page that leads to it.")
    ),
    409: Explanation(
        "conflict", N_("This cannot be done now"), N_("Go back, reload the page and see what has changed.")
    ),
    413: Explanation(
        "too_large", N_("This is too much at once"), N_("One request may carry at most 1 MB. Send less.")
    ),
    415: Explanation(
        "unsupported_type", N_("We cannot read this kind of content"), N_("Use the form of the page.")
    ),
    422: Explanation("invalid", N_("Something needs correcting"), N_("Go back and check what you entered.")),
    429: Explanation("throttled", N_("Too many tries"), N_("Wait a little and try again.")),
    500: Explanation(
        "fault", N_("Something broke on our side"), N_("Nothing was changed. Try again in a few minutes.")
    ),
    503: Explanation(
        "unavailable", N_("The service is busy"), N_("Nothing was changed. Try again in a minute.")
    ),
}
CSRF = Explanation(
    "form_expired",
    N_("This form has expired"),
    N_("You may have signed in or out in another window. Go back, reload the page and send the form again."),
)
MEANWHILE = Explanation(
    "stale",
    N_("Somebody changed this meanwhile"),
    N_("Nothing was saved. Go back: what you entered is still there. Send it again to see what changed."),
)
RETRY_SECONDS = 30


def translated(problem: KezekError | Fault) -> str:
    """What the domain says, in the reader's language, its placeholders filled."""
    text = str(gettext(problem.message))
    details = in_words(problem.details)
    values = {name: number(value) if type(value) is int else value for name, value in details.items()}
    return text % values if values else text


def wants_json() -> bool:
    """Whether the answer is read by a machine: under /api/, or asked for in so many words."""
    if request.path.startswith("/api/"):
        return True
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def answer(
    status: int,
    message: str | None = None,
    details: dict[str, object] | None = None,
    explanation: Explanation | None = None,
) -> Response:
    """The page or the JSON for one status. `message` is for people and already translated."""
    about = explanation or EXPLANATIONS.get(status) or EXPLANATIONS[400 if status < 500 else 500]
    message = message or gettext(about.advice)
    if wants_json():
        body = {"code": about.code, "message": message, "details": details or {}}
        response = jsonify(error=body | ({"reference": g.reference} if "reference" in g else {}))
    else:
        page = render_template(
            "errors/error.html", status=status, about=about, message=message, reference=g.get("reference")
        )
        response = make_response(page)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def on_kezek_error(error: KezekError) -> Response:
    """An error of our own tree: its class says which status it is."""
    if (
        isinstance(error, SignInRequired)
        and not wants_json()
        and "account.sign_in" in current_app.view_functions
    ):
        # Only a page that was asked for can be come back to; a POST would lose its form anyway.
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        return make_response(redirect(url_for("account.sign_in", next=back), 303))
    status = int(getattr(error, "http_status", 500))
    known = EXPLANATIONS.get(status, EXPLANATIONS[409])
    details = dict(error.details)
    if isinstance(error, Invalid):
        details["fields"] = {
            name: [translated(fault) for fault in faults] for name, faults in error.fields.items()
        }
    response = answer(status, translated(error), _plain(details), known._replace(code=error.code))
    if status == 429 and "seconds" in error.details:
        response.headers["Retry-After"] = str(error.details["seconds"])
    return response


def _plain(details: dict[str, object]) -> dict[str, object]:
    """Details as JSON can carry them; a moment or a Decimal becomes its text."""
    return {
        key: value if isinstance(value, (str, int, bool, dict, list)) else str(value)
        for key, value in details.items()
    }


def on_http_error(error: HTTPException) -> Response:
    """An error of the framework: unknown address, wrong method, too much data."""
    if error.code is None or error.code < 400:
        return make_response(error.get_response())  # a redirect that werkzeug raises to add a slash
    response = answer(error.code)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After", "WWW-Authenticate"):
            response.headers[name] = value
    return response


def on_csrf_error(_error: CSRFError) -> Response:
    """The form's token does not belong to this session, or is missing."""
    return answer(400, explanation=CSRF)


def on_stale_data(_error: StaleDataError) -> Response:
    """Two changed one row at the same moment; the version that stands in it let the other one pass."""
    return answer(409, explanation=MEANWHILE)


def on_fault(error: InternalServerError) -> Response:
    """A bug, or a database that is away: the person gets a reference that stands in the log."""
    forget_person()
    if isinstance(error.original_exception, OperationalError):
        response = answer(503)
        response.headers["Retry-After"] = str(RETRY_SECONDS)
        return response
    return answer(500)


def new_reference() -> str:
    """Short enough to read out on the telephone, long enough to be found in the log: eight hex digits."""
    reference = secrets.token_hex(4)
    g.reference = reference
    return reference


def init_app(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(KezekError, on_kezek_error)
    app.register_error_handler(CSRFError, on_csrf_error)
    app.register_error_handler(StaleDataError, on_stale_data)
    app.register_error_handler(InternalServerError, on_fault)
    app.register_error_handler(HTTPException, on_http_error)
