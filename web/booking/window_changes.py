"""Another window or length for a booking whose time is not fixed yet: first as a quote, then done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext
from wtforms.fields import DateTimeLocalField

from allocator.authorization import Action, require
from allocator.booking import booking_queries, flexible_changes
from allocator.booking.flexible import FlexibleQuote
from allocator.booking.offer_search import Wish
from allocator.errors import Invalid, NoCapacity, Stale
from allocator.models import Booking
from allocator.states import BookingState
from config.clock import utcnow
from web import (
    once,
)
from web.booking import (
    offer_words,
)
from web.booking.booking_forms import LOCAL, AnswerForm, HoursField, exact_length, sane_year
from web.booking.bookings import BOOKING, bp
from web.forms import filled
from web.identity import current_actor
from web.policy import policy
from web.session import db, settings


class WindowChangeForm(AnswerForm):
    """So long, at any time between two moments; the shape stays."""

    earliest_at = DateTimeLocalField(lazy_gettext("Not before"), [filled(), sane_year], format=LOCAL)
    latest_at = DateTimeLocalField(lazy_gettext("Finish by"), [filled(), sane_year], format=LOCAL)
    hours = HoursField(lazy_gettext("Length in hours"), [filled()])

    def wish(self, booking: Booking) -> Wish:
        """What the form asks for. Raises Invalid unless the length is whole minutes."""
        return Wish(
            booking.nodes,
            booking.gpus_per_node,
            exact_length(self.hours.data),
            _utc(self.earliest_at.data),
            _utc(self.latest_at.data),
        )


def _utc(local: datetime | None) -> datetime | None:
    return local.replace(tzinfo=settings().zone).astimezone(UTC) if local else None


@bp.route(f"{BOOKING}/window", methods=["GET", "POST"])
@once.guard
def change_window(booking_id: int) -> ResponseReturnValue:
    """The form; with a query what would be promised instead; sent, it is."""
    actor, now = current_actor(), utcnow()
    booking = booking_queries.find_booking(db(), actor, booking_id)
    require(actor, Action.BOOKING_CANCEL, booking)
    require(actor, Action.BOOKING_CREATE, booking.quota)
    sent = request.method == "POST"
    form = _form(booking, fresh=not sent and "hours" not in request.args)
    if booking.state is not BookingState.PLANNED or booking.starts_at <= now:
        return _page(booking, form), 409 if sent else 200
    if not sent and "hours" not in request.args:
        return _page(booking, form)
    if not form.validate():
        return _page(booking, form), 422
    try:
        return _change(booking, form, now) if sent else _quote(booking, form, now)
    except Invalid as error:
        form.show(error)
        return _page(booking, form), 422
    except NoCapacity:
        return _page(booking, form, taken=True), 409
    except Stale:
        return _page(booking, _form(booking, fresh=True), stale=True), 409


def _form(booking: Booking, fresh: bool) -> WindowChangeForm:
    if not fresh:
        return WindowChangeForm() if request.method == "POST" else _versioned(request.args, booking)
    form = _versioned(None, booking)
    form.earliest_at.data, form.latest_at.data = _local(booking.earliest_at), _local(booking.latest_at)
    length: timedelta = booking.ends_at - booking.starts_at
    form.hours.process_formdata([offer_words.hours(length)])
    return form


def _versioned(given: object, booking: Booking) -> WindowChangeForm:
    # looking at a quote needs no version: the page that asks for a yes brings the booking's own
    form = WindowChangeForm(given, meta={"csrf": False})
    form.version.data, form.version.raw_data = booking.version, [str(booking.version)]
    return form


def _local(moment: datetime | None) -> datetime | None:
    return moment.astimezone(settings().zone).replace(tzinfo=None) if moment else None


def _quote(booking: Booking, form: WindowChangeForm, now: datetime) -> ResponseReturnValue:
    wish = form.wish(booking)
    quote = flexible_changes.quote(db(), current_actor(), booking, wish, policy=policy(), now=now)
    if quote.faults:
        raise Invalid(quote.faults)
    return _page(booking, form, quote=quote) if quote.fits else (_page(booking, form, taken=True), 409)


def _change(booking: Booking, form: WindowChangeForm, now: datetime) -> ResponseReturnValue:
    # a savepoint: what is refused must leave nothing behind but the page that says so
    with db().begin_nested():
        flexible_changes.change(
            db(),
            current_actor(),
            booking,
            form.wish(booking),
            expected_version=form.version.data or 0,
            rules=policy().bookings,
            now=now,
        )
    flash(gettext("The window is changed."), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _page(
    booking: Booking,
    form: WindowChangeForm,
    quote: FlexibleQuote | None = None,
    taken: bool = False,
    stale: bool = False,
) -> str:
    return render_template(
        "bookings/window.html",
        booking=booking,
        form=form,
        quote=quote,
        taken=taken,
        stale=stale,
        planned=booking.state is BookingState.PLANNED,
        rules=policy().bookings,
        tariff=policy().tariff,
    )
