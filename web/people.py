"""Other people's accounts: for administrators, and for operators who set logins on the cluster."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.exceptions import NotFound

from allocator.accounts import administration, people
from allocator.accounts.cluster_logins import suggest_cluster_login
from allocator.actors import Role
from allocator.authorization import Action, may
from allocator.errors import Invalid
from allocator.models import Person
from config.clock import utcnow
from web import once
from web.forms import choices, text
from web.identity import current_actor
from web.paging import order, paginate, sorting
from web.people_forms import ROLES, ClusterLoginForm, GrantForm, ReasonForm
from web.session import db, settings

bp = Blueprint("people", __name__, url_prefix="/people")
LIST_ORDER = {"name": Person.name, "email": Person.email, "since": Person.created_at}


@bp.get("")
def index() -> ResponseReturnValue:
    """Find people by name, address, login or role."""
    wish, role = request.args.get("q", ""), request.args.get("role", "")
    wanted = Role(role) if role in set(Role) else None
    by = sorting(LIST_ORDER, "name")
    statement = order(people.search(current_actor(), wish, wanted), LIST_ORDER, by, Person.id)
    return render_template(
        "people/index.html",
        page=paginate(db(), statement),
        sorting=by,
        text=wish[:200],
        role=wanted,
        roles=ROLES,
    )


@bp.get("/<int:person_id>")
def show(person_id: int) -> ResponseReturnValue:
    """One account and what can be done with it."""
    person = _managed(person_id)
    granted = sorted(person.roles)
    form = GrantForm()
    form.role.choices = choices((role.value, label) for role, label in ROLES.items() if role not in granted)
    return render_template("people/show.html", person=person, form=form, granted=granted, roles=ROLES)


@bp.post("/<int:person_id>/roles")
@once.guard
def grant(person_id: int) -> ResponseReturnValue:
    """Give a role."""
    person = _managed(person_id)
    form = GrantForm()
    if form.validate_on_submit():
        administration.grant_role(db(), current_actor(), person, Role(form.role.data), now=utcnow())
        flash(gettext("The role is given."), "success")
        return redirect(url_for("people.show", person_id=person_id), 303)
    page = render_template(
        "people/show.html", person=person, form=form, granted=sorted(person.roles), roles=ROLES
    )
    return page, 422


@bp.route("/<int:person_id>/roles/<role>/revoke", methods=["GET", "POST"])
@once.guard
def revoke(person_id: int, role: str) -> ResponseReturnValue:
    """Take a role away; asks first."""
    person = _managed(person_id)
    if role not in set(Role):
        raise NotFound
    if request.method == "POST":
        administration.revoke_role(db(), current_actor(), person, Role(role), now=utcnow())
        flash(gettext("The role is taken away."), "success")
        # An administrator who gave the own role up may not see people any more.
        mine = person_id == current_actor().person_id and role == Role.ADMINISTRATOR
        return redirect("/" if mine else url_for("people.show", person_id=person_id), 303)
    return render_template(
        "confirm.html",
        heading=gettext("Take a role away?"),
        text=gettext("%(name)s will no longer be: %(role)s.", name=person.name, role=ROLES[Role(role)]),
        label=gettext("Take the role away"),
        back_url=url_for("people.show", person_id=person_id),
    )


@bp.route("/<int:person_id>/cluster-login", methods=["GET", "POST"])
@once.guard
def cluster_login(person_id: int) -> ResponseReturnValue:
    """Set the name that the person's jobs run under."""
    actor, forbidden = current_actor(), settings().forbidden_logins
    person = people.get(db(), actor, person_id, Action.PERSON_CLUSTER_LOGIN, lock=request.method == "POST")
    form = ClusterLoginForm(obj=person)
    if form.validate_on_submit():
        login = text(form.cluster_login)
        try:
            people.set_cluster_login(db(), actor, person, login, forbidden=forbidden, now=utcnow())
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The login on the cluster is set."), "success")
            return redirect(_after_login(person_id), 303)
    suggestion = suggest_cluster_login(db(), person, forbidden=forbidden)
    if request.method == "GET" and not person.cluster_login:
        form.cluster_login.data = suggestion
    page = render_template(
        "people/cluster_login.html",
        form=form,
        person=person,
        suggestion=suggestion,
        back_url=_after_login(person_id) if may(actor, Action.PEOPLE_MANAGE) else "/",
    )
    return page, 422 if form.is_submitted() else 200


@bp.route("/<int:person_id>/disable", methods=["GET", "POST"])
@once.guard
def disable(person_id: int) -> ResponseReturnValue:
    """Close an account; asks for the reason first."""
    person = _managed(person_id)
    form = ReasonForm()
    if form.validate_on_submit():
        try:
            administration.disable(db(), current_actor(), person, text(form.reason), now=utcnow())
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The account is closed."), "success")
            return redirect(url_for("people.show", person_id=person_id), 303)
    status = 422 if form.is_submitted() else 200
    return render_template("people/disable.html", form=form, person=person), status


@bp.post("/<int:person_id>/enable")
def enable(person_id: int) -> ResponseReturnValue:
    """Open a closed account again."""
    administration.enable(db(), current_actor(), _managed(person_id), now=utcnow())
    flash(gettext("The account is open again."), "success")
    return redirect(url_for("people.show", person_id=person_id), 303)


def _managed(person_id: int) -> Person:
    lock = request.method == "POST"
    return people.get(db(), current_actor(), person_id, Action.PEOPLE_MANAGE, lock=lock)


def _after_login(person_id: int) -> str:
    if may(current_actor(), Action.PEOPLE_MANAGE):
        return url_for("people.show", person_id=person_id)
    return url_for("people.cluster_login", person_id=person_id)
