"""Replay: a period recomputed from what was recorded, to say identical or where not (R-15, R-22)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy.orm import Session

from allocator import divisions, period_inputs, policies
from allocator.errors import KezekError, NotFound
from allocator.models import Grant, Period, PeriodClaim, Proposal
from allocator.period_queries import grants_as_published, published_proposal, with_shares
from allocator.policy import Policy

HOUR = 3600


@dataclass(frozen=True)
class Mismatch:
    """One number that does not come out again; ``what`` is pool, weight, share, grant or division."""

    what: str
    reference: str
    recorded: str
    computed: str


@dataclass(frozen=True)
class Replay:
    """``policy_found``: whether that version of the policy is recorded, so that weights were checked too."""

    period: str
    policy_version: str
    policy_found: bool
    proposals: int
    shares: int
    mismatches: tuple[Mismatch, ...]

    @property
    def identical(self) -> bool:
        return not self.mismatches


def replay(session: Session, period: Period) -> Replay:
    """Recompute every proposal of the period, its weights and pools by its policy, and its grants."""
    policy = _policy(session, period.policy_version)
    mismatches = list(_weights(period, policy))
    if policy is not None:
        mismatches += _pools(period, policy)
    proposals = with_shares(session, period)
    for proposal in proposals:
        mismatches += _shares(proposal)
    published = published_proposal(session, period)
    if published is not None:
        mismatches += _grants(published, grants_as_published(session, period))
    count = sum(len(proposal.shares) for proposal in proposals)
    found = policy is not None
    return Replay(period.name, period.policy_version, found, len(proposals), count, tuple(mismatches))


def _policy(session: Session, version: str) -> Policy | None:
    try:
        return policies.find(session, version)
    except NotFound:
        return None


def _weights(period: Period, policy: Policy | None) -> Iterator[Mismatch]:
    for claim in period.claims:
        product = Fraction(1)
        for factor in claim.factors:
            product *= Fraction(factor["value"])
            ruled = _ruled(factor, policy)
            if ruled is not None and ruled != Fraction(factor["value"]):
                yield Mismatch(factor["factor"], claim.reference, factor["value"], str(ruled))
        if product != claim.weight:
            yield Mismatch("weight", claim.reference, str(claim.weight), str(product))
        if fault := _amounts(claim):
            yield fault


def _amounts(claim: PeriodClaim) -> Mismatch | None:
    wanted = min(claim.remaining, claim.pace if claim.planned is None else claim.planned)
    if claim.request == wanted:
        return None
    return Mismatch("request", claim.reference, str(claim.request), str(wanted))


def _ruled(factor: dict[str, str], policy: Policy | None) -> Fraction | None:
    """What the recorded policy says of a factor; None for a credit, which comes from earlier periods."""
    if policy is None or factor["factor"] == "credit":
        return None
    if factor["factor"] == "merit":
        band = policy.merit_band(factor["name"])
        return band.factor if band else None
    sector = policy.sector(factor["name"]) if factor["name"] else None
    return sector.weight if sector else Fraction(1)


def _pools(period: Period, policy: Policy) -> Iterator[Mismatch]:
    computed = {pool.slug: pool for pool in period_inputs.pools_of(period.capacity, policy)}
    for pool in period.pools:
        other = computed.get(pool.slug)
        recorded = (pool.guarantee, pool.cap, pool.weight)
        ruled = (other.guarantee, other.cap, other.weight) if other else None
        if recorded != ruled:
            yield Mismatch("pool", pool.slug, str(recorded), str(ruled))


def _shares(proposal: Proposal) -> Iterator[Mismatch]:
    try:
        division = divisions.division_of(proposal)
    except KezekError as error:
        yield Mismatch("division", str(proposal.number), "", str(error))
        return
    for share in proposal.shares:
        computed = division.shares[share.claim.reference]
        if computed != share.gpu_hours:
            reference = f"{proposal.number}/{share.claim.reference}"
            yield Mismatch("share", reference, str(share.gpu_hours), str(computed))
    slugs = [pool.slug for pool in proposal.period.pools]
    for recorded, again in zip(proposal.pools, divisions.pools_of(division, slugs), strict=False):
        if recorded != again:
            yield Mismatch("pool", f"{proposal.number}/{again['slug']}", str(recorded), str(again))


def _grants(proposal: Proposal, grants: dict[int, Grant]) -> Iterator[Mismatch]:
    for share in proposal.shares:
        grant = grants.get(share.claim_id)
        recorded = grant.gpu_seconds if grant else None
        if recorded != share.gpu_hours * HOUR:
            yield Mismatch("grant", share.claim.reference, str(recorded), str(share.gpu_hours * HOUR))
