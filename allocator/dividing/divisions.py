"""From recorded rows to a division and back: the same rows always give the same shares, to the hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from allocator.errors import Invalid
from allocator.fairshare import BadDivision, Claim, Division, Explanation, Pool, divide
from allocator.models import Adjustment, Period, PeriodClaim, Proposal, ProposalShare


@dataclass(frozen=True)
class Inputs:
    """All that a division depends on; amounts in whole GPU-hours, ``fixed`` by a claim's reference."""

    period: str
    capacity: int
    pools: tuple[Pool, ...]
    claims: tuple[Claim, ...]
    fixed: Mapping[str, int]

    def divide(self) -> Division:
        """Raises Invalid (``hours``) when a person's fixed shares and the rest cannot both be kept."""
        try:
            return divide(self.capacity, self.pools, self.claims, period=self.period, fixed=self.fixed)
        except BadDivision as error:
            raise Invalid({"hours": list(error.faults)}) from error

    def fixing(self, fixed: Mapping[str, int]) -> Inputs:
        return replace(self, fixed={**self.fixed, **fixed})


@dataclass(frozen=True)
class Explained:
    """A share with what it came from; ``adjustment`` when a person fixed it."""

    claim: PeriodClaim
    share: int
    division: Division
    explanation: Explanation
    adjustment: Adjustment | None


def inputs_of(period: Period) -> Inputs:
    """The recorded inputs of a period, nothing fixed."""
    pools = tuple(Pool(pool.slug, pool.guarantee, pool.cap, pool.weight) for pool in period.pools)
    claims = tuple(_claim(claim, claim.weight) for claim in period.claims)
    return Inputs(period.name, period.capacity, pools, claims, {})


def _claim(claim: PeriodClaim, weight: Fraction) -> Claim:
    # JSON gives the rank back as a list; only tuples of like parts compare and hash
    rank = tuple(claim.rank)
    return Claim(claim.reference, claim.pool, claim.request, weight, claim.minimum, rank)


def without_credit(period: Period) -> Inputs:
    """The same period, had nobody a credit or a minimum: its division is what everybody is entitled to."""
    inputs = inputs_of(period)
    weights = {claim.reference: plain_weight(claim) for claim in period.claims}
    claims = tuple(replace(claim, weight=weights[claim.id], minimum=0) for claim in inputs.claims)
    return replace(inputs, claims=claims)


def plain_weight(claim: PeriodClaim) -> Fraction:
    """The claim's weight but for its credit."""
    product = Fraction(1)
    for factor in claim.factors:
        if factor["factor"] != "credit":
            product *= Fraction(factor["value"])
    return product


def inputs_of_proposal(proposal: Proposal) -> Inputs:
    """What a proposal was divided by: the period's inputs, a what-if's changes, what persons fixed."""
    inputs = changed(inputs_of(proposal.period), proposal.scenario)
    return inputs.fixing({one.claim.reference: one.after for one in proposal.adjustments})


def changed(inputs: Inputs, scenario: Mapping[str, Any]) -> Inputs:
    """``inputs`` with what a recorded scenario changes: capacity, pools, weights, requests."""
    pools = scenario.get("pools", {})
    weights, requests = scenario.get("weights", {}), scenario.get("requests", {})
    return replace(
        inputs,
        capacity=scenario.get("capacity", inputs.capacity),
        pools=tuple(_changed_pool(pool, pools.get(pool.name, {})) for pool in inputs.pools),
        claims=tuple(_changed_claim(claim, weights, requests) for claim in inputs.claims),
    )


def _changed_pool(pool: Pool, values: Mapping[str, Any]) -> Pool:
    return Pool(
        pool.name,
        values.get("guarantee", pool.guarantee),
        values.get("cap", pool.cap),
        Fraction(values.get("weight", pool.weight)),
    )


def _changed_claim(claim: Claim, weights: Mapping[str, str], requests: Mapping[str, int]) -> Claim:
    request = requests.get(claim.id, claim.request)
    weight = Fraction(weights.get(claim.id, claim.weight))
    return replace(claim, request=request, weight=weight, minimum=min(claim.minimum, request))


def division_of(proposal: Proposal) -> Division:
    """The proposal's division, recomputed from what is recorded."""
    return inputs_of_proposal(proposal).divide()


def explain(proposal: Proposal, claim: PeriodClaim) -> Explained:
    """Why a claim has its share in a proposal (R-15)."""
    division = division_of(proposal)
    adjustment = next((one for one in proposal.adjustments if one.claim_id == claim.id), None)
    share = division.shares[claim.reference]
    return Explained(claim, share, division, division.explain(claim.reference), adjustment)


def shares_of(division: Division, claims: Iterable[PeriodClaim]) -> list[ProposalShare]:
    """The division as rows; hours that went to a claim set aside are in them."""
    return [
        ProposalShare(
            claim=claim,
            gpu_hours=division.shares[claim.reference],
            is_fixed=claim.reference in division.fixed,
            is_set_aside=claim.reference in division.set_aside,
        )
        for claim in claims
    ]


def pools_of(division: Division, order: Iterable[str]) -> list[dict[str, Any]]:
    """The pools' outcome as plain JSON in the policy's order; fractions as text."""
    return [_pool_document(division, name) for name in order]


def _pool_document(division: Division, name: str) -> dict[str, Any]:
    pool = division.pools[name]
    return {
        "slug": name,
        "guarantee": pool.guarantee,
        "cap": pool.cap,
        "weight": str(Fraction(pool.weight)),
        "demand": pool.demand,
        "share": pool.amount,
        "bound": pool.bound.value,
        "level": None if pool.level is None else str(pool.level),
        "lent": pool.lent,
        "borrowed": pool.borrowed,
    }
