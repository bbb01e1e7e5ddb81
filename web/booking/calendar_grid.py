"""What each cell of the calendar holds: GPUs taken, free nodes, whose bookings, how much demand. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from allocator.booking.calendar_queries import CalendarNode, Demand, Taken
from allocator.models import NodeState
from web.booking.calendar_time import Edge, Stretch

# More nodes than this are drawn in groups; a group is opened by its name.
MOST_ROWS = 96
GROUP = 32
# Prices of congestion: below each, the words of web.calendar_words; 1 is an average booking's worth.
LEVELS = (0.05, 0.5, 1.0)


@dataclass(frozen=True)
class Group:
    """Consecutive nodes that make one row together."""

    number: int
    nodes: Sequence[CalendarNode]

    @property
    def name(self) -> str:
        first, last = self.nodes[0].name, self.nodes[-1].name
        return first if first == last else f"{first}–{last}"

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)


@dataclass
class NodeLine:
    """One node over the cells: a bit for each GPU that is taken at any moment of the cell."""

    node: CalendarNode
    masks: list[int]
    away: list[bool]  # out of service, not there yet or not any more
    slots: list[Taken] = field(default_factory=list)
    beyond: list[Taken] = field(default_factory=list)  # before or after the stretch

    def free(self, cell: int) -> int:
        """GPUs that are free during the whole cell."""
        return 0 if self.away[cell] else self.node.gpus - self.masks[cell].bit_count()


class Room(NamedTuple):
    """A node of `size` GPUs of which `free` stay free through a window, `run` of them side by side."""

    size: int
    free: int
    run: int


class Part(NamedTuple):
    """Hours of a cell in which GPUs are free that are not so for all of it."""

    starts_at: datetime
    ends_at: datetime
    free_gpus: int


@dataclass(frozen=True)
class Cell:
    """One cell over all nodes. ``gpus`` are those in service for all of it, taken or not; ``level`` 0 to 3 of
    demand, None where no plan reaches. After a chosen start all numbers are of what stays free from there on,
    and ``rooms`` says it of each node (see web.booking.calendar_through)."""

    edge: Edge
    gpus: int
    free_gpus: int
    free_nodes: int
    level: int | None
    own: Sequence[int]
    outages: Sequence[int]
    part: Part | None = None
    rooms: Sequence[Room] | None = None


def groups(nodes: Sequence[CalendarNode]) -> list[Group]:
    """The nodes under one leaf switch, where the cluster tells, else so many at a time by name."""
    if nodes and all(node.switch for node in nodes):
        by_switch = sorted(nodes, key=lambda node: str(node.switch))
        found = [list(members) for _, members in groupby(by_switch, key=lambda node: node.switch)]
        if len(found) <= MOST_ROWS:
            return [Group(number, members) for number, members in enumerate(found)]
    size = max(GROUP, -(-len(nodes) // MOST_ROWS))
    return [Group(number, list(members)) for number, members in enumerate(_chunks(nodes, size))]


def _chunks(nodes: Sequence[CalendarNode], size: int) -> Iterator[Sequence[CalendarNode]]:
    for start in range(0, len(nodes), size):
        yield nodes[start : start + size]


def lines(
    nodes: Sequence[CalendarNode], slots: Sequence[Taken], stretch: Stretch, now: datetime
) -> dict[int, NodeLine]:
    """A line for each node, by its number."""
    edges = [stretch.offset(edge.starts_at) for edge in stretch.cells] + [stretch.seconds]
    count = len(stretch.cells)
    found = {
        node.id: NodeLine(node, [0] * count, [_is_away(node, edge, now) for edge in stretch.cells])
        for node in nodes
    }
    for slot in slots:
        line = found.get(slot.node_id)
        if line is None:  # it went away between two queries
            continue
        if slot.last <= 0 or slot.first >= stretch.seconds:
            line.beyond.append(slot)
            continue
        line.slots.append(slot)
        mask = (1 << slot.gpu_to) - (1 << slot.gpu_from)
        first = max(bisect_right(edges, slot.first) - 1, 0)
        for cell in range(first, min(bisect_left(edges, slot.last), count)):
            line.masks[cell] |= mask
    return found


def _is_away(node: CalendarNode, edge: Edge, now: datetime) -> bool:
    if node.joins_at is not None and edge.starts_at < node.joins_at:
        return True
    if node.leaves_at is not None and edge.ends_at > node.leaves_at:
        return True
    # what was is not known, and what is announced comes on its day
    announced = node.state == NodeState.EXPECTED and node.joins_at is not None
    return node.state != NodeState.UP and not announced and edge.ends_at > now


def cells(found: dict[int, NodeLine], stretch: Stretch, own: set[int], demand: Demand | None) -> list[Cell]:
    """Each cell over all the lines."""
    count = len(stretch.cells)
    owned: list[set[int]] = [set() for _ in range(count)]
    away: list[set[int]] = [set() for _ in range(count)]
    edges = [stretch.offset(edge.starts_at) for edge in stretch.cells] + [stretch.seconds]
    for line in found.values():
        for slot in line.slots:
            # most slots are other people's bookings
            if slot.outage_id is None and slot.booking_id not in own:
                continue
            first = max(bisect_right(edges, slot.first) - 1, 0)
            for cell in range(first, min(bisect_left(edges, slot.last), count)):
                if slot.booking_id is not None:
                    owned[cell].add(slot.booking_id)
                elif slot.outage_id is not None:
                    away[cell].add(slot.outage_id)
    made = []
    for number, edge in enumerate(stretch.cells):
        free = [(line.free(number), line.node.gpus) for line in found.values() if not line.away[number]]
        made.append(
            Cell(
                edge,
                gpus=sum(gpus for _, gpus in free),
                free_gpus=sum(part for part, _ in free),
                free_nodes=sum(part == gpus for part, gpus in free),
                level=level(demand, edge),
                own=sorted(owned[number]),
                outages=sorted(away[number]),
            )
        )
    return made


def level(demand: Demand | None, edge: Edge) -> int | None:
    """How much demand the cell has, 0 to 3, or None where no plan reaches."""
    price = demand.mean(edge.starts_at, edge.ends_at) if demand else None
    return None if price is None else sum(price >= bound for bound in LEVELS)
