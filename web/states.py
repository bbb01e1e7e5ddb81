"""How states and events are shown: the word and the shape of each, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flask import Flask
from flask_babel import gettext

from allocator.models import Booking
from allocator.states import BookingState, ReservationState
from config.clock import utcnow
from config.i18n import N_
from web.policy import policy


class Face(NamedTuple):
    """A state for people. `tone` picks shape and colour.

    Neutral, waiting, running, good, attention, bad, ended.
    """

    label: str
    tone: str


# By value: no two lifecycles use the same word for different things (GLOSSARY: one word for one thing).
FACES: dict[str, Face] = {
    "draft": Face(N_("Draft"), "neutral"),
    "submitted": Face(N_("Being considered"), "waiting"),
    "approved": Face(N_("Approved"), "good"),
    "refused": Face(N_("Refused"), "bad"),
    "withdrawn": Face(N_("Withdrawn"), "ended"),
    "active": Face(N_("Active"), "good"),
    "expired": Face(N_("Expired"), "ended"),
    "closed": Face(N_("Closed"), "ended"),
    "held": Face(N_("Held for you"), "attention"),
    "planned": Face(N_("Planned, the start may still change"), "waiting"),
    "lapsed": Face(N_("Lapsed"), "ended"),
    "offered": Face(N_("Offered: please answer"), "attention"),
    "confirmed": Face(N_("Booked"), "waiting"),
    "started": Face(N_("Running"), "running"),
    "ended": Face(N_("Ended"), "ended"),
    "cancelled": Face(N_("Cancelled"), "ended"),
    "pending": Face(N_("Being reserved on the cluster"), "waiting"),
    "reserved": Face(N_("Reserved on the cluster"), "good"),
    "blocked": Face(N_("The cluster refuses it for now"), "attention"),
    "released": Face(N_("Released on the cluster"), "ended"),
    "up": Face(N_("Up"), "good"),
    "down": Face(N_("Down"), "bad"),
    "drained": Face(N_("Drained"), "attention"),
    "expected": Face(N_("Announced"), "waiting"),
    "gone": Face(N_("Gone"), "ended"),
    "proposed": Face(N_("Proposed"), "waiting"),
    "published": Face(N_("Published"), "good"),
    "applied": Face(N_("Applied"), "good"),
    "accepted": Face(N_("Accepted"), "good"),
    "told": Face(N_("No answer yet"), "waiting"),
    "changed": Face(N_("Another time was chosen"), "good"),
    "refunded": Face(N_("Hours given back"), "ended"),
    "discarded": Face(N_("Given up"), "ended"),
    "replaced": Face(N_("Replaced"), "ended"),
    "unneeded": Face(N_("No longer needed"), "ended"),
    "kept": Face(N_("Not binding"), "neutral"),
    "warned": Face(N_("Warned"), "attention"),
    "dropped": Face(N_("Not taken back"), "ended"),
    "waiting": Face(N_("Waiting"), "waiting"),
    "sent": Face(N_("Sent"), "good"),
    "failed": Face(N_("Failed"), "bad"),
}


@dataclass(frozen=True)
class Happening:
    """One line of a timeline, already in the reader's language: what, when, who and why."""

    what: str
    at: datetime
    who: str = ""
    why: str = ""
    tone: str = "neutral"


def state_face(state: str) -> Face:
    """Word and tone of a state, translated. A state that is missing from the table shows as it is."""
    face = FACES.get(str(state))
    return Face(gettext(face.label), face.tone) if face else Face(str(state), "neutral")


def booking_state(booking: Booking) -> str:
    """The one state that a booking is shown in everywhere; its reservation's while that says more.

    A running booking that the cluster refuses is told as refused: that is what its owner must know.
    """
    reservation = booking.reservation.state
    if booking.state == BookingState.CONFIRMED:
        # nobody works on what the cluster is told only days later
        later = booking.starts_at > utcnow() + policy().bookings.materialise
        return str(booking.state if later and reservation == ReservationState.PENDING else reservation)
    if booking.state == BookingState.STARTED and reservation == ReservationState.BLOCKED:
        return str(reservation)
    return str(booking.state)


def init_app(app: Flask) -> None:
    """Let the badge macro look states up."""
    app.add_template_global(state_face)
    app.add_template_global(booking_state)
