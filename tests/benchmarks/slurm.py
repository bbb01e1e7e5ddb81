"""How long a round of reconcile and a reading of usage take at national size: `make bench NAME=slurm`.

The simulated cluster stands in for Slurm, so what is measured is Kezek: its queries, comparison and rows.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from allocator import migrate
from allocator.booking import bookings
from allocator.db import Database
from allocator.models import (
    Application,
    Booking,
    Cluster,
    JobRecord,
    Node,
    NodeSlot,
    Person,
    Quota,
    QuotaMember,
    Reservation,
)
from config.settings import ClusterSettings
from scheduler.clusters.base import JobUsage, UsageReading
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.plan import make_plan
from scheduler.reconcile import look, observe, reconcile
from scheduler.usage import import_usage

QUOTAS, NODES, JOBS = 20_000, 1_000, 100_000
# 2,000 reservations that the cluster should hold now, and 98,000 bookings that are long over.
LIVE, OVER = 2_000, 98_000
NOW = datetime(2026, 11, 1, tzinfo=UTC)
WEEK, HOUR = timedelta(days=7), timedelta(hours=1)
T = TypeVar("T")


def fill(session: Session) -> None:
    """Everything at once, by bulk inserts: the ids are the row's numbers."""
    session.execute(insert(Cluster), [{"id": 1, "slug": "alem", "title": "Alem", "created_at": NOW}])
    _fill_quotas(session)
    node = {"cluster_id": 1, "partition": "gpu", "gpu_type": "h200", "gpus": 8, "state": "up", "seen_at": NOW}
    session.execute(insert(Node), [{**node, "id": n, "name": f"gpu{n:04}"} for n in range(1, NODES + 1)])
    shape = {"cluster_id": 1, "booked_by_id": 1, "nodes": 1, "gpus_per_node": 8, "created_at": NOW}
    slot = {"gpu_from": 0, "gpu_to": 8}
    held = {"cluster_id": 1, "state_since": NOW, "healed": 0}
    booked, slots, rows = [], [], []
    for n in range(1, OVER + LIVE + 1):
        over = n <= OVER
        begins = NOW - (3 + n // NODES) * HOUR if over else NOW + (3 + n // NODES) * HOUR
        window = {"starts_at": begins, "ends_at": begins + HOUR}
        state = "ended" if over else "confirmed"
        booked.append({**shape, **window, "id": n, "quota_id": 1 + n % QUOTAS, "state": state, "version": 1})
        slots.append({**slot, **window, "booking_id": n, "node_id": 1 + n % NODES})
        kept = {"state": "released" if over else "pending", "seen_at": NOW if over else None}
        rows.append({**held, **kept, "booking_id": n, "name": f"kezek-{n}"})
    session.execute(insert(Booking), booked)
    session.execute(insert(NodeSlot), slots)
    session.execute(insert(Reservation), rows)


def _fill_quotas(session: Session) -> None:
    numbers = range(1, QUOTAS + 1)
    person = {"password_hash": "-", "created_at": NOW, "email_confirmed_at": NOW}
    people = [
        {**person, "id": n, "email": f"u{n}@example.kz", "name": f"U {n}", "cluster_login": f"u{n}"}
        for n in numbers
    ]
    session.execute(insert(Person), people)
    common = {"cluster_id": 1, "gpu_type": "h200", "gpu_seconds": 3_600_000, "created_at": NOW}
    application = {
        **common, "earliest": NOW, "latest": NOW + timedelta(days=90), "nodes": 1, "gpus_per_node": 8,
        "applicant_id": 1, "category": "science", "purpose": "-", "state": "approved", "updated_at": NOW,
        "submitted_at": NOW,
    }  # fmt: skip
    session.execute(insert(Application), [{**application, "id": n, "title": f"Project {n}"} for n in numbers])
    valid = {"valid_from": NOW - timedelta(days=90), "valid_until": NOW + timedelta(days=90)}
    session.execute(insert(Quota), [{**common, **valid, "id": n, "application_id": n} for n in numbers])
    # A lead and two members each, as real teams have.
    members = [
        {"quota_id": n, "person_id": 1 + (n + shift) % QUOTAS, "is_lead": shift == 0}
        for n in numbers
        for shift in range(3)
    ]
    session.execute(insert(QuotaMember), members)


class Told(SimulatedCluster):
    """The simulated cluster with an accounting that tells JOBS finished runs of one day."""

    def usage(self, since: datetime, until: datetime) -> UsageReading:
        return UsageReading([job for job in self.told if job.started_at and since <= job.started_at < until])

    told: Sequence[JobUsage] = ()


def timed(figure: str, work: Callable[[], T]) -> T:
    """Prints the time that passed and, since machines are busy, the processor's share of it."""
    began, spent = time.perf_counter(), time.process_time()
    answer = work()
    print(f"{figure}: {time.perf_counter() - began:.2f} s")
    print(f"{figure}, of that own CPU: {time.process_time() - spent:.2f} s", flush=True)
    return answer


def measure(database: Database, cluster: Told) -> None:
    def a_round() -> Any:
        return reconcile(database, cluster, WEEK, NOW)

    first = timed(f"first round, makes {QUOTAS} accounts and {LIVE} reservations", a_round)
    assert not first.failures, next(iter(first.failures.items()))
    found = timed("look: cluster and database read and compared", lambda: look(database, cluster, WEEK))
    assert not found.plan.steps
    timed("plan() alone", lambda: make_plan(found.desired.wanted, observe(cluster)))
    timed("a round with nothing to do", a_round)
    cluster.delete_by_hand(f"kezek-{OVER + 1}")
    assert timed("a round that heals one reservation", a_round).tally.healed == 1

    cluster.told = [
        JobUsage(n, NOW - HOUR, "u1", f"kezek-q{1 + n % QUOTAS}", "COMPLETED", NOW - HOUR, NOW, 3600, 8, None)
        for n in range(JOBS)
    ]
    wrote = timed(f"usage of {JOBS} new jobs", lambda: import_usage(database, cluster, NOW)).written
    assert wrote == JOBS, wrote
    wrote = timed(f"usage of {JOBS} known jobs", lambda: import_usage(database, cluster, NOW)).written
    assert wrote == 0, wrote

    def expire() -> None:
        with database.transaction() as session:
            bookings.advance(session, NOW + 60 * WEEK)

    timed(f"{bookings.BATCH} bookings started and ended", expire)
    with database.reader() as session:
        assert len(session.scalars(select(JobRecord.id)).all()) == JOBS


def main() -> None:
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite+pysqlite:///{Path(folder) / 'bench.sqlite3'}")
        migrate.upgrade(database.engine)
        with database.transaction() as session:
            fill(session)
        settings = ClusterSettings(slug="alem", nodes=NODES, database=Path(folder) / "cluster.sqlite3")
        measure(database, Told(settings, clock=lambda: NOW))
        database.dispose()
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(f"load of the machine after: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
