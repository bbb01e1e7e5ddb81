"""Bookings in which nothing runs: a warning, and after a grace the rest goes to others (R-15).

Only what the cluster has really reserved for so long counts, and only while its accounting is read: nobody
loses hours because we did not look.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, exists, select, update
from sqlalchemy.orm import Session, joinedload

from allocator import capacity, events
from allocator.actors import SYSTEM
from allocator.booking import booking_letters, bookings
from allocator.locks import hold
from allocator.models import Booking, Cluster, JobRecord, Reservation
from allocator.policy import BookingRules
from allocator.states import BookingState, ReservationState
from config.i18n import N_

BATCH = 100
UNREAD = timedelta(minutes=30)  # accounting that was not read for so long proves nothing
NO_SHOW = N_("No job ran in it, and nobody answered the warning: the rest is given back.")


def warn_due(session: Session, *, rules: BookingRules, now: datetime) -> int:
    """Warn those whose bookings have run for ``no_show`` without a job; returns how many, a batch at most."""
    due = _unused(
        now,
        Booking.no_show_warned_at.is_(None),
        Booking.starts_at <= now - rules.no_show,
        Reservation.state_since <= now - rules.no_show,
        # who has less time left than the grace would lose nothing by it
        Booking.ends_at > now + rules.no_show_grace,
    )
    # all rows before the first event: who holds a row may be waiting for the chain that an event takes
    marked = [booking for booking in _read(session, due) if _mark(session, booking, now)]
    until = now + rules.no_show_grace
    for booking in marked:
        after = {"no_show_warned_at": now, "until": until}
        events.record(session, SYSTEM, booking, "booking.no_show_warned", now=now, after=after)
        booking_letters.no_show_warning(session, booking, until, now=now)
    return len(marked)


def release_due(session: Session, *, rules: BookingRules, now: datetime) -> int:
    """End those that were warned ``no_show_grace`` ago and still run nothing; what has passed is charged."""
    due = _unused(now, Booking.no_show_warned_at <= now - rules.no_show_grace)
    released = 0
    found = _read(session, due)
    # all clusters and rows before the first event, for the same reason, in the order in which they are read
    for cluster in dict.fromkeys(booking.cluster for booking in found):
        capacity.lock(session, cluster)
    for booking in found:
        hold(session, booking)
    for booking in found:
        session.refresh(booking.reservation)
        # a job may have come, or somebody may have given it back, while we waited
        if not session.scalar(select(due.where(Booking.id == booking.id).exists())):
            continue
        done = bookings.end_now(session, SYSTEM, booking, NO_SHOW, now)
        booking_letters.no_show_released(session, booking, done.given_back, now=now)
        released += 1
    return released


def _unused(now: datetime, *which: ColumnElement[bool]) -> Select[Booking]:
    """Running bookings that the cluster holds and accounting knows no job of."""
    jobs = exists().where(JobRecord.booking_id == Booking.id)
    return (
        select(Booking)
        .join(Booking.reservation)
        .join(Booking.cluster)
        .where(
            Booking.state == BookingState.STARTED,
            Booking.ends_at > now,
            Reservation.state == ReservationState.RESERVED,
            Cluster.usage_read_until >= now - UNREAD,
            ~jobs,
            *which,
        )
    )


def _read(session: Session, due: Select[Booking]) -> Sequence[Booking]:
    statement = due.options(joinedload(Booking.cluster)).order_by(Booking.cluster_id, Booking.id).limit(BATCH)
    return session.scalars(statement).all()


def _mark(session: Session, booking: Booking, now: datetime) -> bool:
    """Compare-and-set, so that two rounds at once warn once. The version stays: no page turns stale by it."""
    unmarked = update(Booking).where(
        Booking.id == booking.id,
        Booking.state == BookingState.STARTED,
        Booking.no_show_warned_at.is_(None),
    )
    result = session.execute(
        unmarked.values(no_show_warned_at=now), execution_options={"synchronize_session": False}
    )
    session.expire(booking, ["no_show_warned_at"])
    marked: bool = result.rowcount == 1  # type: ignore[attr-defined]
    return marked
