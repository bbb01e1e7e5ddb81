"""Seeded demands for the planner's tests, and the judge of a plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocator.planner import Demand


def demand_of(
    count: int = 60, *, nodes: int = 6, slots: int = 120, whole: bool = False, seed: int = 0, **more: Any
) -> Demand:
    """Bookings of all sizes that together ask for more than there is."""
    dice = np.random.default_rng(seed)
    part = np.zeros(count, bool) if whole else dice.random(count) < 0.5
    wide = np.where(part, 1, np.minimum(nodes, dice.choice([1, 2, 4], count)))
    gpus = np.where(part, dice.integers(1, 8, count), 8)
    duration = dice.integers(1, slots // 4, count)
    earliest = (dice.random(count) * (slots - duration)).astype(np.int64)
    latest = np.minimum(slots, earliest + duration + dice.integers(0, slots // 3, count))
    weight = dice.choice([1.0, 1.2, 1.5, 2.0], count)
    return Demand(nodes, slots, 1.0, wide, gpus, duration, earliest, latest, weight, **more)


def capacity_of(demand: Demand, seed: int) -> np.ndarray:
    """Maintenance, failed nodes and half-broken ones, at random."""
    dice = np.random.default_rng(seed)
    capacity = np.full((demand.nodes_total, demand.slots), 8, np.int8)
    for _ in range(3):
        start = int(dice.integers(demand.slots))
        capacity[dice.integers(demand.nodes_total), start : start + 30] = dice.choice([0, 0, 3, 5])
    return capacity


def judge(demand: Demand, start: np.ndarray, assigned: list[list[int]], *, since: int = 0) -> float:
    """Value of a plan; AssertionError where it cannot be carried out from a slot on."""
    shape = (demand.nodes_total, demand.slots)
    free = np.full(shape, 8, int) if demand.capacity is None else demand.capacity.astype(int)
    value = 0.0
    for j in np.flatnonzero(start >= 0).tolist():
        begin, end = int(start[j]), int(start[j] + demand.duration[j])
        if j not in demand.pinned:
            assert demand.earliest[j] <= begin <= demand.latest[j] - (end - begin), (
                f"booking {j} leaves its window"
            )
        assert len(assigned[j]) == len(set(assigned[j])) == demand.nodes[j], f"booking {j} lacks nodes"
        free[assigned[j], max(begin, since) : max(end, since)] -= demand.gpus[j]
        value += float(demand.value[j])
    assert free[:, since:].min() >= 0, "a node is overbooked"
    return value
