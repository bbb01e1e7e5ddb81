"""Every family that comes from the database: what it is, and the one grouped query that gives its samples.

Units: seconds and GPU-seconds; hours are made in PromQL. Labels are bounded: cluster, project (a quota's
account), category, state, job; never a user or a job of the cluster.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from allocator.models import (
    Application,
    Booking,
    Cluster,
    EventChain,
    JobHealth,
    JobRecord,
    Node,
    OutboxItem,
    Quota,
    Reservation,
)
from allocator.sqltime import seconds_between
from allocator.states import VOID_BOOKINGS, ApplicationState, QuotaState, ReservationState
from metrics.text import Family, Sample

Rows = Select[*tuple[Any, ...]]
Query = Callable[[Session, datetime], Iterable[Sample]]

# a booking that was called off before it began promises nothing and costs nothing
HELD = Booking.state.not_in(VOID_BOOKINGS)


def _grouped(statement: Rows, session: Session) -> list[Sample]:
    """All columns but the last are labels."""
    return [(tuple(row[:-1]), row[-1]) for row in session.execute(statement)]


def _booked_gpu_seconds() -> ColumnElement[int]:
    length = seconds_between(Booking.starts_at, Booking.ends_at)
    return func.sum(Booking.nodes * Booking.gpus_per_node * length)


def cluster_gpus(session: Session, now: datetime) -> list[Sample]:
    total = func.sum(Node.gpus)
    columns = (Cluster.slug, Node.gpu_type, Node.state)
    return _grouped(select(*columns, total).join(Node.cluster).group_by(*columns), session)


def cluster_nodes(session: Session, now: datetime) -> list[Sample]:
    columns = (Cluster.slug, Node.gpu_type, Node.state)
    return _grouped(select(*columns, func.count()).join(Node.cluster).group_by(*columns), session)


def cluster_booked_gpus(session: Session, now: datetime) -> list[Sample]:
    running = (HELD, Booking.starts_at <= now, Booking.ends_at > now)
    columns = (Cluster.slug, Quota.gpu_type)
    gpus = func.sum(Booking.nodes * Booking.gpus_per_node)
    statement = (
        select(*columns, gpus).join(Booking.quota).join(Quota.cluster).where(*running).group_by(*columns)
    )
    return _grouped(statement, session)


def cluster_reachable(session: Session, now: datetime) -> list[Sample]:
    rows = session.execute(select(Cluster.slug, Cluster.checked_at, Cluster.problem_code))
    return [((row.slug,), row.checked_at is not None and row.problem_code is None) for row in rows]


def cluster_checked(session: Session, now: datetime) -> list[Sample]:
    return _grouped(select(Cluster.slug, Cluster.checked_at), session)


def cluster_clock_skew(session: Session, now: datetime) -> list[Sample]:
    return _grouped(select(Cluster.slug, Cluster.clock_skew_seconds), session)


def project_info(session: Session, now: datetime) -> list[Sample]:
    columns = (Quota.id, Cluster.slug, Quota.gpu_type, Application.category, Quota.state, Application.title)
    rows = session.execute(select(*columns).join(Quota.cluster).join(Quota.application))
    return [((_project(row[0]), *row[1:]), 1) for row in rows]


def quota_gpu_seconds(session: Session, now: datetime) -> list[Sample]:
    statement = select(Quota.id, Cluster.slug, Quota.gpu_seconds).join(Quota.cluster)
    return _by_project(statement.where(Quota.state == QuotaState.ACTIVE), session)


def quota_valid_until(session: Session, now: datetime) -> list[Sample]:
    statement = select(Quota.id, Cluster.slug, Quota.valid_until).join(Quota.cluster)
    return _by_project(statement.where(Quota.state == QuotaState.ACTIVE), session)


def booked_gpu_seconds(session: Session, now: datetime) -> list[Sample]:
    statement = (
        select(Booking.quota_id, Cluster.slug, _booked_gpu_seconds()).join(Booking.cluster).where(HELD)
    )
    return _by_project(statement.group_by(Booking.quota_id, Cluster.slug), session)


def used_gpu_seconds(session: Session, now: datetime) -> list[Sample]:
    used = (
        select(JobRecord.quota_id, func.sum(JobRecord.gpu_seconds).label("used"))
        .where(JobRecord.quota_id.is_not(None))
        .group_by(JobRecord.quota_id)
        .subquery()
    )
    statement = select(Quota.id, Cluster.slug, used.c.used).join(Quota.cluster)
    return _by_project(statement.join(used, used.c.quota_id == Quota.id), session)


def unaccounted_gpu_seconds(session: Session, now: datetime) -> list[Sample]:
    used = func.sum(JobRecord.gpu_seconds)
    statement = select(Cluster.slug, func.coalesce(used, 0)).outerjoin(
        JobRecord, (JobRecord.cluster_id == Cluster.id) & JobRecord.quota_id.is_(None)
    )
    return _grouped(statement.group_by(Cluster.slug), session)


def applications(session: Session, now: datetime) -> list[Sample]:
    columns = (Application.state, Application.category)
    return _grouped(select(*columns, func.count()).group_by(*columns), session)


def oldest_application(session: Session, now: datetime) -> list[Sample]:
    waiting = Application.state == ApplicationState.SUBMITTED
    oldest = session.scalar(select(func.min(Application.submitted_at)).where(waiting))
    return [((), oldest)]


def bookings(session: Session, now: datetime) -> list[Sample]:
    columns = (Cluster.slug, Booking.state)
    return _grouped(select(*columns, func.count()).join(Booking.cluster).group_by(*columns), session)


def reservations(session: Session, now: datetime) -> list[Sample]:
    columns = (Cluster.slug, Reservation.state)
    # what is over and gone would only grow for ever
    current = Reservation.state != ReservationState.RELEASED
    counted = select(*columns, func.count()).join(Reservation.cluster).where(current).group_by(*columns)
    return _grouped(counted, session)


def reservations_healed(session: Session, now: datetime) -> list[Sample]:
    healed = func.coalesce(func.sum(Reservation.healed), 0)
    statement = select(Cluster.slug, healed).outerjoin(Reservation, Reservation.cluster_id == Cluster.id)
    return _grouped(statement.group_by(Cluster.slug), session)


def outbox(session: Session, now: datetime) -> list[Sample]:
    return _grouped(select(OutboxItem.state, func.count()).group_by(OutboxItem.state), session)


def job_succeeded(session: Session, now: datetime) -> list[Sample]:
    return _grouped(select(JobHealth.name, JobHealth.succeeded_at), session)


def job_duration(session: Session, now: datetime) -> list[Sample]:
    rows = session.execute(select(JobHealth.name, JobHealth.duration_ms))
    return [((row.name,), None if row.duration_ms is None else row.duration_ms / 1000) for row in rows]


def job_interval(session: Session, now: datetime) -> list[Sample]:
    return _grouped(select(JobHealth.name, JobHealth.interval_seconds), session)


def job_failing(session: Session, now: datetime) -> list[Sample]:
    rows = session.execute(select(JobHealth.name, JobHealth.problem))
    return [((row.name,), row.problem is not None) for row in rows]


def events(session: Session, now: datetime) -> list[Sample]:
    return [((), session.scalar(select(EventChain.seq)))]


def _by_project(statement: Rows, session: Session) -> list[Sample]:
    return [((_project(row[0]), row[1]), row[2]) for row in session.execute(statement)]


def _project(quota_id: int) -> str:
    """The quota's account, which is also what the cluster's own exporters carry as a label."""
    return Quota.account_name(quota_id)


CLUSTER = ("cluster",)
PROJECT = ("project", "cluster")

FAMILIES: tuple[tuple[Family, Query], ...] = (
    (
        Family("cluster_gpus", "gauge", "GPUs of the cluster's nodes.", ("cluster", "gpu_type", "state")),
        cluster_gpus,
    ),
    (Family("cluster_nodes", "gauge", "Nodes with GPUs.", ("cluster", "gpu_type", "state")), cluster_nodes),
    (
        Family("cluster_booked_gpus", "gauge", "GPUs booked at this moment.", ("cluster", "gpu_type")),
        cluster_booked_gpus,
    ),
    (
        Family("cluster_reachable", "gauge", "Whether the cluster answered when it was last asked.", CLUSTER),
        cluster_reachable,
    ),
    (
        Family("cluster_checked_timestamp_seconds", "gauge", "When the cluster was last asked.", CLUSTER),
        cluster_checked,
    ),
    (
        Family("cluster_clock_skew_seconds", "gauge", "The controller's clock minus ours.", CLUSTER),
        cluster_clock_skew,
    ),
    (
        Family(
            "project_info",
            "gauge",
            "What a project is; always 1.",
            ("project", "cluster", "gpu_type", "category", "state", "title"),
        ),
        project_info,
    ),
    (Family("quota_gpu_seconds", "gauge", "GPU-seconds of active quotas.", PROJECT), quota_gpu_seconds),
    (
        Family("quota_valid_until_timestamp_seconds", "gauge", "When an active quota ends.", PROJECT),
        quota_valid_until,
    ),
    (
        Family("booked_gpu_seconds", "gauge", "GPU-seconds booked, past and to come.", PROJECT),
        booked_gpu_seconds,
    ),
    (
        Family("used_gpu_seconds_total", "counter", "GPU-seconds that jobs were allocated.", PROJECT),
        used_gpu_seconds,
    ),
    (
        Family(
            "unaccounted_gpu_seconds_total", "counter", "GPU-seconds of accounts that no quota has.", CLUSTER
        ),
        unaccounted_gpu_seconds,
    ),
    (Family("applications", "gauge", "Applications by state.", ("state", "category")), applications),
    (
        Family(
            "application_oldest_timestamp_seconds",
            "gauge",
            "When the longest waiting application was submitted.",
        ),
        oldest_application,
    ),
    (Family("bookings", "gauge", "Bookings by state.", ("cluster", "state")), bookings),
    (
        Family("reservations", "gauge", "Reservations that are not over, by state.", ("cluster", "state")),
        reservations,
    ),
    (
        Family(
            "reservations_healed_total",
            "counter",
            "Reservations that had to be made or corrected again.",
            CLUSTER,
        ),
        reservations_healed,
    ),
    (Family("outbox", "gauge", "Letters by state.", ("state",)), outbox),
    (
        Family(
            "job_success_timestamp_seconds", "gauge", "When a job of the scheduler last succeeded.", ("job",)
        ),
        job_succeeded,
    ),
    (
        Family("job_duration_seconds", "gauge", "How long a job of the scheduler last took.", ("job",)),
        job_duration,
    ),
    (
        Family("job_interval_seconds", "gauge", "How often a job of the scheduler runs.", ("job",)),
        job_interval,
    ),
    (Family("job_failing", "gauge", "Whether a job's last run failed.", ("job",)), job_failing),
    (Family("events_total", "counter", "Events in the hash chain."), events),
)
