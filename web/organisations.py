"""Organisations and who belongs to them."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.accounts import organisations
from allocator.actors import MembershipRole
from allocator.authorization import Action, may, require
from allocator.errors import Invalid, Stale
from allocator.models import Membership, Organisation, Person
from config.clock import utcnow
from web import limits, once
from web.errors import translated
from web.forms import text
from web.identity import current_actor
from web.organisations_forms import (
    MEMBERSHIP_ROLES,
    MemberForm,
    NewOrganisationForm,
    OrganisationForm,
    RoleForm,
)
from web.paging import order, paginate, sorting
from web.session import db

bp = Blueprint("organisations", __name__, url_prefix="/organisations")
LIST_ORDER = {"name": Organisation.name, "bin": Organisation.bin}
MEMBER_ORDER = {"name": Person.name, "role": Membership.role, "since": Membership.created_at}


@bp.get("")
def index() -> ResponseReturnValue:
    """The organisations of this person; staff see all."""
    wish = request.args.get("q", "")
    by = sorting(LIST_ORDER, "name")
    statement = order(organisations.search(current_actor(), wish), LIST_ORDER, by, Organisation.id)
    return render_template(
        "organisations/index.html", page=paginate(db(), statement), sorting=by, text=wish[:200]
    )


@bp.route("/new", methods=["GET", "POST"])
@limits.by_person
@once.guard
def new() -> ResponseReturnValue:
    """Register an organisation and become its head."""
    require(current_actor(), Action.ORGANISATION_CREATE)
    form = NewOrganisationForm()
    if form.validate_on_submit():
        try:
            organisation = organisations.create(
                db(),
                current_actor(),
                bin=text(form.bin),
                name=text(form.name),
                region=text(form.region),
                activity=text(form.activity),
                now=utcnow(),
            )
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The organisation is registered and you are its head."), "success")
            return redirect(url_for("organisations.show", organisation_id=organisation.id), 303)
    return render_template("organisations/new.html", form=form), 422 if form.is_submitted() else 200


@bp.get("/<int:organisation_id>")
def show(organisation_id: int) -> ResponseReturnValue:
    """An organisation and its members."""
    organisation = organisations.get(db(), current_actor(), organisation_id)
    by = sorting(MEMBER_ORDER, "name")
    statement = order(organisations.members(organisation), MEMBER_ORDER, by, Membership.id)
    return render_template(
        "organisations/show.html",
        organisation=organisation,
        page=paginate(db(), statement),
        sorting=by,
        roles=MEMBERSHIP_ROLES,
        may_manage=may(current_actor(), Action.ORGANISATION_MANAGE, organisation),
        may_appoint=may(current_actor(), Action.ORGANISATION_APPOINT, organisation),
        may_end=lambda membership: may(current_actor(), Action.MEMBERSHIP_END, membership),
    )


@bp.route("/<int:organisation_id>/edit", methods=["GET", "POST"])
@once.guard
def edit(organisation_id: int) -> ResponseReturnValue:
    """Change what is known of an organisation."""
    organisation = organisations.get(db(), current_actor(), organisation_id, Action.ORGANISATION_MANAGE)
    form = OrganisationForm(obj=organisation)
    status = 422 if form.is_submitted() else 200
    if form.validate_on_submit():
        try:
            _save(form, organisation_id)
        except Invalid as error:
            form.show(error)
        except Stale as error:
            status = 409
            form.form_errors.append(translated(error))
            # What was typed stays; saving again is then done knowingly.
            form.version.data, form.version.raw_data = organisation.version, None
        else:
            flash(gettext("The organisation is saved."), "success")
            return redirect(url_for("organisations.show", organisation_id=organisation_id), 303)
    return render_template("organisations/edit.html", form=form, organisation=organisation), status


@bp.route("/<int:organisation_id>/members/new", methods=["GET", "POST"])
@limits.by_person
@once.guard
def add_member(organisation_id: int) -> ResponseReturnValue:
    """Add somebody by e-mail address."""
    organisation = organisations.get(db(), current_actor(), organisation_id, Action.ORGANISATION_MANAGE)
    form = MemberForm(role=MembershipRole.MEMBER.value)
    if form.validate_on_submit():
        try:
            organisations.add_member(
                db(),
                current_actor(),
                organisation_id,
                email=text(form.email),
                role=MembershipRole(form.role.data),
                now=utcnow(),
            )
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The member is added and was told by letter."), "success")
            return redirect(url_for("organisations.show", organisation_id=organisation_id), 303)
    page = render_template("organisations/add_member.html", form=form, organisation=organisation)
    return page, 422 if form.is_submitted() else 200


@bp.route("/<int:organisation_id>/members/<int:membership_id>", methods=["GET", "POST"])
@once.guard
def change_member(organisation_id: int, membership_id: int) -> ResponseReturnValue:
    """Give a member another role."""
    organisation = organisations.get(db(), current_actor(), organisation_id, Action.ORGANISATION_APPOINT)
    membership = organisations.get_membership(db(), organisation, membership_id)
    form = RoleForm(role=membership.role.value)
    if form.validate_on_submit():
        organisations.change_member(
            db(),
            current_actor(),
            organisation_id,
            membership_id,
            role=MembershipRole(form.role.data),
            now=utcnow(),
        )
        flash(gettext("The role is changed."), "success")
        return redirect(url_for("organisations.show", organisation_id=organisation_id), 303)
    page = render_template(
        "organisations/change_member.html", form=form, organisation=organisation, membership=membership
    )
    return page, 422 if form.is_submitted() else 200


@bp.route("/<int:organisation_id>/members/<int:membership_id>/remove", methods=["GET", "POST"])
@once.guard
def remove_member(organisation_id: int, membership_id: int) -> ResponseReturnValue:
    """Let a member go, or leave; asks first."""
    actor = current_actor()
    organisation = organisations.get(db(), actor, organisation_id)
    membership = organisations.get_membership(db(), organisation, membership_id)
    require(actor, Action.MEMBERSHIP_END, membership)
    is_own = membership.person_id == actor.person_id
    if request.method == "POST":
        organisations.remove_member(db(), actor, organisation_id, membership_id, now=utcnow())
        if is_own:
            flash(gettext("You have left the organisation."), "success")
            return redirect(url_for("organisations.index"), 303)
        flash(gettext("The member is removed."), "success")
        return redirect(url_for("organisations.show", organisation_id=organisation_id), 303)
    return render_template(
        "organisations/remove_member.html",
        organisation=organisation,
        membership=membership,
        is_own=is_own,
    )


def _save(form: OrganisationForm, organisation_id: int) -> None:
    organisations.edit(
        db(),
        current_actor(),
        organisation_id,
        name=text(form.name),
        region=text(form.region),
        activity=text(form.activity),
        expected_version=form.version.data,
        now=utcnow(),
    )
