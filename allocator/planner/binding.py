"""From counts to names: which nodes each placed booking gets, and what finds none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .board import Ground
from .calendar import Calendar, Overbooked
from .demand import GPUS_PER_NODE, Demand
from .kernels import binding as kernel
from .kernels.state import NOWHERE, Board, Books
from .plan import Plan

Names = list[list[int]]


def bind(
    demand: Demand,
    books: Books,
    board: Board,
    ground: Ground,
    old: Names | None = None,
    held: Collection[int] = (),
) -> tuple[Names, list[int]]:
    """Nodes of every booking, and the placed bookings that found none.

    With the same capacity on all nodes everything is bound (an interval graph is perfect). Around maintenance
    and bookings pinned in the middle the sweep may fail for a few; those are tried again elsewhere.
    old: nodes that bookings had, kept where they can be; held: those that keep them in any case.
    """
    fixed = {j: pin.nodes for j, pin in demand.pinned.items() if pin.nodes}
    if old and held:
        fixed |= {j: tuple(old[j]) for j in held}
        ground = _under(demand, books, board, ground, fixed, held)
    named = list(fixed)
    # Those pinned by name are part of the ground already.
    placed = np.setdiff1d(np.flatnonzero(board.start >= 0), named)
    whole = placed[books.gpus[placed] == GPUS_PER_NODE]
    parts = placed[books.gpus[placed] < GPUS_PER_NODE]
    order = np.lexsort((board.start[parts], board.row[parts]))
    parts = parts[order].astype(np.int32)
    segment, begins, ends, _, node = kernel.segments(
        books, board, np.asarray(parts, np.int32), ground.base, ground.tied
    )
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
    had = [old[j] for j in whole] if old else None
    if old and had is not None:
        of_parts: Names = [[] for _ in range(len(begins))]
        for j in parts:
            of_parts[segment[j]] = of_parts[segment[j]] or old[j]
        had += [of_parts[one] for one in loose]
    offset, names = _colour(demand, start, end, wanted, base, had)
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
    for j, nodes in fixed.items():
        assigned[j] = list(nodes)
    return assigned, [int(j) for j in placed if not assigned[j]]


def _under(
    demand: Demand,
    books: Books,
    board: Board,
    ground: Ground,
    fixed: Mapping[int, Sequence[int]],
    held: Collection[int],
) -> Ground:
    """The ground with those who keep their nodes upon it; rows that they share are tied to their node."""
    base, tied = ground.base.copy(), ground.tied.copy()
    for j in held:
        begin = int(board.start[j])
        base[list(fixed[j]), begin : begin + int(books.duration[j])] -= np.int8(books.gpus[j])
        row = int(board.row[j])
        if row >= 0 and tied[row] < 0 and fixed[j][0] not in tied:
            tied[row] = fixed[j][0]
    return Ground(base, tied)


def _colour(
    demand: Demand,
    start: NDArray[np.int32],
    end: NDArray[np.int32],
    wanted: NDArray[np.int32],
    base: NDArray[np.int8],
    had: Names | None,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    group = np.asarray(demand.groups or np.zeros(demand.nodes_total), np.int32)
    until = kernel.next_blocked(base)
    # The longest first of those that start together, as they are the hardest to please.
    order = np.lexsort((-end, start))
    first = np.zeros(len(start) + 1, np.int64)
    kept = np.zeros(0, np.int32)
    if had is not None:
        first[1:] = np.cumsum([len(one) for one in had])
        kept = np.array([node for one in had for node in one], np.int32)
    offset, names = kernel.colour(order, start, end, wanted, until, group, True, first, kept)
    if (offset < 0).any():
        # Nothing but fitting counts now: no leaf, no old names.
        flat = np.zeros(demand.nodes_total, np.int32)
        again = kernel.colour(order, start, end, wanted, until, flat, False, first * 0, kept[:0])
        if (again[0] < 0).sum() < (offset < 0).sum():
            offset, names = again
    return offset, names


def stay(demand: Demand, books: Books, board: Board, before: Plan) -> tuple[Names, list[int]]:
    """Old names for all who stand where they stood, free nodes for the others; and who finds none."""
    calendar = Calendar(demand.nodes_total, demand.slots, demand.capacity)
    assigned: Names = [[] for _ in range(len(demand))]
    loose = []
    placed = np.flatnonzero(board.start >= 0).tolist()
    # What is pinned first: nothing else may stand in its way.
    for j in sorted(placed, key=lambda j: j not in demand.pinned):
        pin = demand.pinned.get(j)
        names = list(pin.nodes) if pin else before.assigned[j]
        if pin or board.start[j] == before.start[j]:
            try:
                calendar.place(names, int(books.gpus[j]), int(board.start[j]), int(books.duration[j]))
            except Overbooked:
                loose.append(j)
            else:
                assigned[j] = names
        else:
            loose.append(j)
    unbound = []
    for j in sorted(loose, key=lambda j: -int(books.nodes[j]) * int(books.duration[j])):
        start, duration = int(board.start[j]), int(books.duration[j])
        opening = calendar.book(int(books.nodes[j]), int(books.gpus[j]), duration, start, start + duration)
        if opening:
            assigned[j] = list(opening.nodes)
        else:
            unbound.append(j)
    return assigned, unbound


def rescue(demand: Demand, books: Books, board: Board, assigned: Names, unbound: list[int]) -> None:
    """What found no names where it stood gets the first place with names in its window, or none."""
    if not unbound:
        return
    for j in unbound:
        board.start[j] = NOWHERE
    calendar = Calendar(demand.nodes_total, demand.slots, demand.capacity)
    for j in np.flatnonzero(board.start >= 0).tolist():
        calendar.place(assigned[j], int(books.gpus[j]), int(board.start[j]), int(books.duration[j]))
    for j in sorted(unbound, key=lambda j: -float(books.value[j])):
        end = int(books.last[j] + books.duration[j])
        opening = calendar.book(
            int(books.nodes[j]), int(books.gpus[j]), int(books.duration[j]), int(books.earliest[j]), end
        )
        if opening:
            board.start[j], assigned[j] = opening.start, list(opening.nodes)
