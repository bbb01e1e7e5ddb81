"""The calendar's kernels: GPUs free by slot and node, and how many nodes have so many free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .state import WHOLE, Ints

Free = NDArray[np.int8]
Levels = NDArray[np.int32]


@compiled
def count_levels(free: Free) -> Levels:
    """levels[g, t]: nodes with at least g GPUs free at slot t."""
    slots, nodes = free.shape
    levels = np.zeros((WHOLE + 1, slots), np.int32)
    for t in range(slots):
        for node in range(nodes):
            for g in range(free[t, node] + 1):
                levels[g, t] += 1
    return levels


@compiled
def book(free: Free, levels: Levels, nodes: Ints, gpus: int, start: int, end: int) -> int:
    """Take GPUs on some nodes (negative: give back); the first node on which it cannot be, or -1."""
    for t in range(start, end):
        for node in nodes:
            left = free[t, node] - gpus
            if left < 0 or left > WHOLE:
                return int(node)
    for t in range(start, end):
        for node in nodes:
            before = free[t, node]
            left = before - gpus
            free[t, node] = left
            for g in range(left + 1, before + 1):
                levels[g, t] -= 1
            for g in range(before + 1, left + 1):
                levels[g, t] += 1
    return -1


@compiled
def earliest(
    free: Free, levels: Levels, count: int, gpus: int, duration: int, after: int, before: int, found: Ints
) -> int:
    """The first start in [after, before - duration] with enough nodes free all along, which are put in found.

    A slot where too few nodes are free rules out every start up to it; only the stretches between such slots
    are looked at node by node.
    """
    nodes = free.shape[1]
    level = levels[gpus]
    run = np.zeros(nodes, np.int32)
    start = after
    seen = after  # slots before it are in run
    while start + duration <= before:
        t = start + duration - 1
        while t >= seen and level[t] >= count:
            t -= 1
        if t >= seen:
            start = seen = t + 1
            run[:] = 0
            continue
        fit = 0
        while seen < start + duration:
            row = free[seen]
            fit = 0
            for node in range(nodes):
                run[node] = run[node] + 1 if row[node] >= gpus else 0
                fit += run[node] >= duration
            seen += 1
        if fit >= count:
            _fullest(free, run, duration, start, count, found)
            return start
        start += 1
    return -1


@compiled
def _fullest(free: Free, run: Ints, duration: int, start: int, count: int, found: Ints) -> None:
    """Of the nodes that fit, those with the least free already, so that empty ones stay whole."""
    n = 0
    for want in range(1, WHOLE + 1):
        for node in range(len(run)):
            if n < count and run[node] >= duration and free[start, node] == want:
                found[n] = node
                n += 1


@compiled
def least_free(free: Free, start: int, end: int) -> Free:
    least: Free = free[start].copy()
    for t in range(start + 1, end):
        for node in range(free.shape[1]):
            least[node] = min(least[node], free[t, node])
    return least
