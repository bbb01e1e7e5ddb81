"""Ruin and recreate: take a few neighbours out, then fill the hole from all who wait around it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiling import compiled, lean
from .filling import Guide, Memory, Near, bring, fill, send, undo
from .placing import part_place, whole_start
from .state import WHOLE, Board, Books, Ints, chance, roll


class Knobs(NamedTuple):
    removed: int  # most bookings taken out at once
    wanting: int  # of 16 turns, how many make way for one that waits
    parts: int  # of 16 turns, how many begin at a row
    looks: int  # how many places are looked at for one that waits


@lean
def ruin(books: Books, board: Board, near: Near, memory: Memory, slot: int, row: int, wanted: int) -> None:
    """Take out some bookings that are on at a slot or touch it; of a row unless row < 0."""
    bucket = slot // near.width
    first, waits = near.first[bucket], near.waits[bucket]
    many = near.first[bucket + 1] - first - waits
    if many <= 0:
        return
    if row < 0:
        for _ in range(wanted * 8):
            if memory.tally[0] >= wanted:
                return
            waits = near.waits[bucket]
            many = near.first[bucket + 1] - first - waits
            if many <= 0:
                return
            j = near.members[first + waits + roll(board.dice, many)]
            at = board.start[j]
            if at - 1 <= slot <= at + books.duration[j]:
                send(books, board, near, memory, j)
        return
    offset = roll(board.dice, many)
    i = 0
    while i < many and memory.tally[0] < wanted:
        j = near.members[first + waits + (offset + i) % many]
        i += 1
        at = board.start[j]
        if board.row[j] == row and at - 1 <= slot <= at + books.duration[j] and at >= 0:
            send(books, board, near, memory, j)
            waits = near.waits[bucket]
            many = near.first[bucket + 1] - first - waits
            if many <= 0:
                return


@lean
def eject_at(
    books: Books,
    board: Board,
    near: Near,
    guide: Guide,
    memory: Memory,
    slot: int,
    row: int,
    end: int,
    lack: int,
) -> bool:
    """Take out one booking that is on at a slot (in a row, or whole).

    lack: nodes, or GPUs in the row, that are wanting there, until end. The least value
    for each node-slot that helps goes; what stands out beyond the gap is lost for nothing.
    """
    bucket = slot // near.width
    first, waits = near.first[bucket], near.waits[bucket]
    many = near.first[bucket + 1] - first - waits
    if many <= 0 or memory.tally[0] >= 30:
        return False
    best, least = -1, np.inf
    for i in range(first + waits, first + waits + many):
        j = near.members[i]
        at, d = board.start[j], books.card[j, 2]
        if at > slot or slot >= at + d or board.row[j] != row:
            continue
        much = books.card[j, 0] if row < 0 else books.card[j, 1]
        helps = min(much, lack) * (min(at + d, end) - slot)
        mine = books.value[j] / helps * (0.6 + chance(board.dice))
        if mine < least:
            best, least = j, mine
    if best < 0:
        return False
    send(books, board, near, memory, best)
    return True


@lean
def overflow(books: Books, board: Board, j: int, start: int, row: int) -> float:
    """How much must go for booking j to start there, in GPU-slots."""
    short = 0.0
    end = start + books.duration[j]
    if row < 0:
        k = books.nodes[j]
        for t in range(start, end):
            if board.room[t] < k:
                short += k - board.room[t]
        return short * WHOLE
    g, free = books.gpus[j], board.free[row]
    for t in range(start, end):
        if free[t] < g:
            short += g - free[t]
        elif free[t] == WHOLE and board.room[t] <= 0:
            short += WHOLE
    return short


@lean
def make_way(
    books: Books, board: Board, near: Near, guide: Guide, memory: Memory, j: int, looks: int
) -> bool:  # fmt: skip
    """Put a waiting booking where the least stands in its way, and take that out."""
    best, best_row, least = -1, -1, np.inf
    span = books.last[j] - books.earliest[j] + 1
    whole = books.gpus[j] == WHOLE
    top = min(board.rows[0] + 1, board.free.shape[0])
    for _ in range(looks):
        start = books.earliest[j] + roll(board.dice, span)
        row = -1 if whole else roll(board.dice, top)
        here = overflow(books, board, j, start, row)
        if here < least:
            best, best_row, least = start, row, here
    k, g = books.nodes[j], books.gpus[j]
    end = best + books.duration[j]
    for t in range(best, end):
        if whole:
            while board.room[t] < k:
                if not eject_at(books, board, near, guide, memory, t, -1, end, k - board.room[t]):
                    return False
            continue
        while board.free[best_row, t] < g:
            if not eject_at(books, board, near, guide, memory, t, best_row, end, g - board.free[best_row, t]):
                return False
        while board.free[best_row, t] == WHOLE and board.room[t] <= 0:
            if not eject_at(books, board, near, guide, memory, t, -1, end, 1):
                return False
    bring(books, board, near, memory, j, best, best_row)
    return True


@lean
def choose_waiting(board: Board, near: Near, guide: Guide) -> int:
    """One that waits, of three drawn the one that the prices want most; or -1."""
    best = -1
    for _ in range(3):
        bucket = roll(board.dice, len(near.waits))
        waits = near.waits[bucket]
        if waits == 0:
            continue
        j = near.members[near.first[bucket] + roll(board.dice, waits)]
        if best < 0 or guide.gain[j] > guide.gain[best]:
            best = j
    return best


@lean
def choose_slot(board: Board) -> int:
    """A slot with room to spare, as soon as a few draws meet one."""
    t = 0
    for _ in range(6):
        t = roll(board.dice, len(board.room))
        if board.room[t] > 0:
            break
    return t


@lean
def choose_row_slot(board: Board) -> tuple[int, int]:
    top = min(board.rows[0], board.free.shape[0])
    row = t = 0
    if top == 0:
        return 0, roll(board.dice, len(board.room))
    for _ in range(12):
        row, t = roll(board.dice, top), roll(board.dice, len(board.room))
        if 0 < board.free[row, t] < WHOLE:
            break
    return row, t


@lean
def open_hole(
    books: Books, board: Board, near: Near, guide: Guide, knobs: Knobs, memory: Memory
) -> tuple[int, int]:
    """Take some out, perhaps to put one in: a slot of the hole (-1: none), and its row."""
    dice = board.dice
    kind = roll(dice, 16)
    if kind < knobs.wanting:
        forced = choose_waiting(board, near, guide)
        if forced < 0 or not make_way(books, board, near, guide, memory, forced, knobs.looks):
            return -1, -1
        return board.start[forced], -1
    row = -1
    if kind < knobs.wanting + knobs.parts:
        row, slot = choose_row_slot(board)
    else:
        slot = choose_slot(board)
    ruin(books, board, near, memory, slot, row, 1 + roll(dice, knobs.removed))
    return slot, row


@lean
def put_back(books: Books, board: Board, near: Near, guide: Guide, memory: Memory, out: int) -> None:
    """Those taken out that still wait go anywhere in their windows, if they can."""
    for i in range(out):
        j = memory.who[i]
        if board.start[j] >= 0:
            continue
        if books.gpus[j] == WHOLE:
            start, row = whole_start(books, board, j, roll(board.dice, 4), guide.total), -1
        else:
            start, row = part_place(books, board, j, guide.total, 1)
        if start >= 0:
            bring(books, board, near, memory, j, start, row)


@lean
def gained(books: Books, board: Board, memory: Memory) -> float:
    """What this turn has brought."""
    change = 0.0
    for i in range(memory.tally[0]):
        now, then = board.start[memory.who[i]] >= 0, memory.start[i] >= 0
        if now and not then:
            change += books.value[memory.who[i]]
        elif then and not now:
            change -= books.value[memory.who[i]]
    return change


@lean
def turn_once(
    books: Books, board: Board, near: Near, guide: Guide, knobs: Knobs, memory: Memory, heat: float
) -> float:
    """One ruin and recreate; what the plan's value changed by."""
    memory.tally[0] = 0
    memory.tally[1] += 1
    slot, row = open_hole(books, board, near, guide, knobs, memory)
    if slot < 0:
        undo(books, board, near, memory)
        return 0.0
    begin, end = slot, slot + 1
    out = memory.tally[0]
    for i in range(out):
        if memory.start[i] >= 0:
            begin = min(begin, memory.start[i])
            end = max(end, memory.start[i] + books.duration[memory.who[i]])
    begin, end = max(0, begin - 1), min(len(board.room), end + 1)
    if row >= 0:
        fill(books, board, near, guide, memory, begin, end, row)
    fill(books, board, near, guide, memory, begin, end, -1)
    put_back(books, board, near, guide, memory, out)
    change = gained(books, board, memory)
    if change < 0 and chance(board.dice) >= np.exp(change / heat):
        undo(books, board, near, memory)
        return 0.0
    return change


@compiled
def improve(
    books: Books, board: Board, near: Near, guide: Guide, knobs: Knobs, memory: Memory, heat: float,
    turns: int, value: float, best: float, best_start: Ints, best_row: Ints,
) -> tuple[float, float]:  # fmt: skip
    """Some turns at one heat; the value now and the best, whose places are then in best_start, best_row."""
    for turn in range(turns):
        value += turn_once(books, board, near, guide, knobs, memory, heat)
        if value > best + 1e-6 and ((turn & 255) == 0 or turn == turns - 1):
            best = value
            best_start[:] = board.start
            best_row[:] = board.row
    return value, best
