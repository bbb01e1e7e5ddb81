"""The families of planning: who waits, how good the plan is, what people still have to decide or answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from allocator.models import Booking, BookingMove, Cluster, PlanRun, Repair, WaitlistEntry
from allocator.states import MoveState, RepairState, WaitlistState
from metrics.text import Family, Sample

T = TypeVar("T")
SECONDS = 3600
POOL = ("cluster", "gpu_type")


def waitlist(session: Session, now: datetime) -> list[Sample]:
    columns = (Cluster.slug, WaitlistEntry.gpu_type, WaitlistEntry.state)
    rows = session.execute(
        select(*columns, func.count())
        .join(Cluster, Cluster.id == WaitlistEntry.cluster_id)
        .where(WaitlistEntry.state.in_((WaitlistState.WAITING, WaitlistState.OFFERED)))
        .group_by(*columns)
    )
    return [(tuple(row[:-1]), row[-1]) for row in rows]


def plan_value(session: Session, now: datetime) -> list[Sample]:
    return [(pool, hours * SECONDS) for pool, hours in _latest(session, PlanRun.value)]


def plan_bound(session: Session, now: datetime) -> list[Sample]:
    return [(pool, hours * SECONDS) for pool, hours in _latest(session, PlanRun.bound)]


def plan_made(session: Session, now: datetime) -> list[Sample]:
    return [(pool, at) for pool, at in _latest(session, PlanRun.made_at)]


def _latest(session: Session, column: InstrumentedAttribute[T]) -> list[tuple[tuple[str, str], T]]:
    """The column of the last plan of each GPU type."""
    last = select(func.max(PlanRun.id)).group_by(PlanRun.cluster_id, PlanRun.gpu_type)
    rows = session.execute(
        select(Cluster.slug, PlanRun.gpu_type, column)
        .join(Cluster, Cluster.id == PlanRun.cluster_id)
        .where(PlanRun.id.in_(last))
    )
    return [((slug, gpu_type), value) for slug, gpu_type, value in rows]


def repairs(session: Session, now: datetime) -> list[Sample]:
    columns = (Cluster.slug, Repair.gpu_type, Repair.cause)
    rows = session.execute(
        select(*columns, func.count())
        .join(Repair.cluster)
        .where(Repair.state == RepairState.PROPOSED)
        .group_by(*columns)
    )
    return [(tuple(row[:-1]), row[-1]) for row in rows]


def oldest_repair(session: Session, now: datetime) -> list[Sample]:
    rows = session.execute(
        select(Cluster.slug, func.min(Repair.asked_at))
        .join(Repair.cluster)
        .where(Repair.state == RepairState.WAITING)
        .group_by(Cluster.slug)
    )
    return [((slug,), at) for slug, at in rows]


def unanswered_moves(session: Session, now: datetime) -> list[Sample]:
    """Nobody can answer any more once the time for it is over; that counts as agreed."""
    open_ = (
        select(Booking.cluster_id, func.count().label("count"))
        .join(BookingMove.booking)
        .where(BookingMove.state == MoveState.TOLD, BookingMove.answer_until > now)
        .group_by(Booking.cluster_id)
        .subquery()
    )
    rows = session.execute(
        select(Cluster.slug, func.coalesce(open_.c.count, 0)).outerjoin(
            open_, open_.c.cluster_id == Cluster.id
        )
    )
    return [((slug,), count) for slug, count in rows]


FAMILIES: tuple[tuple[Family, Callable[[Session, datetime], Iterable[Sample]]], ...] = (
    (
        Family(
            "waitlist_entries", "gauge", "Who waits for GPUs, or has been offered some.", (*POOL, "state")
        ),
        waitlist,
    ),
    (
        Family("plan_value_gpu_seconds", "gauge", "What the bookings of the latest plan are worth.", POOL),
        plan_value,
    ),
    (
        Family(
            "plan_bound_gpu_seconds", "gauge", "What no plan of the same wishes can be worth more than.", POOL
        ),
        plan_bound,
    ),
    (Family("plan_timestamp_seconds", "gauge", "When the latest plan was made.", POOL), plan_made),
    (
        Family("repairs_open", "gauge", "Repairs of the plan that wait for a decision.", (*POOL, "cause")),
        repairs,
    ),
    (
        Family(
            "repair_oldest_timestamp_seconds",
            "gauge",
            "When the longest waiting repair that is not worked out yet was asked for.",
            ("cluster",),
        ),
        oldest_repair,
    ),
    (
        Family(
            "booking_moves_unanswered", "gauge", "Moved bookings whose owner can still answer.", ("cluster",)
        ),
        unanswered_moves,
    ),
)
