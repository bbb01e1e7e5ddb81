"""Fair share: a period's capacity divided so that anyone can recompute it. Pure, exact, in whole hours.

The model is two-level weighted max-min, the "water level" (Bertsekas and Gallager, *Data Networks*, 6.5.2):

1. Pools: ``clip(level · weight, guarantee, min(demand, cap))``, summing to the capacity. What a pool
   leaves below its guarantee is lent by that alone, and a lender whose demand comes back has its guarantee
again. 2. Claims inside a pool: ``min(request, level · weight)``.
3. A claim's useful minimum is a threshold, never an entitlement: while some share is below its own minimum,
   the worst-ranked of these claims is set aside and everything is computed anew. A minimum that its pool
   could never reach is set aside before that. Hours that nobody else wants at the end go to those set
   aside, best rank first, each as far as it reaches its minimum.
4. Rounding by largest remainder, first the pools, then the claims inside each: every result is the exact
   one rounded down or up. Ties by the lower SHA-256 of ``period:id``.
5. Shares that a person fixed are paid from their pool first; everything else is divided around them.

Held for all inputs: the capacity, requests, guarantees and caps; nothing idle while anyone not set aside
wants it and may have it; the order of input does not matter; a kept claim envies nobody in its pool by
weight and has at least its weight's part of the pool (± 1 hour); a larger request or minimum never brings
a useful hour more (± 1). Without minimums also: more capacity, fewer claimants or a higher weight never
hurt (± 1).

NOT held once there are minimums, and not to be promised: with more capacity, or with a higher weight, a
claim can get less, because the higher or lower level keeps or drops another claim whose minimum is a step.
``tests/unit/test_fairshare_limits.py`` has the smallest examples.
"""

from .checking import BadDivision
from .dividing import divide
from .explaining import Explanation, Outcome, recompute
from .exporting import document
from .model import Claim, Cut, Division, Loan, Pool, PoolBound, PoolShare, Reason, SetAside, Weight

__all__ = [
    "BadDivision",
    "Claim",
    "Cut",
    "Division",
    "Explanation",
    "Loan",
    "Outcome",
    "Pool",
    "PoolBound",
    "PoolShare",
    "Reason",
    "SetAside",
    "Weight",
    "divide",
    "document",
    "recompute",
]
