"""What the planner is compared with: three rules that never look back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from allocator.planner import Asked
from allocator.planner.calendar import Calendar

Placement = tuple[np.ndarray, list[list[int]]]


def fixed_start(asked: Asked) -> Placement:
    """Slurm, Blazar: a booking has the first slot of its window or nothing, in order of arrival."""
    return _in_order(asked, np.arange(len(asked.nodes)), flexible=False)


def earliest_fit(asked: Asked) -> Placement:
    """In order of arrival, each at the first start in its window at which it fits."""
    return _in_order(asked, np.arange(len(asked.nodes)))


def order_of_start(asked: Asked) -> Placement:
    """OAR: earliest fit in order of the first slot wanted."""
    return _in_order(asked, np.argsort(asked.earliest, kind="stable"))


BASELINES: dict[str, Callable[[Asked], Placement]] = {
    "fixed start": fixed_start,
    "earliest fit": earliest_fit,
    "order of start": order_of_start,
}


def _in_order(asked: Asked, order: np.ndarray, *, flexible: bool = True) -> Placement:
    """Named nodes at once, as the systems that work so do it."""
    calendar = Calendar(asked.nodes_total, asked.slots)
    start = np.full(len(asked.nodes), -1)
    assigned: list[list[int]] = [[] for _ in range(len(asked.nodes))]
    columns = (asked.nodes, asked.gpus, asked.duration, asked.earliest, asked.latest)
    rows = np.stack(columns, axis=1).tolist()
    for j in order.tolist():
        nodes, gpus, duration, earliest, latest = rows[j]
        opening = calendar.book(nodes, gpus, duration, earliest, latest if flexible else earliest + duration)
        if opening:
            start[j], assigned[j] = opening.start, list(opening.nodes)
    return start, assigned
