"""How a booking stands, for who may see it but not use it: operators and auditors, not its members."""

from __future__ import annotations

from datetime import datetime

from flask_babel import gettext

from allocator import problems
from allocator.models import Booking, NodeState
from allocator.policy import BookingRules
from allocator.states import BookingState, ReservationState
from web.booking.booking_words import Situation, over, used_of
from web.formats import duration, moment


def situation(booking: Booking, used: int, rules: BookingRules, now: datetime) -> Situation:
    """What the top of the page says: nothing of it is the reader's to do."""
    if found := over(booking, used, now):
        return found
    if booking.state == BookingState.PLANNED:
        return Situation("info", gettext("Planned, the start may still change"), _planned(booking, rules))
    state = booking.reservation.state
    if state == ReservationState.BLOCKED:
        why = gettext(problems.sentence(booking.reservation.problem_code))
        return Situation("warning", gettext("The cluster does not reserve it for now"), why)
    if state != ReservationState.RESERVED:
        return _pending(booking, rules, now)
    if booking.starts_at > now:
        text = gettext("It begins in %(time)s.", time=duration(booking.starts_at - now))
        return Situation("success", gettext("Reserved on the cluster"), text)
    if booking.no_show_warned_at is not None and not used:
        until = moment(min(booking.no_show_warned_at + rules.no_show_grace, booking.ends_at))
        text = gettext("Without a job before %(until)s the rest of it is released.", until=until)
        return Situation("warning", gettext("No job has run in it"), text)
    left = gettext("%(time)s are left.", time=duration(booking.ends_at - now))
    return Situation("success", gettext("The booked time is running"), f"{left} {used_of(booking, used)}")


def _planned(booking: Booking, rules: BookingRules) -> str:
    assert booking.earliest_at is not None
    assert booking.latest_at is not None
    return str(
        gettext(
            "It lies between %(earliest)s and %(latest)s. By today's plan it starts on %(start)s; the start "
            "is fixed %(ahead)s before.",
            earliest=moment(booking.earliest_at),
            latest=moment(booking.latest_at),
            start=moment(booking.starts_at),
            ahead=duration(rules.fix_ahead),
        )
    )


def _pending(booking: Booking, rules: BookingRules, now: datetime) -> Situation:
    handed_over = booking.starts_at - rules.materialise
    if handed_over > now:
        text = gettext("Kezek hands the reservation to the cluster on %(date)s.", date=moment(handed_over))
        return Situation("info", gettext("Booked"), text)
    nodes = [slot.node for slot in booking.slots if slot.node.state == NodeState.EXPECTED]
    coming = [node.joins_at for node in nodes if node.joins_at is not None]
    if coming:
        text = gettext("Nodes of it join the cluster until %(date)s.", date=moment(max(coming)))
        return Situation("info", gettext("Booked"), text)
    text = gettext("The cluster is setting the reservation up, usually within a minute.")
    return Situation("info", gettext("Being reserved on the cluster"), text)
