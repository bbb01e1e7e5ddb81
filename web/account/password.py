"""Forgotten and changed passwords."""

from __future__ import annotations

from datetime import timedelta

from flask import flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.accounts import password_changes, sign_in
from allocator.errors import Invalid, Throttled
from config.clock import utcnow
from web import limits
from web.account.blueprint import bp
from web.account.forms import ChangePasswordForm, EmailForm, NewPasswordForm
from web.account.sign_in import attempt, secret
from web.errors import translated
from web.forms import text
from web.session import db, settings
from web.signed_in import leave, me


@bp.route("/forgotten", methods=["GET", "POST"])
@limits.by_address
@limits.by_email
def forgotten() -> ResponseReturnValue:
    """Ask for a link; the answer is the same whether the address is known or not."""
    form = EmailForm()
    if form.validate_on_submit():
        lifetime = timedelta(minutes=settings().reset_token_minutes)
        password_changes.request_reset(db(), text(form.email), lifetime=lifetime, now=utcnow())
        return redirect(url_for("account.link_sent"), 303)
    return render_template("account/forgotten.html", form=form), 422 if form.is_submitted() else 200


@bp.get("/link-sent")
def link_sent() -> ResponseReturnValue:
    """What to do next, the same for everybody."""
    return render_template("account/link_sent.html", minutes=settings().reset_token_minutes)


@bp.route("/reset/<token>", methods=["GET", "POST"])
def reset(token: str) -> ResponseReturnValue:
    """Choose a new password through the link of a letter; only sending the form uses the link up."""
    form = NewPasswordForm()
    if form.validate_on_submit():
        try:
            password_changes.reset_password(
                db(),
                token,
                text(form.new_password),
                secret=secret(),
                now=utcnow(),
                forbidden_logins=settings().forbidden_logins,
            )
        except Invalid as error:
            form.show(error)
        else:
            leave()
            flash(gettext("Your new password is set. Sign in with it."), "success")
            return redirect(url_for("account.sign_in"), 303)
    works = password_changes.may_reset(db(), token, now=utcnow())
    status = 404 if not works else 422 if form.is_submitted() else 200
    return render_template("account/reset.html", form=form, works=works), status


@bp.route("/password", methods=["GET", "POST"])
def password() -> ResponseReturnValue:
    """Change one's own password; tries at the present one are counted like signing in."""
    person, form = me(), ChangePasswordForm()
    status = 422 if form.is_submitted() else 200
    if form.validate_on_submit():
        try:
            proof = attempt(person.email, text(form.current_password))
            password_changes.change_password(
                db(),
                person.actor,
                proof,
                text(form.new_password),
                keep_session_id=person.session_id,
                now=utcnow(),
            )
        except Throttled as error:
            form.form_errors.append(translated(error))
            status = 429
        except Invalid as error:
            form.show(error)
        else:
            sign_in.forgive(db(), person.email, secret=secret())
            flash(gettext("Your password is changed; every other browser was signed out."), "success")
            return redirect(url_for("account.sessions"), 303)
    return render_template("account/password.html", form=form), status
