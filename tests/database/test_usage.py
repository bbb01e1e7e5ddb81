"""Usage on both databases: every run of every job once, counted for the right quota and booking."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from allocator.db import Database
from allocator.models import Cluster, JobRecord, Quota
from allocator.states import BookingState
from scheduler.clusters.base import Account, JobUsage, Unreachable, UsageReading
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.clusters.simulated_store import Fault
from scheduler.usage import UsageOutcome, import_usage
from tests.factories import NOW
from tests.scheduling import Site, cluster_settings, site

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Site:
    """A site whose account is on the cluster already."""
    made = site(database, tmp_path)
    made.reconcile()
    return made


def read(here: Site, since: datetime | None = None) -> UsageOutcome:
    return import_usage(here.database, here.cluster, here.clock.now, since=since)


def records(here: Site) -> Sequence[JobRecord]:
    return here.ask(lambda session: session.scalars(select(JobRecord).order_by(JobRecord.submitted_at)).all())


def account(here: Site) -> str:
    return f"kezek-q{here.quota_id}"


def test_a_job_is_counted_for_its_quota_and_booking(here: Site) -> None:
    booking = here.book(1, starts_at=NOW - HOUR, state=BookingState.STARTED)
    here.reconcile()
    here.cluster.submit("aigerim", account(here), 8, seconds=1800, reservation=f"kezek-{booking}")
    here.clock.advance(hours=1)
    outcome = read(here)
    (job,) = records(here)
    assert (job.quota_id, job.booking_id, job.gpu_seconds) == (here.quota_id, booking, 8 * 1800)
    assert outcome.summary == {"jobs": 1, "written": 1, "bad_lines": 0, "of_unknown_accounts": 0}


def test_a_running_job_grows_and_ends_in_one_row(here: Site) -> None:
    here.cluster.submit("aigerim", account(here), 4, seconds=7200)
    used = []
    for _ in range(3):
        here.clock.advance(hours=1)
        read(here)
        (job,) = records(here)
        used.append((job.state, job.gpu_seconds))
    assert used == [("RUNNING", 4 * 3600), ("COMPLETED", 4 * 7200), ("COMPLETED", 4 * 7200)]


def test_what_has_not_changed_is_not_written_again(here: Site) -> None:
    here.cluster.submit("aigerim", account(here), 4, seconds=60)
    here.clock.advance(hours=1)
    assert read(here).written == 1
    here.clock.advance(minutes=1)
    assert (read(here).jobs, read(here).written) == (1, 0)


def test_a_requeued_job_has_a_row_a_run(here: Site) -> None:
    job = here.cluster.submit("aigerim", account(here), 4, seconds=7200)
    here.clock.advance(hours=1)
    here.cluster.requeue(job)
    here.clock.advance(hours=3)
    read(here)
    assert [(one.job_id, one.state, one.elapsed_seconds) for one in records(here)] == [
        (job, "REQUEUED", 3600),
        (job, "COMPLETED", 7200),
    ]


def test_unknown_accounts_are_counted_and_kept(here: Site) -> None:
    here.cluster.save_accounts([Account("kezek-q4711", "", None, frozenset({"mallory"}))])
    here.cluster.submit("mallory", "kezek-q4711", 2, seconds=600)
    here.clock.advance(hours=1)
    assert read(here).unknown_accounts == {"kezek-q4711": 1}
    (job,) = records(here)
    assert (job.quota_id, job.booking_id, job.gpu_seconds) == (None, None, 1200)


def test_a_guest_in_a_reservation_does_not_count_for_its_booking(here: Site) -> None:
    booking = here.book(1)
    here.clock.advance(hours=1)
    guest = JobUsage(7, NOW, "guest", "physics", "COMPLETED", NOW, NOW + HOUR, 3600, 1, f"kezek-{booking}")
    told = Told(here, [guest])
    import_usage(here.database, told, here.clock.now)
    (job,) = records(here)
    assert (job.reservation, job.booking_id) == (f"kezek-{booking}", None)


def test_bad_lines_are_counted_never_guessed(here: Site) -> None:
    here.cluster.submit("aigerim", account(here), 1, seconds=60)
    here.cluster.submit("aigerim", account(here), 1, seconds=60)
    here.clock.advance(hours=1)
    here.cluster.set_fault(Fault.GARBLED, 1)
    outcome = read(here)
    assert (outcome.jobs, outcome.bad_lines, len(outcome.samples)) == (1, 1, 1)
    here.cluster.clear_faults()
    assert read(here).written == 1


def test_what_no_column_can_hold_is_a_bad_line(here: Site) -> None:
    here.clock.advance(hours=1)
    strange = [
        JobUsage(1, NOW, "a" * 65, "physics", "COMPLETED", NOW, NOW + HOUR, 3600, 1, None),
        JobUsage(2, NOW, "a", "kezek-q9999999999999999999", "COMPLETED", NOW, NOW + HOUR, 3600, 1, "kezek-0"),
        JobUsage(3, NOW, "a", "physics", "COMPLETED", NOW, NOW + HOUR, -5, 1, None),
    ]
    outcome = import_usage(here.database, Told(here, strange), here.clock.now)
    assert (outcome.bad_lines, [job.job_id for job in records(here)]) == (2, [2])


def test_the_mark_moves_only_over_what_is_written(here: Site) -> None:
    read(here)
    mark = here.clock.now
    here.cluster.set_fault(Fault.ACCOUNTING_DOWN)
    here.clock.advance(hours=3)
    with pytest.raises(Unreachable):
        read(here)
    assert here.ask(lambda session: session.scalar(select(Cluster.usage_read_until))) == mark
    here.cluster.clear_faults()
    read(here)
    assert here.ask(lambda session: session.scalar(select(Cluster.usage_read_until))) == here.clock.now


def test_a_long_history_goes_day_by_day_and_continues_where_it_was_cut(here: Site) -> None:
    for _ in range(10):
        here.cluster.submit("aigerim", account(here), 1, seconds=3600)
        here.clock.advance(days=1)
    days: list[datetime] = []
    answers = iter([True] * 4)
    with here.database.transaction() as session:
        session.execute(update(Quota).values(created_at=NOW))
    import_usage(
        here.database,
        here.cluster,
        here.clock.now,
        progress=lambda day, _: days.append(day),
        go_on=lambda: next(answers, False),
    )
    assert len(days) == 4
    assert len(records(here)) == 4
    assert read(here).read_until == here.clock.now
    assert len(records(here)) == 10


def test_an_earlier_day_can_be_asked_for(here: Site) -> None:
    here.cluster.submit("aigerim", account(here), 1, seconds=60)
    here.clock.advance(days=9)
    with here.database.transaction() as session:
        session.execute(update(Cluster).values(usage_read_until=here.clock.now))
    read(here)
    assert records(here) == []
    read(here, since=NOW - HOUR)
    assert len(records(here)) == 1


def test_a_run_that_vanished_from_the_reading_is_looked_for_on_its_day(here: Site) -> None:
    """Runaway jobs: accounting writes their end down days later, with the date when they really ended."""
    running = JobUsage(7, NOW, "aigerim", account(here), "RUNNING", NOW, None, 60, 8, None)
    here.clock.advance(minutes=1)
    import_usage(here.database, Told(here, [running]), here.clock.now)
    ended = JobUsage(7, NOW, "aigerim", account(here), "COMPLETED", NOW, NOW + HOUR, 3600, 8, None)
    here.clock.advance(days=9)
    with here.database.transaction() as session:
        session.execute(update(Cluster).values(usage_read_until=here.clock.now))
    import_usage(here.database, Told(here, [ended]), here.clock.now)
    (job,) = records(here)
    assert (job.state, job.gpu_seconds) == ("COMPLETED", 8 * 3600)


def test_ten_thousand_jobs_of_a_day(here: Site, tmp_path: Path) -> None:
    jobs = [
        JobUsage(n, NOW, "aigerim", account(here), "COMPLETED", NOW, NOW + HOUR, 3600, 1, None)
        for n in range(10_000)
    ]
    here.clock.advance(hours=1)
    assert import_usage(here.database, Told(here, jobs), here.clock.now).written == 10_000
    assert import_usage(here.database, Told(here, jobs), here.clock.now).written == 0
    assert here.ask(lambda session: session.scalar(select(func.count()).select_from(JobRecord))) == 10_000


class Told(SimulatedCluster):
    """The simulated cluster with an accounting that tells exactly these jobs."""

    def __init__(self, here: Site, jobs: Sequence[JobUsage]) -> None:
        folder = here.cluster._store.path.parent
        super().__init__(cluster_settings(folder), clock=here.clock)
        self._told = jobs

    def usage(self, since: datetime, until: datetime) -> UsageReading:
        now = self.health().controller_time
        return UsageReading(
            [
                job
                for job in self._told
                if job.started_at and job.started_at < until and (job.ended_at or now) >= since
            ]
        )
