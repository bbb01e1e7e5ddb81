"""Filling holes: of all that wait near a slot, one that fits there exactly, found by constant-time tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .state import WHOLE, Board, Books, Floats, Ints, chance, put, roll, take


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


class Memory(NamedTuple):
    """What a turn has touched, and where it was before: enough to undo the turn."""

    who: Ints
    start: Ints
    row: Ints
    seen: NDArray[np.int64]  # the turn in which a booking was last touched
    tally: NDArray[np.int64]  # touched in this turn; number of the turn
    left: Ints  # reach around the slot being filled, by what is asked
    right: Ints


@compiled
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


@compiled
def remember(board: Board, memory: Memory, j: int) -> None:
    if memory.seen[j] == memory.tally[1]:
        return
    n = memory.tally[0]
    memory.seen[j] = memory.tally[1]
    memory.who[n], memory.start[n], memory.row[n] = j, board.start[j], board.row[j]
    memory.tally[0] = n + 1


@compiled
def bring(books: Books, board: Board, near: Near, memory: Memory, j: int, start: int, row: int) -> None:
    """Place a waiting booking, so that it can be undone."""
    remember(board, memory, j)
    put(books, board, j, start, row)
    shift(near, j, True)


@compiled
def send(books: Books, board: Board, near: Near, memory: Memory, j: int) -> None:
    """Take a placed booking out, so that it can be undone."""
    remember(board, memory, j)
    take(books, board, j)
    shift(near, j, False)


@compiled
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


@compiled
def reach(board: Board, row: int, slot: int, asked: int, left: Ints, right: Ints) -> None:
    """The stretch around a slot in which so many nodes (or, in a row, GPUs) are free all along."""
    room = board.room
    slots = len(room)
    low, high = slot, slot + 1
    if row < 0:
        while low > 0 and room[low - 1] >= asked:
            low -= 1
        while high < slots and room[high] >= asked:
            high += 1
    else:
        free = board.free[row]
        while low > 0 and free[low - 1] >= asked and (free[low - 1] < WHOLE or room[low - 1] > 0):
            low -= 1
        while high < slots and free[high] >= asked and (free[high] < WHOLE or room[high] > 0):
            high += 1
    left[asked], right[asked] = low, high


@compiled
def fill_once(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, slot: int, row: int
) -> int:
    """Put one of those who wait onto a slot (row < 0: whole nodes); the booking, or -1 where nothing fits.

    The one that gains most over its price goes in; the dice decide between those that gain much the same.
    """
    spare = board.room[slot] if row < 0 else np.int32(board.free[row, slot])
    bucket = slot // near.width
    first, waits = near.first[bucket], near.waits[bucket]
    memory.left[:] = -1
    best, best_low, best_high, most = -1, 0, 0, -np.inf
    for i in range(first, first + waits):
        j = near.members[i]
        card = books.card[j]
        # Whole bookings lie on counted nodes, parts in rows: each is asked in its own measure.
        if (card[1] == WHOLE) != (row < 0):
            continue
        asked = card[0] if row < 0 else card[1]
        if asked > spare:
            continue
        if memory.left[asked] < 0:
            reach(board, row, slot, asked, memory.left, memory.right)
        d = card[2]
        low = max(card[3], memory.left[asked], slot - d + 1)
        high = min(card[4], memory.right[asked] - d, slot)
        if low > high:
            continue
        mine = guide.gain[j] + 0.1 * books.value[j] * chance(board.dice)
        if mine > most:
            best, best_low, best_high, most = j, low, high, mine
    if best >= 0:
        bring(books, board, near, memory, best, best_low if roll(board.dice, 2) else best_high, row)
    return best


@compiled
def fill(
    books: Books,
    board: Board,
    near: Near,
    guide: Guide,
    memory: Memory,
    begin: int,
    end: int,
    row: int,
) -> None:
    """Fill what is free between two slots, in whole nodes or in a row.

    Where nothing fits onto a slot, hardly anything fits onto the next unless more is free there.
    """
    before = 0
    for slot in range(begin, end):
        spare = int(board.room[slot] if row < 0 else board.free[row, slot])
        if row >= 0 and spare == WHOLE and board.room[slot] <= 0:
            spare = 0
        if spare > before:
            while spare > 0 and fill_once(books, board, near, guide, memory, slot, row) >= 0:
                spare = int(board.room[slot] if row < 0 else board.free[row, slot])
        before = spare


def new_memory(books: Books) -> Memory:
    """Room to remember every booking once."""
    count, asked = len(books.value), max(WHOLE, int(books.nodes.max(initial=1))) + 1
    who, start, row = (np.empty(count, np.int32) for _ in range(3))
    left, right = np.empty(asked, np.int32), np.empty(asked, np.int32)
    return Memory(who, start, row, np.zeros(count, np.int64), np.zeros(2, np.int64), left, right)
