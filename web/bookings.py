"""Bookings: ask and see what it costs, book, follow, give back."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator import booking_queries, bookings, capacity, grants, ledger
from allocator.authorization import Action, may, require
from allocator.bookings import Ask, Quote
from allocator.errors import Invalid, NoCapacity, Stale
from allocator.models import Booking, Person, Quota
from allocator.states import BookingState
from allocator.windows import Shape, ceil
from config.clock import utcnow
from web import charts, once
from web.booking_forms import LOCAL, BookingForm, CancelForm
from web.booking_words import situation, timeline
from web.days import last_day
from web.formats import gpu_hours, moment
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.quotas import QUOTA, sees_everybodys
from web.session import db, settings

bp = Blueprint("bookings", __name__)
BOOKING = "/bookings/<int:booking_id>"
AHEAD_DAYS = 14


@bp.get("/bookings")
def index() -> str:
    """Bookings, the coming ones first: one's own, or `?all=1` for staff; `?quota=` narrows to one quota."""
    everybodys = sees_everybodys() and request.args.get("all") == "1"
    quota, number = None, request.args.get("quota", "")
    if number.isascii() and number.isdigit() and len(number) < 19:
        quota = booking_queries.find_quota(db(), current_actor(), int(number))
    page = paginate(
        db(), booking_queries.list_bookings(current_actor(), everybodys or quota is not None, quota)
    )
    return render_template(
        "bookings/index.html", page=page, quota=quota, everybodys=everybodys, staff=sees_everybodys()
    )


@bp.get(f"{QUOTA}/book")
def new(quota_id: int) -> ResponseReturnValue:
    """The form; with a query, what that would cost and whether it fits: looking changes nothing."""
    quota = _quota_to_book(quota_id)
    if "hours" not in request.args:
        return _form_page(quota, _suggestion(quota))
    form = BookingForm(request.args, meta={"csrf": False})
    if "edit" in request.args:  # back from the quote, with everything as it was
        return _form_page(quota, form)
    if not form.validate():
        return _form_page(quota, form), 422
    try:
        quote = _quote(quota, form, utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    if quote.fits:
        return render_template(
            "bookings/quote.html",
            quota=quota,
            quote=quote,
            fields=_fields(quote.ask, form),
            same=_booked_already(quota, quote.ask),
        )
    return _refused(quota, form, quote), 422 if quote.faults else 409


@bp.post(f"{QUOTA}/book")
@once.guard
def book(quota_id: int) -> ResponseReturnValue:
    """Book what was quoted; when that is gone meanwhile, say so and offer the nearest start."""
    quota, now = _quota_to_book(quota_id), utcnow()
    form = BookingForm()
    if not form.validate_on_submit():
        return _form_page(quota, form), 422
    try:
        ask = _ask(quota, form, now, quoted=True)
        # A savepoint: undone, it gives the cluster's lock up before the search for another start begins.
        with db().begin_nested():
            booking = bookings.book(db(), current_actor(), quota, ask, rules=policy().bookings, now=now)
    except Invalid as error:
        if error.fields.keys() <= {"starts_at"} and form.starts_at.data:
            return _refused(quota, form, _quote(quota, form, now, quoted=True)), 422
        form.show(error)
        return _form_page(quota, form), 422
    except NoCapacity:
        return _refused(quota, form, _quote(quota, form, now, quoted=True)), 409
    hours = gpu_hours(booking.gpu_seconds)
    flash(
        gettext("Booked: %(hours)s GPU-hours from %(start)s.", hours=hours, start=moment(ask.starts_at)),
        "success",
    )
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _quota_to_book(quota_id: int) -> Quota:
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    require(current_actor(), Action.BOOKING_CREATE, quota)
    return quota


def _booked_already(quota: Quota, ask: Ask) -> int | None:
    """The number of the person's own booking of exactly this: who comes back here means that one."""
    return db().scalar(
        select(Booking.id)
        .where(
            Booking.quota_id == quota.id,
            Booking.booked_by_id == current_actor().person_id,
            Booking.state != BookingState.CANCELLED,
            Booking.starts_at == ask.starts_at,
            Booking.ends_at == ask.ends_at,
            Booking.nodes == ask.nodes,
            Booking.gpus_per_node == ask.gpus_per_node,
        )
        .order_by(Booking.id.desc())
        .limit(1)
    )


def _suggestion(quota: Quota) -> BookingForm:
    """The form as it first comes: the shape that was applied for, a day long, tomorrow at ten."""
    zone = settings().zone
    tomorrow = (utcnow().astimezone(zone) + timedelta(days=1)).replace(
        hour=10, minute=0, second=0, microsecond=0
    )
    form = BookingForm(formdata=None, meta={"csrf": False})
    form.starts_at.data = tomorrow.replace(tzinfo=None)
    form.nodes.data, form.gpus_per_node.data = quota.application.nodes, quota.application.gpus_per_node
    form.hours.process_formdata(["24"])
    return form


def _ask(quota: Quota, form: BookingForm, now: datetime, quoted: bool) -> Ask:
    """What the form asks for; a start `quoted` as the soonest possible holds until it has gone by."""
    if not form.asap.data:
        return form.ask_at(form.start(settings().zone))
    rules = policy().bookings
    if quoted and form.starts_at.data:
        start = form.start(settings().zone)
        if start >= now + rules.lead_time:
            return form.ask_at(start)
    shape = Shape(form.nodes.data or 0, form.gpus_per_node.data or 0)
    found = bookings.earliest(db(), quota, shape, form.length(), rules=rules, now=now)
    if found is None:
        # a wrong shape or length is the better reason, if there is one: the checks know
        found = form.start(settings().zone) if form.starts_at.data else now + rules.lead_time
    return form.ask_at(ceil(found))


def _quote(quota: Quota, form: BookingForm, now: datetime, quoted: bool = False) -> Quote:
    ask = _ask(quota, form, now, quoted)
    return bookings.quote(db(), current_actor(), quota, ask, rules=policy().bookings, now=now)


def _fields(ask: Ask, form: BookingForm, start: datetime | None = None) -> dict[str, str]:
    """The form's values, for hidden fields and links, with `start` in place of its own."""
    local = (start or ask.starts_at).astimezone(settings().zone)
    return {
        "starts_at": local.strftime(LOCAL),
        "hours": str(form.hours.data),
        "nodes": str(ask.nodes),
        "gpus_per_node": str(ask.gpus_per_node),
        "asap": (form.asap.data or "") if start is None else "",
    }


def _refused(quota: Quota, form: BookingForm, quote: Quote) -> str:
    """The form with why it does not fit, and the nearest starts as buttons."""
    form.show(Invalid(quote.faults))
    starts = [start for start in (quote.before, quote.after) if start]
    return _form_page(
        quota, form, quote=quote, offers=[(start, _fields(quote.ask, form, start)) for start in starts]
    )


def _form_page(
    quota: Quota,
    form: BookingForm,
    quote: Quote | None = None,
    offers: list[tuple[datetime, dict[str, str]]] | None = None,
) -> str:
    zone, now = settings().zone, utcnow()
    today = now.astimezone(zone).date()
    types = capacity.gpu_types(db(), quota.cluster)
    gpu_type = types.get(quota.gpu_type)
    booked = capacity.booked_by_window(db(), [quota.cluster], charts.days(today, AHEAD_DAYS, zone))
    values = booked.get((quota.cluster_id, quota.gpu_type), [0] * AHEAD_DAYS)
    return render_template(
        "bookings/new.html",
        last_day=last_day,
        rooms=grants.rooms(db(), quota, now, min(now + policy().bookings.max_ahead, quota.valid_until)),
        quota=quota,
        form=form,
        quote=quote,
        offers=offers or [],
        gpu_type=gpu_type,
        balance=ledger.balance(db(), quota),
        chart=charts.chart(today, values, (gpu_type.gpus_up if gpu_type else 0) * 24 * 3600),
        rules=policy().bookings,
    )


@bp.get(BOOKING)
def show(booking_id: int) -> str:
    """One booking: how it stands, what comes next, and the line to submit jobs with."""
    actor, now = current_actor(), utcnow()
    booking = booking_queries.find_booking(db(), actor, booking_id)
    used = ledger.used_in_bookings(db(), [booking.id]).get(booking.id, 0)
    may_cancel = may(actor, Action.BOOKING_CANCEL, booking) and booking.ends_at > now
    return render_template(
        "bookings/show.html",
        booking=booking,
        used=used,
        now=now,
        situation=situation(booking, used, policy().bookings, now),
        happenings=timeline(booking_queries.changes(db(), booking)),
        login=db().scalar(select(Person.cluster_login).where(Person.id == actor.person_id)),
        may_use=may(actor, Action.BOOKING_CREATE, booking.quota),
        may_cancel=may_cancel and booking.state in booking_queries.LIVE,
        live=booking.state in booking_queries.LIVE,
    )


@bp.route(f"{BOOKING}/cancel", methods=["GET", "POST"])
@once.guard
def cancel(booking_id: int) -> ResponseReturnValue:
    """Say what is given back, ask, then do it."""
    actor, now = current_actor(), utcnow()
    booking = booking_queries.find_booking(db(), actor, booking_id)
    require(actor, Action.BOOKING_CANCEL, booking)
    form = CancelForm() if request.method == "POST" else CancelForm(formdata=None)
    if request.method == "GET":
        return _cancel_page(booking, form, now)
    if not form.validate_on_submit():
        return _cancel_page(booking, form, now), 422
    try:
        done = bookings.cancel(
            db(),
            actor,
            booking,
            reason=form.reason.data or "",
            expected_version=form.version.data or 0,
            now=now,
        )
    except Stale:
        return _cancel_page(booking, form, now, stale=True), 409
    flash(gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(done.given_back)), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _cancel_page(booking: Booking, form: CancelForm, now: datetime, stale: bool = False) -> str:
    """The question, with today's answer to what it gives back. Raises WrongState when the booking is over."""
    done = bookings.cancellation(booking, now)
    # a page that came back stale shows the booking as it is now, and asks again about that
    form.version.data, form.version.raw_data = booking.version, None
    running = booking.state == BookingState.STARTED or booking.starts_at <= now
    return render_template(
        "bookings/cancel.html", booking=booking, form=form, done=done, running=running, stale=stale
    )
