"""Bookings in which nothing runs: warned, released after the grace, and never for our own failing."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, ledger
from allocator.actors import SYSTEM
from allocator.booking import bookings, no_shows
from allocator.db import Database
from allocator.models import Booking, Event, JobRecord, NodeSlot, OutboxItem, Quota
from allocator.policy import load_policy
from allocator.states import BookingState, ReservationState
from scheduler.jobs import watch_no_shows
from tests import factories
from tests.factories import HOUR, NOW

RULES = load_policy().bookings
MINUTE, ONE = timedelta(minutes=1), timedelta(hours=1)
WARNED = NOW + RULES.no_show
RELEASED = WARNED + RULES.no_show_grace


@pytest.fixture
def quota(session: Session) -> Quota:
    return factories.quota(session)


@pytest.fixture
def booking(session: Session, quota: Quota) -> Booking:
    """Eight GPUs for a day from now on, reserved and begun, in which nothing runs."""
    booking = factories.booking(
        session,
        quota,
        starts_at=NOW,
        hours=24,
        state=BookingState.STARTED,
        reservation=ReservationState.RESERVED,
    )
    read_until(session, booking, RELEASED + timedelta(days=2))
    return booking


def read_until(session: Session, booking: Booking, moment: datetime | None) -> None:
    """Accounting was read so far."""
    booking.cluster.usage_read_until = moment
    session.flush()


def job(session: Session, booking: Booking, started: datetime = NOW) -> None:
    session.add(
        JobRecord(
            cluster_id=booking.cluster_id,
            job_id=1,
            submitted_at=started,
            login="u",
            account=booking.quota.account,
            state="RUNNING",
            started_at=started,
            elapsed_seconds=60,
            gpus=1,
            gpu_seconds=60,
            quota_id=booking.quota_id,
            booking_id=booking.id,
            read_at=started,
        )
    )
    session.flush()


def warn(session: Session, now: datetime = WARNED) -> int:
    return no_shows.warn_due(session, rules=RULES, now=now)


def release(session: Session, now: datetime = RELEASED) -> int:
    return no_shows.release_due(session, rules=RULES, now=now)


def letters(session: Session) -> list[str]:
    return list(session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)))


def test_first_a_warning_then_the_rest_goes_to_others(
    session: Session, quota: Quota, booking: Booking
) -> None:
    assert (warn(session, WARNED - MINUTE), release(session, WARNED - MINUTE)) == (0, 0)
    assert (warn(session), warn(session)) == (1, 0)
    assert booking.no_show_warned_at == WARNED
    assert release(session, RELEASED - MINUTE) == 0
    assert (release(session), release(session)) == (1, 0)
    assert (booking.state, booking.ends_at) == (BookingState.ENDED, RELEASED)
    # six hours on eight GPUs passed; nothing more is charged
    assert ledger.balance(session, quota).charged == 48 * HOUR
    assert {slot.ends_at for slot in session.scalars(select(NodeSlot))} == {RELEASED}
    assert letters(session) == ["booking_no_show_warning", "booking_no_show_released"]
    released = session.scalars(select(Event).order_by(Event.seq.desc())).first()
    assert released is not None
    assert (released.kind, released.reason, released.actor_id) == ("booking.ended", no_shows.NO_SHOW, None)
    events.verify(session)


@pytest.mark.parametrize("when", ["before the warning", "after it"])
def test_one_job_is_enough(session: Session, booking: Booking, when: str) -> None:
    if when == "before the warning":
        job(session, booking)
        assert warn(session) == 0
    else:
        assert warn(session) == 1
        job(session, booking, WARNED + ONE)
    assert release(session) == 0
    assert booking.state is BookingState.STARTED


def test_a_job_in_another_booking_does_not_count(session: Session, quota: Quota, booking: Booking) -> None:
    other = factories.booking(session, quota, on=quota.cluster.nodes[1:2], starts_at=NOW)
    job(session, other)
    assert warn(session) == 1


def test_without_accounting_nobody_is_accused(session: Session, booking: Booking) -> None:
    for moment in (None, WARNED - ONE):
        read_until(session, booking, moment)
        assert warn(session) == 0
    read_until(session, booking, WARNED - 10 * MINUTE)
    assert warn(session) == 1
    assert release(session) == 0


def test_time_counts_only_while_the_cluster_holds_it(session: Session, booking: Booking) -> None:
    booking.reservation.state = ReservationState.BLOCKED
    session.flush()
    assert warn(session) == 0
    booking.reservation.state, booking.reservation.state_since = ReservationState.RESERVED, NOW + ONE
    session.flush()
    assert warn(session) == 0
    assert warn(session, WARNED + ONE) == 1


def test_what_is_nearly_over_is_left_alone(session: Session, quota: Quota) -> None:
    short = factories.booking(
        session,
        quota,
        starts_at=NOW,
        hours=6,
        state=BookingState.STARTED,
        reservation=ReservationState.RESERVED,
    )
    read_until(session, short, RELEASED)
    assert warn(session) == 0


def test_given_back_after_the_warning_it_is_not_released_again(session: Session, booking: Booking) -> None:
    warn(session)
    bookings.cancel(session, SYSTEM, booking, reason="", expected_version=booking.version, now=WARNED + ONE)
    assert release(session) == 0


def test_the_scheduler_does_both(database: Database) -> None:
    with database.transaction() as session:
        quota = factories.quota(session)
        for node in quota.cluster.nodes:
            factories.booking(
                session,
                quota,
                on=[node],
                starts_at=NOW,
                hours=24,
                state=BookingState.STARTED,
                reservation=ReservationState.RESERVED,
            )
        quota.cluster.usage_read_until = RELEASED
    assert watch_no_shows(database, RULES, WARNED) == {"released": 0, "warned": 4}
    assert watch_no_shows(database, RULES, WARNED) == {"released": 0, "warned": 0}
    assert watch_no_shows(database, RULES, RELEASED) == {"released": 4, "warned": 0}
    with database.reader() as session:
        events.verify(session)
