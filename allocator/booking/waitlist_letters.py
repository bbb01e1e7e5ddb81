"""Who waits is told by letter: of an offer, of one that passed, and when the waiting is over."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from allocator import outbox
from allocator.booking.booking_checks import ALMATY
from allocator.models import Booking, WaitlistEntry


def offered(session: Session, entry: WaitlistEntry, booking: Booking, *, now: datetime) -> None:
    """Something is free and held; until when one may say yes."""
    until = {"answer_until": _local(entry.answer_until)} if entry.answer_until else {}
    _post(session, "waitlist_offer", entry, {**_of(booking), **until}, now)


def passed(session: Session, entry: WaitlistEntry, booking: Booking, *, now: datetime) -> None:
    """Nobody answered in time; the next one is asked, and the entry waits on."""
    _post(session, "waitlist_passed", entry, _of(booking), now)


def lost(session: Session, entry: WaitlistEntry, booking: Booking, *, now: datetime) -> None:
    """What was offered is not there any more, and nobody's fault; the entry keeps its place."""
    _post(session, "waitlist_lost", entry, _of(booking), now)


def over(session: Session, entry: WaitlistEntry, why: str, *, now: datetime) -> None:
    """The entry leaves the waitlist; ``why`` is a msgid."""
    window = {"earliest_at": _local(entry.earliest_at), "latest_at": _local(entry.latest_at)}
    _post(session, "waitlist_over", entry, {**window, "problem": why}, now)


def _of(booking: Booking) -> dict[str, str]:
    return {"starts_at": _local(booking.starts_at), "ends_at": _local(booking.ends_at)}


def _post(
    session: Session, letter: str, entry: WaitlistEntry, more: Mapping[str, str], now: datetime
) -> None:
    quota = entry.quota
    details = {
        "entry": entry.id,
        "shape": f"{entry.nodes} × {entry.gpus_per_node} {entry.gpu_type.upper()}",
        "cluster": quota.cluster.title,
        **more,
    }
    for person_id in sorted({entry.asked_by_id, quota.application.applicant_id}):
        outbox.post(session, letter, person_id, details, now=now)


def _local(moment: datetime) -> str:
    return moment.astimezone(ALMATY).strftime("%d.%m.%Y %H:%M")
