"""Credit: who was served below the long-run share in earlier periods gets more weight now, and the other way.

The rule is ``fairshare.credit``; here is where its history comes from: every published period of the same
cluster and GPU type, pool by pool, holder by holder (an organisation, or a person who applies alone).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.dividing.divisions import plain_weight
from allocator.fairshare import credit
from allocator.models import Application, Credit, CreditCause, Grant, Period, ProposalShare
from allocator.policy import Policy
from allocator.states import PeriodState

MEMORY = 12  # periods: a year of months; what lies further back neither helps nor harms anybody
OVER = (PeriodState.PUBLISHED, PeriodState.CLOSED)


class Holder(NamedTuple):
    """Whom a credit belongs to; exactly one of the ids is set."""

    organisation_id: int | None
    person_id: int | None
    pool: str

    @property
    def key(self) -> str:
        """A text that sorts, as the division's ids do."""
        return f"o{self.organisation_id}" if self.organisation_id is not None else f"p{self.person_id}"


@dataclass
class _Line:
    requested: int = 0
    served: Fraction = field(default_factory=Fraction)
    weight: Fraction = field(default_factory=Fraction)


def holder_of(application: Application, pool: str) -> Holder:
    return holder(application.organisation_id, application.applicant_id, pool)


def holder(organisation_id: int | None, applicant_id: int, pool: str) -> Holder:
    """The organisation that applied, or else who did."""
    return Holder(organisation_id, None if organisation_id is not None else applicant_id, pool)


def of_period(
    session: Session, period: Period, policy: Policy, at: datetime
) -> dict[tuple[str, str], credit.Credit]:
    """The credit of everybody who has one in ``period``, as it stood ``at`` a moment; two queries.

    By (pool, holder's key). Only published periods count, and of them only what was recorded until then, so
    that a replay finds the same.
    """
    rules = credit.CreditRules(
        minimum=policy.credit.minimum,
        maximum=policy.credit.maximum,
        decay=policy.credit.decay,
        gain=policy.credit.strength,
    )
    found = {}
    for pool, history in _history(session, period, at).items():
        for key, one in credit.credits_of(history, rules).items():
            found[pool, key] = one
    return found


def _history(
    session: Session, period: Period, at: datetime
) -> dict[str, list[Mapping[str, credit.PastClaim]]]:
    """By pool: for each earlier period, the oldest first, what every holder asked for and was served."""
    earlier = session.scalars(
        select(Period.id)
        .where(
            Period.cluster_id == period.cluster_id,
            Period.gpu_type == period.gpu_type,
            Period.state.in_(OVER),
            Period.starts_at < period.starts_at,
            Period.published_at <= at,
        )
        .order_by(Period.starts_at.desc())
        .limit(MEMORY)
    ).all()
    lines: dict[str, dict[int, dict[str, _Line]]] = defaultdict(
        lambda: {period_id: defaultdict(_Line) for period_id in reversed(earlier)}
    )
    recorded = select(Credit).where(Credit.period_id.in_(earlier), Credit.recorded_at <= at)
    for row in session.scalars(recorded.order_by(Credit.id)):
        key = Holder(row.organisation_id, row.person_id, row.pool).key
        line = lines[row.pool][row.period_id][key]
        line.requested += row.requested
        line.served += row.served
        line.weight += row.weight or 0
    return {
        pool: [
            {
                key: credit.PastClaim(line.requested, max(int(line.served), 0), line.weight)
                for key, line in found.items()
                if line.weight
            }
            for found in by_period.values()
        ]
        for pool, by_period in lines.items()
    }


def record_division(session: Session, period_id: int, shares: Iterable[ProposalShare], now: datetime) -> None:
    """What everybody asked for and got, summed by holder: written when a proposal is published."""
    sums: dict[Holder, _Line] = defaultdict(_Line)
    for share in shares:
        line = sums[holder_of(share.claim.quota.application, share.claim.pool)]
        line.requested += share.claim.request
        line.served += share.gpu_hours
        line.weight += plain_weight(share.claim)
    for owner, line in sums.items():
        row = _row(period_id, owner, CreditCause.DIVISION, int(line.served), now)
        row.requested, row.weight = line.requested, line.weight
        session.add(row)


def record_return(session: Session, grant: Grant, gpu_hours: int, policy: Policy, now: datetime) -> int:
    """Hours given back: a part of them, set by the policy, counts as never served. Returns that part."""
    owed = int(gpu_hours * policy.credit.returned)
    return owed if _record(session, grant, CreditCause.RETURNED, -owed, now) else 0


def record_later(session: Session, grant: Grant, gpu_hours: int, now: datetime) -> None:
    """Hours of the reserve or of a re-division count as served as those of the division do."""
    _record(session, grant, CreditCause.LATER, gpu_hours, now)


def _record(session: Session, grant: Grant, cause: CreditCause, served: int, now: datetime) -> bool:
    # who was in no division of this period has no weight there, and so nothing to be compared with
    if grant.claim is None or not served:
        return False
    owner = holder_of(grant.quota.application, grant.claim.pool)
    session.add(_row(grant.period_id, owner, cause, served, now))
    return True


def _row(period_id: int, owner: Holder, cause: CreditCause, served: int, now: datetime) -> Credit:
    return Credit(
        period_id=period_id,
        organisation_id=owner.organisation_id,
        person_id=owner.person_id,
        pool=owner.pool,
        cause=cause,
        requested=0,
        served=served,
        recorded_at=now,
    )
