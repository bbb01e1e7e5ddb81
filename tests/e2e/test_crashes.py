"""The scheduler is killed with -9 again and again; the cluster still becomes exactly what was booked."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from allocator import events
from allocator.db import Database
from allocator.models import Booking, JobHealth, NodeSlot, OutboxItem, Reservation
from allocator.states import BookingState, ReservationState
from config.clock import utcnow
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.reconcile import look
from tests.e2e.processes import environment, note, scheduler, seconds_until, simulated
from tests.scheduling import WEEK, Site, cluster_settings, site

KILLS = 6
NODES = 4
DAYS = 5


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Site:
    """A site in real time: the processes beside this one have no other clock."""
    made = site(database, tmp_path, now=utcnow())
    made.cluster = SimulatedCluster(cluster_settings(tmp_path))
    return made


def busy_week(here: Site) -> list[int]:
    """A booking a node and day, the last one of each day cancelled again."""
    begin = utcnow().replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    made = []
    for day in range(DAYS):
        for node in range(1, NODES + 1):
            starts = begin + timedelta(days=day)
            made.append(here.book(node, starts_at=starts, hours=20))
    return made


def cancel(here: Site, booking_id: int) -> None:
    with here.database.transaction() as session:
        booking = session.get_one(Booking, booking_id)
        booking.state = BookingState.CANCELLED
        for slot in list(booking.slots):
            session.delete(slot)


def settled(here: Site) -> Callable[[], bool]:
    """Exactly the booked reservations are there, and the rows say so."""

    def is_settled() -> bool:
        with here.database.reader() as session:
            waiting = session.scalar(
                select(func.count())
                .select_from(Reservation)
                .where(Reservation.state.in_([ReservationState.PENDING, ReservationState.BLOCKED]))
            )
        return not waiting and not look(here.database, here.cluster, WEEK).plan.steps

    return is_settled


def working(here: Site, pid: int) -> Callable[[], bool]:
    """The process has begun its first round of reconcile."""
    leader = select(JobHealth.leader).where(JobHealth.name == "reconcile:alem")
    return lambda: (here.ask(lambda session: session.scalar(leader)) or "").endswith(f":{pid}")


def test_killed_at_any_point_it_converges(here: Site, database_url: str, tmp_path: Path) -> None:
    bookings = busy_week(here)
    env = environment(database_url, tmp_path, simulated(tmp_path))
    chance = random.Random(2026)
    for kill in range(KILLS):
        with scheduler(env) as process:
            seconds_until(working(here, process.pid))
            time.sleep(chance.uniform(0, 0.7))
            process.send_signal(signal.SIGKILL)
        # Meanwhile people and other programs go on: something is cancelled, something deleted by hand.
        if kill < DAYS:
            cancel(here, bookings[kill * NODES])
        if names := here.names():
            here.cluster.delete_by_hand(chance.choice(names))
    with scheduler(env) as process:
        healed = seconds_until(settled(here))
        note(f"scheduler killed -9 {KILLS} times ({here.database.engine.dialect.name}), last start", healed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert set(here.names()) == {f"kezek-{one}" for number, one in enumerate(bookings) if number % NODES}
    with here.database.reader() as session:
        assert events.verify(session) > 0
        assert session.scalar(select(func.count()).select_from(NodeSlot)) == DAYS * (NODES - 1)
        told = session.execute(select(OutboxItem.details, func.count()).group_by(OutboxItem.details)).all()
        assert {count for _, count in told} == {1}, "each booker hears once"


def test_the_controller_forgets_what_it_had_acknowledged(
    here: Site, database_url: str, tmp_path: Path
) -> None:
    busy_week(here)
    with scheduler(environment(database_url, tmp_path, simulated(tmp_path))):
        seconds_until(settled(here))
        here.cluster.crash(lose_recent_seconds=60)
        assert here.names() == []
        healed = seconds_until(settled(here))
        note("simulated slurmctld lost 20 acknowledged reservations", healed)
