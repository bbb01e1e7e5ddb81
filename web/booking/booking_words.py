"""How a booking stands, in words: what is, what comes next, and what one can do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask_babel import gettext

from allocator import problems
from allocator.booking.bookings import never_delivered
from allocator.history import Change
from allocator.models import Booking, NodeState
from allocator.policy import BookingRules
from allocator.states import BookingState, ReservationState
from config.i18n import N_
from web.formats import duration, gpu_hours, moment
from web.states import Happening


@dataclass(frozen=True)
class Situation:
    """`kind` is that of a notice; `command` is the line to submit jobs with, once one can."""

    kind: str
    title: str
    text: str
    command: str = ""


EVENTS = {
    "booking.held": (N_("Held until you answer"), "waiting"),
    "booking.planned": (N_("Planned inside of its window"), "waiting"),
    "booking.lapsed": (N_("Not booked: the time to say yes was over, or it was let go"), "ended"),
    "booking.confirmed": (N_("Booked"), "good"),
    "booking.extended": (N_("Made longer"), "good"),
    "booking.shortened": (N_("Made shorter"), "neutral"),
    "booking.moved": (N_("Moved to another time"), "attention"),
    "booking.replanned": (N_("Planned for another time in its window"), "waiting"),
    "booking.window_changed": (N_("Promised for another window"), "waiting"),
    "booking.rebound": (N_("Given other nodes"), "neutral"),
    "booking.pinned": (N_("Pinned"), "neutral"),
    "booking.unpinned": (N_("Not pinned any more"), "neutral"),
    "booking.no_show_warned": (N_("Warned: no job has run in it"), "attention"),
    "booking.started": (N_("The booked time began"), "running"),
    "booking.ended": (N_("The booked time ended"), "ended"),
    "booking.cancelled": (N_("Booking given back"), "ended"),
    "reservation.reserved": (N_("Reserved on the cluster"), "good"),
    "reservation.pending": (N_("To be reserved on the cluster again"), "waiting"),
    "reservation.healed": (N_("The reservation on the cluster was put right"), "good"),
    "reservation.blocked": (N_("The cluster refused"), "attention"),
    "reservation.released": (N_("Released on the cluster"), "ended"),
    "quota.granted": (N_("The quota was granted"), "good"),
    "quota.planned": (N_("The plan for a period was recorded"), "neutral"),
    "quota.member_added": (N_("A member was added"), "neutral"),
    "quota.member_removed": (N_("A member was removed"), "neutral"),
    "quota.expired": (N_("The quota's time ended"), "ended"),
    "quota.closed": (N_("The quota was closed"), "ended"),
}


def timeline(changes: Iterable[Change]) -> list[Happening]:
    """Events as the timeline macro takes them."""
    return [_happening(change) for change in changes]


def _happening(change: Change) -> Happening:
    label, tone = EVENTS.get(change.kind, (change.kind, "neutral"))
    why = [gettext(change.reason)] if change.reason else []
    if "given_back" in change.after:
        why.append(
            gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(change.after["given_back"]))
        )
    who = change.by or gettext("Kezek itself")
    return Happening(gettext(label), change.at, who, "\n".join(why), tone)


def situation(booking: Booking, used: int, rules: BookingRules, now: datetime) -> Situation:
    """What the top of a booking's page says; `used` are the GPU-seconds that jobs used in it so far."""
    if found := over(booking, used, now):
        return found
    if booking.state == BookingState.PLANNED:
        return _planned(booking, rules)
    state = booking.reservation.state
    if state == ReservationState.BLOCKED:
        return _blocked(booking)
    if state != ReservationState.RESERVED:
        return _pending(booking, rules, now)
    command = sbatch(booking, now)
    if booking.starts_at > now:
        text = gettext(
            "Submit jobs with this line already now; they start when the booked time begins, in %(time)s.",
            time=duration(booking.starts_at - now),
        )
        return Situation("success", gettext("Your GPUs are reserved on the cluster"), text, command)
    if booking.no_show_warned_at is not None and not used:
        return _unused(booking, booking.no_show_warned_at + rules.no_show_grace, command)
    left = gettext("%(time)s are left.", time=duration(booking.ends_at - now))
    return Situation(
        "success", gettext("Your booked time is running"), f"{left} {used_of(booking, used)}", command
    )


def over(booking: Booking, used: int, now: datetime) -> Situation | None:
    """What is said of a booking that is over, or never was; None of one that is not over."""
    if booking.state == BookingState.CANCELLED:
        return Situation(
            "info", gettext("This booking was given back"), gettext("Nothing is charged for it.")
        )
    if booking.state == BookingState.LAPSED:
        return Situation(
            "info",
            gettext("This was never booked"),
            gettext("The time is free for others; nothing is charged."),
        )
    planned = booking.state == BookingState.PLANNED
    if booking.state == BookingState.ENDED or (booking.ends_at <= now and not planned):
        return Situation("info", gettext("This booking is over"), used_of(booking, used))
    return None


def _unused(booking: Booking, until: datetime, command: str) -> Situation:
    """A no-show that was warned: what to do, and what happens otherwise."""
    text = gettext(
        "Submit a job before %(until)s. Without one the rest of the booking is released then and not charged "
        "any further; the time that has passed stays charged.",
        until=moment(min(until, booking.ends_at)),
    )
    return Situation("warning", gettext("No job has run in your booking"), text, command)


def _planned(booking: Booking, rules: BookingRules) -> Situation:
    """A flexible one: any start in its window keeps the promise."""
    assert booking.earliest_at is not None
    assert booking.latest_at is not None
    text = gettext(
        "It lies between %(earliest)s and %(latest)s. By today's plan it starts on %(start)s; the start is "
        "fixed %(ahead)s before, and you are told by letter.",
        earliest=moment(booking.earliest_at),
        latest=moment(booking.latest_at),
        start=moment(booking.starts_at),
        ahead=duration(rules.fix_ahead),
    )
    return Situation("info", gettext("Yours, the start may still change"), text)


def countdown(booking: Booking, now: datetime) -> str:
    """How long until it begins, or until it ends; of an offer, what is more urgent: until when it is held."""
    if booking.state is BookingState.HELD and booking.held_until is not None:
        return str(gettext("Held for you until %(moment)s", moment=moment(booking.held_until)))
    if booking.starts_at > now:
        return str(gettext("begins in %(time)s", time=duration(booking.starts_at - now)))
    return str(gettext("%(time)s left", time=duration(max(booking.ends_at - now, timedelta()))))


def node_names(booking: Booking, rules: BookingRules, now: datetime) -> str:
    """The nodes once they are settled; before, only the day on which they will be."""
    if booking.state is BookingState.PLANNED:
        return str(gettext("settled once its start is fixed"))
    settled = booking.starts_at - rules.materialise
    if booking.reservation.state != ReservationState.RESERVED and settled > now:
        return str(gettext("settled on %(moment)s", moment=moment(settled)))
    return ", ".join(sorted(slot.node.name for slot in booking.slots)) or "—"


def used_of(booking: Booking, used: int) -> str:
    """How much of what is booked jobs have used, as a sentence."""
    hours = {"used": gpu_hours(used), "booked": gpu_hours(booking.gpu_seconds)}
    return str(gettext("Jobs used %(used)s of the %(booked)s booked GPU-hours.", **hours))


def _pending(booking: Booking, rules: BookingRules, now: datetime) -> Situation:
    handed_over = booking.starts_at - rules.materialise
    title = gettext("Being reserved on the cluster")
    if handed_over > now:
        text = gettext(
            "The GPUs are yours. Kezek hands the reservation to the cluster on %(date)s, "
            "%(days)s days before it starts; the line to submit jobs with will stand here then.",
            date=moment(handed_over),
            days=rules.materialise.days,
        )
        return Situation("info", gettext("Booked"), text)
    nodes = [slot.node for slot in booking.slots if slot.node.state == NodeState.EXPECTED]
    coming = [node.joins_at for node in nodes if node.joins_at is not None]
    if coming:
        text = gettext(
            "The GPUs are yours. Nodes of it join the cluster until %(date)s. Kezek hands the reservation to "
            "the cluster as soon as they are there; the line to submit jobs with will stand here then.",
            date=moment(max(coming)),
        )
        return Situation("info", gettext("Booked"), text)
    text = gettext(
        "The GPUs are yours. The cluster is setting the reservation up, usually within a minute; "
        "the line to submit jobs with will stand here then."
    )
    return Situation("info", title, text)


def _blocked(booking: Booking) -> Situation:
    why = gettext(problems.sentence(booking.reservation.problem_code))
    after = gettext("You need not do anything: Kezek keeps trying, and the operators see it too.")
    charge = gettext("If the cluster does not reserve it until the end, nothing is charged.")
    texts = [why, after] + ([charge] if never_delivered(booking) else [])
    return Situation("warning", gettext("The cluster does not reserve it for now"), " ".join(texts))


def sbatch(booking: Booking, now: datetime) -> str:
    """The command line that runs a job in the reservation for as long as is left of it."""
    account = booking.quota.account
    left = booking.ends_at - max(booking.starts_at, now)
    return (
        f"sbatch --account={account} --qos={account} --reservation={booking.reservation_name}"
        f" --nodes={booking.nodes} --gres=gpu:{booking.quota.gpu_type}:{booking.gpus_per_node}"
        f" --time={_slurm_time(left)} job.sh"
    )


def _slurm_time(length: timedelta) -> str:
    """Slurm's days-hours:minutes:seconds, rounded down to a minute: a longer job would not start."""
    minutes = max(int(length.total_seconds()) // 60, 1)
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02d}:{rest % 60:02d}:00"
