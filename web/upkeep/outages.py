"""Outages: planned, looked at from both sides, published, called off. Operators act, staff may look."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy.orm import Session

from allocator import cluster_queries, history
from allocator.actors import Actor
from allocator.authorization import Action, may, require
from allocator.errors import Conflict, Invalid
from allocator.models import Cluster, Outage, OutageKind
from allocator.states import OutageState
from allocator.upkeep import node_names, outage_queries, outages, repairs
from config.clock import utcnow
from web import (
    once,
)
from web.errors import translated
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.session import db, settings
from web.upkeep import (
    ahead,
    outage_words,
)
from web.upkeep import (
    repair_words as words,
)
from web.upkeep.ahead import Found
from web.upkeep.outage_forms import ConfirmForm, OutageForm, PublishForm, ReasonForm
from web.upkeep.repair_words import Side

bp = Blueprint("outages", __name__)
OUTAGE = "/outages/<int(max=9223372036854775807):outage_id>"


@bp.get("/outages")
def index() -> str:
    """Outages, what is to come first."""
    actor = current_actor()
    page = paginate(db(), outage_queries.list_outages(actor))
    return render_template(
        "outages/index.html",
        page=page,
        words=outage_words,
        clusters=cluster_queries.list_clusters(db()),
        may_change=may(actor, Action.CLUSTER_CHANGE),
        waiting=outage_queries.repairs_waiting(db()),
    )


def _survey_new(session: Session, actor: Actor, slug: str) -> Found:
    require(actor, Action.CLUSTER_CHANGE)
    return _survey(session, actor, cluster_queries.find_cluster(session, actor, slug))


def _survey(session: Session, actor: Actor, cluster: Cluster, but: Outage | None = None) -> Found:
    """Whom the plan in the form would move; nothing while the form has errors."""
    form = OutageForm()
    if not form.validate_on_submit():
        return ()
    plan = form.plan(node_names.named(session, cluster, form.nodes.data or ""), settings().zone)
    return outages.survey(session, actor, cluster, plan, but=but, rules=policy().bookings, now=utcnow())


@bp.route("/clusters/<slug>/outages/new", methods=["GET", "POST"])
@ahead.looks(_survey_new)
@once.guard
def new(slug: str, found: Found = ()) -> ResponseReturnValue:
    """Plan one; the next page shows whom it would move."""
    actor = current_actor()
    require(actor, Action.CLUSTER_CHANGE)
    cluster = cluster_queries.find_cluster(db(), actor, slug)
    form = OutageForm() if request.method == "POST" else OutageForm(formdata=None)
    if request.method == "GET":
        form.kind.data = OutageKind.MAINTENANCE.value
        return _form_page(cluster, form)
    if not form.validate_on_submit():
        return _form_page(cluster, form), 422
    try:
        nodes = node_names.named(db(), cluster, form.nodes.data or "")
        plan = form.plan(nodes, settings().zone)
        outage = outages.draft(db(), actor, cluster, plan, found=found, rules=policy().bookings, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(cluster, form), 422
    return redirect(url_for("outages.show", outage_id=outage.id), 303)


def _survey_draft(session: Session, actor: Actor, outage_id: int) -> Found:
    outage = outage_queries.find(session, actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    return _survey(session, actor, outage.cluster, outage)


@bp.route(f"{OUTAGE}/edit", methods=["GET", "POST"])
@ahead.looks(_survey_draft)
@once.guard
def edit(outage_id: int, found: Found = ()) -> ResponseReturnValue:
    """Change a draft."""
    actor = current_actor()
    outage = outage_queries.find(db(), actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    form = OutageForm() if request.method == "POST" else OutageForm(formdata=None)
    if request.method == "GET":
        form.fill(outage, settings().zone)
        return _form_page(outage.cluster, form, outage)
    if not form.validate_on_submit():
        return _form_page(outage.cluster, form, outage), 422
    try:
        nodes = node_names.named(db(), outage.cluster, form.nodes.data or "")
        outages.change(
            db(),
            actor,
            outage,
            form.plan(nodes, settings().zone),
            expected_version=form.version.data or 0,
            found=found,
            rules=policy().bookings,
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _form_page(outage.cluster, form, outage), 422
    return redirect(url_for("outages.show", outage_id=outage.id), 303)


def _form_page(cluster: Cluster, form: OutageForm, outage: Outage | None = None) -> str:
    return render_template("outages/form.html", cluster=cluster, form=form, outage=outage)


@bp.get(OUTAGE)
def show(outage_id: int) -> str:
    """An outage: of a draft both ways to mend the plan; afterwards what was done."""
    return _show_page(outage_queries.find(db(), current_actor(), outage_id))


def _show_page(outage: Outage, problem: str = "") -> str:
    form = ConfirmForm(formdata=None)
    form.version.data = outage.version
    both, chosen = _sides(outage)
    return render_template(
        "outages/show.html",
        outage=outage,
        both=both,
        chosen=chosen,
        words=words,
        outage_words=outage_words,
        form=form,
        problem=problem,
        may_change=may(current_actor(), Action.CLUSTER_CHANGE),
        draft=outage.state is OutageState.DRAFT,
        live=outage.state in (OutageState.DRAFT, OutageState.PUBLISHED),
        happenings=outage_words.timeline(history.changes(db(), outage, limit=50)),
    )


def _sides(outage: Outage) -> tuple[list[Side], str]:
    """Both variants of its repairs, and the one that was chosen."""
    found = outage_queries.proposals(db(), outage)
    variants = [one for repair in found for one in repairs.variants_of(repair).values()]
    bookings = repairs.bookings_in(db(), variants)
    chosen = next((repair.chosen or "" for repair in found), "")
    return words.sides(found, bookings, policy().bookings.repair), chosen


def _survey_again(session: Session, actor: Actor, outage_id: int) -> Found:
    outage = outage_queries.find(session, actor, outage_id)
    return outages.survey_again(session, actor, outage, rules=policy().bookings, now=utcnow())


@bp.post(f"{OUTAGE}/prepare")
@ahead.looks(_survey_again)
@once.guard
def prepare(outage_id: int, found: Found = ()) -> ResponseReturnValue:
    """Work out anew whom a draft would move."""
    actor = current_actor()
    outage = outage_queries.find(db(), actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    outages.prepare(db(), actor, outage, found=found, rules=policy().bookings, now=utcnow())
    flash(gettext("Worked out again by what is booked now."), "success")
    return redirect(url_for("outages.show", outage_id=outage.id), 303)


@bp.route(f"{OUTAGE}/publish", methods=["GET", "POST"])
@once.guard
def publish(outage_id: int) -> ResponseReturnValue:
    """Say once more who moves, then do it and write to everybody."""
    actor = current_actor()
    outage = outage_queries.find(db(), actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    form = PublishForm() if request.method == "POST" else PublishForm(formdata=None)
    if request.method == "GET":
        form.variant.data, form.version.data = request.args.get("variant", ""), outage.version
        return _publish_page(outage, form)
    if not form.validate_on_submit():
        return _publish_page(outage, form), 422
    try:
        # a savepoint: undone, the page about what stands in the way reads the bookings as they are
        with db().begin_nested():
            made = outages.publish(
                db(),
                actor,
                outage,
                form.variant.data or "",
                expected_version=form.version.data or 0,
                rules=policy().bookings,
                now=utcnow(),
            )
    except Conflict as error:
        return _show_page(outage, translated(error)), 409
    letters = gettext("The outage is published. Letters on their way: %(count)s.", count=len(made))
    flash(letters if made else gettext("The outage is published. Nobody had to move."), "success")
    return redirect(url_for("outages.show", outage_id=outage.id), 303)


def _publish_page(outage: Outage, form: PublishForm) -> str:
    both, _ = _sides(outage)
    side = next((one for one in both if one.name == form.variant.data), both[0])
    form.variant.data, form.variant.raw_data = side.name, None
    return render_template(
        "outages/publish.html", outage=outage, side=side, form=form, words=words, outage_words=outage_words
    )


@bp.route(f"{OUTAGE}/call-off", methods=["GET", "POST"])
@once.guard
def call_off(outage_id: int) -> ResponseReturnValue:
    """Give a draft up, or free the nodes of a published outage."""
    actor, now = current_actor(), utcnow()
    outage = outage_queries.find(db(), actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    form = ReasonForm() if request.method == "POST" else ReasonForm(formdata=None)
    if request.method == "GET":
        form.version.data = outage.version
        return render_template("outages/call_off.html", outage=outage, form=form, now=now)
    if not form.validate_on_submit():
        return render_template("outages/call_off.html", outage=outage, form=form, now=now), 422
    try:
        again = outages.call_off(
            db(),
            actor,
            outage,
            reason=form.reason.data or "",
            expected_version=form.version.data or 0,
            rules=policy().bookings,
            now=now,
        )
    except Invalid as error:
        form.show(error)
        return render_template("outages/call_off.html", outage=outage, form=form, now=now), 422
    flash(gettext("The outage no longer holds its nodes."), "success")
    if again:
        flash(gettext("Letters saying that the old time is free: %(count)s.", count=again), "info")
    return redirect(url_for("outages.show", outage_id=outage.id), 303)
