"""The time that a calendar shows: a day, a week or a month from a given day, cut into cells to point at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from web.days import FIRST_YEAR, LAST_YEAR

HOURS_A_DAY = 24


class Span(StrEnum):
    """How much is shown at once. It begins with the chosen day: who books looks ahead, not back."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    @property
    def cell_hours(self) -> int:
        return {Span.DAY: 1, Span.WEEK: 6, Span.MONTH: HOURS_A_DAY}[self]

    def after(self, day: date) -> date:
        """The day with which the next stretch begins."""
        if self is Span.MONTH:
            return _month_after(day)
        return day + timedelta(days=1 if self is Span.DAY else 7)

    def before(self, day: date) -> date:
        """The day with which the stretch before began."""
        if self is Span.MONTH:
            return _month_before(day)
        return day - timedelta(days=1 if self is Span.DAY else 7)


class Edge(NamedTuple):
    """[starts_at, ends_at) of one cell, in UTC, and the local day in which it begins."""

    starts_at: datetime
    ends_at: datetime
    day: date
    hour: int


@dataclass(frozen=True)
class Stretch:
    """What one page of the calendar shows: local days, whole or from an hour on, in cells of the span's
    length."""

    span: Span
    first: date
    cells: tuple[Edge, ...]

    @property
    def window(self) -> tuple[datetime, datetime]:
        return self.cells[0].starts_at, self.cells[-1].ends_at

    @property
    def last(self) -> date:
        return self.cells[-1].day

    @property
    def seconds(self) -> int:
        return int((self.window[1] - self.window[0]).total_seconds())

    def offset(self, moment: datetime) -> int:
        """Seconds from the beginning of the stretch to the moment."""
        return int((moment - self.window[0]).total_seconds())


def stretch(span: Span, first: date, zone: ZoneInfo, hour: int = 0) -> Stretch:
    """The cells of a span from the day on; a day may have 23 or 25 hours where clocks are changed.

    A single day may begin at any hour: its cells go on to the same hour of the next day.
    """
    cells: list[Edge] = []
    day, end = first, span.after(first)
    while day < end:
        edges = [_moment(day, hour, zone) for hour in range(0, HOURS_A_DAY + 1, span.cell_hours)]
        cells += [
            Edge(since, until, day, number * span.cell_hours)
            for number, (since, until) in enumerate(pairwise(edges))
            if since < until
        ]
        day += timedelta(days=1)
    if span is Span.DAY and hour:
        late = stretch(span, day, zone).cells
        cells = [cell for cell in cells if cell.hour >= hour] + [cell for cell in late if cell.hour < hour]
    return Stretch(span, first, tuple(cells))


def read_hour(text: str | None, default: int) -> int:
    """An hour of the query string; what is none is the default."""
    hours = {str(hour): hour for hour in range(HOURS_A_DAY)}
    return hours.get(text or "", default)


def read_day(text: str | None, default: date) -> date:
    """A day of the query string; what is none, or too far from anybody's life, is the default."""
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return default
    # a month before the first year would leave the calendar
    return day if FIRST_YEAR < day.year < LAST_YEAR else default


def read_moment(text: str | None, zone: ZoneInfo) -> datetime | None:
    """A local moment of the query string (2026-11-24T10:00) in UTC, or None."""
    try:
        local = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if local.tzinfo is not None or not FIRST_YEAR < local.year < LAST_YEAR:
        return None
    return local.replace(tzinfo=zone).astimezone(UTC)


def _moment(day: date, hour: int, zone: ZoneInfo) -> datetime:
    days, hours = divmod(hour, HOURS_A_DAY)
    return datetime.combine(day + timedelta(days=days), time(hours), zone).astimezone(UTC)


def _month_after(day: date) -> date:
    year, month = divmod(day.year * 12 + day.month, 12)
    return _in_month(year, month + 1, day.day)


def _month_before(day: date) -> date:
    year, month = divmod(day.year * 12 + day.month - 2, 12)
    return _in_month(year, month + 1, day.day)


def _in_month(year: int, month: int, day: int) -> date:
    """The day of that month, or its last one when it is shorter."""
    first = date(year, month, 1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return first.replace(day=min(day, last.day))
