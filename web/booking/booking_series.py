"""The same booking on many days: nights, weekends, weekdays; previewed date by date, booked at once."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext, ngettext
from wtforms import IntegerField, SelectMultipleField, TextAreaField
from wtforms.fields import TimeField
from wtforms.validators import Length, Optional
from wtforms.widgets import CheckboxInput, ListWidget

from allocator import ledger
from allocator.actors import Role
from allocator.authorization import Action, may
from allocator.booking import booking_queries, series
from allocator.booking.series import Pattern
from allocator.booking.windows import Shape
from allocator.errors import Forbidden, Invalid, NoCapacity
from allocator.models import Booking, BookingSeries, Quota
from allocator.prices import PriceList
from config.clock import utcnow
from web import (
    once,
)
from web.applying.quotas import QUOTA
from web.booking import (
    calendar_words,
    offer_words,
)
from web.booking.booking_forms import HoursField, bounded, exact_length, sane_year
from web.booking.bookings import bp, quota_to_book
from web.days import DayField, start_of
from web.formats import gpu_hours
from web.forms import Form, choices, filled, no_control_characters, strip
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.session import db, settings

SERIES = "/series/<int:series_id>"
WEEK = timedelta(days=7)
A_MONDAY = date(2026, 1, 5)


class CheckboxesField(SelectMultipleField):
    """Several of a few."""

    widget = ListWidget(prefix_label=False)
    option_widget = CheckboxInput()


class SeriesForm(Form):
    """A pattern of days; shape only, the domain knows what fits."""

    nodes = IntegerField(lazy_gettext("Nodes"), [filled()], filters=[bounded])
    gpus_per_node = IntegerField(lazy_gettext("GPUs per node"), [filled()], filters=[bounded])
    weekdays = CheckboxesField(lazy_gettext("Weekdays"), [filled()])
    start = TimeField(lazy_gettext("Start"), [filled()])
    hours = HoursField(lazy_gettext("Length in hours"), [filled()])
    first_day = DayField(lazy_gettext("First day"), [filled(), sane_year])
    last_day = DayField(lazy_gettext("Last day"), [filled(), sane_year])

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.weekdays.choices = choices(
            (str(day), calendar_words.weekday_name(A_MONDAY + timedelta(days=day))) for day in range(7)
        )

    def pattern(self) -> Pattern:
        """What the form asks for. Raises Invalid unless the length is whole minutes."""
        assert self.start.data is not None
        assert self.first_day.data is not None
        assert self.last_day.data is not None
        return Pattern(
            frozenset(int(day) for day in self.weekdays.data or ()),
            self.start.data.replace(second=0, microsecond=0),
            exact_length(self.hours.data),
            self.first_day.data,
            self.last_day.data,
        )

    def shape(self) -> Shape:
        return Shape(self.nodes.data or 0, self.gpus_per_node.data or 0)


class SeriesCancelForm(Form):
    """From which day on, and why."""

    since = DayField(lazy_gettext("From this day on"), [filled(), sane_year])
    reason = TextAreaField(
        lazy_gettext("Reason"), [Optional(), Length(max=500), no_control_characters], filters=[strip]
    )


@bp.get(f"{QUOTA}/repeat")
def repeat(quota_id: int) -> ResponseReturnValue:
    """The form; with a query every date of the pattern, whether it fits and why not."""
    quota = quota_to_book(quota_id)
    if "hours" not in request.args:
        return _form_page(quota, _suggestion(quota))
    form = SeriesForm(request.args, meta={"csrf": False})
    if "edit" in request.args:
        return _form_page(quota, form)
    return _preview_page(quota, form)


@bp.post(f"{QUOTA}/repeat")
@once.guard
def book_series(quota_id: int) -> ResponseReturnValue:
    """Book every date that fits."""
    quota, now = quota_to_book(quota_id), utcnow()
    form = SeriesForm()
    if not form.validate_on_submit():
        return _form_page(quota, form), 422
    try:
        with db().begin_nested():
            made, dates = series.book_series(
                db(),
                current_actor(),
                quota,
                form.shape(),
                form.pattern(),
                only_fitting=True,
                rules=policy().bookings,
                now=now,
            )
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    except NoCapacity:
        return _preview_page(quota, form, gone=True)
    flash(
        ngettext("%(num)s date is booked.", "%(num)s dates are booked.", len(dates)),
        "success",
    )
    return redirect(url_for("bookings.show_series", series_id=made.id), 303)


def _preview_page(quota: Quota, form: SeriesForm, gone: bool = False) -> ResponseReturnValue:
    if not form.validate():
        return _form_page(quota, form), 422
    rules, now = policy().bookings, utcnow()
    try:
        found = series.preview(
            db(), current_actor(), quota, form.shape(), form.pattern(), rules=rules, now=now
        )
    except Invalid as error:
        form.show(error)
        return _form_page(quota, form), 422
    page = render_template(
        "bookings/series_preview.html",
        quota=quota,
        form=form,
        found=found,
        gone=gone,
        fields=_fields(form),
        why=_why,
        balance=ledger.balance(db(), quota),
        same=booking_queries.own_copies(
            db(), quota, current_actor().person_id, [one.ask for one in found.occurrences]
        ),
        total=_total(quota, found),
        tariff=policy().tariff,
    )
    return page, 409 if gone or not found.fitting else 200


def _total(quota: Quota, found: series.Preview) -> Decimal | None:
    """Tenge for all that fit, each year by its own free hours; None where there is no tariff for it."""
    costs, total = PriceList.read(db(), quota, policy()), Decimal(0)
    fitting = [one.ask for one in found.fitting]
    for _, asks in groupby(fitting, lambda ask: ask.starts_at.astimezone(settings().zone).year):
        of_year = list(asks)
        price = costs.price(sum(ask.gpu_seconds for ask in of_year), of_year[0].starts_at)
        if price is None:
            return None
        total += price.total
    return total


def _why(one: series.Occurrence) -> str:
    """Why a date does not fit."""
    told = [offer_words.told(fault) for faults in one.faults.values() for fault in faults]
    return " ".join(told) or gettext("These GPUs are not free then.")


def _fields(form: SeriesForm) -> list[tuple[str, str]]:
    """The pattern as hidden fields and as a query."""
    pattern = form.pattern()
    return [
        ("nodes", str(form.nodes.data)),
        ("gpus_per_node", str(form.gpus_per_node.data)),
        *(("weekdays", str(day)) for day in sorted(pattern.weekdays)),
        ("start", f"{pattern.start:%H:%M}"),
        ("hours", offer_words.hours(pattern.length)),
        ("first_day", pattern.first_day.isoformat()),
        ("last_day", pattern.last_day.isoformat()),
    ]


def _form_page(quota: Quota, form: SeriesForm) -> str:
    rules, today = policy().bookings, utcnow().astimezone(settings().zone).date()
    first, last = today + timedelta(days=1), today + 4 * WEEK
    return render_template(
        "bookings/series_new.html",
        quota=quota,
        form=form,
        balance=ledger.balance(db(), quota),
        presets=[
            (gettext("Every night"), _query(quota, series.nights(first, last, rules))),
            (gettext("Every weekend"), _query(quota, series.weekends(first, last, rules))),
        ],
    )


def _query(quota: Quota, pattern: Pattern) -> dict[str, Any]:
    return {
        "edit": 1,
        "nodes": quota.application.nodes,
        "gpus_per_node": quota.application.gpus_per_node,
        "weekdays": sorted(pattern.weekdays),
        "start": f"{pattern.start:%H:%M}",
        "hours": offer_words.hours(pattern.length),
        "first_day": pattern.first_day.isoformat(),
        "last_day": pattern.last_day.isoformat(),
    }


def _suggestion(quota: Quota) -> SeriesForm:
    """Nights of the coming four weeks in the shape that was applied for."""
    today = utcnow().astimezone(settings().zone).date()
    pattern = series.nights(today + timedelta(days=1), today + 4 * WEEK, policy().bookings)
    form = SeriesForm(formdata=None, meta={"csrf": False})
    shape = booking_queries.usual_shape(db(), quota)
    form.nodes.data, form.gpus_per_node.data = shape.nodes, shape.gpus
    form.weekdays.data = [str(day) for day in sorted(pattern.weekdays)]
    form.start.data, form.first_day.data, form.last_day.data = (
        pattern.start,
        pattern.first_day,
        pattern.last_day,
    )
    form.hours.process_formdata([offer_words.hours(pattern.length)])
    return form


@bp.get(SERIES)
def show_series(series_id: int) -> str:
    """A series with its bookings, the coming ones first."""
    actor = current_actor()
    found = series.find(db(), actor, series_id)
    bookings = booking_queries.list_bookings(actor, everybodys=True).where(Booking.series_id == found.id)
    return render_template(
        "bookings/series_show.html",
        series=found,
        page=paginate(db(), bookings),
        weekdays=_weekdays(found),
        start=f"{found.start_minute // 60:02d}:{found.start_minute % 60:02d}",
        length=timedelta(seconds=found.length_seconds),
        may_cancel=_may_cancel(found),
    )


def _weekdays(found: BookingSeries) -> str:
    days = [A_MONDAY + timedelta(days=day) for day in range(7) if found.weekdays >> day & 1]
    return ", ".join(calendar_words.weekday_name(day) for day in days)


def _may_cancel(found: BookingSeries) -> bool:
    """Who booked it, who runs the quota, and operators; the domain asks again for each booking."""
    actor = current_actor()
    return (
        found.created_by_id == actor.person_id
        or may(actor, Action.QUOTA_MANAGE, found.quota)
        or Role.OPERATOR in actor.roles
    )


@bp.route(f"{SERIES}/cancel", methods=["GET", "POST"])
@once.guard
def cancel_series(series_id: int) -> ResponseReturnValue:
    """Ask from which day on, then give all of these back."""
    actor, now = current_actor(), utcnow()
    found = series.find(db(), actor, series_id)
    if not _may_cancel(found):
        raise Forbidden()
    asked = request.method == "POST"
    form = SeriesCancelForm() if asked else SeriesCancelForm(formdata=None)
    if not asked:
        form.since.data = max(now.astimezone(settings().zone).date(), found.first_day)
    elif form.validate_on_submit() and form.since.data is not None:
        reason = form.reason.data or ""
        since = start_of(form.since.data)
        back = series.cancel_from(db(), actor, found, since, reason=reason, now=now)
        flash(gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(back)), "success")
        return redirect(url_for("bookings.show_series", series_id=found.id), 303)
    coming = [
        booking
        for booking in series.of_series(db(), found)
        if booking.state in series.COMING and booking.starts_at > now
    ]
    page = render_template("bookings/series_cancel.html", series=found, form=form, coming=coming)
    return page, 422 if asked else 200
