"""The inside of the search: holes are filled to the last, and the books of a plan under way stay true."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from allocator.planner import Demand
from allocator.planner.board import near_of
from allocator.planner.kernels import filling
from allocator.planner.kernels.state import WHOLE
from allocator.planner.search import Search
from tests.planning import capacity_of, demand_of


# Kernels that only other kernels call have no door from Python; this is one.
@numba.njit
def fill(books, board, near, guide, memory, begin, end, row):  # type: ignore[no-untyped-def]
    filling.fill(books, board, near, guide, memory, begin, end, row)


def searched(demand: Demand, turns: int) -> Search:
    search = Search(demand, 1)
    search.run(seconds=60, iterations=turns)
    return search


@pytest.mark.parametrize("seed", range(4))
def test_who_still_waits_after_filling_fits_nowhere_in_the_hole(seed: int) -> None:
    """Half of the horizon is filled: nobody can be put there any more, whole or into a row."""
    demand = demand_of(150, nodes=8, seed=seed)
    search = Search(demand, seed)
    near = near_of(demand, search.books, search.board.start, 24)
    board, slots = search.board, demand.slots
    # One row is half taken, so that it has something to fill.
    board.free[0], board.rows[0] = WHOLE // 2, 1
    board.room[:] -= 1
    begin, end = slots // 4, 3 * slots // 4
    for row in (0, -1):
        search.memory.tally[0] = 0
        search.memory.tally[1] += 1
        fill(search.books, board, near, search.guide, search.memory, begin, end, row)
        assert search.memory.tally[0] > 0
        for j in np.flatnonzero(board.start < 0):
            if (demand.gpus[j] == WHOLE) != (row < 0):
                continue
            for start in range(int(demand.earliest[j]), int(demand.latest[j] - demand.duration[j]) + 1):
                stop = start + int(demand.duration[j])
                if stop <= begin or start >= end:
                    continue
                free = board.room if row < 0 else board.free[row]
                asked = demand.nodes[j] if row < 0 else demand.gpus[j]
                assert free[start:stop].min() < asked, f"booking {j} still fits at {start}"


@pytest.mark.parametrize("whole", [True, False])
def test_after_thousands_of_turns_done_and_undone_the_books_are_true(whole: bool) -> None:
    demand = demand_of(150, nodes=8, whole=whole, seed=4)
    demand = replace(demand, capacity=capacity_of(demand, 4))
    search = searched(demand, 5000)
    books, board = search.books, search.board
    fresh = Search(demand, 1).board
    room, free = fresh.room.copy(), fresh.free.copy()
    for j in np.flatnonzero(board.start >= 0):
        span = slice(board.start[j], board.start[j] + books.duration[j])
        if board.row[j] < 0:
            room[span] -= books.nodes[j]
        else:
            free[board.row[j], span] -= books.gpus[j]
    # A shared row takes a whole node wherever something lies in it.
    room -= ((free < WHOLE) & (fresh.free == WHOLE)).sum(axis=0).astype(np.int32)
    assert board.room.tolist() == room.tolist()
    assert (board.free == free).all()
    assert room.min() >= 0
    assert free.min() >= 0
    near = search.near
    for bucket in range(len(near.waits)):
        members = near.members[near.first[bucket] : near.first[bucket + 1]]
        waits = board.start[members] < 0
        assert waits.sum() == near.waits[bucket]
        assert waits[: near.waits[bucket]].all()
    assert search.value == pytest.approx(float(books.value[board.start >= 0].sum()))
    assert search.best >= search.value
