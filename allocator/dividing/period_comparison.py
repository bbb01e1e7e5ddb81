"""Two results of one period side by side: who gains and who loses, in whole GPU-hours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from allocator.fairshare import Division
from allocator.models import PeriodClaim, Proposal


@dataclass(frozen=True)
class Difference:
    """One claim whose share is not the same in both."""

    claim: PeriodClaim
    before: int
    after: int

    @property
    def change(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class PoolDifference:
    slug: str
    before: int
    after: int

    @property
    def change(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class Comparison:
    """``rows`` only where shares differ, the largest change first; ``pools`` all, in the policy's order."""

    rows: tuple[Difference, ...]
    pools: tuple[PoolDifference, ...]
    before: int
    after: int

    @property
    def gained(self) -> int:
        return sum(row.change for row in self.rows if row.change > 0)

    @property
    def lost(self) -> int:
        return -sum(row.change for row in self.rows if row.change < 0)

    @property
    def winners(self) -> int:
        return sum(row.change > 0 for row in self.rows)

    @property
    def losers(self) -> int:
        return sum(row.change < 0 for row in self.rows)


def compare(a: Proposal, b: Proposal) -> Comparison:
    """From proposal ``a`` to ``b`` of the same period."""
    if a.period_id != b.period_id:
        raise ValueError("proposals of two periods share no claims")
    return _comparison(
        [(share.claim, share.gpu_hours) for share in a.shares],
        {share.claim.reference: share.gpu_hours for share in b.shares},
        {pool["slug"]: pool["share"] for pool in a.pools},
        {pool["slug"]: pool["share"] for pool in b.pools},
    )


def compared(proposal: Proposal, division: Division) -> Comparison:
    """From a stored proposal to a division of the same claims that nobody has stored."""
    return _comparison(
        [(share.claim, share.gpu_hours) for share in proposal.shares],
        division.shares,
        {pool["slug"]: pool["share"] for pool in proposal.pools},
        {name: pool.amount for name, pool in division.pools.items()},
    )


def between(
    claims: Iterable[PeriodClaim], pools: Iterable[str], before: Division, after: Division
) -> Comparison:
    """From one division to another, neither of them stored; ``pools`` in the policy's order."""
    return _comparison(
        [(claim, before.shares[claim.reference]) for claim in claims],
        after.shares,
        {name: before.pools[name].amount for name in pools},
        {name: pool.amount for name, pool in after.pools.items()},
    )


def _comparison(
    before: list[tuple[PeriodClaim, int]],
    after: Mapping[str, int],
    pools_before: Mapping[str, int],
    pools_after: Mapping[str, int],
) -> Comparison:
    rows = [
        Difference(claim, share, after[claim.reference])
        for claim, share in before
        if share != after[claim.reference]
    ]
    rows.sort(key=lambda row: (-abs(row.change), row.claim.id))
    pools = tuple(PoolDifference(slug, share, pools_after[slug]) for slug, share in pools_before.items())
    return Comparison(tuple(rows), pools, sum(share for _, share in before), sum(after.values()))
