"""The calendar in words: what a cell is, how much demand it has, what is out of service and why."""

from __future__ import annotations

from datetime import date, datetime

from babel.dates import format_date
from flask_babel import get_locale, gettext, ngettext

from allocator.booking.calendar_queries import Own
from allocator.models import Outage
from allocator.models.outages import OutageKind
from config.i18n import N_
from web.booking.calendar_grid import Cell, Part
from web.booking.calendar_time import Span
from web.formats import clock, moment, number

# By the level of web.calendar_grid: how much others want the hour, as the latest plan priced it.
SPANS = {Span.DAY: N_("Day"), Span.WEEK: N_("Week"), Span.MONTH: N_("Month")}
LEAST = {
    Span.DAY: N_("Each number is the GPUs that are free for the whole hour."),
    Span.WEEK: N_("Each number is the GPUs that are free for all 6 hours of the column."),
    Span.MONTH: N_("Each number is the GPUs that are free for the whole day."),
}
DEMAND = (N_("low"), N_("moderate"), N_("high"), N_("very high"))
OUTAGES = {OutageKind.MAINTENANCE: N_("Maintenance"), OutageKind.OUTAGE: N_("Outage")}


def demand_word(level: int | None) -> str:
    """How much demand, or that no plan reaches so far."""
    return str(gettext("not known") if level is None else gettext(DEMAND[level]))


def free_words(cell: Cell) -> str:
    """`12 of 512 GPUs free, demand high`."""
    if cell.part:
        free = part_words(cell.part)
    elif cell.rooms is not None:
        free = gettext(
            "%(free)s of %(all)s GPUs free from the start until then",
            free=number(cell.free_gpus),
            all=number(cell.gpus),
        )
    else:
        free = gettext("%(free)s of %(all)s GPUs free", free=number(cell.free_gpus), all=number(cell.gpus))
    if cell.level is None:
        return str(free)
    return f"{free}, {gettext('demand %(word)s', word=demand_word(cell.level))}"


def least(span: Span, chosen: bool) -> str:
    """What the numbers of free GPUs are: after a chosen start they are another thing."""
    if chosen:
        return str(
            gettext(
                "After the start the numbers are the GPUs that stay free from there until the column's end."
            )
        )
    return str(gettext(LEAST[span]))


def part_words(part: Part) -> str:
    """`496 GPUs free from 20:00 to 24:00`: of a cell in which none is free for all of it."""
    since, until = (clock(edge) for edge in (part.starts_at, part.ends_at))
    return str(
        ngettext(
            "%(num)s GPU free from %(since)s to %(until)s",
            "%(num)s GPUs free from %(since)s to %(until)s",
            part.free_gpus,
            since=since,
            until=until,
        )
    )


def start_label(cell: Cell, start: datetime) -> str:
    return str(gettext("Start %(moment)s. %(free)s.", moment=moment(start), free=free_words(cell)))


def end_label(cell: Cell, end: datetime) -> str:
    return str(gettext("End %(moment)s. %(free)s.", moment=moment(end), free=free_words(cell)))


def own_label(own: Own) -> str:
    """A booking of one's own in one line."""
    shape = ngettext(
        "%(num)s node × %(gpus)s GPUs", "%(num)s nodes × %(gpus)s GPUs", own.nodes, gpus=own.gpus_per_node
    )
    return str(
        gettext(
            "Booking %(number)s: %(title)s, %(shape)s, from %(start)s until %(end)s",
            number=own.id,
            title=own.title,
            shape=shape,
            start=moment(own.starts_at),
            end=moment(own.ends_at),
        )
    )


def outage_word(outage: Outage) -> str:
    return str(gettext(OUTAGES[outage.kind]))


def span_word(span: Span) -> str:
    return str(gettext(SPANS[span]))


def weekday(day: date) -> str:
    """`Mon`, as the reader's language has it."""
    return str(format_date(day, "ccc", get_locale()))


def weekday_name(day: date) -> str:
    """`Monday`."""
    return str(format_date(day, "cccc", get_locale()))


def day_and_month(day: date) -> str:
    """`24 Nov`."""
    return str(format_date(day, "d MMM", get_locale()))
