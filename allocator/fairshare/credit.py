"""Credit between periods: a bounded factor on a weight that repays earlier shortfall. Pure, exact.

What an applicant was *entitled* to so far is what one division of all past hours of its pool among all past
requests would have given it; the *shortfall* is that less what it was served. Whoever asked when everybody
did falls short, whoever asked when nobody did is ahead. The factor is 1 plus the shortfall in units of an
average period's hours by weight, within bounds, so credit can shift hours in time but never buy more than
``maximum`` times the weight. Older periods fade by ``decay`` each. Fair Tree and Karma (Vuppalapati et
al., OSDI'23) carry the same idea for queued jobs and for slices; here every number is recomputable by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .levels import Range, level_of
from .model import Weight


@dataclass(frozen=True, slots=True)
class CreditRules:
    """``decay`` in (0, 1]: what a period still counts one period later. ``gain``: how fast it is repaid.

    Factors are rounded to multiples of ``step``, so that people can read and check them.
    """

    minimum: Fraction = Fraction(1, 2)
    maximum: Fraction = Fraction(2)
    decay: Fraction = Fraction(1)
    gain: Fraction = Fraction(1)
    step: Fraction = Fraction(1, 1000)

    def __post_init__(self) -> None:
        if not (0 < self.minimum <= 1 <= self.maximum and 0 < self.decay <= 1 and self.gain >= 0 < self.step):
            raise ValueError(f"credit rules do not make sense: {self}")


@dataclass(frozen=True, slots=True)
class PastClaim:
    """What a claim asked for and was served in one period; ``weight`` is without credit."""

    request: int
    served: int
    weight: Weight


@dataclass(frozen=True, slots=True)
class Credit:
    """A factor with the numbers it came from, all in the pool's unit (periods: GPU-hours).

    ``usual`` is what the weight alone makes of an average period.
    """

    entitled: Fraction
    served: Fraction
    usual: Fraction
    factor: Fraction

    @property
    def shortfall(self) -> Fraction:
        return self.entitled - self.served


def credits_of(history: Sequence[Mapping[str, PastClaim]], rules: CreditRules) -> dict[str, Credit]:
    """The credit of everyone in one pool's ``history`` (oldest period first), by id.

    Weights are those of each one's latest period. Who is not in the history has factor 1. Hours that went to
    nobody are no part of it: nobody was served them.
    """
    asked: dict[str, Fraction] = {}
    served: dict[str, Fraction] = {}
    weights: dict[str, Weight] = {}
    periods = Fraction()
    for period in history:
        periods = periods * rules.decay + 1
        for sums in (asked, served):
            for id in sums:
                sums[id] *= rules.decay
        for id, past in period.items():
            asked[id] = asked.get(id, Fraction()) + past.request
            served[id] = served.get(id, Fraction()) + past.served
            weights[id] = past.weight
    total = sum(served.values(), Fraction())
    entitled = _entitled(total, asked, weights)
    whole_weight = sum(weights.values())
    credits = {}
    for id in sorted(asked):
        usual = total / periods * weights[id] / whole_weight
        factor = _factor(entitled[id] - served[id], usual, rules)
        credits[id] = Credit(entitled[id], served[id], usual, factor)
    return credits


def _entitled(
    total: Fraction, asked: Mapping[str, Fraction], weights: Mapping[str, Weight]
) -> dict[str, Fraction]:
    """All past hours divided once among all past requests, by water level."""
    ranges = {id: Range(weights[id], Fraction(), asked[id]) for id in asked}
    level = level_of(total, list(ranges.values()))
    return {id: one.high if level is None else one.at(level) for id, one in ranges.items()}


def _factor(shortfall: Fraction, usual: Fraction, rules: CreditRules) -> Fraction:
    """``1 + gain · shortfall / usual`` within the bounds, to the nearest step, halves up."""
    if not usual:
        return Fraction(1)
    factor = 1 + rules.gain * shortfall / usual
    stepped = (factor / rules.step + Fraction(1, 2)).__floor__() * rules.step
    return min(rules.maximum, max(rules.minimum, stepped))
