"""What is free when: a calendar of named nodes that answers in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .demand import GPUS_PER_NODE
from .kernels import asking


class Overbooked(ValueError):
    """A booking does not fit where it was to be placed, or was not there to be removed."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A start slot and the nodes that are free from then on for as long as was asked."""

    start: int
    nodes: tuple[int, ...]


class Calendar:
    """GPUs free on each node at each slot of a horizon; slots × nodes bytes and as much again.

    capacity: nodes × slots, GPUs that can be used at all (None: 8 everywhere). groups: the leaf switch of
    each node, by number; several nodes come from one leaf where they can.
    """

    def __init__(
        self,
        nodes: int,
        slots: int,
        capacity: NDArray[np.int8] | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        if capacity is None:
            capacity = np.full((nodes, slots), GPUS_PER_NODE, np.int8)
        if capacity.shape != (nodes, slots):
            raise ValueError(f"capacity must be nodes × slots = {(nodes, slots)}")
        self.nodes, self.slots = nodes, slots
        self._able = asking.able_of(np.ascontiguousarray(capacity, np.int8))
        self._group = np.array(() if groups is None else groups, np.int32)
        # What a question needs is made once: a question is over sooner than the making would be.
        words = self._able.shape[1]
        self._fit, self._tail = np.zeros(words, np.uint64), np.zeros((words, slots), np.uint64)
        self._found = np.zeros(nodes, np.int32)

    def place(self, nodes: Sequence[int], gpus: int, start: int, duration: int) -> None:
        """Book GPUs on each of the nodes for duration slots. Raises Overbooked, and then changes nothing."""
        self._book(nodes, gpus, start, duration)

    def remove(self, nodes: Sequence[int], gpus: int, start: int, duration: int) -> None:
        """Undo ``place``. Raises Overbooked where more would become free than a node has."""
        self._book(nodes, -gpus, start, duration)

    def earliest(
        self, nodes: int, gpus: int, duration: int, after: int = 0, before: int | None = None
    ) -> Opening | None:
        """The first start from ``after`` on at which so many nodes have so many GPUs free all along.

        before: slot by which it must have ended. None where there is no such start.
        """
        return self._ask(asking.earliest, nodes, gpus, duration, after, before)

    def book(
        self, nodes: int, gpus: int, duration: int, after: int = 0, before: int | None = None
    ) -> Opening | None:
        """Place at the earliest opening, if there is one."""
        return self._ask(asking.earliest_taken, nodes, gpus, duration, after, before)

    def _ask(
        self,
        kernel: Callable[..., int],
        nodes: int,
        gpus: int,
        duration: int,
        after: int,
        before: int | None,
    ) -> Opening | None:
        if nodes < 1 or duration < 1 or not 1 <= gpus <= GPUS_PER_NODE:
            raise ValueError("ask for at least one node, one slot and one to eight GPUs")
        end = self.slots if before is None or before > self.slots else before
        found = self._found
        after = after if after > 0 else 0
        start = kernel(
            self._able, nodes, gpus, duration, after, end, self._group, self._fit, self._tail, found
        )
        return None if start < 0 else Opening(start, tuple(found[:nodes].tolist()))

    def free(self, start: int, end: int | None = None) -> NDArray[np.int8]:
        """GPUs free on each node at a slot, or all along from start to end."""
        if not 0 <= start < self.slots:
            raise ValueError("the slot lies outside the horizon")
        return asking.least_free(self._able, self.nodes, start, min(end or start + 1, self.slots))

    def nodes_free(self, gpus: int = GPUS_PER_NODE) -> NDArray[np.int32]:
        """At every slot, how many nodes have at least so many GPUs free."""
        return asking.count_able(self._able, gpus)

    def _book(self, nodes: Sequence[int], gpus: int, start: int, duration: int) -> None:
        end = start + duration
        if start < 0 or end > self.slots or duration < 1:
            raise Overbooked("the booking lies outside the horizon")
        names = np.array(nodes, np.int32)
        if len(set(nodes)) < len(nodes) or names.min(initial=0) < 0 or names.max(initial=0) >= self.nodes:
            raise Overbooked("nodes must be different ones of this calendar")
        wrong = asking.book(self._able, names, gpus, start, end)
        if wrong >= 0:
            raise Overbooked(f"node {wrong} cannot take it")
