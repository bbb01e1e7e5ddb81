"""An applicant's pages: the list, the form, the check before it is sent, and what becomes of it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator.actors import Actor
from allocator.applying import application_queries as queries
from allocator.applying import applications
from allocator.authorization import Action, may, require
from allocator.errors import Invalid, SignInRequired, Stale
from allocator.models import Application, Organisation, Person
from allocator.states import ApplicationState, may_move
from config.clock import utcnow
from web import once
from web.applying import (
    application_words as words,
)
from web.applying.application_forms import ApplicationForm
from web.exports import csv_response, read_rows
from web.identity import current_actor
from web.navigation import has_endpoint
from web.paging import paginate
from web.policy import category_title, policy
from web.policy_words import weight_facts
from web.session import db

bp = Blueprint("applications", __name__, url_prefix="/applications")
bp.add_app_template_global(category_title, "category_title")
bp.add_app_template_global(words.shape, "application_shape")
bp.add_app_template_global(words.window, "application_window")


@bp.get("")
def index() -> ResponseReturnValue:
    """The person's own applications and its organisations'."""
    page = paginate(db(), queries.own_applications(_person()))
    return render_template("applications/index.html", page=page)


@bp.get("/export.csv")
def export() -> Response:
    """The same list as CSV."""
    rows = read_rows(queries.own_applications(_person()), words.table_row)
    return csv_response("applications.csv", [gettext(title) for title in words.HEADER], rows)


@bp.route("/new", methods=["GET", "POST"])
@once.guard
def new() -> ResponseReturnValue:
    """The empty form, or with `?from=` the answers of an earlier application; sending it saves a draft."""
    actor = _person()
    form = _form(actor)
    if form.validate_on_submit():
        try:
            application = applications.save_draft(db(), actor, form.proposal(), policy=policy(), now=utcnow())
        except Invalid:
            _show_everything(actor, None, form)
        else:
            return _onward(actor, application)
    elif form.is_submitted():
        _show_everything(actor, None, form)
    else:
        _copy_earlier(actor, form)
    return render_template("applications/form.html", form=form, application=None), _status(form)


@bp.route("/<int:application_id>/edit", methods=["GET", "POST"])
@once.guard
def edit(application_id: int) -> ResponseReturnValue:
    """Change a draft; `?check=1` shows beside the fields what keeps it from being submitted."""
    actor = _person()
    application = queries.find(db(), actor, application_id)
    require(actor, Action.APPLICATION_EDIT, application)
    if application.state is not ApplicationState.DRAFT and request.method == "GET":
        return redirect(url_for("applications.show", application_id=application_id), 303)
    form, changes, status = _form(actor), None, 0
    if form.validate_on_submit():
        try:
            _save(actor, application, form)
            return _onward(actor, application)
        except Invalid:
            _show_everything(actor, application, form)
        except Stale as error:
            changes, status = _changes(error, application, form), 409
    elif form.is_submitted():
        _show_everything(actor, application, form)
    else:
        form.fill(application)
        if request.args.get("check"):
            _show_faults(actor, application, form)
    page = render_template("applications/form.html", form=form, application=application, changes=changes)
    return page, status or _status(form)


@bp.get("/<int:application_id>/check")
def check(application_id: int) -> ResponseReturnValue:
    """Everything as it would be sent, and the one button that sends it."""
    actor = _person()
    application = queries.find(db(), actor, application_id)
    require(actor, Action.APPLICATION_EDIT, application)
    if application.state is not ApplicationState.DRAFT:
        return redirect(url_for("applications.show", application_id=application_id), 303)
    if applications.readiness(db(), actor, application, policy=policy(), now=utcnow()):
        return redirect(url_for("applications.edit", application_id=application_id, check=1), 303)
    return render_template("applications/check.html", application=application, facts=words.facts(application))


@bp.get("/<int:application_id>/submit")
def submit_again(application_id: int) -> ResponseReturnValue:
    """Where a reload lands after a submission that came back: the page with the button."""
    application = queries.find(db(), _person(), application_id)
    return redirect(url_for("applications.check", application_id=application.id), 303)


@bp.post("/<int:application_id>/submit")
@once.guard
def submit(application_id: int) -> ResponseReturnValue:
    """Hand the draft in."""
    actor = _person()
    application = queries.find(db(), actor, application_id)
    try:
        applications.submit(
            db(), actor, application, expected_version=_version(), policy=policy(), now=utcnow()
        )
    except Invalid:
        # a day has passed since the page was made; the form says which one
        return redirect(url_for("applications.edit", application_id=application_id, check=1), 303)
    except Stale as error:
        return _stale_page(actor, application, error)
    flash(gettext("Your application was submitted."), "success")
    return redirect(url_for("applications.show", application_id=application_id), 303)


@bp.get("/<int:application_id>")
def show(application_id: int) -> ResponseReturnValue:
    """One application: where it stands, what comes next, what was asked, what happened."""
    actor = _person()
    return _page(actor, queries.find(db(), actor, application_id))


@bp.route("/<int:application_id>/withdraw", methods=["GET", "POST"])
@once.guard
def withdraw(application_id: int) -> ResponseReturnValue:
    """Ask, then take the application back."""
    actor = _person()
    application = queries.find(db(), actor, application_id)
    require(actor, Action.APPLICATION_EDIT, application)
    if request.method == "GET":
        return render_template("applications/withdraw.html", application=application)
    try:
        applications.withdraw(db(), actor, application, expected_version=_version(), now=utcnow())
    except Stale as error:
        return _stale_page(actor, application, error)
    flash(gettext("The application is withdrawn."), "success")
    return redirect(url_for("applications.show", application_id=application_id), 303)


def _person() -> Actor:
    actor = current_actor()
    if not actor.is_signed_in:
        raise SignInRequired()
    return actor


def _form(actor: Actor) -> ApplicationForm:
    form = ApplicationForm()
    form.offer(queries.offers(db()), _organisations(actor))
    return form


def _organisations(actor: Actor) -> list[Organisation]:
    if not actor.organisations:
        return []
    mine = Organisation.id.in_(sorted(actor.organisations))
    return list(db().scalars(select(Organisation).where(mine).order_by(Organisation.name, Organisation.id)))


def _status(form: ApplicationForm) -> int:
    return 422 if form.is_submitted() else 200


def _version() -> int:
    """The version that the page showed; a page without one is treated as too old."""
    text = request.form.get("version", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _save(actor: Actor, application: Application, form: ApplicationForm) -> None:
    applications.revise(
        db(),
        actor,
        application,
        form.proposal(),
        expected_version=form.version.data or 0,
        policy=policy(),
        now=utcnow(),
    )


def _onward(actor: Actor, application: Application) -> ResponseReturnValue:
    """A saved draft goes on to the check, or back to the fields that still need something."""
    if applications.readiness(db(), actor, application, policy=policy(), now=utcnow()):
        return redirect(url_for("applications.edit", application_id=application.id, check=1), 303)
    return redirect(url_for("applications.check", application_id=application.id), 303)


def _show_everything(actor: Actor, application: Application | None, form: ApplicationForm) -> None:
    """Beside what could not be read, all that keeps the rest from being submitted: one round, not two."""
    applicant = application.applicant if application else db().get_one(Person, actor.person_id)
    faults = applications.all_faults(
        db(), actor, applicant, form.proposal(), unread=form.errors.keys(), policy=policy(), now=utcnow()
    )
    form.show(Invalid(faults))


def _show_faults(actor: Actor, application: Application, form: ApplicationForm) -> None:
    faults = applications.readiness(db(), actor, application, policy=policy(), now=utcnow())
    if faults:
        form.show(Invalid(faults))


def _copy_earlier(actor: Actor, form: ApplicationForm) -> None:
    """Start from the answers of an application that the person may see as its own."""
    number = request.args.get("from", "")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        return
    earlier = queries.find(db(), actor, int(number))
    require(actor, Action.APPLICATION_EDIT, earlier)
    form.fill(earlier)
    form.version.data = None


def _changes(error: Stale, application: Application, form: ApplicationForm) -> list[Any]:
    """What happened meanwhile; the next save is made knowing it, so it carries the version of now."""
    seen = form.version.data or 0
    form.version.data, form.version.raw_data = application.version, None
    return words.happenings(queries.changes_since(db(), application, seen))


def _stale_page(actor: Actor, application: Application, _error: Stale) -> ResponseReturnValue:
    changes = words.happenings(queries.changes_since(db(), application, _version()))
    return _page(actor, application, changes), 409


def _page(actor: Actor, application: Application, changes: list[Any] | None = None) -> str:
    quota = queries.quota_of(db(), application)
    waits = application.state is ApplicationState.SUBMITTED
    may_edit = may(actor, Action.APPLICATION_EDIT, application)
    return render_template(
        "applications/show.html",
        application=application,
        changes=changes,
        facts=words.facts(application),
        weight_facts=weight_facts(application.decision, application.category, application.organisation),
        happenings=words.happenings(queries.timeline(db(), application)),
        quota=quota,
        quota_url=_quota_url(quota.id) if quota else None,
        place=queries.place_in_queue(db(), application) if waits else None,
        may_edit=may_edit,
        may_withdraw=may_edit and may_move(application.state, ApplicationState.WITHDRAWN),
        may_review=may(actor, Action.APPLICATION_QUEUE) and application.submitted_at is not None,
    )


def _quota_url(quota_id: int) -> str | None:
    return url_for("quotas.show", quota_id=quota_id) if has_endpoint("quotas.show") else None
