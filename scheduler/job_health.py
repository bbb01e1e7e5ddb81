"""Running a job so that everybody can see how it went: a row a job, a line in the log, no error lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from allocator.db import Database
from allocator.models import JobHealth
from config.clock import utcnow
from config.errors import KezekError

log = structlog.get_logger(__name__)

LONGEST = 500


@dataclass(frozen=True)
class Job:
    """``run`` does one round at a moment and returns numbers worth logging; ``name`` may carry a cluster."""

    name: str
    interval_seconds: int
    run: Callable[[datetime], Mapping[str, int]]


def run(database: Database, job: Job, leader: str) -> bool:
    """Run once, write down how it went; returns whether it went well. Raises nothing that a job raises."""
    started, clock = utcnow(), time.monotonic()
    try:
        with database.transaction() as session:
            _begin(session, job, leader, started)
        numbers = job.run(started)
    except KezekError as error:
        # Expected trouble, told in one line: the traceback would only say where we noticed.
        log.warning("job failed", job=job.name, code=error.code, problem=str(error))
        _fail(database, job, error)
    except OperationalError as error:
        log.warning("job failed", job=job.name, code="database_away", problem=str(error.orig))
        _fail(database, job, error)
    except Exception as error:
        log.exception("job failed", job=job.name)
        _fail(database, job, error)
    else:
        return _succeed(database, job, clock, numbers)
    return False


def alive(database: Database, name: str) -> None:
    """A round that takes long goes on: it is not late."""
    with database.transaction() as session:
        session.execute(update(JobHealth).where(JobHealth.name == name).values(started_at=utcnow()))


def forget_others(database: Database, jobs: Sequence[Job]) -> None:
    """Drop the rows of jobs that no longer exist: their last run would look late for ever."""
    with database.transaction() as session:
        session.execute(delete(JobHealth).where(JobHealth.name.not_in([job.name for job in jobs])))


def _begin(session: Session, job: Job, leader: str, now: datetime) -> None:
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"leader": leader, "interval_seconds": job.interval_seconds, "started_at": now}
    statement = insert(JobHealth).values(name=job.name, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def _succeed(database: Database, job: Job, clock: float, numbers: Mapping[str, int]) -> bool:
    duration = round((time.monotonic() - clock) * 1000)
    values = {"succeeded_at": utcnow(), "duration_ms": duration, "problem": None}
    log.info("job done", job=job.name, ms=duration, **numbers)
    return _note(database, job, values)


def _fail(database: Database, job: Job, error: Exception) -> None:
    said = str(error.orig) if isinstance(error, OperationalError) else str(error)
    problem = f"{type(error).__name__}: {said}"[:LONGEST]
    _note(database, job, {"failed_at": utcnow(), "problem": problem})


def _note(database: Database, job: Job, values: Mapping[str, Any]) -> bool:
    try:
        with database.transaction() as session:
            session.execute(update(JobHealth).where(JobHealth.name == job.name).values(**values))
    except DBAPIError as error:
        # The database itself is the trouble: the next round writes.
        log.warning("job health not written", job=job.name, problem=str(error.orig))
        return False
    return True
