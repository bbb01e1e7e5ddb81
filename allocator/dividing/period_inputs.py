"""What a period is divided by: capacity of the calendar, pools of the policy, claims of the quotas."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from allocator import ledger
from allocator.applying import quotas
from allocator.dividing import credits
from allocator.errors import Fault, Invalid
from allocator.fairshare.credit import Credit
from allocator.fairshare.model import digest
from allocator.models import (
    Application,
    Cluster,
    Node,
    NodeSlot,
    NodeState,
    Period,
    PeriodClaim,
    PeriodPlan,
    PeriodPool,
    Quota,
)
from allocator.policy import Policy
from config.i18n import N_

HOUR = 3600
MERIT_STEPS = 10**6  # merit factors are compared to the millionth


@dataclass(frozen=True)
class Capacity:
    """GPU-hours of a window: ``calendar`` less ``maintenance`` less ``reserve`` is divided.

    Of ``gpus``, so many join or leave within it (``gpus_partly``) and so many stand still now
    (``gpus_away``); ``outages`` are GPU-hours that published outages and maintenance take.
    """

    calendar: int
    maintenance: int
    reserve: int
    gpus: int
    gpus_partly: int
    gpus_away: int
    outages: int
    hours: int
    reserve_percent: int

    @property
    def capacity(self) -> int:
        return self.calendar - self.maintenance - self.reserve

    def details(self) -> dict[str, Any]:
        """Where the numbers came from, for the period's row and its page."""
        return {
            "gpus": self.gpus,
            "gpus_partly": self.gpus_partly,
            "gpus_away": self.gpus_away,
            "outages": self.outages,
            "hours": self.hours,
            "reserve_percent": self.reserve_percent,
        }


def capacity_of(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    window: tuple[datetime, datetime],
    policy: Policy,
    maintenance: int | None = None,
    reserve: int | None = None,
) -> Capacity:
    """All GPUs of the type while they are there in the window, less what stands still, less the reserve.

    Maintenance left out is what published outages take (R-8) and what nodes that are down or drained now
    would miss; the reserve left out is the policy's percentage of the rest. Raises Invalid
    (``maintenance``, ``reserve``) beyond what there is.
    """
    stays = _stays(session, cluster, gpu_type, window)
    whole = (window[1] - window[0]).total_seconds()
    calendar = sum(stay.gpus * stay.seconds for stay in stays.values()) // HOUR
    away = [stay for stay in stays.values() if stay.away]
    outages = _outages(session, {key: stay for key, stay in stays.items() if not stay.away}) // HOUR
    missed = sum(stay.gpus * stay.seconds for stay in away) // HOUR + outages
    lost = missed if maintenance is None else maintenance
    if not 0 <= lost <= calendar:
        raise Invalid({"maintenance": [_between(calendar)]})
    percent = policy.periods.reserve_percent
    kept = (calendar - lost) * percent // 100 if reserve is None else reserve
    if not 0 <= kept <= calendar - lost:
        raise Invalid({"reserve": [_between(calendar - lost)]})
    return Capacity(
        calendar,
        lost,
        kept,
        gpus=sum(stay.gpus for stay in stays.values()),
        gpus_partly=sum(stay.gpus for stay in stays.values() if stay.seconds < whole),
        gpus_away=sum(stay.gpus for stay in away),
        outages=outages,
        hours=int(whole) // HOUR,
        reserve_percent=percent,
    )


@dataclass(frozen=True)
class _Stay:
    """A node while it is there within the window."""

    gpus: int
    away: bool
    since: datetime
    until: datetime

    @property
    def seconds(self) -> int:
        return int((self.until - self.since).total_seconds())


def _stays(
    session: Session, cluster: Cluster, gpu_type: str, window: tuple[datetime, datetime]
) -> dict[int, _Stay]:
    nodes = session.execute(
        select(Node.id, Node.gpus, Node.state, Node.joins_at, Node.leaves_at).where(
            Node.cluster_id == cluster.id, Node.gpu_type == gpu_type, Node.state != NodeState.GONE
        )
    )
    away = (NodeState.DOWN, NodeState.DRAINED)
    since, until = window
    stays = {
        key: _Stay(gpus, state in away, max(since, joins or since), min(until, leaves or until))
        for key, gpus, state, joins, leaves in nodes
    }
    return {key: stay for key, stay in stays.items() if stay.since < stay.until}


def _outages(session: Session, stays: Mapping[int, _Stay]) -> int:
    """GPU-seconds that published outages take of these stays; the slots of one node never overlap."""
    if not stays:
        return 0
    slots = session.execute(
        select(
            NodeSlot.node_id, NodeSlot.gpu_to - NodeSlot.gpu_from, NodeSlot.starts_at, NodeSlot.ends_at
        ).where(
            NodeSlot.outage_id.is_not(None),
            NodeSlot.starts_at < max(stay.until for stay in stays.values()),
            NodeSlot.ends_at > min(stay.since for stay in stays.values()),
        )
    )
    seconds = 0
    for node, gpus, starts_at, ends_at in slots:
        if stay := stays.get(node):
            common = min(ends_at, stay.until) - max(starts_at, stay.since)
            seconds += gpus * max(0, int(common.total_seconds()))
    return seconds


def _between(most: int) -> Fault:
    return Fault(N_("Enter a number of GPU-hours from 0 to %(most)s."), {"most": most})


def pools_of(capacity: int, policy: Policy) -> list[PeriodPool]:
    """The policy's pools with guarantees and caps in GPU-hours.

    Pools and reserve make 100 %, and the reserve is out already: a pool of 30 % is 30/95 of the capacity.
    """
    whole = 100 - policy.periods.reserve_percent
    return [
        PeriodPool(
            slug=pool.slug,
            position=position,
            guarantee=capacity * pool.percent // whole,
            cap=None if pool.cap_percent is None else min(capacity, capacity * pool.cap_percent // whole),
            weight=pool.weight,
        )
        for position, pool in enumerate(policy.pools)
    ]


def gather(session: Session, period: Period, policy: Policy, key: bytes, now: datetime) -> list[PeriodClaim]:
    """A claim for each active quota that is valid in the period and wants something of it, by its id."""
    quotas = _quotas(session, period)
    ids = [quota.id for quota in quotas]
    balances = ledger.balances(session, ids)
    booked = ledger.charged_within(session, ids, (period.starts_at, period.ends_at))
    plans = {
        plan.quota_id: plan
        for plan in session.scalars(select(PeriodPlan).where(PeriodPlan.period_id == period.id))
    }
    earned = credits.of_period(session, period, policy, now)
    claims = []
    for quota in quotas:
        # what is booked inside the period already needs a grant there, so it counts as still to be had
        balance = balances[quota.id]
        left = max(balance.granted - balance.charged + booked.get(quota.id, 0), 0) // HOUR
        pool = _pool(quota, policy)
        credit = earned.get((pool, credits.holder_of(quota.application, pool).key))
        claim = _claim(period, quota, left, plans.get(quota.id), policy, credit, now)
        claim.reference = reference(key, quota.id)
        # the last resort between equals is public and chosen by nobody
        claim.rank = [*claim.rank, digest(period.name, claim.reference)]
        if claim.request > 0:
            claims.append(claim)
    return claims


def _quotas(session: Session, period: Period) -> Sequence[Quota]:
    application = joinedload(Quota.application)
    whose = application.joinedload(Application.organisation)
    return session.scalars(
        quotas.usable_in(period).options(whose, application.joinedload(Application.decision))
    ).all()


def _pool(quota: Quota, policy: Policy) -> str:
    category = policy.category(quota.application.category)
    # a category that a newer policy no longer has is served where nobody has a claim before it
    return category.pool if category else policy.pools[-1].slug


def _claim(
    period: Period,
    quota: Quota,
    remaining: int,
    plan: PeriodPlan | None,
    policy: Policy,
    credit: Credit | None,
    now: datetime,
) -> PeriodClaim:
    application = quota.application
    band = application.decision.merit_band if application.decision else None
    if band and policy.merit_band(band) is None:
        band = None  # a newer policy no longer has it: one old decision must not stop everybody's period
    activity = application.organisation.activity if application.organisation else None
    weight = policy.weight_of(activity, band, credit.factor if credit else Fraction(1))
    pace = even_pace(quota, period, remaining, now)
    request = min(remaining, plan.request if plan else pace)
    names = {"sector": weight.sector.slug if weight.sector else None, "merit": weight.merit_band.slug}
    submitted = (application.submitted_at or application.created_at).astimezone(UTC)
    return PeriodClaim(
        quota_id=quota.id,
        category=application.category,
        pool=_pool(quota, policy),
        remaining=remaining,
        planned=plan.request if plan else None,
        pace=pace,
        request=request,
        minimum=min(plan.minimum, request) if plan else 0,
        weight=weight.total,
        factors=[
            {
                "factor": factor,
                "name": names.get(factor),
                "value": str(value),
                **(_origin(credit) if factor == "credit" and credit else {}),
            }
            for factor, value in weight.factors.items()
        ],
        rank=[-int(weight.merit_band.factor * MERIT_STEPS), submitted.isoformat()],
    )


def _origin(credit: Credit) -> dict[str, str]:
    """The numbers that a credit came from, in GPU-hours as exact text."""
    return {"entitled": str(credit.entitled), "served": str(credit.served), "usual": str(credit.usual)}


def even_pace(quota: Quota, period: Period, remaining: int, now: datetime) -> int:
    """GPU-hours of ``remaining`` that fall into the period when they are spread evenly, rounded up."""
    begins = max(now, quota.valid_from)
    ahead = int((quota.valid_until - begins).total_seconds())
    since, until = max(begins, period.starts_at), min(quota.valid_until, period.ends_at)
    inside = int((until - since).total_seconds())
    if inside <= 0 or ahead <= 0:
        return 0
    return -(-remaining * inside // ahead)


def reference(key: bytes, quota_id: int) -> str:
    """The quota's pseudonym: the same in every period, and meaningless to who has not the site's key."""
    return "q" + hmac.new(key, f"kezek quota {quota_id}".encode(), "sha256").hexdigest()[:15]


def pseudonym_key(secret: str) -> bytes:
    """The key of pseudonyms, apart from every other use of the site's secret."""
    return hmac.new(secret.encode(), b"kezek pseudonyms of periods", "sha256").digest()
