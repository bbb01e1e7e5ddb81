"""Filling holes: of all that wait around one, those that fit exactly, found by a few comparisons each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import lean
from .state import WHOLE, Board, Books, Floats, Ints, chance, put, roll, take

STRETCHES = 32  # of a hole with more, the later ones are not looked at


class Near(NamedTuple):
    """Bookings whose window meets a bucket of slots: members[first[b]:first[b + 1]].

    Of a bucket's members the first waits[b] wait, the others are placed. at[pair_first[j] + b - low[j]]
    is the place of j in members, so that a booking changes sides in all its buckets without a search.
    """

    width: int
    first: NDArray[np.int64]
    members: Ints
    waits: Ints
    pair_first: NDArray[np.int64]
    at: Ints
    low: Ints  # first bucket of each booking
    high: Ints  # its last


class Guide(NamedTuple):
    """What the prices say: their running sum, themselves, value over price, value minus price."""

    total: Floats
    price: Floats
    density: Floats
    gain: Floats


class Hole(NamedTuple):
    """What is free in the hole being filled, and for whom.

    By what is asked: many[asked] stretches (-1: not looked up) from left[asked, i] to right[asked, i].
    who: those who fit, and what each is worth there.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    many: Ints
    who: Ints
    worth: Floats


class Memory(NamedTuple):
    """What a turn has touched, and where it was before: enough to undo the turn."""

    who: Ints
    start: Ints
    row: Ints
    seen: NDArray[np.int64]  # the turn in which a booking was last touched
    tally: NDArray[np.int64]  # touched in this turn; number of the turn
    hole: Hole


@lean
def shift(near: Near, j: int, placed: bool) -> None:
    """Booking j changes sides in all its buckets."""
    for b in range(near.low[j], near.high[j] + 1):
        pair = near.pair_first[j] + b - near.low[j]
        here = near.at[pair]
        if placed:
            near.waits[b] -= 1
            there = near.first[b] + near.waits[b]
        else:
            there = near.first[b] + near.waits[b]
            near.waits[b] += 1
        other = near.members[there]
        near.members[there], near.members[here] = j, other
        near.at[near.pair_first[other] + b - near.low[other]] = here
        near.at[pair] = there


@lean
def remember(board: Board, memory: Memory, j: int) -> None:
    if memory.seen[j] == memory.tally[1]:
        return
    n = memory.tally[0]
    memory.seen[j] = memory.tally[1]
    memory.who[n], memory.start[n], memory.row[n] = j, board.start[j], board.row[j]
    memory.tally[0] = n + 1


@lean
def bring(books: Books, board: Board, near: Near, memory: Memory, j: int, start: int, row: int) -> None:
    """Place a waiting booking, so that it can be undone."""
    remember(board, memory, j)
    put(books, board, j, start, row)
    shift(near, j, True)


@lean
def send(books: Books, board: Board, near: Near, memory: Memory, j: int) -> None:
    """Take a placed booking out, so that it can be undone."""
    remember(board, memory, j)
    take(books, board, j)
    shift(near, j, False)


@lean
def undo(books: Books, board: Board, near: Near, memory: Memory) -> None:
    for i in range(memory.tally[0]):
        j = memory.who[i]
        if board.start[j] >= 0:
            take(books, board, j)
            if memory.start[i] < 0:
                shift(near, j, False)
        elif memory.start[i] >= 0:
            shift(near, j, True)
    for i in range(memory.tally[0]):
        if memory.start[i] >= 0:
            put(books, board, memory.who[i], memory.start[i], memory.row[i])


@lean
def open_at(board: Board, row: int, asked: int, slot: int) -> bool:
    """Whether so many whole nodes, or in a row so many GPUs, are free at a slot."""
    if row < 0:
        return bool(board.room[slot] >= asked)
    free = board.free[row, slot]
    return bool(free >= asked and (free < WHOLE or board.room[slot] > 0))


@lean
def find_stretches(board: Board, hole: Hole, begin: int, end: int, row: int, asked: int) -> None:
    """All stretches that meet [begin, end) in which so much is free all along."""
    slots = len(board.room)
    n, t = 0, begin
    while t < end and n < STRETCHES:
        if not open_at(board, row, asked, t):
            t += 1
            continue
        low = t
        while t == begin and low > 0 and open_at(board, row, asked, low - 1):
            low -= 1
        t += 1
        while t < slots and open_at(board, row, asked, t):
            t += 1
        hole.left[asked, n], hole.right[asked, n] = low, t
        n += 1
    hole.many[asked] = n


@lean
def fits(books: Books, hole: Hole, j: int, asked: int) -> bool:
    card = books.card[j]
    for i in range(hole.many[asked]):
        if max(card[3], hole.left[asked, i]) <= min(card[4], hole.right[asked, i] - card[2]):
            return True
    return False


@lean
def choose_start(books: Books, board: Board, hole: Hole, j: int, asked: int) -> int:
    """An end of one of the stretches in which it can lie, by the dice; or -1."""
    card = books.card[j]
    start, n = -1, 0
    for i in range(hole.many[asked]):
        low = max(card[3], hole.left[asked, i])
        high = min(card[4], hole.right[asked, i] - card[2])
        if low > high:
            continue
        n += 1
        if n == 1 or roll(board.dice, n) == 0:
            start = low if roll(board.dice, 2) else high
    return start


@lean
def gather(
    books: Books, board: Board, near: Near, guide: Guide, hole: Hole, begin: int, end: int, row: int
) -> int:
    """Those who wait and fit as things are, with what each is worth; how many.

    Worth most is what gains most over its price; the dice decide between those that gain much the same.
    """
    n, lowest = 0, begin // near.width
    for bucket in range(lowest, (end - 1) // near.width + 1):
        first = near.first[bucket]
        # Who was in the bucket before has been looked at there.
        since = bucket * near.width if bucket > lowest else 0
        for i in range(first, first + near.waits[bucket]):
            j = near.members[i]
            card = books.card[j]
            # Whole bookings lie on counted nodes, parts in rows: each is asked in its own measure.
            if card[3] < since or (card[1] == WHOLE) != (row < 0):
                continue
            asked = card[0] if row < 0 else card[1]
            if hole.many[asked] < 0:
                find_stretches(board, hole, begin, end, row, asked)
            if fits(books, hole, j, asked):
                hole.who[n] = j
                hole.worth[n] = guide.gain[j] + 0.1 * books.value[j] * chance(board.dice)
                n += 1
    return n


@lean
def fill(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, begin: int, end: int, row: int
) -> None:
    """Fill what is free between two slots, in whole nodes or in a row, until nobody who waits fits there."""
    hole = memory.hole
    hole.many[:] = -1
    n = gather(books, board, near, guide, hole, begin, end, row)
    while n > 0:
        best = 0
        for i in range(1, n):
            if hole.worth[i] > hole.worth[best]:
                best = i
        j = hole.who[best]
        n -= 1
        hole.who[best], hole.worth[best] = hole.who[n], hole.worth[n]
        asked = books.card[j, 0] if row < 0 else books.card[j, 1]
        if hole.many[asked] < 0:
            find_stretches(board, hole, begin, end, row, asked)
        start = choose_start(books, board, hole, j, asked)
        if start >= 0:
            bring(books, board, near, memory, j, start, row)
            # What is still free has changed; it is looked up again for whoever asks.
            hole.many[:] = -1


def new_memory(books: Books) -> Memory:
    """Room to remember every booking once."""
    count, asked = len(books.value), max(WHOLE, int(books.nodes.max(initial=1))) + 1
    who, start, row, there = (np.empty(count, np.int32) for _ in range(4))
    left, right = (np.empty((asked, STRETCHES), np.int32) for _ in range(2))
    hole = Hole(left, right, np.empty(asked, np.int32), there, np.empty(count))
    return Memory(who, start, row, np.zeros(count, np.int64), np.zeros(2, np.int64), hole)
