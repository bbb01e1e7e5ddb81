"""The calendar's kernels: for every slot, one bit for each node that has so many GPUs free.

A set of nodes is a few words of 64 bits, so that "which nodes are free all along" is one AND for each slot.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled, inner
from .state import WHOLE, Ints

BITS = 64
Words = NDArray[np.uint64]
# able[g, word, slot]: the nodes with at least g GPUs free at a slot, a bit for each; able[0] is every node.
Able = NDArray[np.uint64]

ONE, NONE, ALL = np.uint64(1), np.uint64(0), np.uint64(2**64 - 1)
# Masks and shifts that count bits two, four, eight at a time; the compiler knows the pattern.
M1, M2, M4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
H1 = np.uint64(0x0101010101010101)
S1, S2, S4, S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@inner
def bits(word: np.uint64) -> int:
    word = word - ((word >> S1) & M1)
    word = (word & M2) + ((word >> S2) & M2)
    return np.int64((((word + (word >> S4)) & M4) * H1) >> S56)  # type: ignore[return-value]


@compiled
def able_of(free: NDArray[np.int8]) -> Able:
    """From GPUs free, nodes × slots."""
    nodes, slots = free.shape
    able = np.zeros((WHOLE + 1, (nodes + BITS - 1) // BITS, slots), np.uint64)
    for node in range(nodes):
        word, bit = node // BITS, ONE << np.uint64(node % BITS)
        for t in range(slots):
            for g in range(free[node, t] + 1):
                able[g, word, t] |= bit
    return able


@compiled
def book(able: Able, nodes: Ints, gpus: int, start: int, end: int) -> int:
    """Take GPUs on some nodes (negative: give back); the first node on which it cannot be, or -1."""
    marks = np.zeros(able.shape[1], np.uint64)
    for node in nodes:
        marks[node // BITS] |= ONE << np.uint64(node % BITS)
    for word in range(len(marks)):
        mark = marks[word]
        if mark == NONE:
            continue
        # Too few are free to take, or more than all would be free after giving back.
        row = able[gpus, word] if gpus > 0 else able[WHOLE + gpus + 1, word]
        for t in range(start, end):
            wrong = mark & ~row[t] if gpus > 0 else mark & row[t]
            if wrong != NONE:
                return word * BITS + bits((wrong & (~wrong + ONE)) - ONE)
    if gpus > 0:
        take(able, marks, gpus, start, end)
    else:
        give(able, marks, -gpus, start, end)
    return -1


@inner
def take(able: Able, marks: Words, gpus: int, start: int, end: int) -> None:
    """Who had g + gpus free has g."""
    for word in range(len(marks)):
        mark = marks[word]
        if mark == NONE:
            continue
        rest = ~mark
        for g in range(1, WHOLE + 1):
            row = able[g, word]
            if g + gpus > WHOLE:
                for t in range(start, end):
                    row[t] &= rest
                continue
            above = able[g + gpus, word]
            for t in range(start, end):
                row[t] = (row[t] & rest) | (above[t] & mark)


@inner
def give(able: Able, marks: Words, gpus: int, start: int, end: int) -> None:
    """Who had g - gpus free has g."""
    for word in range(len(marks)):
        mark = marks[word]
        if mark == NONE:
            continue
        rest = ~mark
        for g in range(WHOLE, 0, -1):
            row = able[g, word]
            if g <= gpus:
                for t in range(start, end):
                    row[t] |= mark
                continue
            below = able[g - gpus, word]
            for t in range(start, end):
                row[t] = (row[t] & rest) | (below[t] & mark)


@inner
def first_fit(
    able: Able, count: int, gpus: int, duration: int, after: int, before: int, fit: Words, tail: Able
) -> int:
    """The first start in [after, before - duration] with enough nodes free all along, which are put in fit.

    The window has two halves: tail[word, t - origin] is what is free from t to the end of the first, and
    grown what is free all through the second. So a slot is looked at twice at most, however long the booking
    is. Where too few nodes are free from t to an end, no start up to t will do.
    """
    rows = able[gpus]
    words = rows.shape[0]
    grown = np.empty(words, np.uint64)
    start = after
    while start + duration <= before:
        origin, half = start, start + duration
        start = _fill_tail(rows, count, origin, half, tail, fit) + 1
        if start == origin:
            return origin
        grown[:] = ALL
        seen = half
        while start < half:
            if start + duration > before:
                return -1
            for word in range(words):
                for t in range(seen, start + duration):
                    grown[word] &= rows[word, t]
            seen = start + duration
            left = there = 0
            for word in range(words):
                fit[word] = grown[word] & tail[word, start - origin]
                there += bits(fit[word])
                left += bits(grown[word])
            if there >= count:
                return start
            start = start + 1 if left >= count else half
    return -1


@inner
def _fill_tail(rows: Able, count: int, start: int, half: int, tail: Able, fit: Words) -> int:
    """From the end backwards what is free until there; the slot where that is too little, or start - 1."""
    words = rows.shape[0]
    fit[:] = ALL
    for t in range(half - 1, start - 1, -1):
        there = 0
        for word in range(words):
            fit[word] &= rows[word, t]
            tail[word, t - start] = fit[word]
            there += bits(fit[word])
        if there < count:
            return t
    return start - 1


@compiled
def earliest(
    able: Able, count: int, gpus: int, duration: int, after: int, before: int, group: Ints, fit: Words,
    tail: Able, found: Ints,
) -> int:  # fmt: skip
    """The first start, and its nodes in found; -1 where there is none."""
    start = first_fit(able, count, gpus, duration, after, before, fit, tail)
    if start >= 0:
        choose(able, fit, start, count, gpus, group, found)
    return start


@compiled
def earliest_taken(
    able: Able, count: int, gpus: int, duration: int, after: int, before: int, group: Ints, fit: Words,
    tail: Able, found: Ints,
) -> int:  # fmt: skip
    """``earliest``, and booked at once."""
    start = first_fit(able, count, gpus, duration, after, before, fit, tail)
    if start >= 0:
        choose(able, fit, start, count, gpus, group, found)
        fit[:] = NONE
        for i in range(count):
            fit[found[i] // BITS] |= ONE << np.uint64(found[i] % BITS)
        take(able, fit, gpus, start, start + duration)
    return start


@inner
def choose(able: Able, fit: Words, start: int, count: int, gpus: int, group: Ints, found: Ints) -> None:
    """Of the nodes that fit, those with the least free already, so that empty ones stay whole.

    group: the leaf switch of each node, or empty. Several nodes come from one leaf if one suffices, from the
    one with the least to spare; else from the largest leaves first.
    """
    n = 0
    if count > 1 and len(group) > 0:
        size = np.zeros(group.max() + 1, np.int64)
        for node in range(len(group)):
            if fit[node // BITS] & (ONE << np.uint64(node % BITS)) != NONE:
                size[group[node]] += 1
        while n < count:
            leaf = 0
            for one in range(len(size)):
                if size[one] >= count - n:
                    if size[leaf] < count - n or size[one] < size[leaf]:
                        leaf = one
                elif size[one] > size[leaf]:
                    leaf = one
            size[leaf] = 0
            n = _collect(able, fit, start, count, gpus, group, leaf, n, found)
        return
    _collect(able, fit, start, count, gpus, group, -1, n, found)


@inner
def _collect(
    able: Able, fit: Words, start: int, count: int, gpus: int, group: Ints, leaf: int, n: int, found: Ints
) -> int:
    """More nodes that fit (under one leaf), the fullest first; how many there are now."""
    for want in range(gpus, WHOLE + 1):
        for word in range(len(fit)):
            here = fit[word] & able[want, word, start]
            if want < WHOLE:
                here &= ~able[want + 1, word, start]
            while here != NONE and n < count:
                node = word * BITS + bits((here & (~here + ONE)) - ONE)
                here &= here - ONE
                if leaf < 0 or group[node] == leaf:
                    found[n] = node
                    n += 1
    return n


@compiled
def least_free(able: Able, nodes: int, start: int, end: int) -> NDArray[np.int8]:
    """GPUs free on each node all along."""
    least = np.zeros(nodes, np.int8)
    for g in range(1, WHOLE + 1):
        for word in range(able.shape[1]):
            here = ALL
            for t in range(start, end):
                here &= able[g, word, t]
            for node in range(word * BITS, min(nodes, (word + 1) * BITS)):
                least[node] += np.int8((here >> np.uint64(node % BITS)) & ONE)
    return least


@compiled
def count_able(able: Able, gpus: int) -> Ints:
    """At every slot, how many nodes have so many GPUs free."""
    count = np.zeros(able.shape[2], np.int32)
    for word in range(able.shape[1]):
        for t in range(able.shape[2]):
            count[t] += bits(able[gpus, word, t])
    return count
