"""Periods for staff: the list, opening one, its board, and what becomes of it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator.applying import application_queries
from allocator.applying.application_checks import Offer
from allocator.authorization import Action, may, require
from allocator.dividing import period_inputs, period_opening, period_queries, periods, replay
from allocator.dividing.period_comparison import Difference, compare
from allocator.dividing.period_queries import Row
from allocator.dividing.publication import may_publish
from allocator.errors import Conflict, Invalid, NotFound, WrongState
from allocator.models import Application, Cluster, Period, Proposal, Quota
from allocator.states import PeriodState
from config.clock import utcnow
from config.i18n import N_
from web import once
from web.applying.application_forms import hardware_key, hardware_label
from web.dividing import (
    period_words as words,
)
from web.dividing.period_charts import pool_bars
from web.dividing.period_forms import OpenForm, ReasonForm
from web.dividing.period_summary import summary_of
from web.errors import translated
from web.identity import current_actor
from web.paging import Sorting, paginate, paginate_list, sorting
from web.policy import category_title, policy
from web.session import db, settings

bp = Blueprint("periods", __name__)
PERIOD = "/periods/<int(max=9223372036854775807):period_id>"
SORTS: Mapping[str, Callable[[Row], Any]] = {
    "title": lambda row: row.title.casefold(),
    "asked": lambda row: row.request,
    "weight": lambda row: row.weight,
    "share": lambda row: row.share,
}
OPEN = (PeriodState.DRAFT, PeriodState.PROPOSED)
IN_FORCE = (PeriodState.PUBLISHED, PeriodState.CLOSED)


def pseudonym_key() -> bytes:
    """What pseudonyms in public files are made with: the site's own, the same as the command line's."""
    return period_inputs.pseudonym_key(settings().secret_key.get_secret_value())


def titles_of(rows: Iterable[Difference]) -> dict[int, str]:
    """The titles of these claims' work by quota: only those of the rows that a page shows."""
    ids = [row.claim.quota_id for row in rows]
    statement = select(Quota.id, Application.title).join(Quota.application).where(Quota.id.in_(ids))
    return {row.id: row.title for row in db().execute(statement)}


@bp.get("/periods")
def index() -> str:
    """All periods, the latest first."""
    page = paginate(db(), period_queries.list_periods(current_actor()))
    return render_template(
        "periods/index.html", page=page, words=words, may_open=may(current_actor(), Action.PERIOD_PROPOSE)
    )


@bp.route("/periods/open", methods=["GET", "POST"])
@once.guard
def open_one() -> ResponseReturnValue:
    """Choose what to divide, see what capacity there would be, open it."""
    require(current_actor(), Action.PERIOD_PROPOSE)
    offers = application_queries.offers(db())
    form = OpenForm() if request.method == "POST" else OpenForm(formdata=None)
    wanted = form.hardware.data if request.method == "POST" else request.args.get("hardware")
    offer = next((offer for offer in offers if hardware_key(offer) == wanted), None)
    if offer is None and wanted is None and len(offers) == 1:
        offer = offers[0]
    if request.method == "GET" or offer is None:
        if offer is not None:
            cluster = _cluster(offer)
            form.fill(hardware_key(offer), periods.suggestion(db(), cluster, offer.gpu_type, utcnow()))
        elif request.method == "POST":
            raise Conflict(N_("These GPUs are not offered any more. Choose others."))
        return _open_page(form, offers, offer)
    if not form.validate():
        return _open_page(form, offers, offer), 422
    try:
        opening = form.opening(_cluster(offer).id, offer.gpu_type)
        period = periods.open_period(
            db(), current_actor(), opening, policy=policy(), key=pseudonym_key(), now=utcnow()
        )
    except Invalid as error:
        form.show(error)
        return _open_page(form, offers, offer), 422
    except Conflict as error:
        form.form_errors.append(translated(error))
        return _open_page(form, offers, offer), 409
    flash(gettext("The period is open: its claims are collected, and nothing is divided yet."), "success")
    return redirect(url_for("periods.show", period_id=period.id), 303)


def _cluster(offer: Offer) -> Cluster:
    return db().query(Cluster).filter(Cluster.slug == offer.cluster).one()


def _open_page(form: OpenForm, offers: list[Offer], offer: Offer | None) -> str:
    capacity = None
    if offer is not None and form.first.data and form.last.data and form.first.data <= form.last.data:
        cluster = _cluster(offer)
        opening = form.opening(cluster.id, offer.gpu_type)
        window = (opening.starts_at, opening.ends_at)
        capacity = period_inputs.capacity_of(db(), cluster, offer.gpu_type, window, policy())
    return render_template(
        "periods/open.html",
        form=form,
        offers=[(hardware_key(one), hardware_label(one)) for one in offers],
        offer=offer,
        label=hardware_label(offer) if offer else "",
        capacity=capacity,
        percent=policy().periods.reserve_percent,
    )


@bp.get(PERIOD)
def show(period_id: int) -> str:
    """The board: demand, capacity, pools, claims, fairness; `?proposal=` chooses, else the last."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    made = paginate_list(period_queries.proposals(db(), period), limit=10, name="proposals")
    proposal = _wanted_proposal(period)
    return render_template("periods/show.html", **_board(period, proposal), proposals=made)


def _wanted_proposal(period: Period) -> Proposal | None:
    number = request.args.get("proposal", "")
    if number.isascii() and number.isdigit() and len(number) < 19:
        proposal = period_queries.find_proposal(db(), current_actor(), int(number))
        if proposal.period_id != period.id:
            raise NotFound()
        return proposal
    return period_queries.latest_proposal(db(), period)


def _board(period: Period, proposal: Proposal | None) -> dict[str, Any]:
    actor = current_actor()
    by = sorting(SORTS, "share", descending=True)
    summary = summary_of(proposal) if proposal else None
    claims, demand = period_queries.demand(db(), period)
    return {
        "period": period,
        "proposal": proposal,
        "words": words,
        "category_title": category_title,
        "by": by,
        "page": paginate_list(_sorted(period_queries.rows(db(), proposal), by) if proposal else []),
        "adjustments": paginate_list(proposal.adjustments if proposal else [], limit=10, name="adjustments"),
        "bars": pool_bars(summary.pools if summary else []),
        "summary": summary,
        "demand": demand,
        "divided": summary.divided if summary else 0,
        "claims": claims,
        "in_force": period.state in IN_FORCE,
        "may_work": may(actor, Action.PERIOD_PROPOSE) and period.state in OPEN,
        "may_ask": may(actor, Action.PERIOD_PROPOSE),
        "may_publish": proposal is not None and may_publish(actor, proposal),
    }


def _sorted(rows: list[Row], by: Sorting) -> list[Row]:
    # sorted is stable, also in reverse: equals stay in the order of their numbers
    return sorted(rows, key=SORTS[by.key], reverse=by.descending)


@bp.post(f"{PERIOD}/collect")
@once.guard
def collect(period_id: int) -> ResponseReturnValue:
    """Take the claims of a draft anew."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    count = periods.collect(db(), current_actor(), period, policy=policy(), key=pseudonym_key(), now=utcnow())
    flash(gettext("Claims collected again: %(count)s.", count=count), "success")
    return redirect(url_for("periods.show", period_id=period_id), 303)


@bp.post(f"{PERIOD}/propose")
@once.guard
def propose(period_id: int) -> ResponseReturnValue:
    """Let the machine divide; the first proposal freezes the inputs."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    try:
        proposal = period_opening.propose(
            db(), current_actor(), period, policy=policy(), key=pseudonym_key(), now=utcnow()
        )
    except Invalid as error:
        flash("; ".join(translated(fault) for faults in error.fields.values() for fault in faults), "danger")
        return redirect(url_for("periods.show", period_id=period_id), 303)
    flash(
        gettext("Proposal %(number)s is made. Nobody is bound by it yet.", number=proposal.number), "success"
    )
    return redirect(url_for("periods.show", period_id=period_id), 303)


@bp.route(f"{PERIOD}/discard", methods=["GET", "POST"])
@once.guard
def discard(period_id: int) -> ResponseReturnValue:
    """Ask why, then give up a period that nobody was told of."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    require(current_actor(), Action.PERIOD_PROPOSE, period)
    if period.state not in OPEN:
        raise WrongState(N_("This period is past that step."), {"state": period.state.value})
    form = ReasonForm() if request.method == "POST" else ReasonForm(formdata=None)
    if request.method == "GET":
        form.version.data = period.version
        return render_template("periods/discard.html", period=period, form=form, words=words)
    if form.validate():
        try:
            periods.discard(
                db(),
                current_actor(),
                period,
                form.reason.data or "",
                expected_version=form.version.data or 0,
                now=utcnow(),
            )
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The period was given up; its days can be opened again."), "success")
            return redirect(url_for("periods.show", period_id=period_id), 303)
    return render_template("periods/discard.html", period=period, form=form, words=words), 422


@bp.get(f"{PERIOD}/compare")
def compare_two(period_id: int) -> str:
    """Two proposals side by side: `?a=` and `?b=`, by their numbers on the page of the period."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    made = period_queries.proposals(db(), period)
    ids = [proposal.id for proposal in made]
    chosen = [_id("a", ids, ids[1] if len(ids) > 1 else None), _id("b", ids, ids[0] if ids else None)]
    # shares of these two alone: all proposals of a large period together would be a million rows
    both = {one.id: one for one in period_queries.with_shares(db(), period, [one for one in chosen if one])}
    before, after = (both.get(number or 0) for number in chosen)
    whole = compare(before, after) if before and after else None
    page = paginate_list(whole.rows if whole else ())
    return render_template(
        "periods/compare.html",
        period=period,
        proposals=made,
        chosen=chosen,
        comparison=whole,
        page=page,
        titles=titles_of(page.items),
        words=words,
    )


def _id(name: str, known: Collection[int], default: int | None) -> int | None:
    text = request.args.get(name, "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default
    return number if number in known else default


@bp.get(f"{PERIOD}/replay")
def replayed(period_id: int) -> str:
    """Recompute everything from what is recorded, and say identical or where not."""
    period = period_queries.find_period(db(), current_actor(), period_id)
    result = replay.replay(db(), period)
    page = paginate_list(result.mismatches)
    return render_template("periods/replay.html", period=period, result=result, page=page, words=words)
