"""What the page of a quota says about periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from allocator.dividing import grants, late_approvals, period_queries
from allocator.dividing.grants import Room
from allocator.models import Grant, Period, PeriodClaim, PeriodPlan, Quota, Reclaim
from allocator.states import PeriodState, QuotaState, ReclaimState

SHOWN = 6


@dataclass(frozen=True)
class Part:
    """A quota's part of a published period for its page; `warning` when hours may be taken back."""

    grant: Grant
    room: Room
    warning: Reclaim | None
    is_open: bool


@dataclass(frozen=True)
class Planned:
    """A draft with what the holder said about it; None while nothing was said."""

    period: Period
    plan: PeriodPlan | None


@dataclass(frozen=True)
class Parts:
    """What the page of a quota says about periods: the one in force, all latest ones, what can be planned,
    what is being divided, and what was divided before the quota was approved."""

    current: Part | None
    grants: list[Grant]
    plannable: list[Planned]
    proposed: list[Period]
    missed: list[Period]


def parts_of(session: Session, quota: Quota, now: datetime) -> Parts:
    """The running period first, else the next one that is published already."""
    found = list(period_queries.grants_of(session, quota))
    ahead = [grant for grant in found if grant.period.ends_at > now]
    chosen = min(ahead, key=lambda grant: grant.period.starts_at, default=None)
    current = None
    if chosen is not None:
        live = chosen.period.state is PeriodState.PUBLISHED
        current = Part(chosen, grants.room(session, chosen), _warning(session, chosen), live)
    missed = list(late_approvals.missed(session, quota, now)) if quota.state is QuotaState.ACTIVE else []
    return Parts(current, found[:SHOWN], _plannable(session, quota), _proposed(session, quota), missed)


def _plannable(session: Session, quota: Quota) -> list[Planned]:
    drafts = period_queries.open_periods(session, quota)
    if not drafts:
        return []
    of_quota = PeriodPlan.quota_id == quota.id, PeriodPlan.period_id.in_([one.id for one in drafts])
    plans = {plan.period_id: plan for plan in session.scalars(select(PeriodPlan).where(*of_quota))}
    return [Planned(period, plans.get(period.id)) for period in drafts]


def _proposed(session: Session, quota: Quota) -> list[Period]:
    """Periods that the quota has a claim in and nobody has published yet."""
    claims = PeriodClaim.period_id == Period.id, PeriodClaim.quota_id == quota.id
    return list(
        session.scalars(
            select(Period)
            .join(PeriodClaim, and_(*claims))
            .where(Period.state == PeriodState.PROPOSED)
            .order_by(Period.starts_at)
        )
    )


def _warning(session: Session, grant: Grant) -> Reclaim | None:
    waits = (ReclaimState.WARNED, ReclaimState.PROPOSED)
    return session.scalar(select(Reclaim).where(Reclaim.grant_id == grant.id, Reclaim.state.in_(waits)))
