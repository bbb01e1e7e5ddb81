"""Bookings and outages as iCalendar (RFC 5545), the same bytes for the same facts."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlsplit

from flask import url_for
from flask_babel import gettext
from icalendar import Calendar, Event, vDuration, vUri

from allocator.booking.feeds import Content
from allocator.models import Booking, Outage
from allocator.states import BookingState, OutageState, ReservationState
from web.booking.booking_words import sbatch
from web.booking.calendar_words import outage_word
from web.session import settings

REFRESH = timedelta(hours=1)


def document(content: Content) -> bytes:
    """The feed's text. Nothing in it depends on the clock, so that an unchanged feed stays unchanged."""
    calendar = Calendar()
    calendar.add("prodid", "-//Kezek//Bookings//EN")
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    name = _name(content)
    calendar.add("x-wr-calname", name)
    calendar.add("name", name)
    calendar.add("refresh-interval", vDuration(REFRESH), parameters={"value": "DURATION"})
    calendar.add("x-published-ttl", vDuration(REFRESH))
    for booking in content.bookings:
        calendar.add_component(_booking(booking, content.changed["booking", booking.id]))
    for outage in content.outages:
        calendar.add_component(_outage(outage, content.changed["outage", outage.id]))
    return bytes(calendar.to_ical())


def _name(content: Content) -> str:
    quota = content.feed.quota
    return f"Kezek: {quota.application.title}" if quota else str(gettext("Kezek: my bookings"))


def _event(
    kind: str, number: int, version: int, changed: datetime, window: tuple[datetime, datetime]
) -> Event:
    event = Event()
    event.add("uid", f"{kind}-{number}@{urlsplit(settings().base_url).hostname or 'kezek'}")
    event.add("dtstamp", changed)
    event.add("last-modified", changed)
    event.add("sequence", version)
    event.add("dtstart", window[0])
    event.add("dtend", window[1])
    return event


def _booking(booking: Booking, changed: datetime) -> Event:
    event = _event("booking", booking.id, booking.version, changed, (booking.starts_at, booking.ends_at))
    quota = booking.quota
    shape = f"{booking.nodes} × {booking.gpus_per_node} {quota.gpu_type.upper()}"
    event.add("summary", f"{shape}: {quota.application.title}")
    event.add("location", booking.cluster.title)
    address = settings().base_url.rstrip("/") + url_for("bookings.show", booking_id=booking.id)
    lines = [gettext("Booking %(number)s", number=booking.id)]
    if booking.state == BookingState.PLANNED:
        lines.append(gettext("The start may still change inside of the agreed window."))
    if booking.reservation and booking.reservation.state == ReservationState.RESERVED:
        lines.append(sbatch(booking, booking.starts_at))
    event.add("description", "\n".join([*lines, address]))
    event.add("url", vUri(address))
    event.add("status", _status(booking))
    event.add("transp", "OPAQUE")
    return event


def _status(booking: Booking) -> str:
    if booking.state == BookingState.CANCELLED:
        return "CANCELLED"
    return "TENTATIVE" if booking.state == BookingState.PLANNED else "CONFIRMED"


def _outage(outage: Outage, changed: datetime) -> Event:
    event = _event("outage", outage.id, outage.version, changed, (outage.starts_at, outage.ends_at))
    event.add("summary", f"{outage_word(outage)}: {outage.cluster.title}")
    event.add("location", outage.cluster.title)
    nodes = gettext("Nodes: %(count)s", count=len(outage.nodes))
    event.add("description", f"{outage.reason}\n{nodes}")
    event.add("status", "CANCELLED" if outage.state == OutageState.CANCELLED else "CONFIRMED")
    event.add("transp", "TRANSPARENT")  # it takes nobody's own time
    return event
