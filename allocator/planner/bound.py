"""A value that no plan can exceed, and the slot prices that prove it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .board import Ground, board_of, books_of, chosen, ground_of
from .demand import Asked, Demand
from .kernels import placing, pricing
from .kernels.state import Books

ROUNDS = 600


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """value: weighted GPU-slots. price: of one GPU for one slot, per slot; also a map of congestion."""

    value: float
    price: NDArray[np.float64]


def upper_bound(asked: Asked, *, rounds: int = ROUNDS) -> Bound:
    """Lagrangian dual of the count of GPUs (Held and Karp): any prices prove a bound, these a good one."""
    demand = Demand.of(asked)
    return dual(demand, books_of(demand), ground_of(demand), rounds)


def dual(demand: Demand, books: Books, ground: Ground, rounds: int = ROUNDS) -> Bound:
    """What is pinned by name pays its value and its capacity outside the prices."""
    capacity = ground.base.sum(axis=0, dtype=np.float64)
    named = [j for j, pin in demand.pinned.items() if pin.nodes]
    possible = books.last >= books.earliest
    possible[named] = False
    kept = chosen(books, possible)
    settled = float(books.value[named].sum())
    highest = float(kept.value.sum())
    if not highest:
        return Bound(settled, np.zeros(demand.slots))
    energy = float((kept.nodes.astype(np.int64) * kept.gpus * kept.duration).sum())
    # A plan's value sets the length of the steps; a guess above the optimum would turn them round.
    reached = _some_value(demand, books, ground, possible)
    price = np.full(demand.slots, highest / energy * min(1.0, energy / max(1.0, capacity.sum())))
    value, price = pricing.descend(kept, capacity, price, reached, rounds, np.ones(1))
    # No prices at all prove that nobody can have more than everything.
    return Bound(settled + min(value, highest), price)


def _some_value(demand: Demand, books: Books, ground: Ground, possible: NDArray[np.bool_]) -> float:
    """What a simple plan reaches: the greatest weight first, then the largest."""
    board = board_of(demand, books, ground, 0)
    order = np.lexsort((-books.value, -np.asarray(demand.weight)))
    turn = np.ascontiguousarray(order[possible[order]], dtype=np.int32)
    settled = float(books.value[board.start >= 0].sum())
    return settled + placing.insert_all(books, board, turn, placing.EARLIEST, np.zeros(demand.slots + 1))
