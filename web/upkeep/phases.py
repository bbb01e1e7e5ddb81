"""Capacity over time: nodes announced and leaving, and the freeze. Operators act, staff may look."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import cluster_queries
from allocator.authorization import Action, may, require
from allocator.errors import Invalid
from allocator.models import Cluster, Node
from allocator.upkeep import node_names, phases
from config.clock import utcnow
from web import (
    once,
)
from web.forms import Form
from web.identity import current_actor
from web.paging import paginate
from web.session import db, settings
from web.upkeep.outage_forms import AnnounceForm, FreezeForm, JoinForm, LeaveForm, WhyForm, local, utc

bp = Blueprint("phases", __name__)
CLUSTER = "/clusters/<slug>/capacity"
NODE = "/nodes/<int(max=9223372036854775807):node_id>"


@bp.get(CLUSTER)
def show(slug: str) -> str:
    """What joins, what leaves, and until when nothing is moved by the machine."""
    actor = current_actor()
    cluster = cluster_queries.find_cluster(db(), actor, slug)
    return render_template(
        "phases/show.html",
        cluster=cluster,
        nodes=paginate(db(), phases.changing(cluster)),
        now=utcnow(),
        may_change=may(actor, Action.CLUSTER_CHANGE),
    )


def _cluster(slug: str) -> Cluster:
    require(current_actor(), Action.CLUSTER_CHANGE)
    return cluster_queries.find_cluster(db(), current_actor(), slug)


def _back(cluster: Cluster) -> ResponseReturnValue:
    return redirect(url_for("phases.show", slug=cluster.slug), 303)


def _page(template: str, form: Form, cluster: Cluster, node: Node | None = None) -> str:
    return render_template(f"phases/{template}.html", form=form, cluster=cluster, node=node)


@bp.route(f"{CLUSTER}/announce", methods=["GET", "POST"])
@once.guard
def announce(slug: str) -> ResponseReturnValue:
    """Nodes that come: they can be booked from the day they join."""
    cluster = _cluster(slug)
    form = AnnounceForm() if request.method == "POST" else AnnounceForm(formdata=None)
    if request.method == "GET":
        return _page("announce", form, cluster)
    if not form.validate_on_submit():
        return _page("announce", form, cluster), 422
    try:
        coming = form.announcement(settings().zone)
        made = phases.announce(db(), current_actor(), cluster, coming, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _page("announce", form, cluster), 422
    flash(gettext("Announced nodes: %(count)s.", count=len(made)), "success")
    return _back(cluster)


@bp.route(f"{CLUSTER}/leave", methods=["GET", "POST"])
@once.guard
def leave(slug: str) -> ResponseReturnValue:
    """Nodes that go: the repair shows what becomes of bookings after that day."""
    cluster = _cluster(slug)
    form = LeaveForm() if request.method == "POST" else LeaveForm(formdata=None)
    if request.method == "GET":
        return _page("leave", form, cluster)
    if not form.validate_on_submit():
        return _page("leave", form, cluster), 422
    try:
        nodes = node_names.named(db(), cluster, form.nodes.data or "")
        leaves_at = utc(form.leaves_at.data, settings().zone)
        made = phases.leave(db(), current_actor(), cluster, nodes, leaves_at, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _page("leave", form, cluster), 422
    if len(made) == 1:
        return redirect(url_for("repairs.show", repair_id=made[0].id), 303)
    flash(gettext("There is a repair for each GPU type to decide on."), "success")
    return redirect(url_for("repairs.index"), 303)


@bp.route(f"{CLUSTER}/freeze", methods=["GET", "POST"])
@once.guard
def freeze(slug: str) -> ResponseReturnValue:
    """Until when no machine moves a booking."""
    cluster = _cluster(slug)
    form = FreezeForm() if request.method == "POST" else FreezeForm(formdata=None)
    if request.method == "GET":
        if cluster.frozen_until:
            form.until.data = local(cluster.frozen_until, settings().zone)
        return _page("freeze", form, cluster)
    if not form.validate_on_submit():
        return _page("freeze", form, cluster), 422
    until = utc(form.until.data, settings().zone) if form.until.data else None
    try:
        phases.freeze(db(), current_actor(), cluster, until, reason=form.reason.data or "", now=utcnow())
    except Invalid as error:
        form.show(error)
        return _page("freeze", form, cluster), 422
    flash(gettext("The plan is frozen.") if until else gettext("The freeze is over."), "success")
    return _back(cluster)


@bp.route(f"{NODE}/withdraw", methods=["GET", "POST"])
@once.guard
def withdraw(node_id: int) -> ResponseReturnValue:
    """Take the announcement of a node back."""
    node = phases.find_node(db(), current_actor(), node_id)
    form = WhyForm() if request.method == "POST" else WhyForm(formdata=None)
    if request.method == "GET":
        return _page("withdraw", form, node.cluster, node)
    if not form.validate_on_submit():
        return _page("withdraw", form, node.cluster, node), 422
    try:
        phases.withdraw(db(), current_actor(), node, reason=form.reason.data or "", now=utcnow())
    except Invalid as error:
        form.show(error)
        return _page("withdraw", form, node.cluster, node), 422
    flash(gettext("Node %(name)s is not announced any more.", name=node.name), "success")
    return _back(node.cluster)


@bp.route(f"{NODE}/join", methods=["GET", "POST"])
@once.guard
def join(node_id: int) -> ResponseReturnValue:
    """Another day on which an announced node joins."""
    node = phases.find_node(db(), current_actor(), node_id)
    form = JoinForm() if request.method == "POST" else JoinForm(formdata=None)
    if request.method == "GET":
        if node.joins_at:
            form.joins_at.data = local(node.joins_at, settings().zone)
        return _page("join", form, node.cluster, node)
    if not form.validate_on_submit():
        return _page("join", form, node.cluster, node), 422
    try:
        joins_at = utc(form.joins_at.data, settings().zone)
        phases.postpone(db(), current_actor(), node, joins_at, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _page("join", form, node.cluster, node), 422
    flash(gettext("Node %(name)s has another day.", name=node.name), "success")
    return _back(node.cluster)


@bp.post(f"{NODE}/stay")
@once.guard
def stay(node_id: int) -> ResponseReturnValue:
    """The node does not leave after all."""
    node = phases.find_node(db(), current_actor(), node_id)
    phases.stay(db(), current_actor(), node, now=utcnow())
    flash(gettext("Node %(name)s stays.", name=node.name), "success")
    return _back(node.cluster)
