"""After publication: the reserve, hours that came back, forecasts, and what is to be taken back (staff)."""

from __future__ import annotations

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import ledger
from allocator.authorization import Action, may, require
from allocator.booking import booking_queries
from allocator.dividing import grants, period_queries, reclaim
from allocator.errors import Invalid, NotFound, Stale
from allocator.models import Grant, Period, Quota, Reclaim
from allocator.states import PeriodState
from config.clock import utcnow
from config.i18n import N_
from web import once
from web.dividing import (
    period_words as words,
)
from web.dividing.period_forms import HoursForm, ReasonForm
from web.dividing.periods import PERIOD
from web.exports import csv_response
from web.formats import gpu_hours, number
from web.identity import current_actor
from web.paging import paginate_list
from web.policy import policy
from web.session import db

bp = Blueprint("grants", __name__)
RECLAIM = "/reclaims/<int(max=9223372036854775807):reclaim_id>"


@bp.get(f"{PERIOD}/grants")
def index(period_id: int) -> str:
    """The grants of a published period as they stand, and all that can be done about them."""
    actor, now = current_actor(), utcnow()
    period = _published(period_id)
    live = period.state is PeriodState.PUBLISHED and period.ends_at > now
    return render_template(
        "periods/grants.html",
        period=period,
        words=words,
        check_percent=policy().use_or_lose.check_percent,
        live=live,
        may_operate=live and may(actor, Action.PERIOD_OPERATE),
        reserve=grants.reserve_of(db(), period),
        reserve_left=grants.reserve_left(db(), period),
        returned_left=grants.returned_left(db(), period),
        forecasts=paginate_list(reclaim.forecast(db(), period, policy=policy(), now=now)),
        waiting=paginate_list(grants.waiting(db(), period), limit=10, name="waiting") if live else None,
        reclaims=paginate_list(period_queries.reclaims(db(), period), limit=10, name="reclaims"),
    )


@bp.get(f"{PERIOD}/grants.csv")
def forecast_csv(period_id: int) -> Response:
    """The forecast as a file, GPU-seconds."""
    period = _published(period_id)
    header = "quota_id title granted planned used expected take_back".split()
    rows = [
        [
            row.grant.quota_id,
            row.grant.quota.application.title,
            row.granted,
            row.planned,
            row.used,
            row.expected,
            row.take_back,
        ]
        for row in reclaim.forecast(db(), period, policy=policy(), now=utcnow())
    ]
    return csv_response(f"grants-{period.name}.csv", header, rows)


def _published(period_id: int) -> Period:
    period = period_queries.find_period(db(), current_actor(), period_id)
    if period.state not in period_queries.PUBLIC:
        raise NotFound()
    return period


@bp.route(f"{PERIOD}/reserve/<int(max=9223372036854775807):quota_id>", methods=["GET", "POST"])
@once.guard
def reserve(period_id: int, quota_id: int) -> ResponseReturnValue:
    """Serve a late approval, or who lost hours to an outage, from the reserve."""
    actor = current_actor()
    period = _published(period_id)
    quota = booking_queries.find_quota(db(), actor, quota_id)
    require(actor, Action.PERIOD_OPERATE, period)
    require(actor, Action.PERIOD_ADJUST, quota)
    form = HoursForm() if request.method == "POST" else HoursForm(formdata=None)
    if request.method == "GET":
        return _reserve_page(period, quota, form)
    if not form.validate():
        return _reserve_page(period, quota, form), 422
    hours = form.gpu_hours.data or 0
    try:
        grants.serve_from_reserve(db(), actor, period, quota, hours, form.reason.data or "", now=utcnow())
    except Invalid as error:
        form.show(error)
        return _reserve_page(period, quota, form), 422
    flash(gettext("%(hours)s GPU-hours of the reserve are granted.", hours=number(hours)), "success")
    return redirect(url_for("grants.index", period_id=period_id), 303)


def _reserve_page(period: Period, quota: Quota, form: HoursForm) -> str:
    return render_template(
        "periods/reserve.html",
        period=period,
        quota=quota,
        form=form,
        words=words,
        reserve_left=grants.reserve_left(db(), period),
        available=ledger.balance(db(), quota).available,
    )


@bp.route(f"{PERIOD}/redivide", methods=["GET", "POST"])
@once.guard
def redivide(period_id: int) -> ResponseReturnValue:
    """Show who would get what came back, then divide it."""
    actor = current_actor()
    period = _published(period_id)
    require(actor, Action.PERIOD_OPERATE, period)
    left = grants.returned_left(db(), period)
    if request.method == "POST":
        if request.form.get("left") != str(left):
            raise Stale(N_("Hours came back or were divided since you opened the page. Look at it again."))
        made = grants.redivide(db(), actor, period, now=utcnow())
        hours = gpu_hours(sum(change.gpu_seconds for change in made))
        flash(gettext("%(hours)s GPU-hours were divided again.", hours=hours), "success")
        return redirect(url_for("grants.index", period_id=period_id), 303)
    rows = grants.redivision(db(), period)
    return render_template(
        "periods/redivide.html",
        period=period,
        words=words,
        page=paginate_list(rows),
        left=left,
        divided=sum(hours for _, hours in rows),
    )


@bp.route(f"{RECLAIM}/confirm", methods=["GET", "POST"])
@once.guard
def confirm(reclaim_id: int) -> ResponseReturnValue:
    """Ask, then take hours back that are not used."""
    actor = current_actor()
    one = _reclaim(reclaim_id)
    back = url_for("grants.index", period_id=one.grant.period_id)
    if request.method == "POST":
        taken = reclaim.confirm(db(), actor, one, now=utcnow())
        told = gettext("%(hours)s GPU-hours were taken back.", hours=gpu_hours(taken))
        flash(told if taken else gettext("All of it is booked meanwhile: nothing was taken back."), "success")
        return redirect(back, 303)
    return render_template(
        "confirm.html",
        heading=gettext("Take hours back from “%(title)s”?", title=one.grant.quota.application.title),
        text=gettext(
            "What is booked by now stays. The holder gets a letter, and the hours are divided again."
        ),
        label=gettext("Take them back"),
        back_url=back,
        facts=_facts(one),
    )


@bp.route(f"{RECLAIM}/drop", methods=["GET", "POST"])
@once.guard
def drop(reclaim_id: int) -> ResponseReturnValue:
    """Let the holder keep the hours, with a reason."""
    one = _reclaim(reclaim_id)
    form = ReasonForm() if request.method == "POST" else ReasonForm(formdata=None)
    if request.method == "POST" and form.validate():
        try:
            reclaim.drop(db(), current_actor(), one, form.reason.data or "", now=utcnow())
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("The holder keeps the hours."), "success")
            return redirect(url_for("grants.index", period_id=one.grant.period_id), 303)
    page = render_template("periods/drop.html", reclaim=one, facts=_facts(one), form=form)
    return page, 422 if form.errors else 200


def _reclaim(reclaim_id: int) -> Reclaim:
    """For who may see periods; deciding needs more. Raises NotFound, Forbidden."""
    actor = current_actor()
    one = db().get(Reclaim, reclaim_id)
    require(actor, Action.APPLICATION_CREATE)  # a visitor learns to sign in, and nothing else
    if one is None or not may(actor, Action.PERIOD_VIEW):
        raise NotFound()
    grant: Grant = one.grant
    require(actor, Action.PERIOD_OPERATE, grant.period)
    require(actor, Action.PERIOD_ADJUST, grant.quota)
    return one


def _facts(one: Reclaim) -> list[tuple[str, str]]:
    return [
        (gettext("Planned until the warning"), gpu_hours(one.planned)),
        (gettext("Used or booked of it"), gpu_hours(one.used)),
        (gettext("At most taken back"), gpu_hours(one.take_back)),
    ]
