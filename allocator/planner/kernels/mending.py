"""Mending a plan: as few bookings moved or dropped as can be, by ejection and re-insertion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled, inner
from .filling import Guide, Memory, Near, bring, send, shift, undo
from .improving import eject_at, make_way
from .placing import ANY, part_place, whole_start
from .state import NOWHERE, WHOLE, Board, Books, Floats, Ints, chance, put, roll

FAR = 1 << 60
LOOKS = 4  # places looked at for one that is to come back


@inner
def wide(number: int) -> int:
    """One width for all numbers of bookings: each other one has every kernel below compiled once more."""
    return np.int64(number)  # type: ignore[return-value]


@inner
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


@inner
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


@inner
def home_fits(books: Books, board: Board, j: int, start: int, row: int) -> bool:
    end = start + books.duration[j]
    if row < 0:
        return bool(board.room[start:end].min() >= books.nodes[j])
    free = board.free[row]
    for t in range(start, end):
        if free[t] < books.gpus[j] or (free[t] == WHOLE and board.room[t] <= 0):
            return False
    return True


@inner
def at_home(books: Books, board: Board, near: Near, memory: Memory, j: int, start: int, row: int) -> bool:
    """Put a booking back at its old start, if it fits; of a part the row does not matter."""
    if start < books.earliest[j] or start > books.last[j]:
        return False
    if home_fits(books, board, j, start, row):
        bring(books, board, near, memory, j, start, row)
        return True
    if row >= 0:
        for other in range(min(board.rows[0] + 1, board.free.shape[0])):
            if home_fits(books, board, j, start, other):
                bring(books, board, near, memory, j, start, other)
                return True
    return False


@inner
def settle(
    books: Books, board: Board, near: Near, memory: Memory, j: int, home: Ints, home_row: Ints,
    total: Floats, blink: int,
) -> bool:  # fmt: skip
    """Put a booking back: at its old start if it can be, else anywhere in its window."""
    if at_home(books, board, near, memory, j, wide(home[j]), wide(home_row[j])):
        return True
    if books.gpus[j] == WHOLE:
        start, row = wide(whole_start(books, board, j, roll(board.dice, ANY + 1), total)), wide(-1)
    else:
        found = part_place(books, board, j, total, blink)
        start, row = wide(found[0]), wide(found[1])
    if start < 0:
        return False
    bring(books, board, near, memory, j, start, row)
    return True


@compiled
def restore(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, home: Ints, home_row: Ints,
    kept: NDArray[np.int64], order: NDArray[np.int64],
) -> None:  # fmt: skip
    """Everything where it was, then what is too much out, and in again, in the order given, where it can."""
    for j in kept:
        put(books, board, j, wide(home[j]), wide(home_row[j]))
        shift(near, j, True)
    relieve(books, board, near, guide, memory)
    for j in order:
        if board.start[j] < 0:
            memory.tally[0] = 0
            memory.tally[1] += 1
            settle(books, board, near, memory, j, home, home_row, guide.total, 0)


@compiled
def go_back(books: Books, board: Board, near: Near, memory: Memory, start: Ints, row: Ints) -> None:
    """Another board, of the same bookings."""
    memory.tally[0] = 0
    memory.tally[1] += 1
    for j in range(len(start)):
        if board.start[j] >= 0 and (board.start[j] != start[j] or board.row[j] != row[j]):
            send(books, board, near, memory, j)
    for j in range(len(start)):
        if board.start[j] < 0 and start[j] >= 0:
            bring(books, board, near, memory, j, wide(start[j]), wide(row[j]))


@inner
def cost_of(home: Ints, j: int, start: int, dropped: Floats, moved: Floats) -> float:
    if start < 0:
        return float(dropped[j])
    return 0.0 if start == home[j] else float(moved[j])


@inner
def note(board: Board, home: Ints, dropped: Floats, away: Ints, spot: Ints, many: int, j: int) -> int:
    """Keep the list of those that are out or moved; how many there are."""
    out = dropped[j] > 0 and board.start[j] != home[j]
    at = spot[j]
    if out and at < 0:
        away[many], spot[j] = j, many
        return many + 1
    if not out and at >= 0:
        last = away[many - 1]
        away[at], spot[last] = last, at
        spot[j] = -1
        return many - 1
    return many


@inner
def settle_all(
    books: Books, board: Board, near: Near, memory: Memory, home: Ints, home_row: Ints, total: Floats
) -> None:
    """Those that this turn has taken out go back where they can."""
    for i in range(memory.tally[0]):
        k = wide(memory.who[i])
        if board.start[k] < 0:
            settle(books, board, near, memory, k, home, home_row, total, 1)


@inner
def changed(
    board: Board, memory: Memory, home: Ints, dropped: Floats, moved: Floats, lost: NDArray[np.bool_]
) -> tuple[float, int]:
    """What this turn costs, and how many more of those that lost nothing are out."""
    cost, more = 0.0, wide(0)
    for i in range(memory.tally[0]):
        k = wide(memory.who[i])
        cost += cost_of(home, k, board.start[k], dropped, moved)
        cost -= cost_of(home, k, memory.start[i], dropped, moved)
        if not lost[k]:
            more += wide(board.start[k] < 0) - wide(memory.start[i] < 0)
    return cost, more


@compiled
def mend(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, home: Ints, home_row: Ints,
    dropped: Floats, moved: Floats, lost: NDArray[np.bool_], turns: int, heat: float, away: Ints, spot: Ints,
    cost: float, best: float, best_start: Ints, best_row: Ints,
) -> tuple[float, float]:  # fmt: skip
    """Some turns; the cost now and the best, whose places are then in best_start, best_row.

    dropped, moved: what it costs to drop or move each booking. A turn makes way for one that is out, or
    brings one that is away home. On the way anyone may be out; a best only leaves out those who lost nodes.
    """
    dice = board.dice
    many, wrong = wide(0), wide(0)
    spot[:] = -1
    for j in range(len(home)):
        many = note(board, home, dropped, away, spot, many, j)
        wrong += dropped[j] > 0 and board.start[j] < 0 and not lost[j]
    for _ in range(turns):
        if many == 0:
            break
        memory.tally[0] = 0
        memory.tally[1] += 1
        j = wide(away[roll(dice, many)])
        if board.start[j] >= 0:
            send(books, board, near, memory, j)
        if roll(dice, 4) == 0:
            done = settle(books, board, near, memory, j, home, home_row, guide.total, 1)
        else:
            done = make_way(books, board, near, guide, memory, j, LOOKS)
        if not done:
            undo(books, board, near, memory)
            continue
        settle_all(books, board, near, memory, home, home_row, guide.total)
        here, more = changed(board, memory, home, dropped, moved, lost)
        if here > 0 and chance(dice) >= np.exp(-here / heat):
            undo(books, board, near, memory)
            continue
        cost += here
        wrong += more
        for i in range(memory.tally[0]):
            many = note(board, home, dropped, away, spot, many, wide(memory.who[i]))
        if cost < best - 1e-9 and wrong == 0:
            best = cost
            best_start[:] = board.start
            best_row[:] = board.row
    return cost, best


@inner
def in_the_way(
    books: Books, board: Board, near: Near, home: Ints, lost: NDArray[np.bool_], slot: int, row: int
) -> int:
    """Of those on at a slot (in a row, or whole) who lost nodes or are not at home, the smallest; or -1."""
    bucket = slot // near.width
    best, least = wide(-1), FAR
    for i in range(near.first[bucket] + near.waits[bucket], near.first[bucket + 1]):
        j = near.members[i]
        at, d = board.start[j], books.duration[j]
        if at > slot or slot >= at + d or board.row[j] != row or (at == home[j] and not lost[j]):
            continue
        size = wide(books.nodes[j]) * wide(d)
        if size < least:
            best, least = wide(j), size
    return best


@inner
def clear_home(
    books: Books, board: Board, near: Near, memory: Memory, home: Ints, home_row: Ints,
    lost: NDArray[np.bool_], j: int,
) -> bool:  # fmt: skip
    """Take out whoever came to booking j's old place, or lost nodes there; False where that is not enough."""
    row, g, k = home_row[j], books.gpus[j], books.nodes[j]
    for t in range(home[j], home[j] + books.duration[j]):
        while (row < 0 and board.room[t] < k) or (
            row >= 0 and (board.free[row, t] < g or (board.free[row, t] == WHOLE and board.room[t] <= 0))
        ):
            whole = row < 0 or board.free[row, t] == WHOLE
            who = in_the_way(books, board, near, home, lost, t, wide(NOWHERE if whole else row))
            if who < 0:
                return False
            send(books, board, near, memory, who)
    return True


@compiled
def go_home(
    books: Books, board: Board, near: Near, memory: Memory, home: Ints, home_row: Ints,
    lost: NDArray[np.bool_], total: Floats, j: int,
) -> int:  # fmt: skip
    """Bring one home that lost nothing. -2: it is home; else who would then find no place (-1: not known).

    Who is in its way there goes elsewhere in its own window. If one of them cannot, nothing is changed.
    """
    failed = wide(-1)
    for _ in range(4):
        memory.tally[0] = 0
        memory.tally[1] += 1
        send(books, board, near, memory, j)
        if not clear_home(books, board, near, memory, home, home_row, lost, j):
            undo(books, board, near, memory)
            return -1
        bring(books, board, near, memory, j, wide(home[j]), wide(home_row[j]))
        # Whoever found no place the last time chooses first now.
        again = failed
        failed = wide(-1)
        if again >= 0 and not settle(books, board, near, memory, again, home, home_row, total, 0):
            failed = again
        for i in range(memory.tally[0]):
            k = wide(memory.who[i])
            out = failed < 0 and board.start[k] < 0
            if out and not settle(books, board, near, memory, k, home, home_row, total, 0):
                failed = k
        if failed < 0:
            return -2
        undo(books, board, near, memory)
        if failed == again:
            break
    return failed
