"""Grants: what quotas may book in a published period, and how that changes afterwards.

    available = granted + changes - charged in the period (bookings as a whole, jobs outside of bookings)

Hours given back or taken back are divided again among those who asked for more; late approvals are served
from the reserve, or wait for the next period. A grant's row stays as published: every change is a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator import capacity, events, ledger
from allocator.actors import SYSTEM, Actor
from allocator.applying import quotas
from allocator.applying.application_checks import MAX_REASON, text_fault
from allocator.authorization import Action, require
from allocator.dividing import credits, fingerprints, late_approvals, period_letters
from allocator.errors import Fault, Invalid, NotFound, WrongState
from allocator.fairshare import Claim, Pool, divide
from allocator.models import (
    Application,
    Cluster,
    Grant,
    GrantChange,
    GrantChangeKind,
    Period,
    Proposal,
    ProposalShare,
    Quota,
)
from allocator.policy import Policy
from allocator.states import PeriodState, QuotaState
from config.i18n import N_

HOUR = 3600
BACK = (GrantChangeKind.RETURNED, GrantChangeKind.RECLAIMED)


@dataclass(frozen=True)
class Room:
    """What a quota may spend in one published period, GPU-seconds; no grant means nothing."""

    period: Period
    granted: int
    charged: int

    @property
    def available(self) -> int:
        return max(self.granted - self.charged, 0)


def issue(
    session: Session, proposal: Proposal, shares: Sequence[ProposalShare], *, now: datetime
) -> list[Grant]:
    """The grants of a proposal that is just being published, with credits and letters."""
    made = [
        Grant(
            period_id=proposal.period_id,
            quota_id=share.claim.quota_id,
            claim_id=share.claim_id,
            gpu_seconds=share.gpu_hours * HOUR,
            granted_at=now,
        )
        for share in shares
    ]
    session.add_all(made)
    session.flush()
    credits.record_division(session, proposal.period_id, shares, now)
    adjustments = {one.claim_id: one for one in proposal.adjustments}
    for grant in made:
        period_letters.granted(session, grant, adjustments.get(grant.claim_id or 0), now=now)
    late_approvals.tell_all(session, proposal.period, now=now)
    # one event with a digest of them all: thousands of links would hold the chain for the whole commit
    total = sum(grant.gpu_seconds for grant in made)
    facts = {"grants": len(made), "gpu_seconds": total, "sha256": fingerprints.of_grants(made)}
    events.record(session, SYSTEM, proposal.period, "period.granted", now=now, after=facts)
    return made


def rooms(session: Session, quota: Quota, starts_at: datetime, ends_at: datetime) -> list[Room]:
    """What bookings of the quota in [starts_at, ends_at) are limited by, a row for each published period.

    Empty when no published period covers any of it: then the quota alone limits.
    """
    periods = session.scalars(
        select(Period)
        .where(
            Period.cluster_id == quota.cluster_id,
            Period.gpu_type == quota.gpu_type,
            Period.state == PeriodState.PUBLISHED,
            Period.starts_at < ends_at,
            Period.ends_at > starts_at,
        )
        .order_by(Period.starts_at)
    ).all()
    return [_room(session, quota.id, period) for period in periods]


def rooms_of(
    session: Session, cluster: Cluster, gpu_type: str, quota_ids: Iterable[int], *, since: datetime
) -> dict[int, list[Room]]:
    """``rooms`` from ``since`` on for many quotas of one kind. Three queries, and two for each period."""
    ids = list(quota_ids)
    periods = session.scalars(
        select(Period)
        .where(
            Period.cluster_id == cluster.id,
            Period.gpu_type == gpu_type,
            Period.state == PeriodState.PUBLISHED,
            Period.ends_at > since,
        )
        .order_by(Period.starts_at)
    ).all()
    issued = {
        (grant.period_id, grant.quota_id): grant.current
        for grant in session.scalars(
            select(Grant)
            .where(Grant.period_id.in_([period.id for period in periods]), Grant.quota_id.in_(ids))
            .options(selectinload(Grant.changes))
            .execution_options(populate_existing=True)
        )
    }
    rooms: dict[int, list[Room]] = {number: [] for number in ids}
    for period in periods:
        charged = ledger.charged_within(session, ids, (period.starts_at, period.ends_at))
        for number in ids:
            granted = issued.get((period.id, number), 0)
            rooms[number].append(Room(period, granted, charged.get(number, 0)))
    return rooms


def _room(session: Session, quota_id: int, period: Period) -> Room:
    grant = _find(session, period.id, quota_id)
    window = (period.starts_at, period.ends_at)
    charged = ledger.charged_within(session, [quota_id], window).get(quota_id, 0)
    return Room(period, grant.current if grant else 0, charged)


def room(session: Session, grant: Grant) -> Room:
    """The room of one grant."""
    window = (grant.period.starts_at, grant.period.ends_at)
    charged = ledger.charged_within(session, [grant.quota_id], window).get(grant.quota_id, 0)
    return Room(grant.period, grant.current, charged)


def _find(session: Session, period_id: int, quota_id: int) -> Grant | None:
    return session.scalar(
        select(Grant)
        .where(Grant.period_id == period_id, Grant.quota_id == quota_id)
        .options(selectinload(Grant.changes))
        .execution_options(populate_existing=True)
    )


def of_period(session: Session, period: Period) -> Sequence[Grant]:
    """All grants of a period with what their pages show, the largest first."""
    return session.scalars(
        select(Grant)
        .where(Grant.period_id == period.id)
        .options(
            selectinload(Grant.changes),
            joinedload(Grant.claim),
            joinedload(Grant.quota).joinedload(Quota.application).joinedload(Application.organisation),
        )
        .order_by(Grant.gpu_seconds.desc(), Grant.id)
        .execution_options(populate_existing=True)
    ).all()


def give_back(
    session: Session,
    actor: Actor,
    grant: Grant,
    gpu_hours: int,
    *,
    reason: str = "",
    policy: Policy,
    now: datetime,
) -> GrantChange:
    """Hours that their holder will not use go back, and earn credit. Raises Invalid (``gpu_hours``)."""
    require(actor, Action.QUOTA_MANAGE, grant.quota)
    _hold(session, grant.period, now)
    session.expire(grant, ["changes"])
    most = room(session, grant).available // HOUR
    if not 1 <= gpu_hours <= most:
        raise Invalid({"gpu_hours": [_between(1, most)]})
    owed = credits.record_return(session, grant, gpu_hours, policy, now)
    facts = {"credited_gpu_hours": owed}
    return change(session, actor, grant, GrantChangeKind.RETURNED, -gpu_hours * HOUR, reason, now, facts)


def change(
    session: Session,
    actor: Actor,
    grant: Grant,
    kind: GrantChangeKind,
    gpu_seconds: int,
    reason: str,
    now: datetime,
    facts: dict[str, int] | None = None,
) -> GrantChange:
    """Write one change of a grant and its event; who calls it has checked that it may be."""
    if fault := text_fault(reason, MAX_REASON, lines=True):
        raise Invalid({"reason": [fault]})
    row = GrantChange(
        grant=grant,
        kind=kind,
        gpu_seconds=gpu_seconds,
        reason=reason.strip(),
        changed_by_id=actor.person_id,
        changed_at=now,
    )
    session.add(row)
    session.flush()
    after = {"gpu_seconds": gpu_seconds, "current": grant.current, **(facts or {})}
    events.record(session, actor, grant, f"grant.{kind.value}", now=now, reason=row.reason, after=after)
    return row


def reserve_of(session: Session, period: Period) -> int:
    """GPU-hours for late approvals: the reserve, and what the division left because nobody asked for it."""
    granted = session.scalar(select(func.sum(Grant.gpu_seconds)).where(Grant.period_id == period.id))
    return period.reserve + period.capacity - int(granted or 0) // HOUR


def reserve_left(session: Session, period: Period) -> int:
    """GPU-hours of ``reserve_of`` that nobody has been given yet."""
    return reserve_of(session, period) - _sum(session, period, GrantChangeKind.RESERVE) // HOUR


def returned_left(session: Session, period: Period) -> int:
    """GPU-hours that were given or taken back and not divided again yet."""
    back = -_sum(session, period, *BACK)
    return (back - _sum(session, period, GrantChangeKind.REDIVIDED)) // HOUR


def _sum(session: Session, period: Period, *kinds: GrantChangeKind) -> int:
    total = session.scalar(
        select(func.coalesce(func.sum(GrantChange.gpu_seconds), 0))
        .join(Grant, Grant.id == GrantChange.grant_id)
        .where(Grant.period_id == period.id, GrantChange.kind.in_(kinds))
    )
    return int(total or 0)


def waiting(session: Session, period: Period) -> Sequence[Quota]:
    """Active quotas valid in a published period that have no grant there: approved too late for it."""
    granted = select(Grant.quota_id).where(Grant.period_id == period.id)
    late = quotas.usable_in(period).where(Quota.id.not_in(granted))
    whose = joinedload(Quota.application).joinedload(Application.organisation)
    return session.scalars(late.options(whose)).all()


def serve_from_reserve(
    session: Session,
    actor: Actor,
    period: Period,
    quota: Quota,
    gpu_hours: int,
    reason: str,
    *,
    now: datetime,
) -> Grant:
    """Hours of the reserve for a late approval or an outage. Raises Invalid (``gpu_hours``, ``reason``)."""
    require(actor, Action.PERIOD_OPERATE, period)
    require(actor, Action.PERIOD_ADJUST, quota)
    _hold(session, period, now)
    session.refresh(quota)  # it may have been closed while we waited
    if (quota.cluster_id, quota.gpu_type) != (period.cluster_id, period.gpu_type):
        raise NotFound()
    if quota.state is not QuotaState.ACTIVE:
        raise WrongState(N_("This quota is closed: nothing can be booked on it any more."))
    faults: dict[str, list[Fault]] = {}
    # hours that the quota could not spend would only be missing elsewhere
    spendable = ledger.balance(session, quota).available - _room(session, quota.id, period).available
    most = min(reserve_left(session, period), spendable // HOUR)
    if not 1 <= gpu_hours <= most:
        faults["gpu_hours"] = [_between(1, most)]
    if not reason.strip():
        faults["reason"] = [Fault(N_("Give the reason: the applicant is told it word for word."))]
    if faults:
        raise Invalid(faults)
    grant = _find(session, period.id, quota.id)
    if grant is None:
        grant = Grant(period=period, quota=quota, gpu_seconds=0, granted_at=now)
        session.add(grant)
        session.flush()
    change(session, actor, grant, GrantChangeKind.RESERVE, gpu_hours * HOUR, reason, now)
    credits.record_later(session, grant, gpu_hours, now)
    period_letters.more(session, grant, gpu_hours * HOUR, now=now)
    return grant


def redivision(session: Session, period: Period) -> list[tuple[Grant, int]]:
    """How hours that came back would be divided now: (grant, GPU-hours) of everybody who would gain.

    By the same weights among those who asked for more than they have; pools do not count, as their
    guarantees were met when the period was published. Who gave hours back, or lost them, is not asked.
    """
    pot = returned_left(session, period)
    grants = {str(grant.id): grant for grant in of_period(session, period)}
    claims = [
        Claim(key, "returned", grant.claim.request - grant.current // HOUR, grant.claim.weight)
        for key, grant in grants.items()
        if grant.claim
        and grant.quota.state is QuotaState.ACTIVE
        and grant.claim.request * HOUR > grant.current
        and not any(change.kind in BACK for change in grant.changes)
    ]
    # every round breaks its ties anew, or the same one would always win them
    rounds = sum(
        change.kind is GrantChangeKind.REDIVIDED for one in grants.values() for change in one.changes
    )
    division = divide(pot, [Pool("returned")], claims, period=f"{period.name}+{rounds}")
    return [(grants[key], hours) for key, hours in division.shares.items() if hours]


def redivide(session: Session, actor: Actor, period: Period, *, now: datetime) -> list[GrantChange]:
    """Divide what came back. One person may: the rule leaves nothing to choose."""
    require(actor, Action.PERIOD_OPERATE, period)
    _hold(session, period, now)
    made = []
    for grant, hours in redivision(session, period):
        made.append(change(session, actor, grant, GrantChangeKind.REDIVIDED, hours * HOUR, "", now))
        credits.record_later(session, grant, hours, now)
        period_letters.more(session, grant, hours * HOUR, now=now)
    return made


def _hold(session: Session, period: Period, now: datetime) -> None:
    """Wait for the cluster, as bookings do, so that nobody books what is just going away."""
    capacity.lock(session, period.cluster)
    session.refresh(period)
    if period.state is not PeriodState.PUBLISHED or period.ends_at <= now:
        raise WrongState(N_("Grants change only while their period is published and not over."))


def _between(least: int, most: int) -> Fault:
    if most < least:
        return Fault(N_("Nothing is left of this."))
    return Fault(
        N_("Enter a number of GPU-hours from %(least)s to %(most)s."), {"least": least, "most": most}
    )
