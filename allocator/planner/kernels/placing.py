"""Where a booking can go: starts in its window where it fits, best by a rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled, lean
from .state import WHOLE, Board, Books, Floats, Ints, put, roll

EARLIEST, LATEST, CHEAPEST, ANY = 0, 1, 2, 3


@lean
def score(rule: int, start: int, duration: int, total: Floats, dice: NDArray[np.uint64]) -> float:
    if rule == EARLIEST:
        return float(start)
    if rule == LATEST:
        return float(-start)
    if rule == CHEAPEST:
        return float(total[start + duration] - total[start])
    return float(roll(dice, 1 << 20))


@lean
def whole_start(books: Books, board: Board, j: int, rule: int, total: Floats) -> int:
    """The best start at which enough whole nodes are free all along, or -1.

    Only the ends of each stretch of possible starts are looked at: there the booking lies against something.
    """
    room, k, d = board.room, books.nodes[j], books.duration[j]
    start, last = books.earliest[j], books.last[j]
    best, least = -1, np.inf
    while start <= last:
        # From the end backward: one full slot rules out every start up to it.
        t = start + d - 1
        while t >= start and room[t] >= k:
            t -= 1
        if t >= start:
            start = t + 1
            continue
        first = start
        if rule == EARLIEST:
            return int(first)
        while start < last and room[start + d] >= k:
            start += 1
        here = score(rule, first, d, total, board.dice)
        if here < least:
            best, least = first, here
        if start > first:
            here = score(rule, start, d, total, board.dice)
            if here < least:
                best, least = start, here
        start += d + 1
    return best


@lean
def opening(board: Board, row: int, start: int, duration: int, total: Floats) -> float:
    """What opening the row's closed slots costs."""
    free, cost = board.free[row], 0.0
    for t in range(start, start + duration):
        if free[t] == WHOLE:
            cost += total[t + 1] - total[t] + 1e-9
    return cost


@lean
def part_place(books: Books, board: Board, j: int, total: Floats, blink: int) -> tuple[int, int]:
    """The (start, row) that opens least, or (-1, -1)."""
    room, g, d = board.room, books.gpus[j], books.duration[j]
    best, best_row, least = -1, -1, np.inf
    top = min(board.rows[0] + 1, board.free.shape[0])
    for row in range(top):
        if blink and roll(board.dice, 16) == 0:
            continue
        free = board.free[row]
        start, last = books.earliest[j], books.last[j]
        while start <= last:
            t = start + d - 1
            while t >= start and free[t] >= g and (free[t] < WHOLE or room[t] > 0):
                t -= 1
            if t >= start:
                start = t + 1
                continue
            first = start
            while start < last:
                t = start + d
                if not (free[t] >= g and (free[t] < WHOLE or room[t] > 0)):
                    break
                start += 1
            here = opening(board, row, first, d, total)
            if here < least:
                best, best_row, least = first, row, here
            if start > first:
                here = opening(board, row, start, d, total)
                if here < least:
                    best, best_row, least = start, row, here
            start += d + 1
        if least <= 0.0:
            break
    return best, best_row


@compiled
def insert(books: Books, board: Board, j: int, rule: int, total: Floats, blink: int) -> bool:
    """Place booking j where the rule says; False where it fits nowhere."""
    if books.gpus[j] == WHOLE:
        start = whole_start(books, board, j, rule, total)
        if start < 0:
            return False
        put(books, board, j, start, -1)
        return True
    start, row = part_place(books, board, j, total, blink)
    if start < 0:
        return False
    put(books, board, j, start, row)
    return True


@compiled
def insert_all(books: Books, board: Board, order: Ints, rule: int, total: Floats) -> float:
    """Place what fits, in the order given; the value placed."""
    value = 0.0
    for j in order:
        if board.start[j] < 0 and insert(books, board, j, rule, total, 0):
            value += books.value[j]
    return value
