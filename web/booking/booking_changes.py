"""Changing a booking: longer, shorter or at another time, each first as a quote and then done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext
from wtforms.fields import DateTimeLocalField

from allocator import ledger
from allocator.authorization import Action, require
from allocator.booking import booking_queries, changes, placing
from allocator.booking.booking_checks import grid_of, off_boundary
from allocator.errors import Fault, Invalid, NoCapacity, Stale
from allocator.models import Booking
from allocator.prices import PriceList
from config.clock import utcnow
from config.i18n import N_
from web import (
    once,
)
from web.booking import (
    offer_words,
)
from web.booking.booking_forms import LOCAL, AnswerForm, sane_year
from web.booking.bookings import BOOKING, bp
from web.formats import gpu_hours, moment
from web.forms import filled
from web.identity import current_actor
from web.policy import policy
from web.session import db, settings

NOT_LATER = N_("It ends on %(end)s already. Choose a later end; to end it earlier, make it shorter.")
NOT_EARLIER = N_("It ends on %(end)s. Choose an earlier end; to end it later, make it longer.")


class Change(StrEnum):
    """What is asked for, as the address names it."""

    LONGER = "longer"
    SHORTER = "shorter"
    MOVE = "move"


class EndForm(AnswerForm):
    """Another end."""

    ends_at = DateTimeLocalField(lazy_gettext("New end"), [filled(), sane_year], format=LOCAL)


class StartForm(AnswerForm):
    """Another start."""

    starts_at = DateTimeLocalField(lazy_gettext("New start"), [filled(), sane_year], format=LOCAL)


@dataclass(frozen=True)
class Room:
    """What the change may be: a suggested moment, or None with why there is none; `why` also limits it."""

    suggested: datetime | None
    why: str


@dataclass(frozen=True)
class Quoted:
    """The booking after the change; `seconds` more (or less) GPU-seconds and so many tenge are charged."""

    starts_at: datetime
    ends_at: datetime
    seconds: int
    tenge: Decimal | None = None


@bp.route(f"{BOOKING}/change/<any(longer,shorter,move):kind>", methods=["GET", "POST"])
@once.guard
def change(booking_id: int, kind: str) -> ResponseReturnValue:
    """The form; with a moment what it would mean; sent, it is done."""
    actor, now, asked = current_actor(), utcnow(), Change(kind)
    booking = booking_queries.find_booking(db(), actor, booking_id)
    require(actor, Action.BOOKING_CANCEL, booking)
    if asked is not Change.SHORTER:
        require(actor, Action.BOOKING_CREATE, booking.quota)
    room = _room(booking, asked, now)
    form = _form(asked, booking, room)
    field = form["starts_at" if asked is Change.MOVE else "ends_at"]
    if request.method == "GET" and field.name not in request.args:
        return _page(booking, asked, form, room)
    if room.suggested is None:
        return _page(booking, asked, form, room), 409
    if not form.validate():
        return _page(booking, asked, form, room), 422
    at = field.data.replace(tzinfo=settings().zone).astimezone(UTC)
    try:
        if request.method == "POST":
            return _do(booking, asked, at, form.version.data or 0, now)
        return _page(booking, asked, form, room, _quote(booking, asked, at, room, now))
    except Invalid as error:
        form.show(error)
        return _page(booking, asked, form, room), 422
    except NoCapacity:
        return _page(booking, asked, form, room, free=_free(booking, asked, at, now)), 409
    except Stale:
        return _page(booking, asked, _form(asked, booking, room, fresh=True), room, stale=True), 409


def _form(asked: Change, booking: Booking, room: Room, fresh: bool = False) -> EndForm | StartForm:
    kind = StartForm if asked is Change.MOVE else EndForm
    if request.method == "POST" and not fresh:
        return kind()
    name = "starts_at" if asked is Change.MOVE else "ends_at"
    given = request.args if name in request.args and not fresh else None
    form = kind(given, meta={"csrf": False}) if given else kind(formdata=None, meta={"csrf": False})
    # looking at a quote needs no version: the page that asks for a yes brings the booking's own
    form.version.data, form.version.raw_data = booking.version, [str(booking.version)]
    if given is None and room.suggested is not None:
        form[name].data = room.suggested.astimezone(settings().zone).replace(tzinfo=None)
    return form


def _room(booking: Booking, asked: Change, now: datetime) -> Room:
    rules = policy().bookings
    if asked is Change.LONGER:
        found = changes.extension(db(), booking, rules=rules, now=now)
        why = offer_words.told(found.why)
        if found.until is not None:
            why = gettext("It can end at %(most)s at the latest.", most=moment(found.until)) + f" {why}"
        return Room(found.until, why)
    if asked is Change.SHORTER:
        least = changes.least_end(booking, rules=rules, now=now)
        if least is None:
            return Room(None, gettext("This booking cannot be made shorter; it can be given back."))
        return Room(least, gettext("It can end at %(least)s at the earliest.", least=moment(least)))
    return Room(booking.starts_at, "")


def _quote(booking: Booking, asked: Change, at: datetime, room: Room, now: datetime) -> Quoted:
    """What the change would mean. Raises Invalid for what cannot be, NoCapacity where it is taken."""
    if asked is Change.MOVE:
        found = changes.move_quote(db(), current_actor(), booking, at, rules=policy().bookings, now=now)
        if found.faults:
            raise Invalid(found.faults)
        if not found.fits:
            raise NoCapacity(placing.TAKEN)
        return Quoted(found.ask.starts_at, found.ask.ends_at, 0)
    if asked is Change.LONGER and at <= booking.ends_at:
        raise Invalid({"ends_at": [Fault(NOT_LATER, {"end": booking.ends_at})]})
    if asked is Change.SHORTER and at >= booking.ends_at:
        raise Invalid({"ends_at": [Fault(NOT_EARLIER, {"end": booking.ends_at})]})
    fits = room.suggested is not None and (
        booking.ends_at < at <= room.suggested
        if asked is Change.LONGER
        else room.suggested <= at < booking.ends_at
    )
    if not fits:
        raise Invalid({"ends_at": [Fault(room.why)]})
    if not grid_of(policy().bookings).holds(at):
        raise Invalid({"ends_at": [off_boundary(policy().bookings)]})
    seconds = int((at - booking.ends_at).total_seconds()) * booking.nodes * booking.gpus_per_node
    return Quoted(booking.starts_at, at, seconds, _tenge(booking, seconds))


def _tenge(booking: Booking, seconds: int) -> Decimal | None:
    """What so many more (or fewer) GPU-seconds make of the price; the year's free hours come first."""
    costs, now = PriceList.read(db(), booking.quota, policy()), booking.gpu_seconds
    before, after = (costs.price(charged, booking.starts_at, now) for charged in (now, now + seconds))
    return after.total - before.total if after and before else None


def _free(booking: Booking, asked: Change, at: datetime, now: datetime) -> list[datetime]:
    """The nearest starts at which the booking would fit, where another start is asked for."""
    if asked is not Change.MOVE:
        return []
    found = changes.move_quote(db(), current_actor(), booking, at, rules=policy().bookings, now=now)
    return [start for start in (found.before, found.after) if start]


def _do(booking: Booking, asked: Change, at: datetime, version: int, now: datetime) -> ResponseReturnValue:
    actor, rules = current_actor(), policy().bookings
    # a savepoint: what is refused must leave nothing behind but the page that says so
    with db().begin_nested():
        if asked is Change.LONGER:
            changes.extend(db(), actor, booking, at, expected_version=version, rules=rules, now=now)
            said = gettext("Your booking now lasts until %(end)s.", end=moment(at))
        elif asked is Change.SHORTER:
            back = changes.shorten(db(), actor, booking, at, expected_version=version, rules=rules, now=now)
            said = gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(back))
        else:
            changes.move(db(), actor, booking, at, expected_version=version, rules=rules, now=now)
            said = gettext("Your booking now begins on %(start)s.", start=moment(at))
    flash(said, "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _page(
    booking: Booking,
    asked: Change,
    form: EndForm | StartForm,
    room: Room,
    quoted: Quoted | None = None,
    *,
    free: list[datetime] | None = None,
    stale: bool = False,
) -> str:
    return render_template(
        "bookings/change.html",
        booking=booking,
        asked=asked.value,
        form=form,
        room=room,
        quoted=quoted,
        free=free,
        local=lambda start: start.astimezone(settings().zone).strftime(LOCAL),
        stale=stale,
        balance=ledger.balance(db(), booking.quota),
        tariff=policy().tariff,
    )
