"""The scheduler's jobs on both databases: every run leaves a trace, and no error stops anything else."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from allocator.db import Database
from allocator.health import scheduler_health
from allocator.models import Booking, Cluster, JobHealth, Node, NodeState, Quota, SubmittedForm
from allocator.states import BookingState, QuotaState, ReservationState
from config.clock import utcnow
from config.errors import KezekError
from config.settings import ClusterSettings, Settings
from scheduler import inventory, job_health
from scheduler.clusters.base import NodeState as SlurmNodeState
from scheduler.clusters.base import Unreachable
from scheduler.clusters.simulated_store import Fault
from scheduler.job_health import Job
from scheduler.jobs import FORMS_KEPT, LEASE_SECONDS, Scheduler, expire, make_jobs
from scheduler.leader import FileLeadership, PostgresLeadership
from tests.factories import NOW
from tests.scheduling import Site, cluster_settings, site

SECRET = "only-for-tests-only-for-tests-only-for-tests"


def health(database: Database, name: str) -> JobHealth:
    with database.reader() as session:
        row = session.get_one(JobHealth, name)
        session.expunge_all()
        return row


def job(outcome: Mapping[str, int] | Exception) -> Job:
    def run(_now: datetime) -> Mapping[str, int]:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Job("probe", 30, run)


def settings_for(database_url: str, folder: Path) -> Settings:
    return Settings(
        data_dir=folder, secret_key=SECRET, database_url=database_url, clusters=(cluster_settings(folder),)
    )


class TestHealth:
    def test_a_good_run(self, database: Database) -> None:
        assert job_health.run(database, job({"done": 3}), "here:1")
        row = health(database, "probe")
        assert (row.leader, row.interval_seconds, row.problem) == ("here:1", 30, None)
        assert row.succeeded_at is not None
        assert row.duration_ms is not None

    @pytest.mark.parametrize(
        "error", [KezekError("it is closed"), ZeroDivisionError("by zero")], ids=["expected", "unexpected"]
    )
    def test_a_failure_is_shown_until_it_is_over(self, database: Database, error: Exception) -> None:
        assert not job_health.run(database, job(error), "here:1")
        assert health(database, "probe").problem == f"{type(error).__name__}: {error}"
        assert health(database, "probe").succeeded_at is None
        job_health.run(database, job({}), "here:1")
        row = health(database, "probe")
        assert row.problem is None
        assert row.failed_at is not None

    def test_a_job_that_is_no_more_is_not_late_for_ever(self, database: Database) -> None:
        job_health.run(database, job({}), "here:1")
        job_health.forget_others(database, [Job("other", 30, lambda _now: {})])
        with database.reader() as session:
            assert scheduler_health(session, utcnow() + timedelta(days=1)).late == ()

    def test_without_a_database_nothing_is_raised(self, tmp_path: Path) -> None:
        database = Database(f"sqlite+pysqlite:///{tmp_path}/nothing.sqlite3")
        assert not job_health.run(database, job({}), "here:1")
        database.dispose()


class TestExpiry:
    def test_time_passes(self, database: Database, tmp_path: Path) -> None:
        here = site(database, tmp_path)
        held = ReservationState.RESERVED
        first = here.book(1, reservation=held)
        second = here.book(2, starts_at=NOW + timedelta(days=3), reservation=held)
        expire(database, NOW + timedelta(days=1))
        states = {first: BookingState.STARTED, second: BookingState.CONFIRMED}
        assert (
            here.ask(lambda session: dict(session.execute(select(Booking.id, Booking.state)).all())) == states
        )
        counts = expire(database, NOW + timedelta(days=61))
        assert (
            here.ask(lambda session: session.scalars(select(Booking.state)).all()) == [BookingState.ENDED] * 2
        )
        assert here.ask(lambda session: session.scalar(select(Quota.state))) is QuotaState.EXPIRED
        assert counts["quotas"] == 1

    def test_more_than_a_batch_in_one_run(self, database: Database, tmp_path: Path) -> None:
        here = site(database, tmp_path)
        for day in range(30):
            start = NOW + timedelta(days=day)
            here.book(1, starts_at=start, hours=1, reservation=ReservationState.RESERVED)
        expire(database, NOW + timedelta(days=40))
        assert set(here.ask(lambda session: session.scalars(select(Booking.state)).all())) == {
            BookingState.ENDED
        }

    def test_forms_are_forgotten(self, database: Database) -> None:
        with database.transaction() as session:
            for token, age in (("old", FORMS_KEPT + timedelta(hours=1)), ("new", timedelta(hours=1))):
                session.add(SubmittedForm(token=token, path="/x", location="/y", at=NOW - age))
        assert expire(database, NOW)["forgotten"] == 1
        with database.reader() as session:
            assert session.scalars(select(SubmittedForm.token)).all() == ["new"]


class TestInventory:
    @pytest.fixture
    def here(self, database: Database, tmp_path: Path) -> Site:
        return site(database, tmp_path)

    def test_nodes_and_health_are_written_down(self, here: Site) -> None:
        here.cluster.set_node("gpu0002", SlurmNodeState.DRAINED, "fan")
        assert inventory.take(here.database, here.cluster, NOW) == 4
        nodes = here.ask(lambda session: dict(session.execute(select(Node.name, Node.state)).all()))
        assert nodes["gpu0002"] is NodeState.DRAINED
        row = here.ask(lambda session: session.scalars(select(Cluster)).one())
        assert (row.reachable_at, row.version, row.problem) == (NOW, "simulated 25.11", None)

    def test_an_unreachable_one_says_so_and_keeps_what_was_known(self, here: Site) -> None:
        inventory.take(here.database, here.cluster, NOW)
        here.cluster.set_fault(Fault.CONTROLLER_DOWN)
        later = NOW + timedelta(minutes=5)
        with pytest.raises(Unreachable):
            inventory.take(here.database, here.cluster, later)
        row = here.ask(lambda session: session.scalars(select(Cluster)).one())
        assert (row.reachable_at, row.checked_at, row.problem_code) == (NOW, later, "cluster_unreachable")
        here.cluster.clear_faults()
        inventory.take(here.database, here.cluster, later)
        assert here.ask(lambda session: session.scalar(select(Cluster.problem))) is None

    def test_accounting_alone_away(self, here: Site) -> None:
        here.cluster.set_fault(Fault.ACCOUNTING_DOWN)
        inventory.take(here.database, here.cluster, NOW)
        row = here.ask(lambda session: session.scalars(select(Cluster)).one())
        assert (row.reachable_at, row.problem_code) == (NOW, "accounting_away")

    def test_what_the_cluster_can_and_what_the_site_wants(self, here: Site) -> None:
        here.cluster.capabilities = frozenset()
        inventory.take(here.database, here.cluster, NOW)
        assert here.ask(_sharing) == (True, False)
        inventory.take(here.database, here.cluster, NOW, whole_nodes=True)
        assert here.ask(_sharing) == (False, False)


def _sharing(session: Session) -> tuple[bool, bool]:
    cluster = session.scalars(select(Cluster)).one()
    return cluster.shares_nodes, cluster.reserves_gpus


def test_every_job_of_a_site_runs(database_url: str, tmp_path: Path) -> None:
    process = Scheduler(settings_for(database_url, tmp_path), threading.Event())
    assert process.run_once()
    database = Database(database_url)
    with database.reader() as session:
        names = set(session.scalars(select(JobHealth.name)))
        assert names == {
            "inventory:alem",
            "reconcile:alem",
            "usage:alem",
            "plan:alem",
            "expiry",
            "no-shows",
            "repairs",
            "periods",
            "outbox",
        }
        assert session.scalar(select(Cluster.usage_read_until)) is not None
        assert len(session.scalars(select(Node)).all()) == 4
    database.dispose()


def test_a_cluster_that_cannot_be_connected_to_stops_no_other(database_url: str, tmp_path: Path) -> None:
    broken = ClusterSettings(slug="broken", adapter="slurm_cli", command_prefix=("/nowhere/at/all",))
    settings = settings_for(database_url, tmp_path)
    settings = settings.model_copy(update={"clusters": (broken, *settings.clusters)})
    database = Database(database_url)
    jobs = make_jobs(database, settings, lambda: True)
    well = {job.name: job_health.run(database, job, "here:1") for job in jobs}
    assert {name for name, good in well.items() if not good} == {
        "inventory:broken",
        "reconcile:broken",
        "usage:broken",
    }
    database.dispose()


def test_a_lock_that_does_not_answer_stops_the_work(sqlite_database: Database, tmp_path: Path) -> None:
    """The network to the database hangs: another may lead by now, though nobody has told us."""
    process = Scheduler(settings_for(str(sqlite_database.engine.url), tmp_path), threading.Event())
    lost = threading.Event()
    process._confirmed = monotonic()
    assert process._may_lead(lost)
    process._confirmed -= LEASE_SECONDS
    assert not process._may_lead(lost)


def test_a_lock_whose_file_was_removed_is_lost(tmp_path: Path) -> None:
    first, second = FileLeadership(tmp_path / "lock"), FileLeadership(tmp_path / "lock")
    assert first.acquire()
    (tmp_path / "lock").unlink()
    assert second.acquire()
    assert not first.holds()
    assert second.holds()
    second.release()


def test_behind_a_pooler_nobody_leads(postgres_url: str) -> None:
    """A pooler tells its clients a number of its own, and one server session may serve two schedulers."""
    conninfo = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    lock = PostgresLeadership(conninfo)
    with psycopg.connect(conninfo, autocommit=True) as pooled:
        lock._prepare(pooled)
        with pytest.raises(psycopg.OperationalError, match="pooler"):
            lock._prepare(cast(Any, Pooled(pooled)))


@dataclass
class Pooled:
    """What a pooler makes: every word goes through, the session's number is not the server's."""

    through: psycopg.Connection[tuple[object, ...]]
    info: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(backend_pid=1))

    def execute(self, query: str) -> psycopg.Cursor[tuple[object, ...]]:
        return self.through.execute(query)


def test_failed_steps_show_in_the_jobs_health(database: Database, tmp_path: Path) -> None:
    here = site(database, tmp_path, now=utcnow())
    here.book(1, starts_at=utcnow() + timedelta(days=1))
    with database.transaction() as session:
        # A node that the cluster does not have.
        session.execute(update(Node).where(Node.name == "gpu0001").values(name="gpu9999"))
    settings = settings_for(str(database.engine.url), tmp_path)
    jobs = {job.name: job for job in make_jobs(database, settings, lambda: True)}
    assert not job_health.run(database, jobs["reconcile:alem"], "here:1")
    assert "1 steps failed, the first: kezek-1" in (health(database, "reconcile:alem").problem or "")
