"""Days as people enter them, and the moments they mean: a window is [start of the first, end of the last)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flask_babel import gettext
from wtforms import DateField

from config.i18n import N_
from web.session import settings

DAY = timedelta(days=1)
WRITTEN_HERE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
# Outside of these years arithmetic with zones runs out of calendar; what is sensible, the policy says.
FIRST_YEAR, LAST_YEAR = 1970, 9990


class DayField(DateField):
    """A day as the browser sends it (2026-12-01) or as people write it here (1.12.2026)."""

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Read the day. Raises ValueError, shown beside the field."""
        self.data = None
        text = str(valuelist[0]).strip() if valuelist else ""
        if not text:
            return
        try:
            day = _read(text)
        except ValueError:
            day = None
        if day is None or not FIRST_YEAR <= day.year <= LAST_YEAR:
            raise ValueError(gettext(N_("Enter a day, for example 2026-12-01 or 1.12.2026.")))
        self.data = day


def _read(text: str) -> date:
    written = WRITTEN_HERE.fullmatch(text)
    if written:
        day, month, year = map(int, written.groups())
        return date(year, month, day)
    return date.fromisoformat(text)


def start_of(day: date) -> datetime:
    """The moment when the day begins in the site's zone, in UTC."""
    return datetime.combine(day, time(), settings().zone).astimezone(UTC)


def end_of(day: date) -> datetime:
    """The moment when the day is over."""
    return start_of(day + DAY)


def first_day(start: datetime) -> date:
    """The day that a window beginning at `start` begins with."""
    return start.astimezone(settings().zone).date()


def last_day(end: datetime) -> date:
    """The last day of a window that ends before `end`."""
    return (end - timedelta(microseconds=1)).astimezone(settings().zone).date()
