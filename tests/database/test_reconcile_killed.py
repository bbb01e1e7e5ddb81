"""One round of reconcile is killed with -9 before every statement that it makes, on either side."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

from allocator import events
from allocator.db import Database
from allocator.models import Event, OutboxItem
from allocator.states import BookingState, ReservationState
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.clusters.simulated_store import Store
from scheduler.reconcile import look, reconcile
from tests.factories import NOW
from tests.scheduling import WEEK, Site, StillClock, cluster_settings, site

MOST_POINTS = 200


def until_killed(here: Site, point: int) -> bool:
    """Run a round in a process that dies at its ``point``-th step; False when it came to the end."""
    child = os.fork()
    if child == 0:
        # Nothing of the parent's may be used or closed here: own connections, and out by the back door.
        try:
            _die_at(here, point)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the round itself failed"
    return False


def _die_at(here: Site, point: int) -> None:
    left = point

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    database = Database(here.database.engine.url.render_as_string(hide_password=False))
    event.listen(database.engine, "before_cursor_execute", step)
    event.listen(database.engine, "commit", step)
    transaction = Store.transaction

    @contextmanager
    def counted(self: Store) -> Iterator[sqlite3.Connection]:
        step()
        with transaction(self) as db:
            yield db
            step()
        step()

    Store.transaction = counted  # type: ignore[method-assign]
    folder = here.cluster._store.path.parent
    cluster = SimulatedCluster(cluster_settings(folder), clock=StillClock(here.clock.now))
    reconcile(database, cluster, WEEK, here.clock.now)


def every_point(here: Site, prepare: Callable[[int], None]) -> int:
    """Kill a round at its first step, the next one at its second, … until one survives; heal after each."""
    # SQLite dies at every step; on PostgreSQL, where the same code runs, each third has to do.
    stride = 1 if here.database.engine.dialect.name == "sqlite" else 3
    for point in range(1, MOST_POINTS, stride):
        prepare(point)
        killed = until_killed(here, point)
        here.reconcile()
        assert look(here.database, here.cluster, WEEK).plan.steps == (), f"killed at step {point}"
        if not killed:
            return point
    raise AssertionError(f"more than {MOST_POINTS} steps")


@pytest.mark.slow
def test_killed_at_every_step_of_making_and_releasing(database: Database, tmp_path: Path) -> None:
    here = site(database, tmp_path)
    booked: list[int] = []

    def prepare(point: int) -> None:
        """Two new bookings, the ones of the last time cancelled."""
        for booking in booked[-2:]:
            here.change(booking, state=BookingState.CANCELLED, slots=[])
        booked.extend(here.book(node, starts_at=NOW + timedelta(hours=point), hours=1) for node in (1, 2))

    points = every_point(here, prepare)
    assert points > 40
    assert sorted(here.names()) == sorted(f"kezek-{booking}" for booking in booked[-2:])
    states = [here.reservation(booking).state for booking in booked]
    assert states == [ReservationState.RELEASED] * (len(booked) - 2) + [ReservationState.RESERVED] * 2
    with database.reader() as session:
        assert events.verify(session) == session.scalar(select(func.count()).select_from(Event))
        told = session.scalars(select(OutboxItem.details)).all()
    # Written in one transaction with the state, so never lost and never twice.
    assert sorted(details["booking"] for details in told) == booked


def test_killed_at_every_step_of_healing(database: Database, tmp_path: Path) -> None:
    here = site(database, tmp_path)
    booking = here.book(1)
    here.reconcile()

    def prepare(_point: int) -> None:
        here.cluster.delete_by_hand(f"kezek-{booking}")

    every_point(here, prepare)
    assert here.names() == [f"kezek-{booking}"]
    assert here.letters() == ["booking_reserved"]
