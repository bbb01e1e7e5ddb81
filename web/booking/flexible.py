"""Any time in a window: what would be promised, asking for it, and the waitlist when nothing is free."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext
from werkzeug.datastructures import MultiDict
from wtforms import IntegerField
from wtforms.fields import DateTimeLocalField

from allocator import ledger
from allocator.booking import booking_queries, flexible, waitlist
from allocator.booking.offer_search import Wish
from allocator.errors import Invalid, NoCapacity
from allocator.models import Quota
from config.clock import utcnow
from web import (
    once,
)
from web.applying.quotas import QUOTA
from web.booking import (
    offer_words,
)
from web.booking.booking_forms import LOCAL, HoursField, bounded, exact_length, sane_year
from web.booking.bookings import bp, quota_to_book
from web.booking.calendar_time import read_moment
from web.formats import gpu_hours
from web.forms import Form, filled
from web.identity import current_actor
from web.policy import policy
from web.session import db, settings

WEEK = timedelta(days=7)


class WindowForm(Form):
    """So many GPUs for so long, at any time between two moments."""

    earliest_at = DateTimeLocalField(lazy_gettext("Not before"), [filled(), sane_year], format=LOCAL)
    latest_at = DateTimeLocalField(lazy_gettext("Finish by"), [filled(), sane_year], format=LOCAL)
    hours = HoursField(lazy_gettext("Length in hours"), [filled()])
    nodes = IntegerField(lazy_gettext("Nodes"), [filled()], filters=[bounded])
    gpus_per_node = IntegerField(lazy_gettext("GPUs per node"), [filled()], filters=[bounded])

    def wish(self) -> Wish:
        """What the form asks for. Raises Invalid unless the length is whole minutes."""
        return Wish(
            self.nodes.data or 0,
            self.gpus_per_node.data or 0,
            exact_length(self.hours.data),
            _utc(self.earliest_at.data),
            _utc(self.latest_at.data),
        )

    def fields(self) -> dict[str, str]:
        """As hidden fields and as a query."""
        names = ("earliest_at", "latest_at", "nodes", "gpus_per_node")
        return {name: self[name]._value() for name in names} | {
            "hours": offer_words.hours(exact_length(self.hours.data))
        }


def _utc(local: datetime | None) -> datetime | None:
    return local.replace(tzinfo=settings().zone).astimezone(UTC) if local else None


@bp.get(f"{QUOTA}/flexible")
def flexible_window(quota_id: int) -> ResponseReturnValue:
    """The form; with a query, what would be promised: looking changes nothing."""
    quota = quota_to_book(quota_id)
    if "hours" not in request.args or ("edit" in request.args and "earliest_at" not in request.args):
        return _form_page(quota, _suggestion(quota))
    form = WindowForm(request.args, meta={"csrf": False})
    if "edit" in request.args:
        return _form_page(quota, form)
    return _quote_page(quota, form)


@bp.post(f"{QUOTA}/flexible")
@once.guard
def ask_flexible(quota_id: int) -> ResponseReturnValue:
    """Ask for it: some time in the window is promised from now on."""
    quota, form = quota_to_book(quota_id), WindowForm()
    if not form.validate_on_submit():
        return _form_page(quota, form), 422
    try:
        with db().begin_nested():
            wish, rules = form.wish(), policy().bookings
            made = flexible.ask(db(), current_actor(), quota, wish, rules=rules, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    except NoCapacity:
        return _quote_page(quota, form)
    hours = gpu_hours(made.gpu_seconds)
    flash(gettext("Promised: %(hours)s GPU-hours inside of your window.", hours=hours), "success")
    return redirect(url_for("bookings.show", booking_id=made.id), 303)


@bp.post(f"{QUOTA}/waitlist")
@once.guard
def join_waitlist(quota_id: int) -> ResponseReturnValue:
    """Wait for the window when nothing is free in it."""
    quota, form = quota_to_book(quota_id), WindowForm()
    if not form.validate_on_submit():
        return _form_page(quota, form), 422
    try:
        with db().begin_nested():
            wish, rules = form.wish(), policy().bookings
            entry = waitlist.join(db(), current_actor(), quota, wish, rules=rules, now=utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    flash(gettext("You are on the waitlist."), "success")
    return redirect(url_for("bookings.show_entry", entry_id=entry.id), 303)


def _quote_page(quota: Quota, form: WindowForm) -> ResponseReturnValue:
    """What would be promised, or that nothing is free with the way to the waitlist."""
    if not form.validate():
        return _form_page(quota, form), 422
    try:
        quote = flexible.quote(db(), current_actor(), quota, form.wish(), policy=policy(), now=utcnow())
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    if quote.faults:
        form.show(Invalid(quote.faults))
        return _form_page(quota, form), 422
    page = render_template(
        "bookings/flexible_quote.html",
        quota=quota,
        quote=quote,
        fields=form.fields(),
        rules=policy().bookings,
        tariff=policy().tariff,
    )
    return page, 200 if quote.fits else 409


def _suggestion(quota: Quota) -> WindowForm:
    """A week from the start that was wished for, else from tomorrow on; the shape wished or usual."""
    rules, now = policy().bookings, utcnow().astimezone(settings().zone)
    first = datetime.combine(now.date() + timedelta(days=1), rules.day_starts_at)
    wished = read_moment(request.args.get("starts_at"), settings().zone)
    if wished is not None and wished > now:
        first = wished.astimezone(settings().zone).replace(tzinfo=None)
    usual = booking_queries.usual_shape(db(), quota)
    shape = {"nodes": usual.nodes, "gpus_per_node": usual.gpus, "hours": 24}
    given = {name: request.args.get(name, str(number)) for name, number in shape.items()}
    given |= {"earliest_at": first.strftime(LOCAL), "latest_at": (first + WEEK).strftime(LOCAL)}
    return WindowForm(MultiDict(given), meta={"csrf": False})


def _form_page(quota: Quota, form: WindowForm) -> str:
    return render_template(
        "bookings/flexible_new.html",
        quota=quota,
        form=form,
        balance=ledger.balance(db(), quota),
        rules=policy().bookings,
    )
