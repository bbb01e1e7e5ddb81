"""From a demand to what the kernels work on, around everything that is settled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .demand import GPUS_PER_NODE, BadDemand, Demand
from .kernels import placing, pricing
from .kernels.filling import Guide, Near
from .kernels.state import NOWHERE, Board, Books

SPREAD = 2654435761  # spreads neighbouring seeds over the dice' 64 bits
OFFSET = 88172645463325252


class Ground(NamedTuple):
    """What is left under bookings pinned by name: GPUs per node and slot, and the node tied to each row."""

    base: NDArray[np.int8]
    tied: NDArray[np.int32]


def books_of(demand: Demand) -> Books:
    def column(values: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.ascontiguousarray(values, dtype=np.int32)

    earliest, last = column(demand.earliest), column(demand.latest - demand.duration)
    for j, pin in demand.pinned.items():
        earliest[j] = last[j] = pin.start
    nodes, gpus, duration = column(demand.nodes), column(demand.gpus), column(demand.duration)
    card = np.zeros((len(demand), 8), np.int32)
    card[:, :5] = np.stack([nodes, gpus, duration, earliest, last], axis=1)
    return Books(nodes, gpus, duration, earliest, last, np.ascontiguousarray(demand.value), card)


def chosen(books: Books, which: NDArray[np.bool_]) -> Books:
    return Books(
        books.nodes[which], books.gpus[which], books.duration[which], books.earliest[which],
        books.last[which], books.value[which], books.card[which],
    )  # fmt: skip


def ground_of(demand: Demand) -> Ground:
    """Raises BadDemand where bookings pinned by name overbook a node."""
    base = np.full((demand.nodes_total, demand.slots), GPUS_PER_NODE, np.int8)
    if demand.capacity is not None:
        base = demand.capacity.astype(np.int8)
    for j, pin in demand.pinned.items():
        if pin.nodes:
            span = np.s_[list(pin.nodes), pin.start : pin.start + int(demand.duration[j])]
            base[span] -= np.int8(demand.gpus[j])
            if base[span].min() < 0:
                raise BadDemand(f"pinned booking {j} overbooks a node")
    partly = np.flatnonzero(((base > 0) & (base < GPUS_PER_NODE)).any(axis=1))
    # Nodes that are partly taken come first, each tied to a row of its own; the other rows are any node's.
    tied = np.full(demand.nodes_total, NOWHERE, np.int32)
    tied[: len(partly)] = partly
    return Ground(base, tied)


def board_of(demand: Demand, books: Books, ground: Ground, seed: int) -> Board:
    """A board with nothing on it but what is pinned in time only. Raises BadDemand where that cannot be."""
    room = (ground.base == GPUS_PER_NODE).sum(axis=0).astype(np.int32)
    free = np.full(ground.base.shape, GPUS_PER_NODE, np.int8)
    tied = ground.tied[ground.tied >= 0]
    free[: len(tied)] = ground.base[tied]
    nowhere = np.full(len(demand), NOWHERE, np.int32)
    dice = np.array([(seed * SPREAD + OFFSET) % 2**64 or 1], np.uint64)
    board = Board(room, free, nowhere, nowhere.copy(), np.array([len(tied)], np.int64), dice)
    total = np.zeros(demand.slots + 1)
    for j, pin in demand.pinned.items():
        if pin.nodes:
            continue
        if not placing.insert(books, board, j, placing.EARLIEST, total, 0):
            raise BadDemand(f"pinned booking {j} finds no room at its start")
    return board


def near_of(
    demand: Demand,
    books: Books,
    start: NDArray[np.int32],
    width: int,
    leave_out: NDArray[np.int64] | None = None,
) -> Near:
    """Buckets of slots with the bookings that may be moved there; what is pinned or left out is in none."""
    end = books.last + books.duration
    low, high = books.earliest // width, np.maximum(end - 1, books.earliest) // width
    count = high - low + 1
    count[books.last < books.earliest] = 0
    count[list(demand.pinned)] = 0
    if leave_out is not None:
        count[leave_out] = 0
    buckets = -(-demand.slots // width)
    pair_first = np.cumsum(count) - count
    who = np.repeat(np.arange(len(demand)), count)
    bucket = np.repeat(low, count) + np.arange(len(who)) - np.repeat(pair_first, count)
    placed = start[who] >= 0
    order = np.lexsort((placed, bucket))
    first = np.zeros(buckets + 1, np.int64)
    first[1:] = np.cumsum(np.bincount(bucket, minlength=buckets))
    at = np.empty(len(who), np.int32)
    at[order] = np.arange(len(who))
    waits = np.bincount(bucket[~placed], minlength=buckets).astype(np.int32)
    return Near(
        width, first, who[order].astype(np.int32), waits, pair_first.astype(np.int64), at,
        low.astype(np.int32), high.astype(np.int32),
    )  # fmt: skip


def guide_of(books: Books, price: NDArray[np.float64]) -> Guide:
    total = np.concatenate([[0.0], np.cumsum(price)])
    cost = pricing.least_costs(books, total) * books.nodes * books.gpus
    return Guide(total, price, books.value / (cost + 1e-3 * books.value + 1e-12), books.value - cost)
