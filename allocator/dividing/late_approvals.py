"""Approved after the division: the applicant is told at once what that means, and what comes next.

Either an operator serves the quota from the reserve (``grants.serve_from_reserve`` writes again), or it
waits for the next period, in whose division it takes part by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM
from allocator.applying import quotas
from allocator.dividing import period_letters
from allocator.models import Grant, Period, Quota
from allocator.states import PeriodState


def tell(session: Session, quota: Quota, *, now: datetime) -> None:
    """After an approval: of every published period that began to be divided without this quota."""
    for period in missed(session, quota, now):
        _tell(session, quota, period, now)


def tell_all(session: Session, period: Period, *, now: datetime) -> None:
    """After a publication: whoever was approved when the claims had been collected already."""
    granted = select(Grant.quota_id).where(Grant.period_id == period.id)
    late = quotas.usable_in(period).where(Quota.created_at > period.collected_at, Quota.id.not_in(granted))
    for quota in session.scalars(late).all():
        _tell(session, quota, period, now)


def missed(session: Session, quota: Quota, now: datetime) -> Sequence[Period]:
    """Published periods, running or to come, in which the quota could be used but has no grant."""
    granted = select(Grant.period_id).where(Grant.quota_id == quota.id)
    return session.scalars(
        select(Period)
        .where(
            Period.cluster_id == quota.cluster_id,
            Period.gpu_type == quota.gpu_type,
            Period.state == PeriodState.PUBLISHED,
            Period.starts_at < quota.valid_until,
            Period.ends_at > max(now, quota.valid_from),
            Period.id.not_in(granted),
        )
        .order_by(Period.starts_at)
    ).all()


def _tell(session: Session, quota: Quota, period: Period, now: datetime) -> None:
    events.record(session, SYSTEM, quota, "quota.waits", now=now, after={"period": period.name})
    period_letters.waits(session, quota, period, now=now)
