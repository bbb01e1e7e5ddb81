"""The geometry of the calendar's SVG: columns to point at, rows of nodes, what is taken as a few long paths.

A path for everything of one kind keeps a month of thousands of bookings small. Units are CSS pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from allocator.booking.calendar_queries import Own, Taken
from web.booking.calendar_grid import Cell, Group, NodeLine
from web.booking.calendar_time import Span, Stretch

# The widest that fits beside the names without scrolling; 24 px is the least for a finger.
COLUMN = {Span.DAY: 40, Span.WEEK: 34, Span.MONTH: 31}
HEAD, DEMAND, FREE, GAP = 40, 26, 38, 6
NUMBER = 20  # above the bar of what is free
TOP = HEAD + DEMAND + FREE + GAP
ROW_FEW, ROW_MANY, ROW_GROUP = 24, 16, 30
FEW = 24
LEAST = 3  # a thing that is there at all must be seen


@dataclass(frozen=True)
class Row:
    """A node, or a group of them (then with its number)."""

    y: int
    height: int
    name: str
    group: int | None
    lines: Sequence[NodeLine]

    @property
    def gpus(self) -> int:
        return sum(line.node.gpus for line in self.lines)


@dataclass(frozen=True)
class Column:
    """One cell: its place, and the heights of its bars of what is free, for all of it or for a part."""

    cell: Cell
    x: int
    width: int
    free_height: int
    part_height: int


@dataclass(frozen=True)
class Heading:
    """A day above its columns."""

    day: date
    x: int
    width: int


@dataclass(frozen=True)
class OwnShape:
    """One's own booking on all its rows: one link."""

    own: Own
    path: str
    # where its number is written, None where there is no room
    text_at: tuple[int, int] | None


@dataclass(frozen=True)
class Drawing:
    """Everything that the template places; ``taken``, ``away`` and ``outages`` are paths."""

    width: int
    height: int
    columns: Sequence[Column]
    headings: Sequence[Heading]
    rows: Sequence[Row]
    taken: str
    outages: str
    away: str
    own: Sequence[OwnShape]
    now_x: int | None
    chosen: tuple[int, int] | None
    top: int = TOP
    head: int = HEAD
    demand: int = DEMAND
    free: int = FREE


class Canvas:
    """Turns seconds of a stretch into pixels."""

    def __init__(self, stretch: Stretch) -> None:
        self.stretch = stretch
        self.width = COLUMN[stretch.span] * len(stretch.cells)
        self.seconds = stretch.seconds  # kept: thousands of edges are asked for

    def x(self, seconds: int) -> int:
        return min(max(seconds, 0), self.seconds) * self.width // self.seconds

    def box(self, first: int, last: int, y: float, height: float) -> str:
        """A rectangle of a path; a pixel of ground stays between neighbours."""
        left, right = self.x(first), self.x(last)
        wide = max(right - left - 1, 1)
        return f"M{left} {y:g}h{wide}v{height:g}h-{wide}z"


def rows_of_nodes(lines: Sequence[NodeLine]) -> list[Row]:
    height = ROW_FEW if len(lines) <= FEW else ROW_MANY
    return [
        Row(TOP + number * height, height, line.node.name, None, [line]) for number, line in enumerate(lines)
    ]


def rows_of_groups(groups: Sequence[Group], lines: Mapping[int, NodeLine]) -> list[Row]:
    return [
        Row(
            TOP + place * ROW_GROUP,
            ROW_GROUP,
            group.name,
            group.number,
            [lines[node.id] for node in group.nodes],
        )
        for place, group in enumerate(groups)
    ]


def draw(
    stretch: Stretch,
    cells: Sequence[Cell],
    rows: Sequence[Row],
    own: Mapping[int, Own],
    *,
    now: datetime,
    chosen: datetime | None,
) -> Drawing:
    """The whole drawing; rows of single nodes show every window, rows of groups the share that is taken."""
    canvas = Canvas(stretch)
    grouped = bool(rows) and rows[0].group is not None
    taken, outages = _shares(canvas, rows) if grouped else _windows(canvas, rows, own)
    since, until = stretch.window
    return Drawing(
        width=canvas.width,
        height=(rows[-1].y + rows[-1].height if rows else TOP) + 1,
        columns=_columns(canvas, cells),
        headings=_headings(canvas, cells),
        rows=rows,
        taken=taken,
        outages=outages,
        away="" if grouped else _away(canvas, rows),
        own=_own_shapes(canvas, rows, own),
        now_x=canvas.x(stretch.offset(now)) if since <= now < until else None,
        chosen=_chosen(canvas, chosen) if chosen and since <= chosen < until else None,
    )


def _chosen(canvas: Canvas, moment: datetime) -> tuple[int, int]:
    x = canvas.x(canvas.stretch.offset(moment))
    return x, canvas.width - x


def _columns(canvas: Canvas, cells: Sequence[Cell]) -> list[Column]:
    edges = [canvas.x(canvas.stretch.offset(cell.edge.starts_at)) for cell in cells] + [canvas.width]
    return [
        Column(
            cell,
            edges[n],
            edges[n + 1] - edges[n],
            _part(cell.free_gpus, cell.gpus, FREE - NUMBER),
            _part(cell.part.free_gpus, cell.gpus, FREE - NUMBER) if cell.part else 0,
        )
        for n, cell in enumerate(cells)
    ]


def _part(amount: int, of: int, height: int) -> int:
    """The height of a bar; what is there at all is seen."""
    return max(amount * height // of, LEAST) if amount and of else 0


def _headings(canvas: Canvas, cells: Sequence[Cell]) -> list[Heading]:
    days: dict[date, int] = {}
    for cell in cells:
        days.setdefault(cell.edge.day, canvas.x(canvas.stretch.offset(cell.edge.starts_at)))
    places = [*days.values(), canvas.width]
    return [Heading(day, x, places[n + 1] - x) for n, (day, x) in enumerate(days.items())]


def _slot_box(canvas: Canvas, row: Row, slot: Taken) -> str:
    inner = row.height - 2
    gpus = row.lines[0].node.gpus
    top = slot.gpu_from * inner / gpus
    height = max((slot.gpu_to - slot.gpu_from) * inner / gpus, 1)
    return canvas.box(slot.first, slot.last, round(row.y + 1 + top, 1), round(height, 1))


def _windows(canvas: Canvas, rows: Iterable[Row], own: Mapping[int, Own]) -> tuple[str, str]:
    """Others' bookings and outages, each window as it is."""
    taken, outages = [], []
    for row in rows:
        for slot in row.lines[0].slots:
            if slot.outage_id is not None:
                outages.append(_slot_box(canvas, row, slot))
            elif slot.booking_id not in own:
                taken.append(_slot_box(canvas, row, slot))
    return "".join(taken), "".join(outages)


def _shares(canvas: Canvas, rows: Iterable[Row]) -> tuple[str, str]:
    """How much of a group each cell has taken, from the ground up; what is out of service from above."""
    taken, outages = [], []
    cells = canvas.stretch.cells
    edges = [canvas.stretch.offset(edge.starts_at) for edge in cells] + [canvas.stretch.seconds]
    for row in rows:
        inner = row.height - 4
        for n in range(len(cells)):
            away = sum(line.node.gpus for line in row.lines if line.away[n])
            used = sum(line.masks[n].bit_count() for line in row.lines if not line.away[n])
            height, missing = _part(used, row.gpus, inner), _part(away, row.gpus, inner)
            if height:
                y = row.y + row.height - 2 - height
                taken.append(canvas.box(edges[n], edges[n + 1], y, height))
            if missing:
                outages.append(canvas.box(edges[n], edges[n + 1], row.y + 2, missing))
    return "".join(taken), "".join(outages)


def _away(canvas: Canvas, rows: Iterable[Row]) -> str:
    """Stretches in which a node is out of service, neighbouring cells as one."""
    cells = canvas.stretch.cells
    edges = [canvas.stretch.offset(edge.starts_at) for edge in cells] + [canvas.stretch.seconds]
    boxes = []
    for row in rows:
        away, since = row.lines[0].away, None
        for n, gone in enumerate([*away, False]):
            if gone and since is None:
                since = n
            elif not gone and since is not None:
                boxes.append(canvas.box(edges[since], edges[n], row.y + 1, row.height - 2))
                since = None
    return "".join(boxes)


def _own_shapes(canvas: Canvas, rows: Iterable[Row], own: Mapping[int, Own]) -> list[OwnShape]:
    paths: dict[int, list[str]] = {}
    texts: dict[int, tuple[int, int]] = {}
    for row in rows:
        for number, slots in _own_slots(row, own).items():
            paths.setdefault(number, []).append(_own_box(canvas, row, slots))
            left, right = canvas.x(slots[0].first), canvas.x(slots[0].last)
            whole = row.group is None and slots[0].gpu_to - slots[0].gpu_from == row.gpus
            if whole and right - left >= 9 * len(str(number)) + 8:
                texts.setdefault(number, (left + 5, row.y + row.height // 2 + 4))
    return [
        OwnShape(booking, "".join(paths[number]), texts.get(number))
        for number, booking in own.items()
        if number in paths
    ]


def _own_slots(row: Row, own: Mapping[int, Own]) -> dict[int, list[Taken]]:
    found: dict[int, list[Taken]] = {}
    for line in row.lines:
        for slot in line.slots:
            if slot.booking_id is not None and slot.booking_id in own:
                found.setdefault(slot.booking_id, []).append(slot)
    return found


def _own_box(canvas: Canvas, row: Row, slots: Sequence[Taken]) -> str:
    if row.group is None:
        return "".join(_slot_box(canvas, row, slot) for slot in slots)
    gpus = sum(slot.gpu_to - slot.gpu_from for slot in slots)
    height = max(_part(gpus, row.gpus, row.height - 4), 2 * LEAST)
    return canvas.box(slots[0].first, slots[0].last, row.y + row.height - 2 - height, height)
