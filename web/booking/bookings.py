"""Bookings: the list, one of them, giving it back. Others add their pages to this blueprint."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator import ledger, prices
from allocator.authorization import Action, may, require
from allocator.booking import booking_queries, bookings, changes, offers, waitlist
from allocator.booking.booking_checks import Ask
from allocator.errors import Stale
from allocator.models import Booking, Person, Quota, WaitlistEntry
from allocator.policy import Price
from allocator.states import OPEN_BOOKINGS, VOID_BOOKINGS, BookingState, QuotaState, WaitlistState
from allocator.upkeep import moves
from config.clock import utcnow
from web import once
from web.applying.quotas import sees_everybodys
from web.booking import booking_outside, offer_words
from web.booking.booking_forms import CancelForm
from web.booking.booking_words import countdown, node_names, sbatch, situation, timeline
from web.exports import csv_response, read_rows
from web.formats import gpu_hours
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.session import db

bp = Blueprint("bookings", __name__)
BOOKING = "/bookings/<int:booking_id>"
NEXT = 3
MOST_ANSWERS = 20  # the next ones appear when these are answered
OFFERED = WaitlistEntry.state == WaitlistState.OFFERED


@bp.get("/bookings")
def index() -> str:
    """Bookings, the coming ones first: one's own, or `?all=1` for staff; `?quota=` narrows to one quota."""
    everybodys, quota = _scope()
    page = paginate(
        db(), booking_queries.list_bookings(current_actor(), everybodys or quota is not None, quota)
    )
    held, offered = waiting_for_a_yes(utcnow())
    asked = {booking.id for booking in held} | {entry.booking_id for entry in offered}
    soon = [] if everybodys or page.number > 1 else _soon(page.items, asked)
    return render_template(
        "bookings/index.html",
        page=page,
        quota=quota,
        everybodys=everybodys,
        staff=sees_everybodys(),
        soon=soon,
        countdown=countdown,
        sbatch=sbatch,
        now=utcnow(),
        answers=db().scalars(moves.open_moves(current_actor(), utcnow()).limit(MOST_ANSWERS)).all(),
        held=held,
        offered=offered,
    )


def waiting_for_a_yes(now: datetime) -> tuple[Sequence[Booking], Sequence[WaitlistEntry]]:
    """The reader's held offers, and what the waitlist holds for them. Two queries."""
    actor = current_actor()
    return (
        db().scalars(offers.held_by(actor, now).limit(MOST_ANSWERS)).all(),
        db().scalars(waitlist.own(actor).where(OFFERED).limit(MOST_ANSWERS)).all(),
    )


@bp.get("/bookings/export.csv")
def export() -> Response:
    """The same list as CSV, all of it."""
    everybodys, quota = _scope()
    statement = booking_queries.list_bookings(current_actor(), everybodys or quota is not None, quota)
    header = (
        "booking_id state kind starts_at ends_at nodes gpus_per_node gpu_type gpu_hours cluster account "
        "title reservation reservation_state"
    ).split()
    return csv_response("bookings.csv", header, read_rows(statement, _table_row))


def _table_row(booking: Booking) -> list[object]:
    quota = booking.quota
    return [
        booking.id,
        booking.state.value,
        booking.kind.value,
        booking.starts_at.isoformat(timespec="seconds"),
        booking.ends_at.isoformat(timespec="seconds"),
        booking.nodes,
        booking.gpus_per_node,
        quota.gpu_type,
        f"{Decimal(booking.gpu_seconds) / 3600:.2f}",
        booking.cluster.slug,
        quota.account,
        quota.application.title,
        booking.reservation_name,
        booking.reservation.state.value,
    ]


def _scope() -> tuple[bool, Quota | None]:
    """Whose bookings the address asks for, and of which quota."""
    everybodys = sees_everybodys() and request.args.get("all") == "1"
    number = request.args.get("quota", "")
    if number.isascii() and number.isdigit() and len(number) < 19:
        return everybodys, booking_queries.find_quota(db(), current_actor(), int(number))
    return everybodys, None


def _soon(bookings: Sequence[Booking], asked: set[int | None]) -> list[Booking]:
    """What is on, and what comes next, as cards above the list; not what waits for a yes just above."""
    open_ = (booking for booking in bookings if booking.state in OPEN_BOOKINGS)
    return [booking for booking in open_ if booking.id not in asked][:NEXT]


def quota_to_book(quota_id: int) -> Quota:
    """The quota, for whoever may spend it. Raises NotFound, Forbidden."""
    quota = booking_queries.find_quota(db(), current_actor(), quota_id)
    require(current_actor(), Action.BOOKING_CREATE, quota)
    return quota


@bp.get(BOOKING)
def show(booking_id: int) -> ResponseReturnValue:
    """One booking: how it stands, what comes next, and the line to submit jobs with."""
    actor, now = current_actor(), utcnow()
    booking = booking_queries.find_booking(db(), actor, booking_id)
    if booking.state is BookingState.HELD:
        if entry := offered_by_waitlist(booking):
            return redirect(url_for("bookings.show_entry", entry_id=entry), 303)
        return _held_page(booking, now)
    used = ledger.used_in_bookings(db(), [booking.id]).get(booking.id, 0)
    may_cancel = may(actor, Action.BOOKING_CANCEL, booking) and booking.ends_at > now
    may_use = may(actor, Action.BOOKING_CREATE, booking.quota)
    stands = situation if may_use else booking_outside.situation
    void = booking.state in VOID_BOOKINGS
    return render_template(
        "bookings/show.html",
        booking=booking,
        used=used,
        now=now,
        situation=stands(booking, used, policy().bookings, now),
        happenings=timeline(booking_queries.changes(db(), booking)),
        login=db().scalar(select(Person.cluster_login).where(Person.id == actor.person_id)),
        may_use=may_use,
        may_cancel=may_cancel and booking.state in booking_queries.LIVE,
        may_change=may_cancel and booking.state in changes.FIXED,
        not_longer=_not_longer(booking, now),
        void=void,
        reserved=not void and booking.state is not BookingState.PLANNED,
        again=_again(booking, now) if void and may_use else None,
        nodes=node_names(booking, policy().bookings, now),
        countdown=countdown(booking, now),
        live=booking.state in booking_queries.LIVE,
    )


def _not_longer(booking: Booking, now: datetime) -> str:
    """Why a booking cannot be made longer now; empty where it may be possible."""
    why = changes.no_extension(booking, policy().bookings, now)
    return offer_words.told(why) if why else ""


def _again(booking: Booking, now: datetime) -> dict[str, str] | None:
    """The booking form filled in with what came to nothing, while the quota can be booked."""
    if booking.quota.state is not QuotaState.ACTIVE:
        return None
    ask = Ask(booking.nodes, booking.gpus_per_node, booking.starts_at, booking.ends_at)
    fields = offer_words.fields(ask)
    return fields if ask.starts_at > now else {**fields, "starts_at": ""}


def offered_by_waitlist(booking: Booking) -> int | None:
    """The number of the place on the waitlist whose offer it is: that is where it is answered."""
    return db().scalar(
        select(WaitlistEntry.id).where(
            WaitlistEntry.booking_id == booking.id, WaitlistEntry.state == WaitlistState.OFFERED
        )
    )


def _held_page(booking: Booking, now: datetime) -> str:
    """What is held for a yes, with how long."""
    actor, rules = current_actor(), policy()
    return render_template(
        "bookings/held.html",
        booking=booking,
        now=now,
        left=max((booking.held_until or now) - now, timedelta()),
        price=held_price(booking),
        tariff=rules.tariff,
        balance=ledger.balance(db(), booking.quota),
        may_accept=may(actor, Action.BOOKING_CREATE, booking.quota),
        may_release=may(actor, Action.BOOKING_CANCEL, booking),
    )


def held_price(booking: Booking) -> Price | None:
    """What an offer costs; its hours are charged while it is held."""
    seconds = booking.gpu_seconds
    return prices.price(db(), booking.quota, seconds, booking.starts_at, policy=policy(), counted=seconds)


@bp.route(f"{BOOKING}/cancel", methods=["GET", "POST"])
@once.guard
def cancel(booking_id: int) -> ResponseReturnValue:
    """Say what is given back, ask, then do it."""
    actor, now = current_actor(), utcnow()
    booking = booking_queries.find_booking(db(), actor, booking_id)
    require(actor, Action.BOOKING_CANCEL, booking)
    if booking.state not in OPEN_BOOKINGS:
        return _given_back_before(booking)
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
        if booking.state not in OPEN_BOOKINGS:
            return _given_back_before(booking)
        return _cancel_page(booking, form, now, stale=True), 409
    flash(gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(done.given_back)), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _given_back_before(booking: Booking) -> ResponseReturnValue:
    """The second of two, or a page from before: what is over is shown as it is."""
    given_back = booking.state is BookingState.CANCELLED
    told = gettext("This booking was given back") if given_back else gettext("This booking is already over.")
    flash(told, "warning")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


def _cancel_page(booking: Booking, form: CancelForm, now: datetime, stale: bool = False) -> str:
    """The question, with today's answer to what it gives back. Raises WrongState when the booking is over."""
    done = bookings.cancellation(booking, now)
    # a page that came back stale shows the booking as it is now, and asks again about that
    form.version.data, form.version.raw_data = booking.version, None
    return render_template("bookings/cancel.html", booking=booking, form=form, done=done, stale=stale)
