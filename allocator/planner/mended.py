"""What a repair tells: names for the nodes, who was moved or dropped, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .binding import Names, bind, rescue, stay
from .board import Ground
from .calendar import Calendar, Overbooked
from .demand import Demand, Pin
from .kernels.state import Board, Books
from .plan import Plan
from .repair import Change, Drop, Move, Variant, Why

MOST_ROUNDS = 8  # until nobody goes home any more


@dataclass(frozen=True, slots=True, eq=False)
class Mended:
    """A board after a search. lost: who lost nodes; saves: for whose sake others have made way, by count.

    over: bookings that had ended. replaced: those that keep their time on other nodes.
    """

    before: Plan
    change: Change
    demand: Demand
    books: Books
    board: Board
    ground: Ground
    lost: NDArray[np.bool_]
    over: NDArray[np.int64]
    drops: Mapping[int, Why]
    replaced: Sequence[int]
    saves: Mapping[int, int]


def tell(mended: Mended, seconds: float) -> Variant:
    """The board as a plan with names, and what has changed against the old one."""
    old = mended.before
    start, assigned, saves = _named(mended)
    for j in mended.demand.pinned:
        start[j] = old.start[j]
    for j in mended.over.tolist():
        start[j], assigned[j] = old.start[j], old.assigned[j]
    moves = tuple(
        Move(int(j), int(old.start[j]), int(start[j]), *_why_moved(mended, int(j), saves))
        for j in np.flatnonzero((old.start >= 0) & (start >= 0) & (start != old.start))
    )
    empty = Calendar(mended.demand.nodes_total, mended.demand.slots, mended.ground.base)
    drops = tuple(
        Drop(int(j), int(old.start[j]), mended.drops.get(int(j)) or _why_dropped(mended, int(j), empty))
        for j in np.flatnonzero((old.start >= 0) & (start < 0))
    )
    renamed = tuple(
        int(j)
        for j in np.flatnonzero((start >= 0) & (start == old.start))
        if sorted(assigned[j]) != sorted(old.assigned[j])
    )
    value = float(old.demand.value[start >= 0].sum())
    capacity = mended.change.capacity if mended.change.capacity is not None else old.demand.capacity
    pinned = {j: Pin(int(start[j]), tuple(assigned[j])) for j in old.demand.pinned if start[j] >= 0}
    demand = replace(old.demand, capacity=capacity, pinned=pinned)
    plan = Plan(start, assigned, value, max(value, old.bound), old.price, (), 0, demand)
    return Variant(plan, moves, drops, renamed, seconds)


def _named(mended: Mended) -> tuple[NDArray[np.int32], Names, dict[int, int]]:
    demand, books, old = mended.demand, mended.books, mended.before
    board = mended.board._replace(start=mended.board.start.copy(), row=mended.board.row.copy())
    for j, pin in demand.pinned.items():
        board.start[j] = pin.start
    assigned, unbound = stay(demand, books, board, old)
    if unbound:
        # Names must change hands: colour all anew, but let who can keep what it had.
        held = [j for j in mended.change.told if board.start[j] == old.start[j] and not mended.lost[j]]
        other, fewer = bind(demand, books, board, mended.ground, old.assigned, held)
        away = {j for j in fewer if mended.lost[j] or board.start[j] != old.start[j]}
        # Nobody goes elsewhere for the sake of another's name.
        if len(fewer) < len(unbound) and len(away) == len(fewer) and _carries(demand, books, board, other):
            assigned, unbound = other, fewer
        rescue(demand, books, board, assigned, unbound)
    by_name = _take_home(mended, board.start, assigned)
    return board.start, assigned, {**mended.saves, **by_name}


def _carries(demand: Demand, books: Books, board: Board, assigned: Names) -> bool:
    """Whether the nodes can carry it all: parts that share a row with one that keeps its node may clash."""
    calendar = Calendar(demand.nodes_total, demand.slots, demand.capacity)
    try:
        for j in np.flatnonzero(board.start >= 0).tolist():
            if assigned[j]:
                calendar.place(assigned[j], int(books.gpus[j]), int(board.start[j]), int(books.duration[j]))
    except Overbooked:
        return False
    return True


def _take_home(mended: Mended, start: NDArray[np.int32], assigned: Names) -> dict[int, int]:
    """Whoever lost nothing goes home if those on its nodes find others; else for whom it stays away.

    Changes start and assigned. One that would be dropped takes its place back in any case.
    """
    old = mended.before
    settled = {*mended.drops, *mended.over.tolist(), *mended.demand.pinned}
    here = np.setdiff1d(np.flatnonzero((old.start >= 0) & ~mended.lost), list(settled))
    calendar = Calendar(mended.demand.nodes_total, mended.demand.slots, mended.demand.capacity)
    for j in np.flatnonzero(start >= 0).tolist():
        calendar.place(assigned[j], *_shape(mended, j, start))
    saves: dict[int, int] = {}
    for _ in range(MOST_ROUNDS):
        begun, saves = start.copy(), {}
        for j in here[start[here] != old.start[here]].tolist():
            whom = _home_by_name(mended, calendar, start, assigned, j)
            if whom is not None:
                saves[j] = whom
        if (start == begun).all():
            break
    return saves


def _shape(mended: Mended, j: int, start: NDArray[np.int32]) -> tuple[int, int, int]:
    return int(mended.books.gpus[j]), int(start[j]), int(mended.books.duration[j])


def _home_by_name(
    mended: Mended, calendar: Calendar, start: NDArray[np.int32], assigned: Names, j: int
) -> int | None:
    """Put booking j on its old nodes and those that came there elsewhere; else for whom it stays away."""
    demand, books, old = mended.demand, mended.books, mended.before
    begin, duration = int(old.start[j]), int(books.duration[j])
    there = _there(mended, start, assigned, j)
    came = [k for k in there if k not in demand.pinned]
    before = {k: (int(start[k]), assigned[k]) for k in (j, *came)}
    _lift(mended, calendar, start, assigned, before)
    whom = None
    if calendar.free(begin, begin + duration)[old.assigned[j]].min() < books.gpus[j]:
        whom = next(iter((*there, *mended.replaced)), None)
    else:
        calendar.place(old.assigned[j], int(books.gpus[j]), begin, duration)
        start[j], assigned[j] = begin, list(old.assigned[j])
        for k in came:
            # At its own time if that can be; who is at home and lost nothing goes nowhere else.
            stays = not mended.lost[k] and before[k][0] == old.start[k]
            own, length = before[k][0], int(books.duration[k])
            shape = int(books.nodes[k]), int(books.gpus[k]), length
            opening = calendar.book(*shape, own, own + length)
            if opening is None and not stays:
                opening = calendar.book(*shape, int(books.earliest[k]), int(books.last[k]) + length)
            if opening:
                start[k], assigned[k] = opening.start, list(opening.nodes)
            elif before[j][0] >= 0 or stays:
                whom = k
                break
    if whom is not None:
        _lift(mended, calendar, start, assigned, before)
        for k, (at, names) in before.items():
            start[k], assigned[k] = at, names
            if at >= 0:
                calendar.place(names, *_shape(mended, k, start))
    return whom


def _lift(
    mended: Mended, calendar: Calendar, start: NDArray[np.int32], assigned: Names, which: Iterable[int]
) -> None:
    for k in which:
        if start[k] >= 0:
            calendar.remove(assigned[k], *_shape(mended, k, start))
        start[k], assigned[k] = -1, []


def _there(mended: Mended, start: NDArray[np.int32], assigned: Names, j: int) -> list[int]:
    """Who now stands where booking j stood and did not before; those that lost nodes first."""
    old, duration = mended.before, mended.books.duration
    begin, end = int(old.start[j]), int(old.start[j] + duration[j])
    names = set(old.assigned[j])
    meets = (start >= 0) & (start < end) & (start + duration > begin)
    meets[j] = False
    found = [
        int(k)
        for k in np.flatnonzero(meets)
        if names & set(assigned[k]) and (start[k] != old.start[k] or set(assigned[k]) != set(old.assigned[k]))
    ]
    return sorted(found, key=lambda k: not mended.lost[k])


def _why_moved(mended: Mended, j: int, saves: Mapping[int, int]) -> tuple[Why, int | None]:
    if mended.lost[j]:
        return Why.NODES_GONE, None
    saved = saves.get(j, -1)
    return Why.MADE_WAY, saved if saved >= 0 else None


def _why_dropped(mended: Mended, j: int, empty: Calendar) -> Why:
    """empty: what is left if nobody but the started and the pinned were there."""
    books = mended.books
    end = int(books.last[j] + books.duration[j])
    opening = empty.earliest(
        int(books.nodes[j]), int(books.gpus[j]), int(books.duration[j]), int(books.earliest[j]), end
    )
    if not opening:
        return Why.WINDOW_GONE
    return Why.NODES_GONE if mended.lost[j] else Why.MADE_WAY
