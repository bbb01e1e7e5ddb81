"""Names for nodes that were only counted: colouring of an interval graph by a sweep over the starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled, inner
from .state import WHOLE, Board, Books, Ints


@compiled
def segments(
    books: Books, board: Board, order: Ints, base: NDArray[np.int8], tied: Ints
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Parts in one row that overlap are one segment, as they need one node: of each part its segment, and
    of each segment its start, end, row and node (-1: any). order: the placed parts by row, then start."""
    segment = np.full(len(books.value), -1, np.int32)
    start, end = np.empty(len(order), np.int32), np.empty(len(order), np.int32)
    row, node = np.empty(len(order), np.int32), np.full(len(order), -1, np.int32)
    n = -1
    for j in order:
        at, r = board.start[j], board.row[j]
        if n < 0 or row[n] != r or at >= end[n]:
            n += 1
            start[n], end[n], row[n] = at, at + books.duration[j], r
        else:
            end[n] = max(end[n], at + books.duration[j])
        segment[j] = n
    n += 1
    for s in range(n):
        owner = tied[row[s]]
        if owner >= 0:
            for t in range(start[s], end[s]):
                if base[owner, t] < WHOLE:
                    node[s] = owner
                    break
    return segment, start[:n], end[:n], row[:n], node[:n]


@compiled
def next_blocked(base: NDArray[np.int8]) -> Ints:
    """For each node and slot the next slot at which the node is not wholly free."""
    count, slots = base.shape
    until = np.empty((count, slots + 1), np.int32)
    for node in range(count):
        until[node, slots] = slots
        for t in range(slots - 1, -1, -1):
            until[node, t] = until[node, t + 1] if base[node, t] == WHOLE else t
    return until


@inner
def best_leaf(size: Ints, wanted: int) -> int:
    """The leaf switch that suffices alone with the fewest nodes to spare, or -1."""
    leaf = -1
    for g in range(len(size)):
        if size[g] >= wanted and (leaf < 0 or size[g] < size[leaf]):
            leaf = g
    return leaf


@inner
def best_node(able: Ints, here: Ints, group: Ints, size: Ints, leaf: int, loose: bool) -> int:
    """The place in able of the node to take next; here: the next slot at which each is blocked."""
    best, rank = -1, np.int64(1) << 60
    scale = np.int64(here.max() + len(group) + 2)
    for i in range(len(able)):
        node = able[i]
        if node < 0:
            continue
        # Without one leaf that suffices, the largest leaves first.
        far = np.int64(group[node] != leaf) if leaf >= 0 else np.int64(len(group) - size[group[node]])
        mine = far * scale + here[i] if loose else here[i] * scale + far
        if mine < rank:
            best, rank = i, mine
    return best


@compiled
def colour(
    order: NDArray[np.int64], start: Ints, end: Ints, wanted: Ints, until: Ints, group: Ints, loose: bool,
    first: NDArray[np.int64], had: Ints,
) -> tuple[NDArray[np.int64], Ints]:  # fmt: skip
    """Give every item its nodes: offsets (-1: none found) into a list of nodes, and that list.

    First come nodes that it had (had[first[item]:first[item + 1]]). Then, among the nodes that are free long
    enough, one leaf switch is preferred (loose: before anything else), and the node blocked soonest.
    """
    count = until.shape[0]
    taken, size = np.zeros(count, np.int32), np.zeros(group.max() + 1, np.int32)
    offset, names = np.full(len(start), -1, np.int64), np.empty(wanted.sum(), np.int32)
    able, here = np.empty(count, np.int32), np.empty(count, np.int32)
    used = 0
    for item in order:
        s, e, k = start[item], end[item], wanted[item]
        n = 0
        size[:] = 0
        for node in range(count):
            if taken[node] <= s and until[node, s] >= e:
                able[n], here[n] = node, until[node, s]
                n += 1
                size[group[node]] += 1
        if n < k:
            continue
        offset[item] = used
        left = k
        for i in range(first[item], first[item + 1]):
            for h in range(n):
                if able[h] == had[i] and left > 0:
                    names[used], taken[able[h]], able[h] = able[h], e, -1
                    used += 1
                    left -= 1
        leaf = best_leaf(size, k)
        for _ in range(left):
            best = best_node(able[:n], here[:n], group, size, leaf, loose)
            names[used], taken[able[best]], able[best] = able[best], e, -1
            used += 1
    return offset, names
