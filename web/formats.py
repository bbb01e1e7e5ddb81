"""Amounts, money and moments as text. Nothing here ever holds a float.

Numbers look the same in all three languages, as R-34 sets it for money (a no-break space between thousands,
a decimal comma): two notations on one page would make `1,234` mean two things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, cast

from babel.dates import format_date
from babel.units import format_unit
from flask_babel import get_locale, ngettext, to_user_timezone
from jinja2 import pass_context
from markupsafe import Markup

HOUR = 3600
CENT = Decimal("0.01")
THOUSANDS = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def number(value: int | Decimal, places: int = 0) -> str:
    """`1 234 567,5`: at least `places` decimals, at most two, spaces that do not break.

    Raises TypeError for a float: it could not be exact.
    """
    if isinstance(value, float):
        raise TypeError("amounts are integers or Decimals, never floats")
    rounded = Decimal(value).quantize(CENT, rounding=ROUND_HALF_EVEN)
    whole, _, decimals = f"{abs(rounded):,.2f}".partition(".")
    while len(decimals) > places and decimals.endswith("0"):
        decimals = decimals[:-1]
    text = whole.replace(",", THOUSANDS) + ("," + decimals if decimals else "")
    return MINUS + text if rounded < 0 else text


def gpu_hours(seconds: int) -> str:
    """GPU-seconds as GPU-hours without the unit: `1 234,5`.

    What is too small to show is said to be small, not zero.
    """
    if isinstance(seconds, float):
        raise TypeError("GPU-seconds are integers")
    hours = (Decimal(seconds) / HOUR).quantize(CENT, rounding=ROUND_HALF_EVEN)
    if seconds and not hours:
        return f"<{THOUSANDS}{number(CENT)}" if seconds > 0 else f">{THOUSANDS}{number(-CENT)}"
    return number(hours)


def hours_unit(seconds: int) -> str:
    """The unit after `gpu_hours`, in the number that the amount asks for."""
    whole, rest = divmod(seconds, HOUR)
    # "1,5" takes the form after two: "hours" in English, the genitive singular in Russian
    return str(ngettext("GPU-hour", "GPU-hours", 2 if rest else whole))


def money(amount: Decimal) -> str:
    """Tenge: `1 234 567,50 ₸` (R-34)."""
    return f"{number(amount, 2)}{THOUSANDS}₸"


def moment(value: datetime) -> str:
    """A moment as plain text in the site's zone: `22 November 2026, 04:14`.

    Raises ValueError for a naive one.
    """
    local = _local(value)
    return f"{format_date(local.date(), 'long', get_locale())}, {local:%H:%M}"


def clock(value: datetime) -> str:
    """The time of day alone, `04:14`, where the day is told beside it."""
    return f"{_local(value):%H:%M}"


def _local(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return cast(datetime, to_user_timezone(value))


def when(value: datetime | date | None, style: str = "moment") -> Markup:
    """A `<time>` for people and machines. `style="date"` leaves the clock out.

    None says that it has not happened.
    """
    if value is None:
        return Markup('<span class="text-body-secondary">{}</span>').format("—")
    if not isinstance(value, datetime):
        return Markup('<time datetime="{}">{}</time>').format(
            value.isoformat(), format_date(value, "long", get_locale())
        )
    local = _local(value)
    text = format_date(local.date(), "long", get_locale()) if style == "date" else moment(value)
    machine = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        machine, f"UTC{local.isoformat()[-6:]}", text
    )


def in_words(details: Mapping[str, object]) -> dict[str, object]:
    """What a sentence of the domain is filled with, as pages write it: moments, days and lengths of time."""
    return {name: _in_words(value) for name, value in details.items()}


def _in_words(value: object) -> object:
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, date):
        return format_date(value, "long", get_locale())
    return duration(value) if isinstance(value, timedelta) else value


def duration(value: timedelta | int) -> str:
    """A length of time in its two largest units: `3 days 4 hours`; integers are seconds."""
    seconds = int(value.total_seconds()) if isinstance(value, timedelta) else value
    parts: list[str] = []
    left = abs(seconds)
    for unit, size in (("day", 86400), ("hour", HOUR), ("minute", 60), ("second", 1)):
        amount, left = divmod(left, size)
        if amount or (unit == "second" and not parts):
            parts.append(_amount_of(amount, unit))
        # Nobody plans by "2 days 7 seconds": a unit that is missing ends the text too.
        if len(parts) == 2 or (parts and not amount):
            break
    return (MINUS if seconds < 0 else "") + " ".join(parts)


def _amount_of(amount: int, unit: str) -> str:
    name = f"duration-{unit}"
    text = format_unit(amount, name, "long", locale=get_locale())
    # CLDR has no long Kazakh word for days; its short one is the full word.
    return format_unit(amount, name, "short", locale=get_locale()) if name in text else text


def _each_time(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that Jinja must not work out while compiling: its text depends on who is reading."""

    @pass_context
    def at_rendering(_context: object, *values: Any) -> Any:
        return function(*values)

    return at_rendering


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "gpu_hours": gpu_hours,
    "hours_unit": _each_time(hours_unit),
    "money": money,
    "moment": _each_time(moment),
    "when": _each_time(when),
    "duration": _each_time(duration),
}
