"""Quotas: what is left and why, who may spend it, what it was spent on."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import ledger
from allocator.actors import Role
from allocator.applying import quotas
from allocator.authorization import Action, may, require
from allocator.booking import booking_queries
from allocator.errors import Invalid, NotFound
from allocator.models import Quota
from allocator.states import QuotaState
from config.clock import utcnow
from web import (
    charts,
    limits,
    once,
)
from web.booking.booking_forms import MemberForm
from web.booking.booking_words import timeline
from web.dividing import (
    period_words,
)
from web.dividing.period_parts import parts_of
from web.exports import csv_response, read_rows
from web.identity import current_actor
from web.paging import paginate
from web.policy_words import weight_facts
from web.session import db, settings

bp = Blueprint("quotas", __name__)
QUOTA = "/quotas/<int:quota_id>"
STAFF = frozenset({Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR})
CHART_DAYS = 30
SHOWN_BOOKINGS = 5


def sees_everybodys() -> bool:
    """Whether the reader's role shows them more than what is their own."""
    return not current_actor().roles.isdisjoint(STAFF)


@bp.get("/quotas")
def index() -> str:
    """Quotas with what is left of them: one's own, or `?all=1` for staff, narrowed by `?state=`."""
    everybodys = sees_everybodys() and request.args.get("all") == "1"
    state = next((state for state in QuotaState if state.value == request.args.get("state")), None)
    page = paginate(db(), booking_queries.list_quotas(current_actor(), state, everybodys))
    return render_template(
        "quotas/index.html",
        page=page,
        balances=ledger.balances(db(), [quota.id for quota in page.items]),
        states=list(QuotaState),
        state=state,
        everybodys=everybodys,
        staff=sees_everybodys(),
    )


@bp.get(QUOTA)
def show(quota_id: int) -> str:
    """One quota: the balance and where it comes from, bookings, jobs, members."""
    return _page(booking_queries.find_quota(db(), current_actor(), quota_id), MemberForm(formdata=None))


def _page(quota: Quota, member_form: MemberForm) -> str:
    actor, now, application = current_actor(), utcnow(), quota.application
    first = now.astimezone(settings().zone).date() - timedelta(days=CHART_DAYS - 1)
    days = charts.days(first, CHART_DAYS, settings().zone)
    bookings = booking_queries.list_bookings(actor, sees_everybodys(), quota)
    return render_template(
        "quotas/show.html",
        quota=quota,
        balance=ledger.balance(db(), quota),
        weight_facts=weight_facts(application.decision, application.category, application.organisation),
        now=now,
        parts_of_quota=parts_of(db(), quota, now),
        words=period_words,
        bookings=paginate(db(), bookings, limit=SHOWN_BOOKINGS, name="bookings"),
        jobs=paginate(db(), ledger.jobs(quota), limit=10, name="jobs"),
        members=paginate(db(), booking_queries.members(quota), limit=10, name="members"),
        chart=charts.chart(first, ledger.usage_by_day(db(), quota, days)),
        happenings=timeline(booking_queries.changes(db(), quota)),
        form=member_form,
        may_book=may(actor, Action.BOOKING_CREATE, quota) and quota.state == QuotaState.ACTIVE,
        may_manage=may(actor, Action.QUOTA_MANAGE, quota) and quota.state == QuotaState.ACTIVE,
        removable=lambda member: quotas.removable(quota, member),
    )


@bp.get(f"{QUOTA}/jobs.csv")
def jobs_csv(quota_id: int) -> ResponseReturnValue:
    """Every job of the quota."""
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    header = (
        "job_id login account state submitted_at started_at ended_at elapsed_seconds gpus gpu_seconds "
        "reservation booking_id"
    ).split()
    rows = read_rows(ledger.jobs(quota), lambda job: [getattr(job, column) for column in header])
    return csv_response(f"{quota.account}-jobs.csv", header, rows)


@bp.get(f"{QUOTA}/members")
def members(quota_id: int) -> ResponseReturnValue:
    """Where a reload lands after an addition that failed: the quota's page, which has the form."""
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    return redirect(url_for("quotas.show", quota_id=quota.id, _anchor="members"), 303)


@bp.post(f"{QUOTA}/members")
@limits.by_person
@once.guard
def add_member(quota_id: int) -> ResponseReturnValue:
    """Let somebody spend the quota."""
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    require(current_actor(), Action.QUOTA_MANAGE, quota)
    form = MemberForm()
    if form.validate_on_submit():
        try:
            member = quotas.add_member(
                db(),
                current_actor(),
                quota,
                form.email.data or "",
                forbidden_logins=settings().forbidden_logins,
                now=utcnow(),
            )
        except Invalid as error:
            form.show(error)
        else:
            flash(gettext("%(name)s may use the quota now.", name=member.person.name), "success")
            return redirect(url_for("quotas.show", quota_id=quota.id), 303)
    return _page(quota, form), 422


@bp.route(f"{QUOTA}/members/<int:person_id>/remove", methods=["GET", "POST"])
@once.guard
def remove_member(quota_id: int, person_id: int) -> ResponseReturnValue:
    """Ask, then take away somebody's right to spend the quota."""
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    require(current_actor(), Action.QUOTA_MANAGE, quota)
    member = next((member for member in quota.members if member.person_id == person_id), None)
    if member is None or not quotas.removable(quota, member):
        raise NotFound()
    back = url_for("quotas.show", quota_id=quota.id)
    name = member.person.name
    if request.method == "POST":
        quotas.remove_member(db(), current_actor(), quota, person_id, now=utcnow())
        flash(gettext("%(name)s cannot use the quota any more.", name=name), "success")
        return redirect(back, 303)
    return render_template(
        "confirm.html",
        heading=gettext("Remove %(name)s from the quota?", name=name),
        text=gettext("They can then start no more jobs on it. Bookings and running jobs stay."),
        label=gettext("Remove"),
        back_url=back,
    )
