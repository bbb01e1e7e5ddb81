"""The calendar's second table: each node, or group of nodes, with what holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from allocator.booking.calendar_queries import Own, Taken
from web.booking.calendar_drawing import Row
from web.booking.calendar_time import Stretch


@dataclass(frozen=True)
class Held:
    """`gpus` GPUs for a window: of one's own booking, of an outage, or (neither) of somebody else."""

    starts_at: datetime
    ends_at: datetime
    gpus: int
    booking_id: int | None
    outage_id: int | None


@dataclass(frozen=True)
class RowFacts:
    """A row in numbers; `taken` is the percentage of its GPU-time, `held` the windows of a single node."""

    row: Row
    taken: int
    held: list[Held]
    away: bool


def facts(rows: Iterable[Row], own: Mapping[int, Own], stretch: Stretch) -> list[RowFacts]:
    return [
        RowFacts(
            row,
            _percent(row, stretch),
            _held(row, own, stretch) if row.group is None else [],
            any(line.away[-1] for line in row.lines),
        )
        for row in rows
    ]


def _percent(row: Row, stretch: Stretch) -> int:
    used = sum(
        (slot.gpu_to - slot.gpu_from) * (min(slot.last, stretch.seconds) - max(slot.first, 0))
        for line in row.lines
        for slot in line.slots
    )
    return used * 100 // (row.gpus * stretch.seconds)


def _held(row: Row, own: Mapping[int, Own], stretch: Stretch) -> list[Held]:
    begin = stretch.window[0]

    def held(slot: Taken) -> Held:
        return Held(
            begin + timedelta(seconds=slot.first),
            begin + timedelta(seconds=slot.last),
            slot.gpu_to - slot.gpu_from,
            slot.booking_id if slot.booking_id in own else None,
            slot.outage_id,
        )

    return [held(slot) for slot in row.lines[0].slots]
