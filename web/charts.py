"""Numbers over days as bars: the geometry of small SVG charts. Each has its table beside it (R-21, R-36)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

STEP = 20  # the width of one day in units of the drawing; its bar takes 16 of them
HEIGHT = 100


@dataclass(frozen=True)
class Bar:
    """One day: `value` and `of` are GPU-seconds, `x` and `height` units of a drawing 100 units high."""

    day: date
    value: int
    of: int
    x: int
    height: int

    @property
    def percent(self) -> int:
        """The share of what there is, rounded down, so that only what is full shows as 100."""
        return self.value * 100 // self.of if self.of else 0


@dataclass(frozen=True)
class Chart:
    """Bars side by side; `top` is the number of GPU-seconds at the upper edge."""

    bars: Sequence[Bar]
    top: int
    capacity: int = 0

    @property
    def width(self) -> int:
        return STEP * len(self.bars)

    @property
    def total(self) -> int:
        return sum(bar.value for bar in self.bars)


def days(first: date, count: int, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """`count` calendar days from `first` as windows in UTC, as the site's people live them."""
    edges = [
        datetime.combine(first + timedelta(days=n), time(), zone).astimezone(UTC) for n in range(count + 1)
    ]
    return list(pairwise(edges))


def chart(first: date, values: Sequence[int], capacity: int = 0) -> Chart:
    """A bar a day from `first`; the scale ends at `capacity` (a day's GPU-seconds), or at the highest bar."""
    top = max(capacity, *values, 1)
    bars = [
        # what is there at all must be seen, however little it is
        Bar(
            first + timedelta(days=n),
            value,
            capacity,
            n * STEP,
            max(value * HEIGHT // top, 1 if value else 0),
        )
        for n, value in enumerate(values)
    ]
    return Chart(bars, top, capacity)
