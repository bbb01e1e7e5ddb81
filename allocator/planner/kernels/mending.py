"""Mending a plan: as few bookings moved or dropped as can be, by ejection and re-insertion."""

from __future__ import annotations

import numpy as np

from .compiling import compiled
from .filling import Guide, Memory, Near, bring, send, undo
from .improving import eject_at, make_way
from .placing import ANY, part_place, whole_start
from .state import WHOLE, Board, Books, Floats, Ints, chance, roll


@compiled
def relieve(books: Books, board: Board, near: Near, guide: Guide, memory: Memory) -> None:
    """Take out bookings until no slot is overbooked; those go whose going helps most."""
    slots = len(board.room)
    for t in range(slots):
        end = t
        while board.room[t] < 0:
            while end < slots and board.room[end] < 0:
                end += 1
            memory.tally[0] = 0
            gone = eject_at(books, board, near, guide, memory, t, -1, end, -board.room[t])
            if not gone and not _close_row(books, board, near, guide, memory, t):
                break
        for row in range(min(board.rows[0], board.free.shape[0])):
            while board.free[row, t] < 0:
                memory.tally[0] = 0
                if not eject_at(books, board, near, guide, memory, t, row, t + 1, -int(board.free[row, t])):
                    break


@compiled
def _close_row(books: Books, board: Board, near: Near, guide: Guide, memory: Memory, slot: int) -> bool:
    """Take the parts out of one row at a slot: its node is needed."""
    for row in range(min(board.rows[0], board.free.shape[0])):
        before = board.room[slot]
        if board.free[row, slot] == WHOLE:
            continue
        while board.room[slot] == before:
            memory.tally[0] = 0
            if not eject_at(books, board, near, guide, memory, slot, row, slot + 1, WHOLE):
                break
        if board.room[slot] > before:
            return True
    return False


@compiled
def home_fits(books: Books, board: Board, j: int, start: int, row: int) -> bool:
    end = start + books.duration[j]
    if row < 0:
        return bool(board.room[start:end].min() >= books.nodes[j])
    free = board.free[row]
    for t in range(start, end):
        if free[t] < books.gpus[j] or (free[t] == WHOLE and board.room[t] <= 0):
            return False
    return True


@compiled
def settle(
    books: Books, board: Board, near: Near, memory: Memory, j: int, home: Ints, home_row: Ints, total: Floats
) -> bool:
    """Put a booking back: at its old start if it can be, else anywhere in its window."""
    start, row = home[j], home_row[j]
    if not home_fits(books, board, j, start, row):
        if row >= 0 and home[j] >= books.earliest[j]:
            # The same start in another row is no move at all.
            for other in range(min(board.rows[0] + 1, board.free.shape[0])):
                if home_fits(books, board, j, start, other):
                    bring(books, board, near, memory, j, start, other)
                    return True
        if books.gpus[j] == WHOLE:
            start = whole_start(books, board, j, roll(board.dice, ANY + 1), total)
        else:
            start, row = part_place(books, board, j, total, 1)
    if start < 0:
        return False
    bring(books, board, near, memory, j, start, row)
    return True


@compiled
def cost(board: Board, home: Ints, j: int, start: int, dropped: Floats, moved: float) -> float:
    if start < 0:
        return float(dropped[j])
    return 0.0 if start == home[j] else moved


@compiled
def mend(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, home: Ints, home_row: Ints,
    dropped: Floats, moved: float, others: bool, turns: int, heat: float, away: Ints,
) -> float:  # fmt: skip
    """Some turns; what the cost changed by. away: the bookings that are out or moved, -1 where there is none.

    A turn makes way for one that is out, or brings one that is away home. others: whether those at home may
    be moved for it; else a turn that moves one is undone.
    """
    change, dice = 0.0, board.dice
    many = _list_away(board, home, near, dropped, away)
    for _ in range(turns):
        if many == 0:
            break
        memory.tally[0] = 0
        memory.tally[1] += 1
        j = away[roll(dice, many)]
        if board.start[j] >= 0:
            send(books, board, near, memory, j)
        if roll(dice, 4) == 0:
            done = settle(books, board, near, memory, j, home, home_row, guide.total)
        else:
            done = make_way(books, board, near, guide, memory, j)
        if not done:
            undo(books, board, near, memory)
            continue
        for i in range(memory.tally[0]):
            k = memory.who[i]
            if board.start[k] < 0:
                settle(books, board, near, memory, k, home, home_row, guide.total)
        here = 0.0
        allowed = True
        for i in range(memory.tally[0]):
            k = memory.who[i]
            here += cost(board, home, k, board.start[k], dropped, moved)
            here -= cost(board, home, k, memory.start[i], dropped, moved)
            if memory.start[i] == home[k] and board.start[k] != home[k] and not others:
                allowed = False
        if not allowed or (here > 0 and chance(dice) >= np.exp(-here / heat)):
            undo(books, board, near, memory)
            continue
        change += here
        many = _list_away(board, home, near, dropped, away) if memory.tally[0] > 1 or here else many
    return change


@compiled
def _list_away(board: Board, home: Ints, near: Near, dropped: Floats, away: Ints) -> int:
    many = 0
    for j in range(len(home)):
        if dropped[j] > 0 and board.start[j] != home[j]:
            away[many] = j
            many += 1
    return many
