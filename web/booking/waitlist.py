"""The waitlist: one's places on it with rank and expected date, offers, and the answers to them."""

from __future__ import annotations

from datetime import timedelta

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import ledger
from allocator.authorization import Action, may, require
from allocator.booking import waitlist
from allocator.booking.standing import standing
from allocator.errors import Stale, WrongState
from allocator.models import WaitlistEntry
from allocator.states import WaitlistState
from config.clock import utcnow
from config.i18n import N_
from web import once
from web.applying.quotas import sees_everybodys
from web.booking.booking_forms import AnswerForm
from web.booking.bookings import bp, held_price
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.session import db

ENTRY = "/waitlist/<int:entry_id>"


@bp.get("/waitlist")
def waiting() -> str:
    """Open places, offers first: one's own, or `?all=1` for staff."""
    staff = sees_everybodys()
    everybodys = staff and request.args.get("all") == "1"
    page = paginate(db(), waitlist.own(current_actor(), everybodys))
    return render_template("bookings/waitlist.html", page=page, staff=staff, everybodys=everybodys)


@bp.get(ENTRY)
def show_entry(entry_id: int) -> str:
    """One place: how it stands, and the offer that waits for an answer."""
    actor, now = current_actor(), utcnow()
    entry = waitlist.find(db(), actor, entry_id)
    rules = policy().bookings
    waits, offered = entry.state is WaitlistState.WAITING, entry.state is WaitlistState.OFFERED
    return render_template(
        "bookings/waitlist_entry.html",
        entry=entry,
        standing=standing(db(), entry, rules=rules, now=now) if waits else None,
        rules=rules,
        length=timedelta(seconds=entry.length_seconds),
        left=max((entry.answer_until or now) - now, timedelta()),
        may_answer=may(actor, Action.BOOKING_CREATE, entry.quota),
        now=now,
        price=held_price(entry.booking) if offered and entry.booking else None,
        balance=ledger.balance(db(), entry.quota) if offered else None,
        tariff=policy().tariff,
    )


@bp.get(f"{ENTRY}/withdraw")
def leave_waitlist(entry_id: int) -> str:
    """Ask before the place is lost; sending it is `answer_entry`."""
    entry = waitlist.find(db(), current_actor(), entry_id)
    require(current_actor(), Action.BOOKING_CREATE, entry.quota)
    if entry.state not in waitlist.OPEN:
        raise WrongState(N_("You do not wait any more."), {"state": entry.state.value})
    return render_template(
        "bookings/leave_waitlist.html", entry=entry, length=timedelta(seconds=entry.length_seconds)
    )


@bp.post(f"{ENTRY}/<any(accept,decline,withdraw):answer>")
@once.guard
def answer_entry(entry_id: int, answer: str) -> ResponseReturnValue:
    """Take the offer, let it go to the next one, or leave the list."""
    actor = current_actor()
    entry, form = waitlist.find(db(), actor, entry_id), AnswerForm()
    require(actor, Action.BOOKING_CREATE, entry.quota)
    address = url_for("bookings.show_entry", entry_id=entry.id)
    if not form.validate_on_submit():
        return redirect(address, 303)
    try:
        with db().begin_nested():
            said, number = _answer(entry, answer, form.version.data or 0)
    except (Stale, WrongState) as error:
        flash(gettext(error.message), "warning")
        return redirect(address, 303)
    flash(said, "success")
    return redirect(url_for("bookings.show", booking_id=number) if number else address, 303)


def _answer(entry: WaitlistEntry, answer: str, version: int) -> tuple[str, int | None]:
    """What is said of it, and the number of the booking that came of it."""
    actor, rules, now = current_actor(), policy().bookings, utcnow()
    if answer == "accept":
        booking = waitlist.accept(db(), actor, entry, expected_version=version, now=now)
        return gettext("Booked."), booking.id
    if answer == "decline":
        waitlist.decline(db(), actor, entry, expected_version=version, rules=rules, now=now)
        return gettext("The offer goes to the next one. You wait on."), None
    waitlist.withdraw(db(), actor, entry, expected_version=version, now=now)
    return gettext("You have left the waitlist."), None
