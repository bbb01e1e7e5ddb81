"""Reading what was used: accounting's jobs become rows, day by day, each run of each job once.

Jobs change after they first appear (they run, end, are requeued), so a stretch before the last reading is
read again every time. Rows that have not changed are not written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from allocator.db import Database
from allocator.models import Booking, Cluster, JobRecord, Quota
from scheduler.apply import GoOn, always
from scheduler.clusters.base import Cluster as ClusterProtocol
from scheduler.clusters.base import JobUsage, days
from scheduler.desired import storable
from scheduler.plan import OUR_ACCOUNT, OUR_RESERVATION
from scheduler.reconcile import NotKnown, check_clock

log = structlog.get_logger(__name__)

# Every reading looks a little back; once an hour it looks far enough for what accounting wrote down late.
SHALLOW = timedelta(hours=2)
DEEP = timedelta(days=2)
# A job that we believe to run but that no reading shows any more is looked for on its own day, this often.
LOST_AFTER = timedelta(hours=1)
LOST_DAYS = 7
BATCH = 1_000
KEY = ("cluster_id", "job_id", "submitted_at")
LONGEST = {"login": 64, "account": 64, "state": 32, "reservation": 64}

Progress = Callable[[datetime, int], None]
Key = tuple[int, datetime]


@dataclass
class UsageOutcome:
    """What a reading found; ``unknown_accounts`` counts jobs by account that is no quota's."""

    jobs: int = 0
    written: int = 0
    bad_lines: int = 0
    samples: list[str] = field(default_factory=list)
    unknown_accounts: Counter[str] = field(default_factory=Counter)
    read_until: datetime | None = None

    @property
    def summary(self) -> dict[str, int]:
        """For logs and the command line."""
        return {
            "jobs": self.jobs,
            "written": self.written,
            "bad_lines": self.bad_lines,
            "of_unknown_accounts": self.unknown_accounts.total(),
        }


@dataclass(frozen=True)
class _Window:
    """From when to when this reading goes, and where the last one ended."""

    cluster_id: int
    since: datetime
    until: datetime
    read_until: datetime | None


def import_usage(
    database: Database,
    cluster: ClusterProtocol,
    now: datetime,
    *,
    since: datetime | None = None,
    progress: Progress | None = None,
    go_on: GoOn = always,
) -> UsageOutcome:
    """Read from where the last reading ended (or from ``since``, if earlier) until the controller's now.

    Each day is committed before the mark moves past it: a reading cut short goes on where it ended.
    ``progress`` is told each day's end and number of jobs. Raises Unreachable.
    """
    health = check_clock(cluster)
    with database.reader() as session:
        window = _window(session, cluster.slug, since, health.controller_time)
    outcome = UsageOutcome(read_until=window.read_until)
    seen: set[Key] = set()
    for start, end in days(window.since, window.until):
        if not go_on():
            return outcome
        _read(database, cluster, window.cluster_id, (start, end), outcome, seen, now)
        _move_mark(database, window.cluster_id, end)
        outcome.read_until = end
        outcome.jobs = len(seen)
        if progress is not None:
            progress(end, outcome.jobs)
    _find_lost(database, cluster, window, seen, outcome, now)
    if outcome.bad_lines:
        log.warning(
            "accounting lines not understood",
            cluster=cluster.slug,
            lines=outcome.bad_lines,
            samples=outcome.samples,
        )
    return outcome


def _window(session: Session, slug: str, since: datetime | None, until: datetime) -> _Window:
    row = session.execute(
        select(Cluster.id, Cluster.usage_read_until).where(Cluster.slug == slug)
    ).one_or_none()
    if row is None:
        raise NotKnown.said(slug, "the scheduler's inventory adds it")
    if row.usage_read_until is None:
        # Nothing of ours ran before the first quota; an older history is read when somebody asks for it.
        first = session.scalar(select(func.min(Quota.created_at)).where(Quota.cluster_id == row.id))
        begin = (first or until) - SHALLOW
    else:
        deep = (row.usage_read_until.date(), row.usage_read_until.hour) != (until.date(), until.hour)
        begin = min(row.usage_read_until, until) - (DEEP if deep else SHALLOW)
    begin = min(begin, since) if since else begin
    return _Window(row.id, begin.replace(microsecond=0), until, row.usage_read_until)


def _move_mark(database: Database, cluster_id: int, end: datetime) -> None:
    behind = or_(Cluster.usage_read_until.is_(None), Cluster.usage_read_until < end)
    with database.transaction() as session:
        session.execute(update(Cluster).where(Cluster.id == cluster_id, behind).values(usage_read_until=end))


def _read(
    database: Database,
    cluster: ClusterProtocol,
    cluster_id: int,
    window: tuple[datetime, datetime],
    outcome: UsageOutcome,
    seen: set[Key],
    now: datetime,
) -> None:
    """Read one window and write it down; adds the runs in it to ``seen``."""
    reading = cluster.usage(*window)
    outcome.bad_lines += reading.bad_lines
    outcome.samples += reading.samples[: 5 - len(outcome.samples)]
    good = [job for job in reading.jobs if _fits(job, outcome)]
    for batch in _batches(good):
        with database.transaction() as session:
            rows = _rows(session, cluster_id, batch, now)
            outcome.written += _upsert(session, rows)
        for row in rows:
            key = (row["job_id"], row["submitted_at"])
            # A run of several days is in several windows: it counts once.
            if row["quota_id"] is None and key not in seen:
                outcome.unknown_accounts[row["account"]] += 1
            seen.add(key)


def _fits(job: JobUsage, outcome: UsageOutcome) -> bool:
    """Whether the columns can hold it; what they cannot is counted as bad, never cut to size."""
    texts = {"login": job.login, "account": job.account, "state": job.state, "reservation": job.reservation}
    fault = next((name for name, text in texts.items() if text and len(text) > LONGEST[name]), None)
    if fault is None and job.gpus >= 0 and job.elapsed_seconds >= 0:
        return True
    outcome.bad_lines += 1
    outcome.samples += [f"job {job.job_id}: {fault or 'a negative amount'}"][: 5 - len(outcome.samples)]
    return False


def _rows(session: Session, cluster_id: int, jobs: Sequence[JobUsage], now: datetime) -> list[dict[str, Any]]:
    """The jobs as rows, each with the quota and booking that it counts for."""
    quotas = _known_quotas(session, cluster_id, jobs)
    bookings = _known_bookings(session, cluster_id, jobs)
    rows = []
    for job in jobs:
        quota_id = quotas.get(job.account)
        booking_id, owner = bookings.get(job.reservation or "", (None, None))
        rows.append(
            {
                "cluster_id": cluster_id,
                "job_id": job.job_id,
                "submitted_at": job.submitted_at,
                "login": job.login,
                "account": job.account,
                "state": job.state,
                "started_at": job.started_at,
                "ended_at": job.ended_at,
                "elapsed_seconds": job.elapsed_seconds,
                "gpus": job.gpus,
                "gpu_seconds": job.gpu_seconds,
                "reservation": job.reservation,
                "quota_id": quota_id,
                # Others may be let into a reservation: its booking counts its own quota's jobs only.
                "booking_id": booking_id if quota_id is not None and owner == quota_id else None,
                "read_at": now,
            }
        )
    return rows


def _known_quotas(session: Session, cluster_id: int, jobs: Iterable[JobUsage]) -> dict[str, int]:
    names = {job.account for job in jobs if OUR_ACCOUNT.fullmatch(job.account)}
    ids = {int(name.removeprefix("kezek-q")) for name in names}
    found = session.scalars(
        select(Quota.id).where(Quota.id.in_(storable(ids)), Quota.cluster_id == cluster_id)
    )
    return {Quota(id=quota_id).account: quota_id for quota_id in found}


def _known_bookings(
    session: Session, cluster_id: int, jobs: Iterable[JobUsage]
) -> dict[str, tuple[int, int]]:
    names = {
        job.reservation for job in jobs if job.reservation and OUR_RESERVATION.fullmatch(job.reservation)
    }
    ids = {int(name.removeprefix("kezek-")) for name in names}
    found = session.execute(
        select(Booking.id, Booking.quota_id).where(
            Booking.id.in_(storable(ids)), Booking.cluster_id == cluster_id
        )
    )
    return {Booking(id=booking_id).reservation_name: (booking_id, quota_id) for booking_id, quota_id in found}


def _upsert(session: Session, rows: list[dict[str, Any]]) -> int:
    """Insert or correct all rows; returns how many really changed."""
    if not rows:
        return 0
    # Accounting may show a run twice: the last one counts.
    unique = {tuple(row[name] for name in KEY): row for row in rows}
    # One row's statement many times, not one of a thousand rows: that one would be compiled anew every time.
    options = {"preserve_rowcount": True}
    result = session.execute(_statement(session), list(unique.values()), execution_options=options)
    changed: int = result.rowcount  # type: ignore[attr-defined]
    return changed


def _statement(session: Session) -> Any:
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    table = JobRecord.__table__
    statement = insert(table)
    names = [column.name for column in table.columns if column.name not in {"id", "read_at", *KEY}]
    changed = [table.columns[name].is_distinct_from(statement.excluded[name]) for name in names]
    return statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={name: statement.excluded[name] for name in [*names, "read_at"]},
        where=or_(*changed),
    )


def _find_lost(
    database: Database,
    cluster: ClusterProtocol,
    window: _Window,
    seen: set[Key],
    outcome: UsageOutcome,
    now: datetime,
) -> None:
    """Runs without an end that the reading did not show: they ended unseen, with an old date."""
    open_runs = (
        select(JobRecord.id, JobRecord.job_id, JobRecord.submitted_at, JobRecord.started_at)
        .where(JobRecord.cluster_id == window.cluster_id, JobRecord.ended_at.is_(None))
        .where(JobRecord.started_at.is_not(None), JobRecord.read_at < now - LOST_AFTER)
    )
    with database.reader() as session:
        lost = [row for row in session.execute(open_runs) if (row.job_id, row.submitted_at) not in seen]
    begins = sorted({row.started_at.replace(hour=0, minute=0, second=0) for row in lost})[:LOST_DAYS]
    for begin in begins:
        _read(database, cluster, window.cluster_id, (begin, begin + timedelta(days=1)), outcome, seen, now)
    looked_for = [row.id for row in lost if row.started_at.replace(hour=0, minute=0, second=0) in begins]
    for batch in _batches(looked_for):
        with database.transaction() as session:
            session.execute(update(JobRecord).where(JobRecord.id.in_(batch)).values(read_at=now))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
