"""One proposal: a share's explanation, adjusting it, publishing, what if, and its files (staff)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator.authorization import Action, may, require
from allocator.dividing import (
    adjustments,
    divisions,
    period_exports,
    period_queries,
    publication,
    what_if,
)
from allocator.dividing.period_comparison import Comparison
from allocator.errors import Invalid, NotFound, WrongState
from allocator.models import Period, PeriodClaim, Proposal, ProposalKind, ProposalShare
from allocator.states import PeriodState
from config.clock import utcnow
from config.i18n import N_
from web import once
from web.dividing import (
    period_words as words,
)
from web.dividing.period_forms import AdjustForm, WhatIfForm, what_if_form
from web.dividing.period_summary import summary_of
from web.dividing.periods import PERIOD, titles_of
from web.exports import csv_response
from web.identity import current_actor
from web.paging import paginate_list
from web.session import db

bp = Blueprint("proposals", __name__)
PROPOSAL = "/proposals/<int(max=9223372036854775807):proposal_id>"
SHARE = f"{PROPOSAL}/shares/<int(max=9223372036854775807):quota_id>"


def claim_of(proposal: Proposal, quota_id: int) -> PeriodClaim:
    """The claim of a quota in a proposal. Raises NotFound when it has none."""
    share = share_of(proposal, quota_id)
    return share.claim


def share_of(proposal: Proposal, quota_id: int) -> ProposalShare:
    """One share with its claim, without reading all the others."""
    of_quota = (ProposalShare.proposal_id == proposal.id, PeriodClaim.quota_id == quota_id)
    found = db().scalar(select(ProposalShare).join(ProposalShare.claim).where(*of_quota))
    if found is None:
        raise NotFound()
    return found


@bp.get(SHARE)
def share(proposal_id: int, quota_id: int) -> str:
    """Why one claim has its share in this proposal."""
    actor = current_actor()
    proposal = period_queries.find_proposal(db(), actor, proposal_id)
    claim = claim_of(proposal, quota_id)
    period = proposal.period
    return render_template(
        "periods/share.html",
        proposal=proposal,
        period=period,
        quota=claim.quota,
        explained=divisions.explain(proposal, claim),
        words=words,
        may_adjust=_adjustable(proposal) and may(actor, Action.PERIOD_ADJUST, claim.quota),
    )


def _adjustable(proposal: Proposal) -> bool:
    return proposal.kind is ProposalKind.PROPOSAL and proposal.period.state is PeriodState.PROPOSED


@bp.route(f"{SHARE}/adjust", methods=["GET", "POST"])
@once.guard
def adjust(proposal_id: int, quota_id: int) -> ResponseReturnValue:
    """Fix one share: first what it costs the others, then with `confirmed` a new proposal."""
    actor = current_actor()
    proposal = period_queries.find_proposal(db(), actor, proposal_id)
    claim = claim_of(proposal, quota_id)
    require(actor, Action.PERIOD_PROPOSE, proposal)
    require(actor, Action.PERIOD_ADJUST, claim.quota)
    if not _adjustable(proposal):
        raise WrongState(N_("This period is past that step."), {"state": proposal.period.state.value})
    form = AdjustForm() if request.method == "POST" else AdjustForm(formdata=None)
    if request.method == "GET" or request.form.get("change"):
        return _adjust_page(proposal, claim, form)
    if not form.validate():
        return _adjust_page(proposal, claim, form), 422
    hours, reason = form.hours.data or 0, form.reason.data or ""
    try:
        cost = adjustments.preview(db(), actor, proposal, quota_id, hours)
        if not request.form.get("confirmed"):
            return _adjust_page(proposal, claim, form, cost)
        made = adjustments.adjust(db(), actor, proposal, quota_id, hours, reason, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _adjust_page(proposal, claim, form), 422
    flash(gettext("Proposal %(number)s holds the adjustment.", number=made.number), "success")
    return redirect(url_for("periods.show", period_id=proposal.period_id, proposal=made.id), 303)


def _adjust_page(
    proposal: Proposal, claim: PeriodClaim, form: AdjustForm, cost: Comparison | None = None
) -> str:
    page = paginate_list(cost.rows if cost else ())
    return render_template(
        "periods/adjust.html",
        proposal=proposal,
        period=proposal.period,
        claim=claim,
        share=share_of(proposal, claim.quota_id).gpu_hours,
        form=form,
        comparison=cost,
        page=page,
        titles=titles_of(page.items),
        words=words,
    )


@bp.get(f"{PROPOSAL}/shares.csv")
def shares_csv(proposal_id: int) -> Response:
    """The board's list as a file, with names: for staff, unlike the public one."""
    proposal = period_queries.find_proposal(db(), current_actor(), proposal_id)
    header = "quota_id title holder pool request weight share set_by_a_person set_aside".split()
    rows = [
        [row.quota_id, row.title, row.holder, row.pool, row.request, str(row.weight), row.share]
        + ["yes" if mark else "" for mark in (row.is_fixed, row.is_set_aside)]
        for row in period_queries.rows(db(), proposal)
    ]
    return csv_response(f"shares-{proposal.period.name}-{proposal.number}.csv", header, rows)


@bp.route(f"{PROPOSAL}/publish", methods=["GET", "POST"])
@once.guard
def publish(proposal_id: int) -> ResponseReturnValue:
    """Show what becomes binding and who may say so, then publish."""
    actor, now = current_actor(), utcnow()
    proposal = period_queries.find_proposal(db(), actor, proposal_id)
    period = proposal.period
    if request.method == "POST":
        sent = request.form.get("version", "")
        version = int(sent) if sent.isascii() and sent.isdigit() and len(sent) <= 9 else 0
        publication.publish(db(), actor, proposal, expected_version=version, now=now)
        flash(gettext("The period is published: grants are made and letters are on their way."), "success")
        return redirect(url_for("periods.show", period_id=period.id), 303)
    require(actor, Action.PERIOD_PROPOSE)
    return render_template(
        "periods/publish.html",
        proposal=proposal,
        period=period,
        words=words,
        can=_can(proposal, now),
        may_publish=publication.may_publish(actor, proposal),
        summary=summary_of(proposal),
    )


def _can(proposal: Proposal, now: datetime) -> bool:
    return _adjustable(proposal) and proposal.period.ends_at > now


@bp.get(f"{PROPOSAL}/division.json")
def as_json(proposal_id: int) -> Response:
    """Inputs and result as the stand-alone checker reads them."""
    return division_json(period_queries.find_proposal(db(), current_actor(), proposal_id))


@bp.get(f"{PROPOSAL}/division.csv")
def as_csv(proposal_id: int) -> Response:
    """The claims as a table."""
    return division_csv(period_queries.find_proposal(db(), current_actor(), proposal_id))


def division_json(proposal: Proposal) -> Response:
    """A proposal as a JSON download, by pseudonyms."""
    response = jsonify(period_exports.document(proposal))
    response.headers["Content-Disposition"] = f'attachment; filename="{words.file_name(proposal)}.json"'
    return response


def division_csv(proposal: Proposal) -> Response:
    """The same as CSV."""
    header, *rows = period_exports.csv_rows(proposal)
    return csv_response(f"{words.file_name(proposal)}.csv", header, rows)


@bp.get(f"{PERIOD}/what-if")
def ask(period_id: int) -> ResponseReturnValue:
    """The form; with a query what would change, who gains and who loses. Looking stores nothing."""
    period = _period(period_id)
    asked = {name: value for name, value in request.args.items() if name not in ("lang", "page", "limit")}
    form = _form(period, request.args if asked else None, csrf=False)
    if not asked:
        return _what_if_page(period, form)
    if not form.validate():
        return _what_if_page(period, form), 422
    scenario = form.scenario(period)
    if scenario is None:
        return _what_if_page(period, form), 422
    try:
        comparison = what_if.what_if(db(), current_actor(), period, scenario)
    except Invalid as error:
        form.show(error)
        return _what_if_page(period, form), 422
    return _what_if_page(period, form, comparison)


@bp.post(f"{PERIOD}/what-if")
@once.guard
def keep(period_id: int) -> ResponseReturnValue:
    """Keep a what-if under its name, beside the proposals."""
    period = _period(period_id)
    form = _form(period, request.form, csrf=True)
    scenario = form.scenario(period) if form.validate() else None
    if scenario is None:
        return _what_if_page(period, form), 422
    try:
        # first, so that a name that will not do does not take the result off the page
        comparison = what_if.what_if(db(), current_actor(), period, scenario)
    except Invalid as error:
        form.show(error)
        return _what_if_page(period, form), 422
    try:
        kept = what_if.keep(db(), current_actor(), period, scenario, form.name.data or "", now=utcnow())
    except Invalid as error:
        form.show(error)
        return _what_if_page(period, form, comparison), 422
    flash(gettext("Kept as “%(name)s”. It binds nobody.", name=kept.name), "success")
    return redirect(url_for("periods.show", period_id=period_id, proposal=kept.id), 303)


def _period(period_id: int) -> Period:
    period = period_queries.find_period(db(), current_actor(), period_id)
    require(current_actor(), Action.PERIOD_PROPOSE)
    return period


def _form(period: Period, sent: Any, csrf: bool) -> WhatIfForm:
    titles: Mapping[str, str] = {pool.slug: words.pool_title(pool.slug) for pool in period.pools}
    form = what_if_form(period.pools, titles, sent, csrf)
    form.show_caps(period)
    return form


def _what_if_page(period: Period, form: WhatIfForm, comparison: Comparison | None = None) -> str:
    page = paginate_list(comparison.rows if comparison else ())
    return render_template(
        "periods/what_if.html",
        period=period,
        form=form,
        comparison=comparison,
        page=page,
        titles=titles_of(page.items),
        words=words,
    )
