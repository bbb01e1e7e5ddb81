"""Signing in and out."""

from __future__ import annotations

from datetime import timedelta

from flask import Response, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.accounts import sign_in as domain
from allocator.accounts import sign_in_sessions
from allocator.errors import Throttled
from config.clock import utcnow
from web.account.blueprint import bp
from web.account.forms import SignInForm
from web.errors import translated
from web.forms import text
from web.i18n import safe_path
from web.identity import current_actor, signed_in
from web.session import db, settings
from web.signed_in import enter, leave, me


def secret() -> str:
    """The key under which tries are counted."""
    return settings().secret_key.get_secret_value()


@bp.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    """Sign in and go on to where the person wanted to go."""
    target = safe_path(request.args.get("next")) or "/"
    if signed_in():
        return redirect(target, 303)
    form = SignInForm()
    if not form.validate_on_submit():
        return _page(form, 422 if form.is_submitted() else 200)
    try:
        proof = attempt(text(form.email), text(form.password))
    except Throttled as error:
        form.form_errors.append(translated(error))
        response = _page(form, 429)
        response.headers["Retry-After"] = str(error.details["seconds"])
        return response
    if proof is None:
        form.form_errors.append(gettext("E-mail and password do not fit together."))
        return _page(form, 422)
    if proof.account.is_disabled:
        form.form_errors.append(gettext("This account is closed. Write to the operator."))
        return _page(form, 403)
    if not proof.account.is_confirmed:
        return _page(form, 403, unconfirmed=True)
    _open(proof, text(form.email))
    return redirect(target, 303)


@bp.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End this browser's session; harmless for a visitor."""
    if signed_in():
        sign_in_sessions.end(db(), current_actor(), me().session_id, now=utcnow())
    leave()
    return redirect("/", 303)


def attempt(email: str, password: str) -> domain.Proof | None:
    """Count a try, then check the password. Raises Throttled.

    The try is committed before the slow hash: it counts even if the answer is an error, and no lock waits.
    """
    domain.note_attempt(db(), email, secret=secret(), address=request.remote_addr or "", now=utcnow())
    account = domain.find_account(db(), email)
    db().commit()
    return domain.prove(account, password)


def _open(proof: domain.Proof, email: str) -> None:
    token = domain.open_session(
        db(),
        proof,
        email,
        secret=secret(),
        address=request.remote_addr or "",
        user_agent=request.user_agent.string,
        lifetime=timedelta(hours=settings().session_hours),
        now=utcnow(),
    )
    enter(token)


def _page(form: SignInForm, status: int, *, unconfirmed: bool = False) -> Response:
    page = render_template(
        "account/sign_in.html",
        form=form,
        unconfirmed=unconfirmed,
        action=url_for("account.sign_in", next=safe_path(request.args.get("next"))),
    )
    return make_response(page, status)
