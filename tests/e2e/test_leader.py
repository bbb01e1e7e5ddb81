"""Two real scheduler processes on one database: one works, and when it is killed the other takes over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import select

from allocator.db import Database
from allocator.models import JobHealth
from scheduler.leader import leadership
from tests.e2e.processes import environment, note, scheduler, seconds_until, simulated


def leaders(database: Database) -> set[int]:
    """Process ids that jobs were last begun by."""
    with database.reader() as session:
        return {int(name.rpartition(":")[2]) for name in session.scalars(select(JobHealth.leader))}


def works(database: Database, pid: int) -> Callable[[], bool]:
    return lambda: leaders(database) == {pid}


def test_the_other_takes_over_when_the_leader_is_killed(database_url: str, tmp_path: Path) -> None:
    env = environment(database_url, tmp_path, simulated(tmp_path))
    database = Database(database_url)
    with ExitStack() as stack:
        stack.callback(database.dispose)
        first = stack.enter_context(scheduler(env))
        seconds_until(works(database, first.pid))
        second = stack.enter_context(scheduler(env))
        time.sleep(4)
        assert leaders(database) == {first.pid}, "the standby must not work"
        first.send_signal(signal.SIGKILL)
        healed = seconds_until(lambda: second.pid in leaders(database), 30)
        note(f"leading scheduler killed -9 ({database.engine.dialect.name}), the standby works", healed)
        assert healed < 10


def test_it_ends_by_sigterm_and_gives_the_lead_up(database_url: str, tmp_path: Path) -> None:
    env = environment(database_url, tmp_path, simulated(tmp_path))
    database = Database(database_url)
    lock = leadership(database_url)
    with ExitStack() as stack:
        stack.callback(database.dispose)
        stack.callback(lock.release)
        process = stack.enter_context(scheduler(env))
        seconds_until(works(database, process.pid))
        assert not lock.acquire()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == os.EX_OK
        assert lock.acquire()
        assert lock.holds()


def test_only_one_of_two_locks_is_held(database_url: str) -> None:
    first, second = leadership(database_url), leadership(database_url)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert not first.holds()
    assert second.acquire()
    second.release()
