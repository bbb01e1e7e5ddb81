"""What stays free on the same GPUs from a chosen start on, and what is free for a part of a cell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from allocator.booking.calendar_queries import CalendarNode, Taken
from allocator.booking.windows import Shape
from allocator.models import NodeState
from web.booking.calendar_grid import Cell, NodeLine, Part, Room
from web.booking.calendar_time import Stretch

HOUR = timedelta(hours=1)


def rooms(
    lines: Iterable[NodeLine], stretch: Stretch, start: datetime, ends: Sequence[datetime]
) -> list[list[Room]]:
    """For each of the ends, which come in order: the nodes that are there from the start until then."""
    found: list[list[Room]] = [[] for _ in ends]
    since = stretch.offset(start)
    for line in lines:
        slots = sorted((s for s in (*line.beyond, *line.slots) if s.last > since), key=lambda s: s.first)
        mask, place = 0, 0
        for number, end in enumerate(ends):
            until = stretch.offset(end)
            while place < len(slots) and slots[place].first < until:
                mask |= bits(slots[place])
                place += 1
            if _is_there(line.node, start, end):
                size = line.node.gpus
                found[number].append(Room(size, size - mask.bit_count(), _longest(mask, size)))
    return found


def bits(slot: Taken) -> int:
    """The slot's GPUs as a bit each."""
    return (1 << slot.gpu_to) - (1 << slot.gpu_from)


def _is_there(node: CalendarNode, start: datetime, end: datetime) -> bool:
    there = node.state in (NodeState.UP, NodeState.EXPECTED)
    early = node.joins_at is not None and start < node.joins_at
    late = node.leaves_at is not None and end > node.leaves_at
    return there and not early and not late


def _longest(mask: int, size: int) -> int:
    longest = run = 0
    for gpu in range(size):
        run = 0 if mask >> gpu & 1 else run + 1
        longest = max(longest, run)
    return longest


def fit(free: Iterable[Room], wanted: Shape, whole: bool) -> Shape | None:
    """The wanted shape with as many nodes as are free, else what one node can give, else None.

    ``whole``: the cluster gives no parts of nodes.
    """
    suitable = [room for room in free if room.run]
    count = sum(room.run >= wanted.gpus and wanted.suits(room.size, whole) for room in suitable)
    if count:
        return Shape(min(count, wanted.nodes), wanted.gpus)
    part = max((room.run for room in suitable if not whole or room.run == room.size), default=0)
    return Shape(1, part if whole else min(part, wanted.gpus)) if part else None


def after(cells: Sequence[Cell], first: int, found: Sequence[Sequence[Room]]) -> list[Cell]:
    """The cells with what stays free from the start on, those from number `first` on."""
    return [
        *cells[:first],
        *(
            replace(
                cell,
                gpus=sum(room.size for room in free),
                free_gpus=sum(room.free for room in free),
                free_nodes=sum(room.free == room.size for room in free),
                rooms=free,
                part=None,
            )
            for cell, free in zip(cells[first:], found, strict=True)
        ),
    ]


def with_parts(
    cells: Sequence[Cell], lines: Mapping[int, NodeLine], stretch: Stretch, soonest: datetime
) -> list[Cell]:
    """Cells of several hours in which no GPU is free throughout, with the first hours in which some are."""
    none = {
        n: _hours(cell, soonest)
        for n, cell in enumerate(cells)
        if not cell.free_gpus
        and cell.edge.ends_at > soonest
        and cell.edge.ends_at - cell.edge.starts_at > HOUR
    }
    if not none:
        return list(cells)
    return [
        replace(cell, part=_part(n, none[n], lines.values(), stretch)) if n in none else cell
        for n, cell in enumerate(cells)
    ]


def _hours(cell: Cell, soonest: datetime) -> list[datetime]:
    """The cell's whole hours in which something may still begin, and its end."""
    count = int((cell.edge.ends_at - cell.edge.starts_at) / HOUR)
    hours = [cell.edge.starts_at + n * HOUR for n in range(count)]
    return [*(hour for hour in hours if hour >= soonest), cell.edge.ends_at]


def _part(number: int, hours: Sequence[datetime], lines: Iterable[NodeLine], stretch: Stretch) -> Part | None:
    """The first hour in which GPUs are free, with until when all of these stay free."""
    since, until = stretch.offset(hours[0]), stretch.offset(hours[-1])
    there = [line for line in lines if not line.away[number]]
    held = [[s for s in line.slots if s.first < until and s.last > since] for line in there]
    all_gpus = sum(line.node.gpus for line in there)
    for place, start in enumerate(hours[:-1]):
        masks = [0] * len(there)
        free = _free(masks, held, stretch.offset(start), stretch.offset(hours[place + 1]), all_gpus)
        if not free:
            continue
        last = place + 1
        # the same GPUs, as long as none of them is taken
        while last + 1 < len(hours):
            if (
                _free(masks, held, stretch.offset(hours[last]), stretch.offset(hours[last + 1]), all_gpus)
                < free
            ):
                break
            last += 1
        return Part(start, hours[last], free)
    return None


def _free(masks: list[int], held: Sequence[Sequence[Taken]], since: int, until: int, gpus: int) -> int:
    """The GPUs left when what is held in [since, until) is added to the masks."""
    for node, slots in enumerate(held):
        for slot in slots:
            if slot.first < until and slot.last > since:
                masks[node] |= bits(slot)
    return gpus - sum(mask.bit_count() for mask in masks)
