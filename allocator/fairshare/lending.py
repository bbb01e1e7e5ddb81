"""Who lent to whom: guaranteed hours that their own pool left, and the pools above their guarantees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .model import Loan, Pool, digest
from .rounding import apportion


def loans(period: str, capacity: int, pools: Sequence[Pool], amounts: Mapping[str, int]) -> tuple[Loan, ...]:
    """The loans between pools, by name.

    A pool above its guarantee first uses hours guaranteed to nobody, in proportion with the other such
    pools; the rest is borrowed from every pool below its guarantee in proportion to what that leaves.
    Guaranteed hours that nobody wanted are idle, not lent.
    """
    names = [pool.name for pool in pools]
    above = [max(0, amounts[pool.name] - pool.guarantee) for pool in pools]
    left = [max(0, pool.guarantee - amounts[pool.name]) for pool in pools]
    free = capacity - sum(pool.guarantee for pool in pools)

    def tie(place: int) -> str:
        return digest(period, names[place])

    free_used = apportion(min(free, sum(above)), above, tie)
    borrowed = [want - used for want, used in zip(above, free_used, strict=True)]
    open_to_lend = apportion(sum(borrowed), left, tie)
    found = []
    for borrower, want in zip(names, borrowed, strict=True):
        # Taking from what is still open keeps both sides' sums exact.
        parts = apportion(want, open_to_lend, tie)
        open_to_lend = [rest - part for rest, part in zip(open_to_lend, parts, strict=True)]
        found += [Loan(lender, borrower, part) for lender, part in zip(names, parts, strict=True) if part]
    return tuple(sorted(found, key=lambda loan: (loan.lender, loan.borrower)))
