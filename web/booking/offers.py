"""Asking for time: the form, up to three offers with what they cost, holding one, and saying yes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import capacity, ledger
from allocator.authorization import Action, require
from allocator.booking import booking_queries, offers
from allocator.booking.booking_checks import Ask
from allocator.booking.offer_search import Wish
from allocator.booking.offers import Offers
from allocator.booking.why_not import Change
from allocator.dividing import grants
from allocator.errors import Fault, Invalid, NoCapacity, Stale, WrongState
from allocator.models import Quota
from allocator.policy import Price
from allocator.prices import PriceList
from config.clock import utcnow
from config.i18n import N_
from web import (
    charts,
    once,
)
from web.applying.quotas import QUOTA
from web.booking import (
    offer_words,
)
from web.booking.booking_forms import LOCAL, AnswerForm, BookingForm
from web.booking.bookings import BOOKING, bp, offered_by_waitlist, quota_to_book
from web.days import last_day
from web.formats import gpu_hours, moment
from web.identity import current_actor
from web.policy import policy
from web.session import db, settings

AHEAD_DAYS = 14


@dataclass(frozen=True)
class Hidden:
    """A time that can be held, as the fields of a small form; `same` is one's own booking of just this."""

    ask: Ask
    fields: dict[str, str]
    same: int | None


@bp.get(f"{QUOTA}/book")
def new(quota_id: int) -> ResponseReturnValue:
    """The form; with a query, the best times for it or why there is none: looking changes nothing."""
    quota = quota_to_book(quota_id)
    if "hours" not in request.args:
        return _form_page(quota, _suggestion(quota))
    form = BookingForm(request.args, meta={"csrf": False})
    if "edit" in request.args:  # from the calendar, or back from the offers
        return _form_page(quota, form)
    return _answer(quota, form, form.validate(), utcnow())


@bp.post(f"{QUOTA}/book")
@once.guard
def book(quota_id: int) -> ResponseReturnValue:
    """Hold one of the offers; when it is gone meanwhile, say so and offer others."""
    quota, now = quota_to_book(quota_id), utcnow()
    form = BookingForm()
    if not form.validate_on_submit():
        return _form_page(quota, form), 422
    try:
        ask = form.ask_at(form.start(settings().zone))
        # A savepoint: undone, it gives the cluster's lock up before the search for other times begins.
        with db().begin_nested():
            held = offers.hold(db(), current_actor(), quota, ask, rules=policy().bookings, now=now)
    except Invalid as error:
        if error.fields.keys() <= {"starts_at"} and form.starts_at.data:
            return _answer(quota, form, True, now, error)
        form.show(error)
        return _form_page(quota, form), 422
    except NoCapacity:
        return _answer(quota, form, True, now, gone=True)
    return redirect(url_for("bookings.show", booking_id=held.id), 303)


def _answer(
    quota: Quota,
    form: BookingForm,
    valid: bool,
    now: datetime,
    error: Invalid | None = None,
    gone: bool = False,
) -> ResponseReturnValue:
    """The offers, or the form with why there is none."""
    if not valid:
        return _form_page(quota, form), 422
    try:
        wish = _wish(form, now if error is None and not gone else None)
        found = offers.offers(db(), current_actor(), quota, wish, policy=policy(), now=now)
    except Invalid as broken:
        form.show(broken)
        return _form_page(quota, form), 422
    if error is not None:
        form.show(error)
    if found.why is not None:
        form.show(Invalid(found.why.faults))
        return _form_page(quota, form, found), 422 if found.why.faults else 409
    times = _times(quota, [offer.ask for offer in found.offers])
    wished = wish.preferred_at
    page = render_template(
        "bookings/offers.html",
        taken_wish=wished if wished not in [offer.ask.starts_at for offer in found.offers] else None,
        refused=" ".join(offer_words.told(fault) for fault in found.refused),
        instead=_changed(quota, found.instead),
        quota=quota,
        form=form,
        found=found,
        times=times,
        gone=gone,
        words=offer_words,
        edit=offer_words.fields(wish.at(wish.preferred_at or found.offers[0].ask.starts_at)),
        rules=policy().bookings,
        tariff=policy().tariff,
    )
    return page, 409 if gone else 422 if error else 200


def _wish(form: BookingForm, now: datetime | None) -> Wish:
    """What the form wishes for; with `now` a start that has passed is refused, as a mistake in the date.

    Raises Invalid when no start was chosen, nor "as soon as possible".
    """
    start = None if form.asap.data else form.start(settings().zone)
    if start is not None and now is not None and start < now:
        raise Invalid({"starts_at": [Fault(N_("This start has passed."))]})
    return Wish(form.nodes.data or 0, form.gpus_per_node.data or 0, form.length(), preferred_at=start)


def _times(quota: Quota, asks: Sequence[Ask]) -> list[Hidden]:
    """Each time as a form, and whether the person has booked just this already. One query."""
    own = booking_queries.own_copies(db(), quota, current_actor().person_id, asks)
    return [Hidden(ask, offer_words.fields(ask), own.get(ask)) for ask in asks]


def _changed(quota: Quota, changes: Sequence[Change]) -> list[tuple[Change, Hidden, Price | None]]:
    """What would fit instead, each as a form and with what it costs."""
    if not changes:
        return []
    costs = PriceList.read(db(), quota, policy())
    return [
        (change, time, costs.price(change.ask.gpu_seconds, change.ask.starts_at))
        for change, time in zip(changes, _times(quota, [change.ask for change in changes]), strict=True)
    ]


def _suggestion(quota: Quota) -> BookingForm:
    """The form as it first comes: the usual shape, a day long, from tomorrow's start of day."""
    day = policy().bookings.day_starts_at
    tomorrow = utcnow().astimezone(settings().zone) + timedelta(days=1)
    form = BookingForm(formdata=None, meta={"csrf": False})
    form.starts_at.data = datetime.combine(tomorrow.date(), day)
    shape = booking_queries.usual_shape(db(), quota)
    form.nodes.data, form.gpus_per_node.data = shape.nodes, shape.gpus
    form.hours.process_formdata(["24"])
    return form


def _form_page(quota: Quota, form: BookingForm, found: Offers | None = None) -> str:
    zone, now = settings().zone, utcnow()
    today = now.astimezone(zone).date()
    gpu_type = capacity.gpu_types(db(), quota.cluster).get(quota.gpu_type)
    booked = capacity.booked_by_window(db(), [quota.cluster], charts.days(today, AHEAD_DAYS, zone))
    values = booked.get((quota.cluster_id, quota.gpu_type), [0] * AHEAD_DAYS)
    return render_template(
        "bookings/new.html",
        last_day=last_day,
        rooms=grants.rooms(db(), quota, now, min(now + policy().bookings.max_ahead, quota.valid_until)),
        quota=quota,
        form=form,
        found=found,
        wished=_wished(form) if found else {},
        changes=_changed(quota, found.why.changes) if found and found.why else [],
        tariff=policy().tariff,
        words=offer_words,
        gpu_type=gpu_type,
        balance=ledger.balance(db(), quota),
        chart=charts.chart(today, values, (gpu_type.gpus_up if gpu_type else 0) * 24 * 3600),
        rules=policy().bookings,
    )


def _wished(form: BookingForm) -> dict[str, str]:
    """What was asked for, as another form's query takes it: nothing is to be typed twice."""
    return {
        "starts_at": form.starts_at.data.strftime(LOCAL) if form.starts_at.data else "",
        "hours": offer_words.hours(form.length()),
        "nodes": str(form.nodes.data),
        "gpus_per_node": str(form.gpus_per_node.data),
    }


@bp.post(f"{BOOKING}/accept")
@once.guard
def accept(booking_id: int) -> ResponseReturnValue:
    """Say yes to what is held."""
    booking = booking_queries.find_booking(db(), current_actor(), booking_id)
    require(current_actor(), Action.BOOKING_CREATE, booking.quota)
    form = AnswerForm()
    if not form.validate_on_submit() or offered_by_waitlist(booking):
        return redirect(url_for("bookings.show", booking_id=booking.id), 303)
    try:
        with db().begin_nested():
            version = form.version.data or 0
            offers.accept(db(), current_actor(), booking, expected_version=version, now=utcnow())
    except (Stale, WrongState) as error:
        flash(gettext(error.message), "warning")
    else:
        hours, start = gpu_hours(booking.gpu_seconds), moment(booking.starts_at)
        flash(gettext("Booked: %(hours)s GPU-hours from %(start)s.", hours=hours, start=start), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


@bp.post(f"{BOOKING}/release")
@once.guard
def release(booking_id: int) -> ResponseReturnValue:
    """Let go of what is held, and ask for other times."""
    booking = booking_queries.find_booking(db(), current_actor(), booking_id)
    require(current_actor(), Action.BOOKING_CANCEL, booking)
    form = AnswerForm()
    if not form.validate_on_submit() or offered_by_waitlist(booking):
        return redirect(url_for("bookings.show", booking_id=booking.id), 303)
    try:
        with db().begin_nested():
            version = form.version.data or 0
            offers.release(db(), current_actor(), booking, expected_version=version, now=utcnow())
    except (Stale, WrongState) as error:
        flash(gettext(error.message), "warning")
        return redirect(url_for("bookings.show", booking_id=booking.id), 303)
    flash(gettext("The time is free for others again."), "success")
    ask = Ask(booking.nodes, booking.gpus_per_node, booking.starts_at, booking.ends_at)
    again: dict[str, Any] = {"quota_id": booking.quota_id, "edit": 1, **offer_words.fields(ask)}
    return redirect(url_for("bookings.new", **again), 303)
