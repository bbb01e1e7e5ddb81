"""Outages: planned, looked at from both sides, published, called off. Operators act, staff may look."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import cluster_queries, history
from allocator.authorization import Action, may, require
from allocator.errors import Conflict, Invalid
from allocator.models import Cluster, Outage, OutageKind, Repair
from allocator.states import OutageState
from allocator.upkeep import node_names, outage_queries, outages, own_interest, repairs
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
    outage_words,
)
from web.upkeep import (
    repair_words as words,
)
from web.upkeep.outage_forms import ConfirmForm, OutageForm, PublishForm, ReasonForm
from web.upkeep.repair_words import Side
from web.upkeep.waiting import waits

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


@bp.route("/clusters/<slug>/outages/new", methods=["GET", "POST"])
@once.guard
def new(slug: str) -> ResponseReturnValue:
    """Plan one; the next page shows whom it would move, as soon as that is worked out."""
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
        outage = outages.draft(db(), actor, cluster, plan, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(cluster, form), 422
    return redirect(url_for("outages.show", outage_id=outage.id), 303)


@bp.route(f"{OUTAGE}/edit", methods=["GET", "POST"])
@once.guard
def edit(outage_id: int) -> ResponseReturnValue:
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
    found = outage_queries.proposals(db(), outage)
    unfinished = [repair for repair in found if words.is_unfinished(repair)]
    may_change, draft = may(current_actor(), Action.CLUSTER_CHANGE), outage.state is OutageState.DRAFT
    asks = may_change and draft and not unfinished
    return render_template(
        "outages/show.html",
        outage=outage,
        unfinished=unfinished,
        waits=waits(unfinished),
        both=_sides(found) if not unfinished else [],
        simple=words.is_simple(found),
        chosen=next((repair.chosen or "" for repair in found), ""),
        words=words,
        outage_words=outage_words,
        form=form,
        problem=problem,
        may_change=may_change,
        refusal=own_interest.refusal(db(), current_actor(), found) if asks else "",
        draft=draft,
        live=outage.state in (OutageState.DRAFT, OutageState.PUBLISHED),
        happenings=outage_words.timeline(history.changes(db(), outage, limit=50)),
    )


def _sides(found: Sequence[Repair]) -> list[Side]:
    """Both ways to mend, over all of its repairs."""
    variants = [one for repair in found for one in repairs.variants_of(repair).values()]
    return words.sides(found, repairs.bookings_in(db(), variants), policy().bookings.repair)


@bp.post(f"{OUTAGE}/prepare")
@once.guard
def prepare(outage_id: int) -> ResponseReturnValue:
    """Have it worked out anew whom a draft would move."""
    actor = current_actor()
    outage = outage_queries.find(db(), actor, outage_id)
    require(actor, Action.CLUSTER_CHANGE)
    outages.prepare(db(), actor, outage, now=utcnow())
    flash(gettext("It is being worked out again, by what is booked now."), "info")
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
        if any(words.is_unfinished(repair) for repair in outage_queries.proposals(db(), outage)):
            return redirect(url_for("outages.show", outage_id=outage.id), 303)
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
    both = _sides(outage_queries.proposals(db(), outage))
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
