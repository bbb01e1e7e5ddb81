"""The exposition tells what the database holds, on both databases, in a format that promtool accepts."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from allocator.db import Database
from allocator.models import BookingMove, JobHealth, JobRecord, PlanRun, Quota, Repair, RepairCause
from allocator.states import ApplicationState, BookingState, MoveState, RepairState, ReservationState
from metrics.exposition import FAMILIES, exposition
from metrics.text import Family
from tests import calendars, factories
from tests.factories import HOUR, NOW

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(answer: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[(name, frozenset(labels.items()))]


def a_site(session: Session) -> Quota:
    """One cluster of 4 × 8 GPUs, a quota of 100 GPU-hours with bookings and jobs, a queue."""
    cluster = factories.cluster(session)
    applicant = factories.person(session)
    organisation = factories.organisation(session, head=applicant)
    waiting = factories.application(
        session, applicant, cluster, organisation=organisation, state=ApplicationState.SUBMITTED
    )
    waiting.submitted_at = NOW - timedelta(days=2)
    granted = factories.application(session, applicant, cluster, title='Say "sälem"\\', gpu_hours=100)
    quota = factories.quota(session, granted)
    nodes = cluster.nodes
    factories.booking(
        session, quota, on=nodes[:1], starts_at=NOW - timedelta(hours=1), hours=2,
        state=BookingState.STARTED, reservation=ReservationState.RESERVED,
    )  # fmt: skip
    factories.booking(
        session, quota, on=nodes[1:3], gpus_per_node=4, starts_at=NOW + timedelta(hours=5), hours=3
    )
    factories.booking(session, quota, on=nodes[3:], state=BookingState.CANCELLED, hours=50)
    job(session, quota, 1, gpus=8, seconds=900)
    job(session, quota, 2, gpus=2, seconds=50)
    job(session, quota, 3, gpus=4, seconds=100, known=False)
    session.add(
        JobHealth(
            name="usage:alem",
            leader="host:1",
            interval_seconds=60,
            started_at=NOW,
            succeeded_at=NOW,
            duration_ms=1500,
        )
    )
    session.flush()
    return quota


def job(session: Session, quota: Quota, number: int, *, gpus: int, seconds: int, known: bool = True) -> None:
    session.add(
        JobRecord(
            cluster_id=quota.cluster_id,
            job_id=number,
            submitted_at=NOW,
            login="u1",
            account=quota.account if known else "somebody",
            state="COMPLETED",
            started_at=NOW,
            ended_at=NOW + timedelta(seconds=seconds),
            elapsed_seconds=seconds,
            gpus=gpus,
            gpu_seconds=gpus * seconds,
            quota_id=quota.id if known else None,
            read_at=NOW,
        )
    )


def test_numbers_are_those_of_the_database(database: Database) -> None:
    with database.transaction() as session:
        project = a_site(session).account
    samples = read(exposition(database.reader, NOW))
    alem = {"cluster": "alem"}
    assert value(samples, "kezek_cluster_gpus", **alem, gpu_type="h200", state="up") == 32
    assert value(samples, "kezek_cluster_nodes", **alem, gpu_type="h200", state="up") == 4
    assert value(samples, "kezek_cluster_booked_gpus", **alem, gpu_type="h200") == 8
    assert value(samples, "kezek_cluster_reachable", **alem) == 1
    assert value(samples, "kezek_quota_gpu_seconds", **alem, project=project) == 100 * HOUR
    assert value(samples, "kezek_booked_gpu_seconds", **alem, project=project) == (8 * 2 + 8 * 3) * HOUR
    assert value(samples, "kezek_used_gpu_seconds_total", **alem, project=project) == 7300
    assert value(samples, "kezek_unaccounted_gpu_seconds_total", **alem) == 400
    assert value(samples, "kezek_applications", state="submitted", category="science") == 1
    oldest = NOW - timedelta(days=2)
    assert value(samples, "kezek_application_oldest_timestamp_seconds") == oldest.timestamp()
    assert value(samples, "kezek_reservations", **alem, state="reserved") == 1
    assert value(samples, "kezek_bookings", **alem, state="cancelled") == 1
    assert value(samples, "kezek_job_duration_seconds", job="usage:alem") == 1.5
    assert value(samples, "kezek_job_success_timestamp_seconds", job="usage:alem") == NOW.timestamp()
    assert value(samples, "kezek_job_failing", job="usage:alem") == 0
    assert value(samples, "kezek_scrape_ok") == 1


def test_planning_tells_who_waits_and_what_is_to_be_decided(database: Database) -> None:
    with database.transaction() as session:
        quota = a_site(session)
        cluster = quota.cluster
        calendars.waiting(session, quota, quota.application.applicant, after=3, days=2, now=NOW)
        moved = calendars.held(session, quota, days=9)
        for since, state in ((1, MoveState.TOLD), (1, MoveState.ACCEPTED), (90, MoveState.TOLD)):
            at = NOW - timedelta(hours=since)
            session.add(
                BookingMove(
                    booking=moved,
                    from_starts_at=NOW,
                    from_ends_at=NOW + timedelta(hours=1),
                    reason="Maintenance.",
                    state=state,
                    answer_until=at + timedelta(hours=72),
                    moved_at=at,
                )
            )
        for cause, stands in (
            (RepairCause.NODES_DOWN, RepairState.PROPOSED),
            (RepairCause.OUTAGE, RepairState.APPLIED),
            (RepairCause.NODES_LEAVE, RepairState.WAITING),
        ):
            session.add(
                Repair(
                    cluster=cluster,
                    gpu_type="h200",
                    cause=cause,
                    state=stands,
                    details={},
                    asked_at=NOW,
                    proposed_at=NOW,
                )
            )
        for hours, worth in ((2, 10.0), (1, 90.5)):
            session.add(
                PlanRun(
                    cluster=cluster,
                    gpu_type="h200",
                    made_at=NOW - timedelta(hours=hours),
                    starts_at=NOW,
                    prices={"hours": []},
                    bookings=1,
                    value=worth,
                    bound=100.0,
                )
            )
    samples = read(exposition(database.reader, NOW))
    pool = {"cluster": "alem", "gpu_type": "h200"}
    assert value(samples, "kezek_bookings", cluster="alem", state="held") == 1
    assert value(samples, "kezek_waitlist_entries", **pool, state="waiting") == 1
    assert value(samples, "kezek_plan_value_gpu_seconds", **pool) == 90.5 * HOUR
    assert value(samples, "kezek_plan_bound_gpu_seconds", **pool) == 100 * HOUR
    assert value(samples, "kezek_plan_timestamp_seconds", **pool) == (NOW - timedelta(hours=1)).timestamp()
    assert value(samples, "kezek_repairs_open", **pool, cause="nodes_down") == 1
    assert value(samples, "kezek_repair_oldest_timestamp_seconds", cluster="alem") == NOW.timestamp()
    assert value(samples, "kezek_booking_moves_unanswered", cluster="alem") == 1


def test_titles_survive_the_format(database: Database) -> None:
    with database.transaction() as session:
        a_site(session)
    samples = read(exposition(database.reader, NOW))
    titles = {dict(labels).get("title") for name, labels in samples if name == "kezek_project_info"}
    assert titles == {'Say "sälem"\\'}


@pytest.mark.integration
def test_promtool_has_nothing_to_say(sqlite_database: Database) -> None:
    with sqlite_database.transaction() as session:
        a_site(session)
    answer = exposition(sqlite_database.reader, NOW)
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed (apt-get install prometheus)"
    done = subprocess.run(
        [promtool, "check", "metrics"], input=answer, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_broken_database_is_told_as_such(database: Database) -> None:
    with database.transaction() as session:
        a_site(session)
        session.execute(text("ALTER TABLE job_records RENAME TO gone"))
    samples = read(exposition(database.reader, NOW))
    assert value(samples, "kezek_scrape_ok") == 0
    assert {name for name, _ in samples} == {"kezek_scrape_ok", "kezek_scrape_duration_seconds"}


def test_one_query_a_family_however_many_projects(
    sqlite_database: Database, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    with sqlite_database.transaction() as session:
        for _ in range(20):
            factories.booking(session, factories.quota(session))
    with count_queries(sqlite_database.engine) as statements:
        exposition(sqlite_database.reader, NOW)
    assert sum(statement.startswith("SELECT") for statement in statements) <= len(FAMILIES)


def test_an_empty_site_has_every_family(sqlite_database: Database) -> None:
    answer = exposition(sqlite_database.reader, NOW)
    for family, _ in FAMILIES:
        assert f"# TYPE {family.full_name} {family.kind}" in answer
    assert ("kezek_application_oldest_timestamp_seconds", frozenset()) not in read(answer)


def test_names_follow_the_conventions() -> None:
    for family, _ in FAMILIES:
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert not family.name.startswith("slurm")


def test_unknown_is_left_out() -> None:
    family = Family("x", "gauge", "X.", ("a",))
    assert list(family.lines([(("1",), None), (("2",), 0)]))[1:] == ['kezek_x{a="2"} 0\n']


def test_sessions_are_given_back(sqlite_database: Database) -> None:
    sessions: sessionmaker[Session] = sqlite_database.reader
    for _ in range(30):  # more than the pool holds
        exposition(sessions, NOW)
