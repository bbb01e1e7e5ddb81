"""One's own profile, and the browsers that are signed in."""

from __future__ import annotations

from flask import flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.accounts import people, sign_in_sessions
from allocator.errors import Invalid, Stale
from allocator.models import Person
from config.clock import utcnow
from web import once
from web.account.blueprint import bp
from web.account.forms import ProfileForm
from web.errors import translated
from web.forms import text
from web.paging import paginate
from web.session import db
from web.signed_in import idle_limit, leave, me


@bp.route("", methods=["GET", "POST"])
@once.guard
def profile() -> ResponseReturnValue:
    """Look at and change one's own profile."""
    user = me()
    person = people.get(db(), user.actor, user.person_id)
    form = ProfileForm(obj=person)
    status = 422 if form.is_submitted() else 200
    if form.validate_on_submit():
        try:
            _save(form)
        except Invalid as error:
            form.show(error)
        except Stale as error:
            status = 409
            _take_note(form, person, error)
        else:
            flash(gettext("Your profile is saved."), "success")
            return redirect(url_for("account.profile"), 303)
    return render_template("account/profile.html", form=form, person=person), status


@bp.get("/sessions")
def sessions() -> ResponseReturnValue:
    """Every browser that is signed in as this person."""
    user = me()
    page = paginate(db(), sign_in_sessions.list_own(user.actor, idle=idle_limit(), now=utcnow()))
    return render_template("account/sessions.html", page=page, current=user.session_id)


@bp.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> ResponseReturnValue:
    """Sign another browser out, or this one."""
    user = me()
    sign_in_sessions.end(db(), user.actor, session_id, now=utcnow())
    if session_id == user.session_id:
        leave()
        return redirect("/", 303)
    flash(gettext("That browser is signed out."), "success")
    return redirect(url_for("account.sessions"), 303)


@bp.post("/sessions/end-others")
def end_other_sessions() -> ResponseReturnValue:
    """Sign every other browser out."""
    user = me()
    sign_in_sessions.end_others(db(), user.actor, user.session_id, now=utcnow())
    flash(gettext("Every other browser is signed out."), "success")
    return redirect(url_for("account.sessions"), 303)


def _save(form: ProfileForm) -> None:
    people.edit_profile(
        db(),
        me().actor,
        name=text(form.name),
        iin=text(form.iin),
        phone=text(form.phone),
        locale=text(form.locale),
        expected_version=form.version.data,
        now=utcnow(),
    )


def _take_note(form: ProfileForm, person: Person, error: Stale) -> None:
    """Say what changed and let the person save again knowingly; what they typed stays."""
    form.form_errors.append(translated(error))
    form.version.data = person.version
    form.version.raw_data = None
