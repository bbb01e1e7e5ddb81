"""Repairs of failed and leaving nodes: both ways side by side, one of them applied by a person."""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import history
from allocator.authorization import Action, may, require
from allocator.errors import Conflict, Invalid
from allocator.models import Repair, RepairCause
from allocator.states import OPEN_REPAIRS
from allocator.upkeep import own_interest, repair_steps, repairs
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
from web.upkeep.outage_forms import AgainForm, ApplyForm, ReasonForm, utc
from web.upkeep.repair_words import Side
from web.upkeep.waiting import waits

bp = Blueprint("repairs", __name__)
REPAIR = "/repairs/<int(max=9223372036854775807):repair_id>"


@bp.get("/repairs")
def index() -> str:
    """Repairs, those that wait for a decision first."""
    page = paginate(db(), repairs.list_repairs(current_actor()))
    return render_template("repairs/index.html", page=page, words=words, outage_words=outage_words)


@bp.get(REPAIR)
def show(repair_id: int) -> ResponseReturnValue:
    """Both ways to mend the plan, how far it is with working them out, or what was decided."""
    repair = repairs.find(db(), current_actor(), repair_id)
    if repair.cause is RepairCause.OUTAGE and repair.state in OPEN_REPAIRS:
        return redirect(url_for("outages.show", outage_id=repair.outage_id), 303)
    return _show_page(repair)


def _show_page(repair: Repair, form: AgainForm | None = None, problem: str = "") -> str:
    if form is None:
        form = AgainForm(formdata=None)
        form.version.data = repair.version
    open_ = repair.state in OPEN_REPAIRS
    may_change = open_ and may(current_actor(), Action.CLUSTER_CHANGE)
    unfinished = [repair] if words.is_unfinished(repair) else []
    asks = may_change and not unfinished
    return render_template(
        "repairs/show.html",
        repair=repair,
        unfinished=unfinished,
        waits=waits(unfinished),
        both=_sides(repair) if repair.proposed_at else [],
        simple=open_ and words.is_simple([repair]),
        words=words,
        outage_words=outage_words,
        form=form,
        problem=problem,
        may_change=may_change,
        refusal=own_interest.refusal(db(), current_actor(), [repair]) if asks else "",
        failed=repair.cause is RepairCause.NODES_DOWN,
        happenings=outage_words.timeline(history.changes(db(), repair, limit=50)),
    )


def _sides(repair: Repair) -> list[Side]:
    bookings = repairs.bookings_in(db(), list(repairs.variants_of(repair).values()))
    return words.sides([repair], bookings, policy().bookings.repair)


def _until(form: AgainForm) -> datetime | None:
    return utc(form.until.data, settings().zone) if form.until.data else None


@bp.post(f"{REPAIR}/again")
@once.guard
def again(repair_id: int) -> ResponseReturnValue:
    """Have it worked out by what is booked now, or with another date on which the nodes come back."""
    actor = current_actor()
    repair = repairs.find(db(), actor, repair_id)
    require(actor, Action.CLUSTER_CHANGE)
    form = AgainForm()
    if not form.validate_on_submit():
        return _show_page(repair, form), 422
    try:
        made = repairs.again(
            db(),
            actor,
            repair,
            expected_version=form.version.data or 0,
            until=_until(form),
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _show_page(repair, form), 422
    flash(gettext("It is being worked out again, by what is booked now."), "info")
    return redirect(url_for("repairs.show", repair_id=made.id), 303)


@bp.route(f"{REPAIR}/apply", methods=["GET", "POST"])
@once.guard
def apply(repair_id: int) -> ResponseReturnValue:
    """Say once more who moves, ask what they are told, then do it."""
    actor = current_actor()
    repair = repairs.find(db(), actor, repair_id)
    require(actor, Action.CLUSTER_CHANGE)
    form = ApplyForm() if request.method == "POST" else ApplyForm(formdata=None)
    if request.method == "GET":
        if words.is_unfinished(repair):
            return redirect(url_for("repairs.show", repair_id=repair.id), 303)
        form.variant.data, form.version.data = request.args.get("variant", ""), repair.version
        return _apply_page(repair, form)
    if not form.validate_on_submit():
        return _apply_page(repair, form), 422
    try:
        # a savepoint: undone, the page about what stands in the way reads the bookings as they are
        with db().begin_nested():
            made = repair_steps.apply(
                db(),
                actor,
                repair,
                form.variant.data or "",
                reason=form.reason.data or "",
                expected_version=form.version.data or 0,
                rules=policy().bookings,
                now=utcnow(),
            )
    except Invalid as error:
        form.show(error)
        return _apply_page(repair, form), 422
    except Conflict as error:
        return _show_page(repair, problem=translated(error)), 409
    flash(gettext("The repair is applied. Letters on their way: %(count)s.", count=len(made)), "success")
    return redirect(url_for("repairs.show", repair_id=repair.id), 303)


def _apply_page(repair: Repair, form: ApplyForm) -> str:
    both = _sides(repair)
    side = next((one for one in both if one.name == form.variant.data), both[0])
    form.variant.data, form.variant.raw_data = side.name, None
    return render_template(
        "repairs/apply.html", repair=repair, side=side, form=form, words=words, outage_words=outage_words
    )


@bp.route(f"{REPAIR}/discard", methods=["GET", "POST"])
@once.guard
def discard(repair_id: int) -> ResponseReturnValue:
    """Leave the bookings as they are, with a reason."""
    actor = current_actor()
    repair = repairs.find(db(), actor, repair_id)
    require(actor, Action.CLUSTER_CHANGE)
    own_interest.refuse(db(), actor, repair)
    form = ReasonForm() if request.method == "POST" else ReasonForm(formdata=None)
    if request.method == "GET":
        form.version.data = repair.version
        return _discard_page(repair, form)
    if not form.validate_on_submit():
        return _discard_page(repair, form), 422
    try:
        repairs.discard(
            db(),
            actor,
            repair,
            reason=form.reason.data or "",
            expected_version=form.version.data or 0,
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _discard_page(repair, form), 422
    flash(gettext("The proposal is given up; the bookings stay as they are."), "success")
    return redirect(url_for("repairs.index"), 303)


def _discard_page(repair: Repair, form: ReasonForm) -> str:
    return render_template("repairs/discard.html", repair=repair, form=form, words=words)
