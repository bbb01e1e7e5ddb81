"""From counts to names: which nodes each placed booking gets, and what finds none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .board import Ground
from .demand import GPUS_PER_NODE, Demand
from .kernels import binding as kernel
from .kernels.state import Board, Books

Names = list[list[int]]


def bind(demand: Demand, books: Books, board: Board, ground: Ground) -> tuple[Names, list[int]]:
    """Nodes of every booking, and the placed bookings that found none.

    With the same capacity on all nodes everything is bound (an interval graph is perfect). Around maintenance
    and bookings pinned in the middle the sweep may fail for a few; those are tried again elsewhere.
    """
    placed = np.flatnonzero(board.start >= 0)
    whole = placed[books.gpus[placed] == GPUS_PER_NODE]
    parts = placed[books.gpus[placed] < GPUS_PER_NODE]
    parts = parts[np.lexsort((board.start[parts], board.row[parts]))].astype(np.int32)
    segment, begins, ends, _, node = kernel.segments(books, board, parts, ground.base, ground.tied)
    base = ground.base
    if (node >= 0).any():
        # What can only be on one node goes there first, and stands in everyone's way.
        base = base.copy()
        for one in np.flatnonzero(node >= 0):
            base[node[one], begins[one] : ends[one]] = 0
    loose = np.flatnonzero(node < 0)
    start = np.concatenate([board.start[whole], begins[loose]]).astype(np.int32)
    end = np.concatenate([board.start[whole] + books.duration[whole], ends[loose]]).astype(np.int32)
    wanted = np.concatenate([books.nodes[whole], np.ones(len(loose), np.int32)]).astype(np.int32)
    offset, names = _colour(demand, start, end, wanted, base)
    assigned: Names = [[] for _ in range(len(demand))]
    for place, j in enumerate(whole):
        if offset[place] >= 0:
            assigned[j] = names[offset[place] : offset[place] + wanted[place]].tolist()
    of_segment = node.copy()
    found = offset[len(whole) :]
    of_segment[loose[found >= 0]] = names[found[found >= 0]]
    for j in parts:
        if of_segment[segment[j]] >= 0:
            assigned[j] = [int(of_segment[segment[j]])]
    for j, pin in demand.pinned.items():
        if pin.nodes:
            assigned[j] = list(pin.nodes)
    return assigned, [int(j) for j in placed if not assigned[j]]


def _colour(
    demand: Demand,
    start: NDArray[np.int32],
    end: NDArray[np.int32],
    wanted: NDArray[np.int32],
    base: NDArray[np.int8],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    group = np.asarray(demand.groups or np.zeros(demand.nodes_total), np.int32)
    until = kernel.next_blocked(base)
    # The longest first of those that start together, as they are the hardest to please.
    order = np.lexsort((-end, start))
    offset, names = kernel.colour(order, start, end, wanted, until, group, True)
    if (offset < 0).any() and group.any():
        offset, names = kernel.colour(order, start, end, wanted, until, group, False)
    return offset, names
