"""How fair a division came out, in exact fractions: the figures of the public page (R-16, R-22)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from allocator.dividing.divisions import inputs_of_proposal, without_credit
from allocator.models import Proposal


@dataclass(frozen=True)
class Served:
    """One claim's outcome in GPU-hours; ``entitled`` is its share without credits, minimums and persons."""

    category: str
    pool: str
    requested: int
    entitled: int
    served: int


@dataclass(frozen=True)
class Figures:
    """``worst`` is the least served/entitled, ``jain`` the index of served/requested (1: all alike).

    Both None where nobody asked for anything.
    """

    claims: int
    requested: int
    served: int
    worst: Fraction | None
    jain: Fraction | None

    @property
    def part(self) -> Fraction | None:
        """Served of what was asked for."""
        return Fraction(self.served, self.requested) if self.requested else None


@dataclass(frozen=True)
class Fairness:
    total: Figures
    by_category: dict[str, Figures]
    by_pool: dict[str, Figures]


def of_proposal(proposal: Proposal) -> Fairness:
    """The figures of a proposal whose shares and claims are loaded."""
    inputs = inputs_of_proposal(proposal)
    requests = {claim.id: claim.request for claim in inputs.claims}
    entitled = without_credit(proposal.period).divide().shares
    return fairness(
        Served(
            share.claim.category,
            share.claim.pool,
            requests[share.claim.reference],
            entitled[share.claim.reference],
            share.gpu_hours,
        )
        for share in proposal.shares
    )


def fairness(rows: Iterable[Served]) -> Fairness:
    """All figures of these outcomes; categories and pools in alphabetical order."""
    all_rows = list(rows)
    categories = sorted({row.category for row in all_rows})
    pools = sorted({row.pool for row in all_rows})
    return Fairness(
        figures(all_rows),
        {slug: figures([row for row in all_rows if row.category == slug]) for slug in categories},
        {slug: figures([row for row in all_rows if row.pool == slug]) for slug in pools},
    )


def figures(rows: Sequence[Served]) -> Figures:
    """The figures of one group."""
    ratios = [Fraction(row.served, row.requested) for row in rows if row.requested]
    return Figures(
        claims=len(rows),
        requested=sum(row.requested for row in rows),
        served=sum(row.served for row in rows),
        worst=min((Fraction(row.served, row.entitled) for row in rows if row.entitled), default=None),
        jain=jain(ratios),
    )


def jain(ratios: Sequence[Fraction]) -> Fraction | None:
    """Jain's index (Σx)² / (n Σx²), between 1/n and 1; all zero counts as alike, nobody as None."""
    if not ratios:
        return None
    squares = sum((ratio * ratio for ratio in ratios), Fraction(0))
    total = sum(ratios, Fraction(0))
    return total * total / (len(ratios) * squares) if squares else Fraction(1)
