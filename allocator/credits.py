"""Credit: what a period owes to those whom earlier ones served below their entitlement, and the other way.

For a holder (an organisation, or a person who applies alone) in one pool of one cluster and GPU type:

    credit = 1 + strength · Σ decay^age · (entitled - served) / Σ decay^age · entitled

bounded by the policy. ``entitled`` is what the same division would have given without credits, minimums and
persons' adjustments, ``served`` what was published; hours given back count as a shortfall by a part that the
policy names. ``age`` is 1 for the period before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.divisions import without_credit
from allocator.models import Application, Credit, Grant, Period, Proposal
from allocator.policy import CreditRules, Policy
from allocator.states import PeriodState

MEMORY = 12  # periods: what is left of an older credit is too small to be worth explaining
DIVISION, RETURNED = "division", "returned"
OVER = (PeriodState.PUBLISHED, PeriodState.CLOSED)


class Holder(NamedTuple):
    """Whom a credit belongs to; exactly one of the ids is set."""

    organisation_id: int | None
    person_id: int | None
    pool: str


def holder_of(application: Application, pool: str) -> Holder:
    if application.organisation_id is not None:
        return Holder(application.organisation_id, None, pool)
    return Holder(None, application.applicant_id, pool)


def factors(session: Session, period: Period, policy: Policy) -> dict[Holder, Fraction]:
    """The credit of everybody who has one when ``period`` begins; who is missing has 1."""
    earlier = session.scalars(
        select(Period.id)
        .where(
            Period.cluster_id == period.cluster_id,
            Period.gpu_type == period.gpu_type,
            Period.state.in_(OVER),
            Period.starts_at < period.starts_at,
        )
        .order_by(Period.starts_at.desc())
        .limit(MEMORY)
    ).all()
    ages = {period_id: age for age, period_id in enumerate(earlier, start=1)}
    rows: dict[Holder, list[tuple[int, Credit]]] = defaultdict(list)
    for credit in session.scalars(select(Credit).where(Credit.period_id.in_(earlier)).order_by(Credit.id)):
        holder = Holder(credit.organisation_id, credit.person_id, credit.pool)
        rows[holder].append((ages[credit.period_id], credit))
    return {
        holder: factor([(age, one.entitled, one.served) for age, one in found], policy.credit)
        for holder, found in rows.items()
    }


def factor(history: Sequence[tuple[int, int, int]], rules: CreditRules) -> Fraction:
    """The bounded credit of (age, entitled, served) rows, exactly; without entitlement 1."""
    owed = sum((rules.decay**age * (entitled - served) for age, entitled, served in history), Fraction(0))
    entitled = sum((rules.decay**age * entitled for age, entitled, _ in history), Fraction(0))
    if not entitled:
        return Fraction(1)
    return rules.bounded(1 + rules.strength * owed / entitled)


def record_division(session: Session, proposal: Proposal, now: datetime) -> None:
    """What everybody was entitled to and got, summed by holder: written when a proposal is published."""
    entitled = without_credit(proposal.period).divide().shares
    sums: dict[Holder, list[int]] = defaultdict(lambda: [0, 0])
    for share in proposal.shares:
        claim = share.claim
        both = sums[holder_of(claim.quota.application, claim.pool)]
        both[0] += entitled[claim.reference]
        both[1] += share.gpu_hours
    for holder, (due, served) in sums.items():
        session.add(_row(proposal.period_id, holder, DIVISION, due, served, now))


def record_return(session: Session, grant: Grant, gpu_hours: int, policy: Policy, now: datetime) -> int:
    """The part of hours given back that counts as a shortfall, in GPU-hours; returns it."""
    pool = grant.claim.pool if grant.claim else None
    owed = int(gpu_hours * policy.credit.returned)
    if pool is None or not owed:
        return 0
    session.add(_row(grant.period_id, holder_of(grant.quota.application, pool), RETURNED, owed, 0, now))
    return owed


def _row(period_id: int, holder: Holder, cause: str, entitled: int, served: int, now: datetime) -> Credit:
    return Credit(
        period_id=period_id,
        organisation_id=holder.organisation_id,
        person_id=holder.person_id,
        pool=holder.pool,
        cause=cause,
        entitled=entitled,
        served=served,
        recorded_at=now,
    )
