"""The waitlist: one's places on it with rank and expected date, offers, and the answers to them."""

from __future__ import annotations

from datetime import timedelta

from flask import flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator.authorization import Action, may, require
from allocator.booking import waitlist
from allocator.booking.standing import standing
from allocator.errors import Stale, WrongState
from allocator.models import WaitlistEntry
from allocator.states import WaitlistState
from config.clock import utcnow
from config.i18n import N_
from web import once
from web.booking.booking_forms import AnswerForm
from web.booking.bookings import bp
from web.identity import current_actor
from web.paging import paginate
from web.policy import policy
from web.session import db

ENTRY = "/waitlist/<int:entry_id>"


@bp.get("/waitlist")
def waiting() -> str:
    """One's open places, offers first."""
    page = paginate(db(), waitlist.own(current_actor()))
    return render_template("bookings/waitlist.html", page=page)


@bp.get(ENTRY)
def show_entry(entry_id: int) -> str:
    """One place: how it stands, and the offer that waits for an answer."""
    actor, now = current_actor(), utcnow()
    entry = waitlist.find(db(), actor, entry_id)
    rules = policy().bookings
    waits = entry.state is WaitlistState.WAITING
    return render_template(
        "bookings/waitlist_entry.html",
        entry=entry,
        standing=standing(db(), entry, rules=rules, now=now) if waits else None,
        rules=rules,
        length=timedelta(seconds=entry.length_seconds),
        left=max((entry.answer_until or now) - now, timedelta()),
        may_answer=may(actor, Action.BOOKING_CREATE, entry.quota),
        now=now,
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
