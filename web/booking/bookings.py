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
from allocator.booking import booking_queries, bookings, waitlist
from allocator.errors import Stale
from allocator.models import Booking, Person, Quota, WaitlistEntry
from allocator.states import OPEN_BOOKINGS, BookingState, WaitlistState
from allocator.upkeep import moves
from config.clock import utcnow
from web import once
from web.applying.quotas import sees_everybodys
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
    soon = [] if everybodys or page.number > 1 else _soon(page.items)
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
        offered=db().scalars(waitlist.own(current_actor()).where(OFFERED)).all(),
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


def _soon(bookings: Sequence[Booking]) -> list[Booking]:
    """What is on, and what comes next, as cards above the list."""
    return [booking for booking in bookings if booking.state in OPEN_BOOKINGS][:NEXT]


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
        may_change=may_cancel and booking.state in (BookingState.CONFIRMED, BookingState.STARTED),
        nodes=node_names(booking, policy().bookings, now),
        countdown=countdown(booking, now),
        live=booking.state in booking_queries.LIVE,
    )


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
        price=prices.price(
            db(),
            booking.quota,
            booking.gpu_seconds,
            booking.starts_at,
            policy=rules,
            counted=booking.gpu_seconds,
        ),
        tariff=rules.tariff,
        balance=ledger.balance(db(), booking.quota),
        may_accept=may(actor, Action.BOOKING_CREATE, booking.quota),
        may_release=may(actor, Action.BOOKING_CANCEL, booking),
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
    return render_template("bookings/cancel.html", booking=booking, form=form, done=done, stale=stale)
