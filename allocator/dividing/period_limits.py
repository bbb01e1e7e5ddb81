"""What the cluster itself should stop a quota at while a published period runs (GrpTRESMins)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import ledger
from allocator.models import Grant, GrantChange, Period, Quota
from allocator.states import PeriodState


def current_limits(session: Session, cluster_id: int, now: datetime) -> dict[int, tuple[int, int]]:
    """For each quota in a period published for ``now``: (GPU-seconds it may use there, used before it began).

    That is the grant, or what was booked before there were grants where that is more: a booking stands.
    Who has neither has 0. Used counts what jobs really ran, as the cluster's own counter does.
    """
    covering = session.scalars(
        select(Period).where(
            Period.cluster_id == cluster_id,
            Period.state == PeriodState.PUBLISHED,
            Period.starts_at <= now,
            Period.ends_at > now,
        )
    ).all()
    limits: dict[int, tuple[int, int]] = {}
    for period in covering:
        limits |= _limits(session, period)
    return limits


def _limits(session: Session, period: Period) -> dict[int, tuple[int, int]]:
    quotas = session.scalars(
        select(Quota.id).where(
            Quota.cluster_id == period.cluster_id,
            Quota.gpu_type == period.gpu_type,
            Quota.valid_from < period.ends_at,
            Quota.valid_until > period.starts_at,
        )
    ).all()
    changed = (
        select(GrantChange.grant_id, func.sum(GrantChange.gpu_seconds).label("gpu_seconds"))
        .group_by(GrantChange.grant_id)
        .subquery()
    )
    rows = session.execute(
        select(Grant.quota_id, Grant.gpu_seconds + func.coalesce(changed.c.gpu_seconds, 0))
        .outerjoin(changed, changed.c.grant_id == Grant.id)
        .where(Grant.period_id == period.id)
    )
    granted = {quota_id: int(gpu_seconds) for quota_id, gpu_seconds in rows}
    before = ledger.used_before(session, quotas, period.starts_at)
    booked = ledger.booked_within(session, quotas, (period.starts_at, period.ends_at))
    return {
        quota_id: (max(granted.get(quota_id, 0), booked.get(quota_id, 0)), before.get(quota_id, 0))
        for quota_id in quotas
    }
