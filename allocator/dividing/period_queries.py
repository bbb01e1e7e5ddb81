"""What the pages and commands about periods read; what an actor may not see does not exist."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import Select, func, select, true
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.errors import NotFound
from allocator.fairshare import PoolBound
from allocator.models import (
    Adjustment,
    Application,
    Grant,
    Organisation,
    Period,
    PeriodClaim,
    Person,
    Proposal,
    ProposalShare,
    Quota,
    Reclaim,
)
from allocator.states import PeriodState, ProposalState

PUBLIC = (PeriodState.PUBLISHED, PeriodState.CLOSED)
SET_ASIDE = "set_aside"


@dataclass(frozen=True)
class Row:
    """One claim of a proposal as staff see it; ``factors`` as in PeriodClaim."""

    quota_id: int
    pool: str
    title: str
    holder: str
    request: int
    weight: Fraction
    factors: list[Any]
    share: int
    is_fixed: bool
    is_set_aside: bool


@dataclass(frozen=True)
class PoolRow:
    """One pool of a proposal: what was wanted, promised, given and lent, whole GPU-hours.

    ``demand`` is all that was asked for, also by claims that were set aside or fixed lower by a person, which
    the division does not count. ``level`` is GPU-hours per point of weight; None when there was no need of
    one. ``bound`` is a PoolBound or "set_aside".
    """

    slug: str
    claims: int
    demand: int
    guarantee: int
    cap: int | None
    weight: Fraction
    share: int
    bound: str
    level: Fraction | None
    lent: int
    borrowed: int


def list_periods(actor: Actor) -> Select[Period]:
    """All periods, the latest first."""
    require(actor, Action.PERIOD_VIEW)
    return (
        select(Period).options(joinedload(Period.cluster)).order_by(Period.starts_at.desc(), Period.id.desc())
    )


def published_periods() -> Select[Period]:
    """What everybody may see: periods that are in force or over, the latest first."""
    return (
        select(Period)
        .where(Period.state.in_(PUBLIC))
        .options(joinedload(Period.cluster))
        .order_by(Period.starts_at.desc(), Period.id.desc())
    )


def find_period(session: Session, actor: Actor, period_id: int) -> Period:
    """One period with its pools; its claims come in one query when they are asked for.

    Raises NotFound for what the actor may not see.
    """
    period = session.scalar(_whole_period().where(Period.id == period_id))
    if period is None:
        require(actor, Action.APPLICATION_CREATE)  # a visitor learns to sign in, and nothing else
        raise NotFound()
    require(actor, Action.PERIOD_VIEW, period)
    return period


def find_published(session: Session, period_id: int) -> Period:
    """One period that everybody may see. Raises NotFound for any other."""
    period = session.scalar(_whole_period().where(Period.id == period_id, Period.state.in_(PUBLIC)))
    if period is None:
        raise NotFound()
    return period


def _whole_period() -> Select[Period]:
    return select(Period).options(joinedload(Period.cluster), selectinload(Period.pools))


def demand(session: Session, period: Period) -> tuple[int, int]:
    """How many claims a period has, and the GPU-hours that they ask for together."""
    count, asked = session.execute(
        select(func.count(), func.coalesce(func.sum(PeriodClaim.request), 0)).where(
            PeriodClaim.period_id == period.id
        )
    ).one()
    return int(count), int(asked)


def find_proposal(session: Session, actor: Actor, proposal_id: int) -> Proposal:
    """One proposal with its period and what persons set; its shares come in one query when asked for.

    Raises NotFound as ``find_period``.
    """
    proposal = session.scalar(select(Proposal).where(Proposal.id == proposal_id).options(*_around()))
    if proposal is None:
        require(actor, Action.APPLICATION_CREATE)
        raise NotFound()
    require(actor, Action.PERIOD_VIEW, proposal.period)
    return proposal


def proposals(session: Session, period: Period) -> Sequence[Proposal]:
    """All proposals and what-ifs of a period without their shares, the latest first."""
    return session.scalars(
        select(Proposal)
        .where(Proposal.period_id == period.id)
        .options(joinedload(Proposal.created_by), selectinload(Proposal.adjustments))
        .order_by(Proposal.number.desc())
    ).all()


def latest_proposal(session: Session, period: Period) -> Proposal | None:
    """The published one, else the newest that is no what-if, as ``find_proposal``."""
    published = Proposal.state == ProposalState.PUBLISHED
    return session.scalar(
        select(Proposal)
        .where(Proposal.period_id == period.id, Proposal.kind == "proposal")
        .options(*_around())
        .order_by(published.desc(), Proposal.number.desc())
        .limit(1)
    )


def published_proposal(session: Session, period: Period) -> Proposal | None:
    """The one that is in force, as ``find_proposal``."""
    return session.scalar(
        select(Proposal)
        .where(Proposal.period_id == period.id, Proposal.state == ProposalState.PUBLISHED)
        .options(*_around())
    )


def with_shares(session: Session, period: Period, only: Collection[int] | None = None) -> Sequence[Proposal]:
    """All proposals and what-ifs, or only these, with their shares and adjustments, by number."""
    wanted = Proposal.id.in_(only) if only is not None else true()
    return session.scalars(
        select(Proposal)
        .where(Proposal.period_id == period.id, wanted)
        .options(
            selectinload(Proposal.shares).joinedload(ProposalShare.claim),
            selectinload(Proposal.adjustments).joinedload(Adjustment.claim),
        )
        .order_by(Proposal.number)
        .execution_options(populate_existing=True)
    ).all()


def _around() -> tuple[ORMOption, ...]:
    adjustments = selectinload(Proposal.adjustments)
    return (
        joinedload(Proposal.period).joinedload(Period.cluster),
        joinedload(Proposal.period).selectinload(Period.pools),
        joinedload(Proposal.created_by),
        adjustments.joinedload(Adjustment.claim),
        adjustments.joinedload(Adjustment.adjusted_by),
    )


def rows(session: Session, proposal: Proposal) -> list[Row]:
    """The claims of a proposal by their numbers: columns only, as there may be ten thousand."""
    found = session.execute(
        select(
            PeriodClaim.quota_id,
            PeriodClaim.pool,
            Application.title,
            func.coalesce(Organisation.name, Person.name).label("holder"),
            PeriodClaim.request,
            PeriodClaim.weight,
            PeriodClaim.factors,
            ProposalShare.gpu_hours.label("share"),
            ProposalShare.is_fixed,
            ProposalShare.is_set_aside,
        )
        .join(ProposalShare.claim)
        .join(PeriodClaim.quota)
        .join(Quota.application)
        .join(Application.applicant)
        .outerjoin(Application.organisation)
        .where(ProposalShare.proposal_id == proposal.id)
        .order_by(PeriodClaim.id)
    )
    return [Row(**row._mapping) for row in found]


def pool_rows(proposal: Proposal) -> list[PoolRow]:
    """The pools of a proposal in the policy's order."""
    requests = proposal.scenario.get("requests", {})
    shares: dict[str, list[ProposalShare]] = {}
    for share in proposal.shares:
        shares.setdefault(share.claim.pool, []).append(share)
    return [
        PoolRow(
            slug=pool["slug"],
            claims=len(shares.get(pool["slug"], ())),
            demand=sum(_asked(share, requests) for share in shares.get(pool["slug"], ())),
            guarantee=pool["guarantee"],
            cap=pool["cap"],
            weight=Fraction(pool["weight"]),
            share=pool["share"],
            bound=_bound(pool["bound"], shares.get(pool["slug"], ()), requests),
            level=None if pool["level"] is None else Fraction(pool["level"]),
            lent=pool["lent"],
            borrowed=pool["borrowed"],
        )
        for pool in proposal.pools
    ]


def _asked(share: ProposalShare, requests: Mapping[str, int]) -> int:
    return requests.get(share.claim.reference, share.claim.request)


def _bound(bound: str, shares: Sequence[ProposalShare], requests: Mapping[str, int]) -> str:
    """The division's word, but where a pool has "all that was asked for" only because claims left it."""
    short = [share for share in shares if share.gpu_hours < _asked(share, requests)]
    if bound != PoolBound.DEMAND or not short:
        return bound
    return PoolBound.FIXED if any(share.is_fixed for share in short) else SET_ASIDE


def grants_of(session: Session, quota: Quota) -> Sequence[Grant]:
    """The grants of a quota with their changes, the latest period first."""
    return session.scalars(
        select(Grant)
        .join(Grant.period)
        .where(Grant.quota_id == quota.id)
        .options(joinedload(Grant.period), joinedload(Grant.claim), selectinload(Grant.changes))
        .order_by(Period.starts_at.desc())
    ).all()


def reclaims(session: Session, period: Period) -> Sequence[Reclaim]:
    """Every warning and what became of it, open ones first."""
    return session.scalars(
        select(Reclaim)
        .join(Reclaim.grant)
        .where(Grant.period_id == period.id)
        .options(
            joinedload(Reclaim.grant)
            .joinedload(Grant.quota)
            .joinedload(Quota.application)
            .joinedload(Application.organisation)
        )
        .order_by(Reclaim.decided_at.is_not(None), Reclaim.id)
    ).all()


def open_periods(session: Session, quota: Quota) -> Sequence[Period]:
    """Drafts for which the quota's holder can still say what it plans."""
    return session.scalars(
        select(Period)
        .where(
            Period.cluster_id == quota.cluster_id,
            Period.gpu_type == quota.gpu_type,
            Period.state == PeriodState.DRAFT,
            Period.starts_at < quota.valid_until,
            Period.ends_at > quota.valid_from,
        )
        .order_by(Period.starts_at)
    ).all()
