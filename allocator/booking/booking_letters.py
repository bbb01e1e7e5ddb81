"""Who is told what about a booking: the one who made it, and the applicant whose quota it spends."""

from collections.abc import Mapping, Sequence
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


def planned(session: Session, booking: Booking, *, now: datetime, by: Actor | None = None) -> None:
    """A flexible booking is in the plan: some time of its window is promised; ``by`` needs no letter."""
    if booking.earliest_at is None or booking.latest_at is None:
        raise ValueError("only a flexible booking is planned")
    window = {"earliest_at": _local(booking.earliest_at), "latest_at": _local(booking.latest_at)}
    _post(session, "booking_planned", booking, window, now, but=by.person_id if by else None)


def fixed(session: Session, booking: Booking, *, now: datetime) -> None:
    """The time of a flexible booking is settled."""
    _post(session, "booking_fixed", booking, {}, now)


def changed(session: Session, booking: Booking, by: Actor, *, now: datetime) -> None:
    """It was made longer or shorter or has another time; who did that needs no letter about it."""
    _post(session, "booking_changed", booking, {}, now, but=by.person_id)


def no_show_warning(session: Session, booking: Booking, until: datetime, *, now: datetime) -> None:
    """Nothing runs in it: until when that may go on."""
    _post(session, "booking_no_show_warning", booking, {"until": _local(until)}, now)


def no_show_released(session: Session, booking: Booking, given_back: int, *, now: datetime) -> None:
    """Nothing ran in it, and the rest of it is given back."""
    _post(session, "booking_no_show_released", booking, {"given_back": _hours(given_back)}, now)


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


def time_free(session: Session, move: BookingMove, why: str, *, now: datetime) -> None:
    """What moved or dropped a booking does not happen: its old time is free for whoever is first."""
    letter = "dropped_time_free" if move.to_starts_at is None else "booking_time_free"
    _post(session, letter, move.booking, {**_of(move), "reason": why}, now)


def _of(move: BookingMove) -> dict[str, str]:
    return {
        "move": str(move.id),
        "from_starts_at": _local(move.from_starts_at),
        "from_ends_at": _local(move.from_ends_at),
        "reason": move.reason,
        "answer_until": _local(move.answer_until),
    }


def series_booked(session: Session, bookings: Sequence[Booking], *, now: datetime) -> None:
    """One letter for all dates of a series."""
    _post(session, "series_booked", bookings[0], _all(bookings), now)


def series_cancelled(
    session: Session, bookings: Sequence[Booking], given_back: int, by: Actor, *, now: datetime
) -> None:
    """The coming dates of a series were given back."""
    details = {**_all(bookings), "given_back": _hours(given_back)}
    _post(session, "series_cancelled", bookings[0], details, now, but=by.person_id)


def _all(bookings: Sequence[Booking]) -> dict[str, str]:
    return {
        "count": str(len(bookings)),
        "series": str(bookings[0].series_id),
        "first": _local(bookings[0].starts_at),
        "last": _local(bookings[-1].ends_at),
        "all_gpu_hours": _hours(sum(booking.gpu_seconds for booking in bookings)),
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
