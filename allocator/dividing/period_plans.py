"""What the holder of a quota plans for a coming period: the request, the least that is of use, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.dividing.proposals import hold
from allocator.errors import Fault, Invalid, NotFound, WrongState
from allocator.models import Period, PeriodPlan, Quota
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
    uses_from: datetime | None = None,
    uses_until: datetime | None = None,
    now: datetime,
) -> PeriodPlan:
    """What a quota's holder plans for a draft period, in GPU-hours; it counts when claims are collected next.

    Use is judged by this plan: evenly over [uses_from, uses_until), the whole period where left out. Raises
    Invalid (``request``, ``minimum``, ``uses_from``, ``uses_until``), WrongState once it is proposed.
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
    if faults := _faults_of_days(period, uses_from, uses_until):
        raise Invalid(faults)
    plan = session.scalar(
        select(PeriodPlan).where(PeriodPlan.period_id == period.id, PeriodPlan.quota_id == quota.id)
    )
    before = _facts(plan) if plan else {}
    if plan is None:
        plan = PeriodPlan(period_id=period.id, quota=quota, request=request, minimum=minimum, set_at=now)
        session.add(plan)
    plan.request, plan.minimum, plan.set_at, plan.set_by_id = request, minimum, now, actor.person_id
    plan.uses_from, plan.uses_until = uses_from, uses_until
    after = {"period": period.name, **_facts(plan)}
    events.record(session, actor, quota, "quota.planned", now=now, before=before, after=after)
    return plan


def _facts(plan: PeriodPlan) -> dict[str, Any]:
    return {
        "request": plan.request,
        "minimum": plan.minimum,
        "uses_from": plan.uses_from,
        "uses_until": plan.uses_until,
    }


def _faults_of_days(
    period: Period, uses_from: datetime | None, uses_until: datetime | None
) -> dict[str, list[Fault]]:
    """Both within the period and in order. A start after its middle would never be judged before it is too
    late for the hours; who needs only the last days books them, and what is booked counts as used."""
    since, until = uses_from or period.starts_at, uses_until or period.ends_at
    faults: dict[str, list[Fault]] = {}
    if not period.starts_at <= since < period.ends_at:
        faults["uses_from"] = [Fault(N_("This day is not in the period."))]
    elif since > period.starts_at + (period.ends_at - period.starts_at) / 2:
        faults["uses_from"] = [
            Fault(N_("Begin by the middle of the period. Later days you book at once: booked hours count."))
        ]
    if not period.starts_at < until <= period.ends_at:
        faults["uses_until"] = [Fault(N_("This day is not in the period."))]
    elif since >= until and not faults:
        faults["uses_until"] = [Fault(N_("The last day comes after the first one."))]
    return faults
