"""Ruin and recreate: take a few neighbours out, put them and some who wait back in another order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .placing import EARLIEST, insert
from .state import WHOLE, Board, Books, Floats, Ints, chance, put, roll, take


class Near(NamedTuple):
    """Bookings whose window meets a bucket of slots: members[first[b]:first[b + 1]].

    Of a bucket's members the first waits[b] wait, the others are placed. at[pair_first[j] + b - bucket of
    j's earliest slot] is the place of j in members, so that both can change sides at once.
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


class Knobs(NamedTuple):
    removed: int  # most bookings taken out at once
    added: int  # most waiting bookings tried at once
    wanting: int  # of 16 turns, how many make way for one that waits
    blink: int


class Hand(NamedTuple):
    """The bookings a turn plays with: those taken out and where they were, and all to be put in."""

    out: Ints
    out_start: Ints
    out_row: Ints
    pool: Ints
    key: Floats
    count: NDArray[np.int64]  # taken out, in the pool


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
def draw_out(books: Books, board: Board, hand: Hand, j: int) -> None:
    n = hand.count[0]
    hand.out[n], hand.out_start[n], hand.out_row[n] = j, board.start[j], board.row[j]
    hand.count[0] = n + 1
    hand.pool[hand.count[1]] = j
    hand.count[1] += 1
    take(books, board, j)


@compiled
def draw_waiting(board: Board, near: Near, hand: Hand, bucket: int, most: int) -> None:
    """Some of those who wait near a bucket join the pool."""
    waits = near.waits[bucket]
    if waits == 0:
        return
    first = near.first[bucket]
    many = min(waits, most)
    offset = roll(board.dice, waits)
    for i in range(many):
        j = near.members[first + (offset + i) % waits]
        if hand.count[1] >= len(hand.pool):
            return
        seen = False
        for h in range(hand.count[1]):
            seen = seen or hand.pool[h] == j
        if not seen:
            hand.pool[hand.count[1]] = j
            hand.count[1] += 1


@compiled
def ruin_slot(books: Books, board: Board, near: Near, guide: Guide, hand: Hand, slot: int, wanted: int) -> None:
    """Take out some bookings that are on at a slot."""
    bucket = slot // near.width
    first, waits = near.first[bucket], near.waits[bucket]
    many = near.first[bucket + 1] - first - waits
    if many <= 0:
        return
    for _ in range(wanted * 8):
        if hand.count[0] >= wanted:
            return
        j = near.members[first + waits + roll(board.dice, many)]
        at = board.start[j]
        if at >= 0 and at <= slot < at + books.duration[j]:
            draw_out(books, board, hand, j)


@compiled
def eject_at(books: Books, board: Board, near: Near, guide: Guide, hand: Hand, slot: int, row: int) -> bool:
    """Take out one booking that is on at a slot (in a row, or whole), of two the less wanted."""
    bucket = slot // near.width
    first, waits = near.first[bucket], near.waits[bucket]
    many = near.first[bucket + 1] - first - waits
    if many <= 0 or hand.count[0] >= len(hand.out):
        return False
    offset = roll(board.dice, many)
    best, found = -1, 0
    for i in range(many):
        j = near.members[first + waits + (offset + i) % many]
        at = board.start[j]
        if at < 0 or not at <= slot < at + books.duration[j] or board.row[j] != row:
            continue
        if best < 0 or guide.gain[j] < guide.gain[best]:
            best = j
        found += 1
        if found == 3:
            break
    if best < 0:
        return False
    draw_out(books, board, hand, best)
    return True


@compiled
def overflow(books: Books, board: Board, j: int, start: int, row: int) -> float:
    """How much must go for booking j to start there, in node-slots or GPU-slots."""
    short = 0.0
    end = start + books.duration[j]
    if row < 0:
        k = books.nodes[j]
        for t in range(start, end):
            if board.room[t] < k:
                short += k - board.room[t]
        return short
    g, free = books.gpus[j], board.free[row]
    for t in range(start, end):
        if free[t] < g:
            short += g - free[t]
        elif free[t] == WHOLE:
            short += 0.01 if board.room[t] > 0 else 2.0
    return short


@compiled
def make_way(books: Books, board: Board, near: Near, guide: Guide, hand: Hand, j: int) -> bool:
    """Put a waiting booking where the least stands in its way, and take that out."""
    best, best_row, least = -1, -1, np.inf
    span = books.last[j] - books.earliest[j] + 1
    whole = books.gpus[j] == WHOLE
    top = min(board.rows[0] + 1, board.free.shape[0])
    for _ in range(4):
        start = books.earliest[j] + roll(board.dice, span)
        row = -1 if whole else roll(board.dice, top)
        here = overflow(books, board, j, start, row)
        if here < least:
            best, best_row, least = start, row, here
    k, g = books.nodes[j], books.gpus[j]
    for t in range(best, best + books.duration[j]):
        if whole:
            while board.room[t] < k:
                if not eject_at(books, board, near, guide, hand, t, -1):
                    return False
            continue
        while board.free[best_row, t] < g:
            if not eject_at(books, board, near, guide, hand, t, best_row):
                return False
        while board.free[best_row, t] == WHOLE and board.room[t] <= 0:
            if not eject_at(books, board, near, guide, hand, t, -1):
                return False
    put(books, board, j, best, best_row)
    return True


@compiled
def sort_pool(books: Books, board: Board, guide: Guide, hand: Hand) -> None:
    dice, pool, key, n_pool = board.dice, hand.pool, hand.key, hand.count[1]
    sort_by = roll(dice, 5)
    for i in range(n_pool):
        j = pool[i]
        noise = 0.5 + chance(dice)
        if sort_by == 0:
            key[i] = -guide.density[j] * noise
        elif sort_by == 1:
            key[i] = -books.value[j] * noise
        elif sort_by == 2:
            key[i] = -books.nodes[j] * books.gpus[j] * noise
        elif sort_by == 3:
            key[i] = -guide.gain[j] * noise
        else:
            key[i] = noise
    for i in range(1, n_pool):
        j, k = pool[i], key[i]
        h = i - 1
        while h >= 0 and key[h] > k:
            pool[h + 1], key[h + 1] = pool[h], key[h]
            h -= 1
        pool[h + 1], key[h + 1] = j, k


@compiled
def undo(books: Books, board: Board, hand: Hand, forced: int) -> None:
    if forced >= 0 and board.start[forced] >= 0:
        take(books, board, forced)
    for i in range(hand.count[1]):
        if board.start[hand.pool[i]] >= 0:
            take(books, board, hand.pool[i])
    for i in range(hand.count[0]):
        put(books, board, hand.out[i], hand.out_start[i], hand.out_row[i])


@compiled
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


@compiled
def choose_slot(board: Board, guide: Guide) -> int:
    """A slot with room to spare, the dearer the likelier; or any slot."""
    slots = len(board.room)
    best, most = roll(board.dice, slots), 0.0
    if roll(board.dice, 2):
        return best
    for _ in range(6):
        t = roll(board.dice, slots)
        waste = board.room[t] * guide.price[t]
        if waste > most:
            best, most = t, waste
    return best


@compiled
def turn_once(
    books: Books, board: Board, near: Near, guide: Guide, knobs: Knobs, hand: Hand, heat: float
) -> float:
    """One ruin and recreate; what the plan's value changed by."""
    dice = board.dice
    hand.count[:] = 0
    forced = -1
    if roll(dice, 16) < knobs.wanting:
        forced = choose_waiting(board, near, guide)
    if forced >= 0:
        if not make_way(books, board, near, guide, hand, forced):
            undo(books, board, hand, forced)
            return 0.0
        slot = board.start[forced] + roll(dice, books.duration[forced])
        draw_waiting(board, near, hand, slot // near.width, knobs.added)
        for i in range(hand.count[1]):
            if hand.pool[i] == forced:
                hand.count[1] -= 1
                hand.pool[i] = hand.pool[hand.count[1]]
                break
    else:
        slot = choose_slot(board, guide)
        draw_waiting(board, near, hand, slot // near.width, knobs.added)
        ruin_slot(books, board, near, guide, hand, slot, 1 + roll(dice, knobs.removed))
    change = books.value[forced] if forced >= 0 else 0.0
    for i in range(hand.count[0]):
        change -= books.value[hand.out[i]]
    sort_pool(books, board, guide, hand)
    rule = roll(dice, 4)
    for i in range(hand.count[1]):
        if insert(books, board, hand.pool[i], rule, guide.total, knobs.blink):
            change += books.value[hand.pool[i]]
    if change < 0 and chance(dice) >= np.exp(change / heat):
        undo(books, board, hand, forced)
        return 0.0
    if forced >= 0:
        shift(near, forced, True)
    for i in range(hand.count[0]):
        if board.start[hand.out[i]] < 0:
            shift(near, hand.out[i], False)
            hand.out_start[i] = -2
    for i in range(hand.count[1]):
        j = hand.pool[i]
        if board.start[j] >= 0 and near.at[near.pair_first[j]] < near.first[near.low[j]] + near.waits[near.low[j]]:
            shift(near, j, True)
    return change


@compiled
def improve(
    books: Books, board: Board, near: Near, guide: Guide, knobs: Knobs, heat: float, turns: int,
    value: float, best: float, best_start: Ints, best_row: Ints,
) -> tuple[float, float]:  # fmt: skip
    """Some turns at one heat; returns the value now and the best, whose places are in best_start, best_row."""
    most = max(32, knobs.removed)
    hand = Hand(
        np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32),
        np.empty(most + knobs.added + 1, np.int32), np.empty(most + knobs.added + 1), np.zeros(2, np.int64),
    )  # fmt: skip
    for turn in range(turns):
        value += turn_once(books, board, near, guide, knobs, hand, heat)
        if value > best + 1e-6 and ((turn & 255) == 0 or turn == turns - 1):
            best = value
            best_start[:] = board.start
            best_row[:] = board.row
    return value, best
