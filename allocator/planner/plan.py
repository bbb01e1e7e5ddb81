"""Plan bookings: prices, a greedy start, then ruin and recreate for as long as there is time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .demand import Asked, Demand

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of a plan's history."""

    seconds: float
    iterations: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """start: slot of each booking or -1. assigned: its nodes. value, bound: weighted GPU-slots.

    price: of a GPU for a slot, per slot. Nothing in a plan is unbindable: what has a start has its nodes.
    """

    start: NDArray[np.int32]
    assigned: list[list[int]]
    value: float
    bound: float
    price: NDArray[np.float64]
    history: tuple[Moment, ...]
    iterations: int
    demand: Demand

    @property
    def gap(self) -> float:
        """The part of the bound that is not reached: the optimum is at most this much better."""
        return max(0.0, 1 - self.value / self.bound) if self.bound else 0.0


def plan(demand: Asked, *, seconds: float, seed: int = 0, iterations: int | None = None) -> Plan:
    """The best plan found in the seconds given; the same for a seed and a number of iterations.

    With iterations, time is no limit. Raises BadDemand. Whatever the limit, there is a first plan.
    """
    from .search import Search

    search = Search(Demand.of(demand), seed)
    return search.run(seconds=seconds, iterations=iterations)
