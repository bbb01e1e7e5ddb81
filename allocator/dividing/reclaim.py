"""Use it or lose it, by a published table, against the holder's own plan for the period.

A plan says from which day to which day the hours will be used; who made none is taken to use them evenly
over the whole period.

Never silently: first a forecast, then a letter with time to answer (book, or give back and earn credit),
then a proposal, and only a person's word takes hours back. Nothing that is booked is ever taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator import capacity, events, ledger
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.dividing import grants, period_letters
from allocator.errors import Fault, Invalid, WrongState
from allocator.models import Grant, GrantChangeKind, Period, PeriodPlan, Reclaim
from allocator.policy import Policy
from allocator.states import PeriodState, QuotaState, ReclaimState, move
from config.i18n import N_

HOUR = 3600
BATCH = 500  # warnings and proposals of one call at most: every event in it holds the chain


@dataclass(frozen=True)
class Forecast:
    """A grant at a moment, GPU-seconds: by now ``planned`` to be used, ``used`` (or booked) of it.

    The plan uses the grant evenly from ``since`` to ``until``.

    ``take_back`` is what the table would take of the rest, in whole GPU-hours; ``expected`` what will have
    been used at the end when things go on like this.
    """

    grant: Grant
    granted: int
    planned: int
    used: int
    expected: int
    take_back: int
    since: datetime
    until: datetime

    @property
    def part(self) -> Fraction:
        """Used of what was planned until now."""
        return Fraction(self.used, self.planned) if self.planned else Fraction(1)


def forecast(session: Session, period: Period, *, policy: Policy, now: datetime) -> list[Forecast]:
    """Every grant of a running period that has something to lose or to use, the worst first."""
    found = grants.of_period(session, period)
    window = (period.starts_at, period.ends_at)
    charged = ledger.charged_within(session, [grant.quota_id for grant in found], window)
    plans = _plans(session, period)
    made = [
        _forecast(grant, plans.get(grant.quota_id), charged.get(grant.quota_id, 0), policy, now)
        for grant in found
        if grant.current
    ]
    return sorted(made, key=lambda one: (one.part, one.grant.id))


def _plans(session: Session, period: Period, *quotas: int) -> dict[int, PeriodPlan]:
    """By quota; of all quotas unless some are named."""
    found = select(PeriodPlan).where(PeriodPlan.period_id == period.id)
    if quotas:
        found = found.where(PeriodPlan.quota_id.in_(quotas))
    return {plan.quota_id: plan for plan in session.scalars(found)}


def _forecast(grant: Grant, plan: PeriodPlan | None, charged: int, policy: Policy, now: datetime) -> Forecast:
    begins = plan.uses_from if plan and plan.uses_from else grant.period.starts_at
    ends = plan.uses_until if plan and plan.uses_until else grant.period.ends_at
    since, until = max(begins, grant.quota.valid_from), min(ends, grant.quota.valid_until)
    whole = max(int((until - since).total_seconds()), 1)
    gone = min(max(int((now - since).total_seconds()), 0), whole)
    granted = grant.current
    planned = granted * gone // whole
    expected = min(granted, charged * whole // gone) if gone else granted
    left = max(granted - charged, 0)
    take_back = int(policy.use_or_lose.taken_back(charged, planned) * left) // HOUR * HOUR
    expected = max(expected, min(charged, granted))
    return Forecast(grant, granted, planned, charged, expected, take_back, since, until)


def warn_due(session: Session, *, policy: Policy, now: datetime) -> int:
    """Warn the holders whose use is below the table, once in a period; returns how many letters went out.

    Who booked in time and cancelled afterwards is warned again: else that would be the way around. At most
    ``BATCH``: the rest with the next call.
    """
    answer_until = now + timedelta(days=policy.use_or_lose.warning_days)
    warned = 0
    for period in _running(session, now):
        # too late for the hours to be of use to anybody
        if answer_until >= period.ends_at:
            continue
        told = set(
            session.scalars(
                select(Reclaim.grant_id)
                .join(Grant, Grant.id == Reclaim.grant_id)
                .where(Grant.period_id == period.id, ~_caught_up())
            )
        )
        for one in forecast(session, period, policy=policy, now=now):
            active = one.grant.quota.state is QuotaState.ACTIVE
            if one.take_back and one.grant.id not in told and active and _ripe(one, policy, now):
                _warn(session, one, policy, answer_until, now)
                warned += 1
            if warned == BATCH:
                return warned
    return warned


def _caught_up() -> ColumnElement[bool]:
    """Warnings that came to nothing by themselves, not by a person's word."""
    return and_(Reclaim.state == ReclaimState.DROPPED, Reclaim.decided_by_id.is_(None))


def _ripe(one: Forecast, policy: Policy, now: datetime) -> bool:
    """Whether enough of the plan's own time has passed to judge; at the latest when an answer is still in
    time by a day."""
    rules = policy.use_or_lose
    last = one.grant.period.ends_at - timedelta(days=rules.warning_days + 1)
    return (now - one.since) * 100 >= (one.until - one.since) * rules.check_percent or now >= last


def _running(session: Session, now: datetime) -> list[Period]:
    return list(
        session.scalars(
            select(Period)
            .where(Period.state == PeriodState.PUBLISHED, Period.starts_at <= now, Period.ends_at > now)
            .order_by(Period.id)
        )
    )


def _warn(session: Session, one: Forecast, policy: Policy, answer_until: datetime, now: datetime) -> None:
    reclaim = Reclaim(
        grant=one.grant,
        state=ReclaimState.WARNED,
        planned=one.planned,
        used=one.used,
        take_back=one.take_back,
        warned_at=now,
        answer_until=answer_until,
        policy_version=policy.version,
    )
    session.add(reclaim)
    facts = {"planned": one.planned, "used": one.used, "take_back": one.take_back, "until": answer_until}
    events.record(session, SYSTEM, reclaim, "reclaim.warned", now=now, after=facts)
    period_letters.warned(session, reclaim, now=now)


def propose_due(session: Session, *, policy: Policy, now: datetime) -> int:
    """After the time to answer: drop what has caught up, propose the rest; returns how many are proposed.

    Of at most ``BATCH``: the rest with the next call.
    """
    due = session.scalars(
        select(Reclaim)
        .where(Reclaim.state == ReclaimState.WARNED, Reclaim.answer_until <= now)
        .options(selectinload(Reclaim.grant).options(selectinload(Grant.changes), joinedload(Grant.quota)))
        .order_by(Reclaim.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    seen = _seen_again(session, due, policy, now)
    proposed = 0
    for reclaim in due:
        again = seen[reclaim.grant_id]
        running = reclaim.grant.period.state is PeriodState.PUBLISHED and reclaim.grant.period.ends_at > now
        # the letter named an amount: never more than that, whatever has happened since
        take_back = min(reclaim.take_back, again.take_back)
        if not running or not take_back:
            move(reclaim, ReclaimState.DROPPED, actor=SYSTEM, now=now, columns={"decided_at": now})
            continue
        columns = {"take_back": take_back}
        move(reclaim, ReclaimState.PROPOSED, actor=SYSTEM, now=now, columns=columns, take_back=take_back)
        proposed += 1
    return proposed


def _seen_again(
    session: Session, due: Sequence[Reclaim], policy: Policy, now: datetime
) -> dict[int, Forecast]:
    """The forecasts of these by grant, a few queries for each period."""
    found: dict[int, Forecast] = {}
    by_period: dict[Period, list[Grant]] = {}
    for reclaim in due:
        by_period.setdefault(reclaim.grant.period, []).append(reclaim.grant)
    for period, affected in by_period.items():
        ids = [grant.quota_id for grant in affected]
        charged = ledger.charged_within(session, ids, (period.starts_at, period.ends_at))
        plans = _plans(session, period, *ids)
        for grant in affected:
            used = charged.get(grant.quota_id, 0)
            found[grant.id] = _forecast(grant, plans.get(grant.quota_id), used, policy, now)
    return found


def confirm(session: Session, actor: Actor, reclaim: Reclaim, *, now: datetime) -> int:
    """Take the hours back; what has been booked meanwhile stays. Returns GPU-seconds taken."""
    period = _decide(session, actor, reclaim)
    if period.state is not PeriodState.PUBLISHED or period.ends_at <= now:
        raise WrongState(N_("Grants change only while their period is published and not over."))
    session.expire(reclaim.grant, ["changes"])
    room = grants.room(session, reclaim.grant)
    taken = min(reclaim.take_back, room.available // HOUR * HOUR)
    columns = {"decided_at": now, "decided_by_id": actor.person_id}
    if not taken:
        move(reclaim, ReclaimState.DROPPED, actor=actor, now=now, columns=columns)
        return 0
    move(reclaim, ReclaimState.CONFIRMED, actor=actor, now=now, columns=columns, gpu_seconds=taken)
    grants.change(session, actor, reclaim.grant, GrantChangeKind.RECLAIMED, -taken, "", now)
    period_letters.reclaimed(session, reclaim.grant, taken, now=now)
    return taken


def drop(session: Session, actor: Actor, reclaim: Reclaim, reason: str, *, now: datetime) -> None:
    """Let the holder keep the hours, with a reason on record."""
    _decide(session, actor, reclaim)
    if not reason.strip():
        raise Invalid({"reason": [Fault(N_("Say why: it stands in the record of events."))]})
    columns = {"decided_at": now, "decided_by_id": actor.person_id}
    move(reclaim, ReclaimState.DROPPED, actor=actor, now=now, reason=reason.strip(), columns=columns)


def _decide(session: Session, actor: Actor, reclaim: Reclaim) -> Period:
    period = reclaim.grant.period
    require(actor, Action.PERIOD_OPERATE, period)
    # nobody decides on the hours of one's own organisation
    require(actor, Action.PERIOD_ADJUST, reclaim.grant.quota)
    capacity.lock(session, period.cluster)
    session.refresh(reclaim, ["state", "take_back", "decided_at"])
    session.refresh(period, ["state"])
    return period
