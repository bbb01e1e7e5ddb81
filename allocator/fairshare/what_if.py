"""The same division in floats, for trying things out at a million claims; NumPy is imported only when called.

Not for publishing: no rounding to whole hours, ties of rank by position, differences of about 1e-9 of an
amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .levels import Range, level_of
from .model import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Claims as arrays of equal length: place of the pool, request, weight and, if any, minimum and rank."""

    pool: NDArray[np.int64]
    request: Floats
    weight: Floats
    minimum: Floats | None = None
    rank: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Shares in the order of the columns; amounts and levels in the order of the pools (inf: all full)."""

    shares: Floats
    amounts: Floats
    levels: Floats
    set_aside: NDArray[np.bool_]


def what_if(capacity: float, pools: Sequence[Pool], columns: Columns) -> Estimate:
    """Divide as ``divide`` does, approximately. O(n log n); about half a second at a million claims."""
    import numpy as np

    _check(capacity, pools, columns)
    kept = np.ones(len(columns.request), dtype=bool)
    waters = [_Water(pool, np.flatnonzero(columns.pool == n), columns) for n, pool in enumerate(pools)]
    _drop_beyond_reach(capacity, waters, columns, kept)
    _pour(capacity, waters)
    if columns.minimum is not None:
        _drop_below_minimum(capacity, waters, columns, kept)
    shares = np.zeros(len(columns.request))
    for water in waters:
        members = water.members
        shares[members] = np.minimum(columns.request[members], water.level * columns.weight[members])
    shares[~kept] = 0
    _serve_the_remainder(capacity, waters, columns, shares, kept)
    return Estimate(
        shares, np.array([one.amount for one in waters]), np.array([one.level for one in waters]), ~kept
    )


class _Water:
    """One pool: members sorted by request over weight, and how far along that order all are full."""

    def __init__(self, pool: Pool, members: NDArray[np.intp], columns: Columns) -> None:
        import numpy as np

        self.pool = pool
        request, weight = columns.request[members], columns.weight[members]
        order = np.argsort(request / weight)
        self.members, self._request, self._weight = members[order], request[order], weight[order]
        self.demand = float(request.sum())
        self.amount, self.level = 0.0, 0.0
        self._gone = np.zeros(len(members), dtype=bool)
        self._lists: tuple[list[float], list[float]] | None = None

    @property
    def high(self) -> float:
        return self.demand if self.pool.cap is None else min(self.demand, float(self.pool.cap))

    def settle(self, amount: float) -> None:
        """Find the level of ``amount`` among the kept members at once, by running sums."""
        import numpy as np

        self.amount = amount
        request, weight = np.where(self._gone, 0, self._request), np.where(self._gone, 0, self._weight)
        full_before = np.cumsum(request) - request
        thirst_from = np.cumsum(weight[::-1])[::-1]
        # A member fills if what is left of the amount, by weight, covers its request; those are a prefix.
        stays = ~self._gone & (
            self._request * thirst_from > (amount - full_before) * self._weight * (1 + 1e-12)
        )
        first = int(np.argmax(stays)) if stays.any() else len(stays)
        self._next = first
        self._rest = amount - float(full_before[first]) if first < len(stays) else 0.0
        self._thirst = float(thirst_from[first]) if first < len(stays) else 0.0
        self._raise_level()

    def _raise_level(self) -> None:
        self.level = self._rest / self._thirst if self._thirst > 0 else float("inf")

    def drop(self, place: int) -> None:
        """Set one member, by its place in the order, aside; the level rises for the others."""
        if self._lists is None:
            self._lists = (self._request.tolist(), self._weight.tolist())
        requests, weights = self._lists
        self._gone[place] = True
        self.demand -= requests[place]
        self._thirst -= weights[place]
        count = len(requests)
        while self._next < count:
            one = self._next
            if not self._gone[one]:
                if requests[one] * self._thirst > self._rest * weights[one]:
                    break
                self._rest -= requests[one]
                self._thirst -= weights[one]
            self._next += 1
        if self._next == count:
            self._thirst = 0.0
        self._raise_level()

    def drop_before_pouring(self, gone: NDArray[np.bool_]) -> None:
        self._gone |= gone
        self.demand -= float(self._request[gone].sum())


def _check(capacity: float, pools: Sequence[Pool], columns: Columns) -> None:
    lengths = {
        len(column)
        for column in (columns.pool, columns.request, columns.weight, columns.minimum, columns.rank)
        if column is not None
    }
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths: {sorted(lengths)}")
    if sum(pool.guarantee for pool in pools) > capacity:
        raise ValueError("guarantees above the capacity")
    if lengths != {0} and (
        columns.pool.min() < 0
        or columns.pool.max() >= len(pools)
        or not (columns.request >= 0).all()
        or not (columns.weight > 0).all()
        or (columns.minimum is not None and not (columns.minimum <= columns.request).all())
    ):
        raise ValueError("unknown pool, negative request, weight not positive or minimum above request")


def _pour(capacity: float, waters: Sequence[_Water]) -> None:
    from fractions import Fraction

    ranges = [
        Range(one.pool.weight, Fraction(min(one.pool.guarantee, one.high)), Fraction(one.high))
        for one in waters
    ]
    level = level_of(Fraction(capacity), ranges)
    for water, one in zip(waters, ranges, strict=True):
        water.settle(float(one.high if level is None else one.at(level)))


def _drop_beyond_reach(
    capacity: float, waters: Sequence[_Water], columns: Columns, kept: NDArray[np.bool_]
) -> None:
    if columns.minimum is None:
        return
    for water in waters:
        reach = capacity if water.pool.cap is None else min(capacity, water.pool.cap)
        gone = columns.minimum[water.members] > reach
        water.drop_before_pouring(gone)
        kept[water.members[gone]] = False


def _drop_below_minimum(
    capacity: float, waters: Sequence[_Water], columns: Columns, kept: NDArray[np.bool_]
) -> None:
    """One pass from the worst rank up over those below their minimums at first: levels only rise."""
    import numpy as np

    assert columns.minimum is not None
    places, owners = [], []
    for number, water in enumerate(waters):
        needs = columns.minimum[water.members] / columns.weight[water.members]
        below = np.flatnonzero(kept[water.members] & (needs > water.level * (1 + 1e-12)))
        places.append(below)
        owners.append(np.full(len(below), number))
    place, owner = np.concatenate(places), np.concatenate(owners)
    member = np.array([0], dtype=np.intp)[:0]
    for number, water in enumerate(waters):
        member = np.concatenate([member, water.members[place[owner == number]]])
    rank = np.zeros(len(member)) if columns.rank is None else columns.rank[member]
    worst_first = np.lexsort((member, rank))[::-1]
    needs = columns.minimum[member] / columns.weight[member]
    rows = zip(
        place[worst_first].tolist(), owner[worst_first].tolist(), needs[worst_first].tolist(),
        member[worst_first].tolist(), strict=True,
    )  # fmt: skip
    for one, number, need, who in rows:
        water = waters[number]
        if need > water.level * (1 + 1e-12):
            water.drop(one)
            kept[who] = False
            if water.amount > water.high:
                _pour(capacity, waters)


def _serve_the_remainder(
    capacity: float,
    waters: Sequence[_Water],
    columns: Columns,
    shares: Floats,
    kept: NDArray[np.bool_],
) -> None:
    import numpy as np

    idle = capacity - sum(water.amount for water in waters)
    gone = np.flatnonzero(~kept)
    if columns.minimum is None or not len(gone) or idle < 1:
        return
    rank = np.zeros(len(gone)) if columns.rank is None else columns.rank[gone]
    for who in gone[np.lexsort((gone, rank))].tolist():
        water = waters[int(columns.pool[who])]
        room = idle if water.pool.cap is None else min(idle, water.pool.cap - water.amount)
        hours = min(float(columns.request[who]), room)
        if hours >= columns.minimum[who] * (1 - 1e-12):
            shares[who] = hours
            water.amount += hours
            idle -= hours
