"""Registering and confirming the address. No page tells whether an address is known."""

from __future__ import annotations

from datetime import timedelta

from flask import flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.accounts import people, sign_in, tokens
from allocator.errors import Invalid, Throttled
from allocator.models import TokenPurpose
from config.clock import utcnow
from web import limits, once
from web.account.blueprint import bp
from web.account.forms import ConfirmForm, EmailForm, RegisterForm
from web.account.sign_in import attempt, secret
from web.errors import translated
from web.forms import text
from web.i18n import language
from web.session import db, settings


def _confirm_within() -> timedelta:
    return timedelta(hours=settings().confirm_token_hours)


@bp.route("/register", methods=["GET", "POST"])
@limits.by_address
@limits.by_email
@once.guard
def register() -> ResponseReturnValue:
    """Open an account; whatever happens, the answer to well-formed input is the same page."""
    form = RegisterForm(locale=language())
    if form.validate_on_submit():
        try:
            people.register(
                db(),
                email=text(form.email),
                name=text(form.name),
                password=text(form.password),
                locale=text(form.locale),
                confirm_within=_confirm_within(),
                now=utcnow(),
            )
        except Invalid as error:
            form.show(error)
        else:
            return redirect(url_for("account.check_mail"), 303)
    return render_template("account/register.html", form=form), 422 if form.is_submitted() else 200


@bp.get("/check-mail")
def check_mail() -> ResponseReturnValue:
    """What to do next, the same for everybody."""
    return render_template("account/check_mail.html", hours=settings().confirm_token_hours)


@bp.route("/confirm/<token>", methods=["GET", "POST"])
def confirm(token: str) -> ResponseReturnValue:
    """Confirm with the password of the registration; programs that only look at links change nothing.

    Tries at the password are counted like signing in.
    """
    form = ConfirmForm()
    person = tokens.holder(db(), token, TokenPurpose.CONFIRM_EMAIL, now=utcnow())
    if person is None:
        return render_template("account/confirm.html", form=form, works=False), 404
    status, headers, email = 422 if form.is_submitted() else 200, dict[str, str](), person.email
    if form.validate_on_submit():
        try:
            proof = attempt(email, text(form.password))
            people.confirm(db(), token, proof, now=utcnow(), forbidden_logins=settings().forbidden_logins)
        except Throttled as error:
            form.form_errors.append(translated(error))
            status, headers = 429, {"Retry-After": str(error.details["seconds"])}
        except Invalid as error:
            form.show(error)
        else:
            sign_in.forgive(db(), email, secret=secret())
            flash(gettext("Your address is confirmed. You can sign in now."), "success")
            return redirect(url_for("account.sign_in"), 303)
    return render_template("account/confirm.html", form=form, works=True), status, headers


@bp.route("/confirm-again", methods=["GET", "POST"])
@limits.by_address
@limits.by_email
def confirm_again() -> ResponseReturnValue:
    """Ask for another letter."""
    form = EmailForm()
    if form.validate_on_submit():
        people.send_confirmation_again(db(), text(form.email), confirm_within=_confirm_within(), now=utcnow())
        return redirect(url_for("account.check_mail"), 303)
    return render_template("account/confirm_again.html", form=form), 422 if form.is_submitted() else 200
