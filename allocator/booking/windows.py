"""Pure arithmetic of free GPUs: what is free on a node, when k × g GPUs may start, and which nodes to take.

Nothing here knows the database. Windows of time are half-open, [start, end): one booking may begin where
another ends.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

GRID = timedelta(minutes=1)  # reservations begin and last in whole minutes (so does Slurm's own arithmetic)


@dataclass(frozen=True)
class Grid:
    """The moments at which bookings may begin and end: ``anchor`` and every ``step`` before and after it."""

    step: timedelta
    anchor: datetime

    def floor(self, moment: datetime) -> datetime:
        return moment - (moment - self.anchor) % self.step

    def ceil(self, moment: datetime) -> datetime:
        return moment + (self.anchor - moment) % self.step

    def holds(self, moment: datetime) -> bool:
        return not (moment - self.anchor) % self.step


MINUTES = Grid(GRID, datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Held:
    """GPUs [gpu_from, gpu_to) of one node, taken for [starts_at, ends_at)."""

    gpu_from: int
    gpu_to: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class NodeHeld:
    """A node with ``gpus`` GPUs and what is taken of it in the stretch of time that was asked about."""

    id: int
    name: str
    gpus: int
    held: tuple[Held, ...] = ()
    switch: str | None = None  # the leaf switch above it, where the cluster tells


@dataclass(frozen=True)
class NodeFree:
    """A node and its runs of GPUs, (from, to), that are free during a whole window; lowest first."""

    id: int
    name: str
    gpus: int
    free: tuple[tuple[int, int], ...]
    switch: str | None = None


@dataclass(frozen=True)
class Shape:
    """``nodes`` × ``gpus`` GPUs. Several nodes are only ever whole; of one node any run of GPUs will do."""

    nodes: int
    gpus: int

    def suits(self, node_gpus: int, whole: bool = False) -> bool:
        """Whether a node of that size can carry its part; ``whole`` where the cluster shares no nodes."""
        return node_gpus == self.gpus if whole or self.nodes > 1 else node_gpus >= self.gpus


@dataclass(frozen=True)
class Place:
    """GPUs [gpu_from, gpu_to) of the node, chosen for a booking."""

    node_id: int
    name: str
    gpu_from: int
    gpu_to: int


def ceil(moment: datetime) -> datetime:
    """The moment itself if it is a whole minute, else the next one."""
    down = floor(moment)
    return moment if moment == down else down + GRID


def floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def free_during(node: NodeHeld, start: datetime, end: datetime) -> NodeFree:
    """What of the node nobody holds at any moment of [start, end)."""
    taken = sorted((h.gpu_from, h.gpu_to) for h in node.held if h.starts_at < end and h.ends_at > start)
    free, position = [], 0
    for low, high in taken:
        if low > position:
            free.append((position, low))
        position = max(position, high)
    if position < node.gpus:
        free.append((position, node.gpus))
    return NodeFree(node.id, node.name, node.gpus, tuple(free), node.switch)


def pick(nodes: Iterable[NodeFree], shape: Shape, whole: bool = False) -> list[Place] | None:
    """The nodes to take, or None when they do not suffice.

    A part goes to the fullest node where it still fits, into its tightest gap: whole nodes stay whole for
    those who need them. Several nodes come from under one leaf switch where they can, from the one with the
    least to spare. Equal choices fall to the lowest name: the same state always gives the same answer.
    """
    fits = [
        (sum(high - low for low, high in node.free), gap[1] - gap[0], natural(node.name), gap[0], node)
        for node in nodes
        if shape.suits(node.gpus, whole)
        for gap in node.free
        if gap[1] - gap[0] >= shape.gpus
    ]
    if len(fits) < shape.nodes:
        return None
    # with several nodes all of them are whole and free, so only switch and name decide
    fits = _near_each_other(sorted(fits, key=lambda fit: fit[:4]), shape.nodes)
    chosen = fits[: shape.nodes]
    return [Place(node.id, node.name, low, low + shape.gpus) for _, _, _, low, node in chosen]


_Fit = tuple[int, int, tuple[tuple[int, str], ...], int, NodeFree]


def _near_each_other(fits: list[_Fit], wanted: int) -> list[_Fit]:
    """The same in another order: the leaf that suffices with the least to spare first, else the largest."""
    if wanted == 1 or not all(fit[-1].switch for fit in fits):
        return fits
    size = Counter(fit[-1].switch for fit in fits)
    first = {fit[-1].switch: place for place, fit in reversed(list(enumerate(fits)))}
    left = wanted
    ranks: dict[str | None, int] = {}
    while size:
        # as a leaf is used up, a smaller one may do for the rest
        leaf = min(
            size,
            key=lambda one: (size[one] < left, size[one] if size[one] >= left else -size[one], first[one]),
        )
        ranks[leaf] = len(ranks)
        left = max(left - size.pop(leaf), 0)
    return sorted(fits, key=lambda fit: ranks[fit[-1].switch])


def free_starts(
    nodes: Iterable[NodeHeld],
    shape: Shape,
    length: timedelta,
    after: datetime,
    until: datetime,
    whole: bool = False,
) -> list[tuple[datetime, datetime]]:
    """All moments of [after, until] at which the shape could start, as closed intervals in order.

    Exact, not on a grid: O(s log s) in the slots of the suitable nodes, times the ways to place a part.
    """
    if after > until:
        return []
    changes: list[tuple[datetime, int]] = []
    for node in nodes:
        if shape.suits(node.gpus, whole):
            for first, last in _node_starts(node, shape.gpus, length, after, until):
                changes += [(first, 0), (last, 1)]  # 0 before 1: closed intervals that touch share a moment
    return _where_enough(sorted(changes), shape.nodes)


def _where_enough(changes: Sequence[tuple[datetime, int]], needed: int) -> list[tuple[datetime, datetime]]:
    found: list[tuple[datetime, datetime]] = []
    count, since = 0, None
    for moment, closing in changes:
        if closing:
            if count == needed and since is not None:
                found.append((since, moment))
            count -= 1
        else:
            count += 1
            if count == needed:
                since = moment
    return found


def _node_starts(
    node: NodeHeld, gpus: int, length: timedelta, after: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """When some run of ``gpus`` GPUs of this one node may start: the union over the runs, merged."""
    starts: list[tuple[datetime, datetime]] = []
    for low in range(node.gpus - gpus + 1):
        # a slot [s, e) on these GPUs forbids every start in the open interval (s - length, e)
        forbidden = sorted(
            (h.starts_at - length, h.ends_at) for h in node.held if h.gpu_from < low + gpus and h.gpu_to > low
        )
        position = after
        for first, last in forbidden:
            if last <= position:
                continue
            if first >= position and position <= until:
                starts.append((position, min(first, until)))
            position = last
        if position <= until:
            starts.append((position, until))
    return merged(sorted(starts))


def merged(intervals: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The union of closed intervals that come in order of their beginnings."""
    found: list[tuple[datetime, datetime]] = []
    for first, last in intervals:
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def nearest_after(
    starts: Iterable[tuple[datetime, datetime]], wanted: datetime, grid: Grid = MINUTES
) -> datetime | None:
    """The first moment of the grid at or after ``wanted`` in the closed intervals."""
    candidates = (
        grid.ceil(max(first, wanted)) for first, last in starts if grid.ceil(max(first, wanted)) <= last
    )
    return min(candidates, default=None)


def nearest_before(
    starts: Iterable[tuple[datetime, datetime]], wanted: datetime, grid: Grid = MINUTES
) -> datetime | None:
    """The last moment of the grid before ``wanted`` in the closed intervals."""
    latest = grid.ceil(wanted) - grid.step
    candidates = (
        grid.floor(min(last, latest)) for first, last in starts if grid.floor(min(last, latest)) >= first
    )
    return max(candidates, default=None)


@lru_cache(maxsize=16_384)
def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Order of names in which gpu2 stands before gpu10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
