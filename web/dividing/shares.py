"""A quota's part of the periods: why it is so large, what is planned, and giving some of it back."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator.authorization import Action, require
from allocator.booking import booking_queries
from allocator.dividing import divisions, grants, period_plans, period_queries, what_if
from allocator.errors import Invalid, NotFound
from allocator.models import Grant, Period, PeriodClaim, PeriodPlan, Quota
from config.clock import utcnow
from web import once
from web.applying.quotas import QUOTA
from web.days import end_of, first_day, last_day, start_of
from web.dividing import (
    period_words as words,
)
from web.dividing.period_forms import GiveBackForm, IfAskedForm, PlanForm
from web.dividing.proposals import claim_of
from web.formats import number
from web.identity import current_actor
from web.policy import policy
from web.session import db

bp = Blueprint("shares", __name__)
OF_PERIOD = f"{QUOTA}/periods/<int(max=9223372036854775807):period_id>"
HOUR = 3600


@bp.get(OF_PERIOD)
def show(quota_id: int, period_id: int) -> ResponseReturnValue:
    """Why the share is what it is, in plain words, and what half, or `?request=`, would have brought."""
    actor = current_actor()
    quota = booking_queries.find_quota(db(), actor, quota_id)
    period, grant = _grant(quota, period_id)
    asked = "request" in request.args
    form = IfAskedForm(request.args if asked else None, meta={"csrf": False})
    proposal = period_queries.published_proposal(db(), period)
    explained, answer = None, None
    if proposal is not None and grant.claim_id is not None:
        explained = divisions.explain(proposal, claim_of(proposal, quota.id))
        if not asked:
            form.request.data = explained.claim.request // 2
        if not asked or form.validate():
            try:
                answer = what_if.if_asked(db(), actor, period, quota, form.request.data or 0)
            except Invalid as error:
                form.show(error)
    page = render_template(
        "periods/mine.html",
        quota=quota,
        period=period,
        grant=grant,
        room=grants.room(db(), grant),
        explained=explained,
        form=form,
        answer=answer,
        words=words,
    )
    return page, 422 if form.errors else 200


def _grant(quota: Quota, period_id: int) -> tuple[Period, Grant]:
    """A published period with this quota's grant. Raises NotFound for every other."""
    period = period_queries.find_published(db(), period_id)
    grant = next((one for one in period_queries.grants_of(db(), quota) if one.period_id == period_id), None)
    if grant is None:
        raise NotFound()
    return period, grant


@bp.route(f"{OF_PERIOD}/give-back", methods=["GET", "POST"])
@once.guard
def give_back(quota_id: int, period_id: int) -> ResponseReturnValue:
    """Give hours back that will not be needed: others get them, and credit is earned."""
    actor = current_actor()
    quota = booking_queries.find_quota(db(), actor, quota_id)
    require(actor, Action.QUOTA_MANAGE, quota)
    _, grant = _grant(quota, period_id)
    form = GiveBackForm() if request.method == "POST" else GiveBackForm(formdata=None)
    if request.method == "GET":
        return _give_back_page(grant, form)
    if not form.validate():
        return _give_back_page(grant, form), 422
    hours = form.gpu_hours.data or 0
    try:
        reason = form.reason.data or ""
        grants.give_back(db(), actor, grant, hours, reason=reason, policy=policy(), now=utcnow())
    except Invalid as error:
        form.show(error)
        return _give_back_page(grant, form), 422
    flash(gettext("%(hours)s GPU-hours were given back. Thank you.", hours=number(hours)), "success")
    return redirect(url_for("quotas.show", quota_id=quota_id), 303)


def _give_back_page(grant: Grant, form: GiveBackForm) -> str:
    room = grants.room(db(), grant)
    if form.gpu_hours.data is None and not form.errors:
        form.gpu_hours.data = room.available // HOUR
    return render_template("periods/give_back.html", grant=grant, room=room, form=form, words=words)


@bp.route(f"{OF_PERIOD}/plan", methods=["GET", "POST"])
@once.guard
def plan(quota_id: int, period_id: int) -> ResponseReturnValue:
    """What the holder plans for a period that is still a draft."""
    actor = current_actor()
    quota = booking_queries.find_quota(db(), actor, quota_id)
    require(actor, Action.QUOTA_MANAGE, quota)
    period = next((one for one in period_queries.open_periods(db(), quota) if one.id == period_id), None)
    if period is None:
        raise NotFound()
    form = PlanForm() if request.method == "POST" else PlanForm(formdata=None)
    if request.method == "GET":
        _fill(form, period, quota)
        return _plan_page(period, quota, form)
    if not form.validate():
        return _plan_page(period, quota, form), 422
    wanted, least = form.request.data or 0, form.minimum.data or 0
    try:
        period_plans.set_plan(
            db(),
            actor,
            period,
            quota,
            wanted,
            least,
            uses_from=start_of(form.uses_from.data) if form.uses_from.data else None,
            uses_until=end_of(form.uses_until.data) if form.uses_until.data else None,
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _plan_page(period, quota, form), 422
    flash(gettext("Your plan is recorded."), "success")
    return redirect(url_for("quotas.show", quota_id=quota_id), 303)


def _fill(form: PlanForm, period: Period, quota: Quota) -> None:
    known = db().scalar(
        select(PeriodPlan).where(PeriodPlan.period_id == period.id, PeriodPlan.quota_id == quota.id)
    )
    if known is not None:
        form.request.data, form.minimum.data = known.request, known.minimum
        form.uses_from.data = first_day(known.uses_from) if known.uses_from else None
        form.uses_until.data = last_day(known.uses_until) if known.uses_until else None
        return
    form.request.data = db().scalar(
        select(PeriodClaim.request).where(
            PeriodClaim.period_id == period.id, PeriodClaim.quota_id == quota.id
        )
    )


def _plan_page(period: Period, quota: Quota, form: PlanForm) -> str:
    return render_template("periods/plan.html", period=period, quota=quota, form=form, words=words)
