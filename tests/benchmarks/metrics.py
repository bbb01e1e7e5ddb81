"""How long a scrape of 10,000 projects with bookings and jobs takes: `make bench NAME=metrics`."""

import gzip
import random
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.orm import Session

from allocator import migrate
from allocator.db import Database
from allocator.models import Application, Booking, Cluster, JobRecord, Person, Quota
from metrics.exposition import exposition

PROJECTS = 10_000
JOBS = 200_000
ROUNDS = 7
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def fill(session: Session) -> None:
    """PROJECTS quotas with two bookings each, and JOBS job records spread over them."""
    dice = random.Random(1)
    session.execute(insert(Cluster), [{"id": 1, "slug": "alem", "title": "Alem", "created_at": NOW}])
    person = {"id": 1, "email": "a@example.kz", "name": "A", "password_hash": "-", "created_at": NOW}
    session.execute(insert(Person), [person])
    numbers = range(1, PROJECTS + 1)
    window = {"earliest": NOW, "latest": NOW + timedelta(days=90)}
    common = {"cluster_id": 1, "gpu_type": "h200", "gpu_seconds": 3_600_000, "created_at": NOW}
    shape = {"nodes": 1, "gpus_per_node": 8}
    application = {
        **common, **window, **shape, "applicant_id": 1, "category": "science", "purpose": "-",
        "state": "approved", "updated_at": NOW, "submitted_at": NOW,
    }  # fmt: skip
    session.execute(insert(Application), [{**application, "id": n, "title": f"Project {n}"} for n in numbers])
    valid = {"valid_from": NOW, "valid_until": NOW + timedelta(days=90)}
    session.execute(insert(Quota), [{**common, **valid, "id": n, "application_id": n} for n in numbers])
    booking = {**shape, "cluster_id": 1, "booked_by_id": 1, "created_at": NOW, "starts_at": NOW}
    ends = {"ends_at": NOW + timedelta(hours=5)}
    session.execute(insert(Booking), [{**booking, **ends, "quota_id": n} for n in (*numbers, *numbers)])
    record = {
        "cluster_id": 1, "submitted_at": NOW, "login": "u", "account": "-", "state": "COMPLETED", "gpus": 8,
        "elapsed_seconds": 100, "gpu_seconds": 800, "read_at": NOW,
    }  # fmt: skip
    jobs = [{**record, "job_id": n, "quota_id": dice.randint(1, PROJECTS)} for n in range(JOBS)]
    session.execute(insert(JobRecord), jobs)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite+pysqlite:///{Path(folder) / 'bench.sqlite3'}")
        migrate.upgrade(database.engine)
        with database.transaction() as session:
            fill(session)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = exposition(database.reader, NOW)
            times.append(time.perf_counter() - began)
        database.dispose()
    lines = sum(not line.startswith("#") for line in answer.splitlines())
    packed = len(gzip.compress(answer.encode(), 1))
    print(
        f"scrape of {PROJECTS} projects and {JOBS} jobs, median of {ROUNDS}: {statistics.median(times):.3f} s"
    )
    print(f"samples: {lines} lines")
    print(f"answer: {len(answer.encode()) / 1e6:.2f} MB")
    print(f"answer, gzip -1: {packed / 1e6:.2f} MB")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
