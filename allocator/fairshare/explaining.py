"""Why a share is what it is: numbers from which it can be recomputed, and what would have changed it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from .model import Claim, Cut, Division, PoolBound, SetAside, Weight, digest


class Outcome(StrEnum):
    """Which rule decided a share."""

    FULL = "full"
    LEVEL = "level"
    SET_ASIDE = "set_aside"
    REMAINDER = "remainder"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that one share depends on; ``recompute`` makes the share of it (R-15).

    Its pool stood at ``level`` hours per point of weight (None: every kept claim there is full), so ``exact``
    is ``min(request, level · weight)``. It was rounded up if ``fraction`` is above ``cut.fraction``, or
    equal to it with a ``digest`` not above ``cut.digest``.

    What would have changed it: more hours asked only if ``asking_more_helps``, then up to ``ceiling``,
    what the level covers at this weight (more only if that pushed another below its minimum);
    ``fallback_minimum`` is the highest minimum with which the claim would have been kept; ``full_weight`` the
    weight that this level would need to meet the whole request (more, in truth, as weight lowers the level).
    """

    id: str
    pool: str
    outcome: Outcome
    share: int
    request: int
    weight: Weight
    minimum: int
    rank: Any
    level: Fraction | None
    exact: Fraction
    rounded_up: bool
    digest: str
    cut: Cut | None
    pool_amount: int
    pool_bound: PoolBound
    set_aside: SetAside | None
    asking_more_helps: bool
    ceiling: int | None
    fallback_minimum: int | None
    full_weight: Fraction | None

    @property
    def fraction(self) -> Fraction:
        return self.exact - self.exact.__floor__()


def recompute(explanation: Explanation) -> int:
    """The share from the explanation's other numbers alone."""
    match explanation.outcome:
        case Outcome.SET_ASIDE:
            return 0
        case Outcome.FIXED:
            return explanation.exact.__floor__()
        case Outcome.REMAINDER:
            return explanation.set_aside.served if explanation.set_aside else 0
    exact = _exact(explanation.request, explanation.weight, explanation.level)
    return exact.__floor__() + _goes_up(exact, explanation.cut, explanation.digest)


def explain(division: Division, id: str) -> Explanation:
    """See ``Division.explain``."""
    claim = division.claim(id)
    pool, gone, share = division.pools[claim.pool], division.set_aside.get(id), division.shares[id]
    outcome = _outcome(division, claim)
    level = gone.level if gone else pool.level
    by_level = outcome in (Outcome.FULL, Outcome.LEVEL)
    exact = _exact(claim.request, claim.weight, level) if by_level else Fraction(share)
    own_digest = digest(division.period, id)
    return Explanation(
        id=id,
        pool=claim.pool,
        outcome=outcome,
        share=share,
        request=claim.request,
        weight=claim.weight,
        minimum=claim.minimum,
        rank=claim.rank,
        level=level,
        exact=exact,
        rounded_up=by_level and _goes_up(exact, pool.cut, own_digest),
        digest=own_digest,
        cut=pool.cut,
        pool_amount=pool.amount,
        pool_bound=pool.bound,
        set_aside=gone,
        asking_more_helps=_asking_more_helps(division, claim, outcome),
        ceiling=_ceiling(division, claim, outcome),
        fallback_minimum=_fallback(claim, gone),
        full_weight=claim.request / level if outcome is Outcome.LEVEL and level else None,
    )


def _exact(request: int, weight: Weight, level: Fraction | None) -> Fraction:
    return Fraction(request) if level is None else min(Fraction(request), level * weight)


def _goes_up(exact: Fraction, cut: Cut | None, own_digest: str) -> bool:
    fraction = exact - exact.__floor__()
    if cut is None or not fraction:
        return False
    return fraction > cut.fraction or (fraction == cut.fraction and own_digest <= cut.digest)


def _outcome(division: Division, claim: Claim) -> Outcome:
    if claim.id in division.fixed:
        return Outcome.FIXED
    if gone := division.set_aside.get(claim.id):
        return Outcome.REMAINDER if gone.served else Outcome.SET_ASIDE
    level = division.pools[claim.pool].level
    return Outcome.FULL if level is None or claim.request <= level * claim.weight else Outcome.LEVEL


def _asking_more_helps(division: Division, claim: Claim, outcome: Outcome) -> bool:
    """Whether a larger request, all else equal, may have brought more; False is certain (± 1 hour)."""
    if outcome is Outcome.FULL:
        level = division.pools[claim.pool].level
        # With everyone full, more may come from idle hours or from those who asked for more by weight.
        return level is None or claim.request < level * claim.weight
    # What it left of the remainder went on to the next in rank, or to nobody.
    return outcome is Outcome.REMAINDER and division.shares[claim.id] == claim.request


def _ceiling(division: Division, claim: Claim, outcome: Outcome) -> int | None:
    """What its pool's level covers at its weight; None where nothing bounds it here."""
    level = division.pools[claim.pool].level
    if outcome is not Outcome.FULL or level is None:
        return None
    return max(claim.request, (level * claim.weight).__floor__())


def _fallback(claim: Claim, gone: SetAside | None) -> int | None:
    """The highest minimum at which the claim would have been kept at its turn, and so until the end.

    Levels only rise, so what stands at a claim's turn can be promised to it.
    """
    if gone is None:
        return None
    return gone.reach if gone.level is None else (gone.level * claim.weight).__floor__()
