"""Water levels in exact whole numbers: of the pools, and of the claims inside one pool."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from .model import Claim, Pool, PoolBound, Weight


@dataclass(frozen=True, slots=True)
class Range:
    """One participant of ``level_of``: its amount is ``clip(level · weight, low, high)``."""

    weight: Weight
    low: Fraction
    high: Fraction

    def at(self, level: Fraction) -> Fraction:
        return min(max(level * self.weight, self.low), self.high)


def level_of(total: Weight, ranges: Sequence[Range]) -> Fraction | None:
    """The level at which the ranges sum to ``total``; None when even all their highs do not exceed it.

    Between two neighbouring corners the sum is a straight line, so a binary search over the corners and one
    division are exact. O(n log n). Needs the lows' sum to be at most ``total``.
    """
    if sum(one.high for one in ranges) <= total:
        return None
    corners = sorted({edge / one.weight for one in ranges for edge in (one.low, one.high)})
    # The lowest corner never overshoots: there every range is still at its low.
    place = bisect_right(corners, total, key=lambda corner: sum(one.at(corner) for one in ranges)) - 1
    corner = corners[place]
    missing = total - sum((one.at(corner) for one in ranges), Fraction())
    slope = sum(one.weight for one in ranges if one.low <= corner * one.weight < one.high)
    return corner + missing / slope if missing else corner


class Water:
    """One pool's claims while hours are poured in: who is full, and how high the rest stands.

    Claims sorted by request over weight become full in that order as the level rises, and nothing that
    happens here lowers it: more hours come in or a claim is set aside. So one pointer runs through the
    order once, and n claims with any number set aside cost O(n log n).
    """

    def __init__(self, pool: Pool, claims: Sequence[Claim], fixed: int) -> None:
        self.pool = pool
        self.claims = claims
        self.fixed = fixed
        self.requests = [claim.request for claim in claims]
        self._scale = lcm(*{claim.weight.denominator for claim in claims})
        self.weights = [int(claim.weight * self._scale) for claim in claims]
        self._order = sorted(range(len(claims)), key=self._fills_at())
        self._kept = bytearray(b"\1") * len(claims)
        self._next = 0
        self._full = 0  # hours of the claims before the pointer
        self._thirst = sum(self.weights)  # weight of the kept claims from the pointer on
        self.demand = sum(self.requests) + fixed
        self.exact = Fraction()
        # What is left for claims from the pointer on is _rest / _parts.
        self._rest, self._parts = -fixed, 1

    def _fills_at(self) -> Callable[[int], int]:
        """A whole-number key in the exact order of request / weight.

        Different ratios are at least 1/w² apart, so at this scale their floors differ too.
        """
        scale = 1 << (2 * max(self.weights, default=1).bit_length())
        return [
            request * scale // weight for request, weight in zip(self.requests, self.weights, strict=True)
        ].__getitem__

    @property
    def high(self) -> int:
        """The most the pool may have now: what its kept claims want, as far as the cap lets them."""
        return self.demand if self.pool.cap is None else min(self.demand, self.pool.cap)

    @property
    def range(self) -> Range:
        low = max(min(self.pool.guarantee, self.high), self.fixed)
        return Range(self.pool.weight, Fraction(low), Fraction(self.high))

    @property
    def bound(self) -> PoolBound:
        """What decided the amount; the promise to claims comes before the pool's own level."""
        low = self.range.low
        if self.exact == self.demand:
            return PoolBound.DEMAND
        if self.exact == self.pool.cap:
            return PoolBound.CAP
        if self.exact > low or low == 0:
            return PoolBound.LEVEL
        return PoolBound.FIXED if self.fixed == low > self.pool.guarantee else PoolBound.GUARANTEE

    def pour(self, exact: Fraction) -> None:
        """Raise the pool's amount to ``exact``."""
        self.exact = exact
        self._parts = exact.denominator
        self._rest = exact.numerator - (self.fixed + self._full) * self._parts
        self._rise()

    def violates(self, place: int) -> bool:
        """Whether the claim's exact share is below its own minimum."""
        if not self._thirst:
            return False
        return self.claims[place].minimum * self._thirst * self._parts > self._rest * self.weights[place]

    def remove(self, place: int) -> None:
        """Set a claim aside. It must not be full: that is, it violates, or nothing was poured yet."""
        self._kept[place] = 0
        self._thirst -= self.weights[place]
        self.demand -= self.requests[place]
        if self.exact <= self.high:
            self._rise()

    def _rise(self) -> None:
        """Let every claim that the level has reached be full, which raises it for the others."""
        order, kept, requests, weights = self._order, self._kept, self.requests, self.weights
        place, thirst, rest, parts = self._next, self._thirst, self._rest, self._parts
        while place < len(order):
            one = order[place]
            if kept[one]:
                if requests[one] * thirst * parts > rest * weights[one]:
                    break
                rest -= requests[one] * parts
                thirst -= weights[one]
                self._full += requests[one]
            place += 1
        self._next, self._thirst, self._rest = place, thirst, rest

    @property
    def level(self) -> Fraction | None:
        """Hours per point of weight; None when every kept claim is full."""
        return Fraction(self._rest * self._scale, self._thirst * self._parts) if self._thirst else None

    def shares(self) -> tuple[list[int], list[int], list[int], int]:
        """Floors of the exact shares; places and remainders of those not full; the denominator."""
        floors = [request if kept else 0 for request, kept in zip(self.requests, self._kept, strict=True)]
        thirsty = [place for place in self._order[self._next :] if self._kept[place]]
        whole = self._thirst * self._parts
        remainders = []
        for place in thirsty:
            floors[place], remainder = divmod(self._rest * self.weights[place], whole)
            remainders.append(remainder)
        return floors, thirsty, remainders, whole
