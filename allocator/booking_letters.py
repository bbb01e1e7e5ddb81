"""Who is told what about a booking: the one who made it, and the applicant whose quota it spends."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from allocator import outbox
from allocator.actors import Actor
from allocator.models import Booking, BookingMove

ALMATY = ZoneInfo("Asia/Almaty")
HOUR = 3600


def booked(session: Session, booking: Booking, *, now: datetime) -> None:
    """GPUs are booked."""
    _post(session, "booking_confirmed", booking, {}, now)


def planned(session: Session, booking: Booking, *, now: datetime) -> None:
    """A flexible booking is in the plan: some time of its window is promised."""
    if booking.earliest_at is None or booking.latest_at is None:
        raise ValueError("only a flexible booking is planned")
    window = {"earliest_at": _local(booking.earliest_at), "latest_at": _local(booking.latest_at)}
    _post(session, "booking_planned", booking, window, now)


def cancelled(session: Session, booking: Booking, given_back: int, by: Actor, *, now: datetime) -> None:
    """The booking was given back, or ended before its time; who did that needs no letter about it."""
    _post(session, "booking_cancelled", booking, {"given_back": _hours(given_back)}, now, but=by.person_id)


def blocked(session: Session, booking: Booking, problem: str, *, now: datetime) -> None:
    """The cluster refuses the reservation; for whoever finds that out (scheduler)."""
    _post(session, "booking_blocked", booking, {"problem": problem}, now)


def reserved(session: Session, booking: Booking, *, now: datetime) -> None:
    """The cluster holds the reservation: for the first time, or again after it refused."""
    names = {"reservation": booking.reservation_name, "account": booking.quota.account}
    _post(session, "booking_reserved", booking, names, now)


def moved(session: Session, move: BookingMove, *, now: datetime) -> None:
    """A booking got another time: why, and until when one may answer."""
    if move.to_starts_at is None or move.to_ends_at is None:
        raise ValueError("what lost its time was not moved")
    details = {**_of(move), "to_starts_at": _local(move.to_starts_at), "to_ends_at": _local(move.to_ends_at)}
    _post(session, "booking_moved", move.booking, details, now)


def dropped(session: Session, move: BookingMove, *, now: datetime) -> None:
    """A booking lost its time, and nothing else was free."""
    _post(session, "booking_dropped", move.booking, _of(move), now)


def _of(move: BookingMove) -> dict[str, str]:
    return {
        "move": str(move.id),
        "from_starts_at": _local(move.from_starts_at),
        "from_ends_at": _local(move.from_ends_at),
        "reason": move.reason,
        "answer_until": _local(move.answer_until),
    }


def _post(
    session: Session,
    letter: str,
    booking: Booking,
    more: Mapping[str, str],
    now: datetime,
    but: int | None = None,
) -> None:
    details = {
        "booking": booking.id,
        "shape": f"{booking.nodes} × {booking.gpus_per_node} {booking.quota.gpu_type.upper()}",
        "cluster": booking.cluster.title,
        "starts_at": _local(booking.starts_at),
        "ends_at": _local(booking.ends_at),
        "gpu_hours": _hours(booking.gpu_seconds),
        **more,
    }
    for person_id in sorted({booking.booked_by_id, booking.quota.application.applicant_id} - {but}):
        outbox.post(session, letter, person_id, details, now=now)


def _local(moment: datetime) -> str:
    return moment.astimezone(ALMATY).strftime("%d.%m.%Y %H:%M")


def _hours(gpu_seconds: int) -> str:
    whole, rest = divmod(gpu_seconds * 100 // HOUR, 100)
    return f"{whole},{rest:02d}" if rest else str(whole)
