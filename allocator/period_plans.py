"""What the holder of a quota plans for a coming period: the request, and the least that is of use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.errors import Fault, Invalid, NotFound, WrongState
from allocator.models import Period, PeriodPlan, Quota
from allocator.proposals import hold
from allocator.states import PeriodState, QuotaState
from config.i18n import N_


def set_plan(
    session: Session,
    actor: Actor,
    period: Period,
    quota: Quota,
    request: int,
    minimum: int,
    *,
    now: datetime,
) -> PeriodPlan:
    """What a quota's holder plans for a draft period, in GPU-hours; it counts when claims are collected next.

    Raises Invalid (``request``, ``minimum``), WrongState once the period is proposed.
    """
    require(actor, Action.QUOTA_MANAGE, quota)
    fits = (quota.cluster_id, quota.gpu_type) == (period.cluster_id, period.gpu_type)
    if not fits or quota.valid_from >= period.ends_at or quota.valid_until <= period.starts_at:
        raise NotFound()
    hold(session, period, PeriodState.DRAFT)
    if quota.state is not QuotaState.ACTIVE:
        raise WrongState(N_("This quota is closed: nothing can be booked on it any more."))
    if not 0 <= request <= quota.gpu_seconds // 3600:
        most = {"most": quota.gpu_seconds // 3600}
        raise Invalid({"request": [Fault(N_("Enter a number of GPU-hours from 0 to %(most)s."), most)]})
    if not 0 <= minimum <= request:
        raise Invalid({"minimum": [Fault(N_("The least useful amount is at most what you ask for."))]})
    plan = session.scalar(
        select(PeriodPlan).where(PeriodPlan.period_id == period.id, PeriodPlan.quota_id == quota.id)
    )
    before = {"request": plan.request, "minimum": plan.minimum} if plan else {}
    if plan is None:
        plan = PeriodPlan(period_id=period.id, quota=quota, request=request, minimum=minimum, set_at=now)
        session.add(plan)
    plan.request, plan.minimum, plan.set_at, plan.set_by_id = request, minimum, now, actor.person_id
    after = {"period": period.name, "request": request, "minimum": minimum}
    events.record(session, actor, quota, "quota.planned", now=now, before=before, after=after)
    return plan
