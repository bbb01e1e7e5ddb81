"""What the kernels work on: bookings as columns, the room per slot, the rows of shared nodes, dice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import lean

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

WHOLE = 8  # GPUs of a whole node
NOWHERE = -1


class Books(NamedTuple):
    """The bookings asked for; last is the latest start."""

    nodes: Ints
    gpus: Ints
    duration: Ints
    earliest: Ints
    last: Ints
    value: Floats
    card: NDArray[np.int32]  # nodes, gpus, duration, earliest, last of each again, on one line of the cache


class Board(NamedTuple):
    """A plan under way.

    Whole nodes are only counted: room[t] is how many are neither booked whole nor opened for parts at slot t.
    Parts of nodes lie in rows: free[row, t] GPUs; where all 8 are free the row is closed and takes no room.
    """

    room: Ints
    free: NDArray[np.int8]
    start: Ints
    row: Ints
    rows: NDArray[np.int64]  # one number: rows that have ever been used
    dice: NDArray[np.uint64]


@lean
def roll(dice: NDArray[np.uint64], sides: int) -> int:
    """A number from 0 to sides - 1 (xorshift64*: two machine words of state would be a waste)."""
    x = dice[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    dice[0] = x
    high = (x * np.uint64(2685821657736338717)) >> np.uint64(33)
    return np.int64((high * np.uint64(sides)) >> np.uint64(31))  # type: ignore[return-value]


@lean
def chance(dice: NDArray[np.uint64]) -> float:
    return roll(dice, 1 << 30) / float(1 << 30)


@lean
def put(books: Books, board: Board, j: int, start: int, row: int) -> None:
    """Place booking j; the caller has seen that it fits."""
    end = start + books.duration[j]
    board.start[j] = start
    board.row[j] = row
    if row < 0:
        k = books.nodes[j]
        for t in range(start, end):
            board.room[t] -= k
        return
    g = np.int8(books.gpus[j])
    free = board.free[row]
    for t in range(start, end):
        if free[t] == WHOLE:
            board.room[t] -= 1
        free[t] -= g
    if row >= board.rows[0]:
        board.rows[0] = row + 1


@lean
def take(books: Books, board: Board, j: int) -> None:
    """Remove booking j."""
    start, row = board.start[j], board.row[j]
    end = start + books.duration[j]
    board.start[j] = NOWHERE
    if row < 0:
        k = books.nodes[j]
        for t in range(start, end):
            board.room[t] += k
        return
    g = np.int8(books.gpus[j])
    free = board.free[row]
    for t in range(start, end):
        free[t] += g
        if free[t] == WHOLE:
            board.room[t] += 1
