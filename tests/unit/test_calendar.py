"""The calendar's arithmetic: stretches of time, what is free in a cell, groups of nodes, paths."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from allocator.booking.calendar_queries import CalendarNode, Demand, Own, Taken
from allocator.models import NodeState
from allocator.states import BookingState
from web.booking import (
    calendar_drawing,
    calendar_grid,
    calendar_tables,
)
from web.booking.calendar_time import Span, Stretch, read_day, read_hour, read_moment, stretch

ALMATY = ZoneInfo("Asia/Almaty")
BERLIN = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 11, 23)
BEGIN = datetime(2026, 11, 22, 19, tzinfo=UTC)  # midnight in Almaty
HOUR = 3600


def node(number: int, **facts: object) -> CalendarNode:
    given: dict[str, object] = {"state": NodeState.UP, "switch": None, "joins_at": None, "leaves_at": None}
    given |= facts
    return CalendarNode(id=number, name=f"gpu{number}", gpus=8, **given)  # type: ignore[arg-type]


def week() -> Stretch:
    return stretch(Span.WEEK, FIRST, ALMATY)


@pytest.mark.parametrize(("span", "cells"), [(Span.DAY, 24), (Span.WEEK, 28), (Span.MONTH, 30)])
def test_a_span_begins_with_the_day_and_has_its_cells(span: Span, cells: int) -> None:
    made = stretch(span, FIRST, ALMATY)
    assert len(made.cells) == cells
    assert made.window[0] == BEGIN
    assert all(a.ends_at == b.starts_at for a, b in zip(made.cells, made.cells[1:], strict=False))


def test_earlier_and_later_meet() -> None:
    for span in Span:
        assert span.before(span.after(FIRST)) == FIRST
    assert Span.MONTH.after(date(2027, 1, 31)) == date(2027, 2, 28)
    assert Span.MONTH.before(date(2027, 1, 15)) == date(2026, 12, 15)


def test_a_day_may_have_25_hours() -> None:
    made = stretch(Span.DAY, date(2026, 10, 25), BERLIN)
    assert made.seconds == 25 * HOUR
    assert made.cells[-1].ends_at - made.cells[0].starts_at == timedelta(hours=25)


@pytest.mark.parametrize("hour", [0, 1, 17, 23])
def test_a_day_may_begin_at_any_hour(hour: int) -> None:
    made = stretch(Span.DAY, FIRST, ALMATY, hour)
    assert len(made.cells) == 24
    assert made.cells[0].hour == hour
    assert made.window[1] - made.window[0] == timedelta(days=1)
    assert all(one.ends_at == two.starts_at for one, two in pairwise(made.cells))
    assert made.last == (FIRST + timedelta(days=1) if hour else FIRST)


def test_longer_spans_begin_at_midnight() -> None:
    assert stretch(Span.WEEK, FIRST, ALMATY, 5) == stretch(Span.WEEK, FIRST, ALMATY)


@pytest.mark.parametrize(("text", "hour"), [("0", 0), ("23", 23), ("24", 7), ("-1", 7), ("", 7), (None, 7)])
def test_what_is_no_hour_is_the_usual_one(text: str | None, hour: int) -> None:
    assert read_hour(text, 7) == hour


@pytest.mark.parametrize("text", [None, "", "x", "2026-02-30", "0001-01-01", "9999-12-31"])
def test_no_day_is_the_default(text: str | None) -> None:
    assert read_day(text, FIRST) == FIRST


def test_moments_are_local_and_sane() -> None:
    assert read_moment("2026-11-23T10:00", ALMATY) == datetime(2026, 11, 23, 5, tzinfo=UTC)
    for text in (None, "", "x", "9999-12-31T23:59", "0001-01-01T00:00", "2026-11-23T10:00+05:00"):
        assert read_moment(text, ALMATY) is None


def test_free_is_what_nobody_holds_at_any_moment_of_the_cell() -> None:
    slots = [
        Taken(1, 0, 4, 0, HOUR, 7, None),
        Taken(1, 4, 6, 2 * HOUR, 8 * HOUR, 8, None),
        Taken(2, 0, 8, 6 * HOUR, 12 * HOUR, None, 3),
        Taken(9, 0, 8, 0, HOUR, 9, None),  # of a node that is gone
    ]
    lines = calendar_grid.lines([node(1), node(2)], slots, week(), BEGIN)
    assert [lines[1].free(n) for n in range(3)] == [2, 6, 8]
    assert [lines[2].free(n) for n in range(3)] == [8, 0, 8]
    cells = calendar_grid.cells(lines, week(), {8}, None)
    assert (cells[0].free_gpus, cells[0].free_nodes, cells[0].own, cells[0].outages) == (10, 1, [8], [])
    assert (cells[1].free_gpus, cells[1].own, cells[1].outages) == (6, [8], [3])
    assert cells[1].level is None


def test_nodes_are_away_while_they_are_not_there() -> None:
    second, last = BEGIN + timedelta(hours=6), BEGIN + timedelta(hours=12)
    nodes = [
        node(1, state=NodeState.DOWN),
        node(2, state=NodeState.EXPECTED, joins_at=second),
        node(3, leaves_at=last),
        node(4, state=NodeState.EXPECTED),
    ]
    lines = calendar_grid.lines(nodes, [], week(), second)
    away = {number: line.away[:3] for number, line in lines.items()}
    assert away == {
        1: [False, True, True],  # what it was before is not known
        2: [True, False, False],
        3: [False, False, True],
        4: [False, True, True],
    }
    # what is not there is no part of what could be free
    cells = calendar_grid.cells(lines, week(), set(), None)
    assert [(cell.free_gpus, cell.gpus) for cell in cells[:3]] == [(24, 24), (16, 16), (8, 8)]


def test_demand_is_the_mean_price_of_the_cell() -> None:
    demand = Demand(BEGIN, BEGIN, [0.0] * 6 + [0.4] * 6 + [0.9] * 6 + [2.0] * 3)
    lines = calendar_grid.lines([node(1)], [], week(), BEGIN)
    levels = [cell.level for cell in calendar_grid.cells(lines, week(), set(), demand)]
    assert levels[:5] == [0, 1, 2, 3, None]
    assert demand.mean(BEGIN - timedelta(hours=2), BEGIN + timedelta(hours=1)) == 0.0
    assert demand.mean(BEGIN - timedelta(hours=2), BEGIN) is None


def test_very_many_nodes_are_grouped_by_switch_or_by_number() -> None:
    plain = calendar_grid.groups([node(number) for number in range(1000)])
    assert len(plain) == 32
    assert plain[0].name == "gpu0–gpu31"
    assert sum(group.gpus for group in plain) == 8000
    switched = calendar_grid.groups([node(number, switch=f"leaf{number % 5}") for number in range(100)])
    assert [len(group.nodes) for group in switched] == [20] * 5
    assert len(calendar_grid.groups([node(number) for number in range(10_000)])) <= calendar_grid.MOST_ROWS


def own(number: int, hours: int = 24) -> Own:
    return Own(number, "Ours", BookingState.CONFIRMED, 2, 8, BEGIN, BEGIN + timedelta(hours=hours))


def test_one_booking_is_one_shape_on_all_its_rows() -> None:
    day = 24 * HOUR
    slots = [
        Taken(1, 0, 8, 0, day, 7, None),
        Taken(2, 0, 8, 0, day, 7, None),
        Taken(1, 0, 8, day, 2 * day, 8, None),
    ]
    made = week()
    lines = calendar_grid.lines([node(1), node(2)], slots, made, BEGIN)
    rows = calendar_drawing.rows_of_nodes(list(lines.values()))
    cells = calendar_grid.cells(lines, made, {7}, None)
    drawing = calendar_drawing.draw(
        made, cells, rows, {7: own(7)}, now=BEGIN, chosen=BEGIN + timedelta(days=1)
    )
    assert [shape.own.id for shape in drawing.own] == [7]
    assert drawing.own[0].path.count("M") == 2
    assert drawing.taken.count("M") == 1
    wide = drawing.width // 7
    assert drawing.taken.startswith(f"M{wide} ")
    assert drawing.chosen == (wide, drawing.width - wide)
    assert drawing.now_x == 0


def test_groups_show_shares_and_own_bookings() -> None:
    nodes = [node(number) for number in range(100)]
    slots = [Taken(number, 0, 8, 0, 6 * HOUR, 7, None) for number in range(40)]
    made = week()
    lines = calendar_grid.lines(nodes, slots, made, BEGIN)
    rows = calendar_drawing.rows_of_groups(calendar_grid.groups(nodes), lines)
    cells = calendar_grid.cells(lines, made, {7}, None)
    drawing = calendar_drawing.draw(made, cells, rows, {7: own(7)}, now=BEGIN, chosen=None)
    assert drawing.taken.count("M") == 2  # the first group is full, the second a quarter
    assert drawing.own[0].path.count("M") == 2
    assert drawing.own[0].text_at is None
    facts = calendar_tables.facts(rows, {7: own(7)}, made)
    assert [fact.taken for fact in facts] == [3, 0, 0, 0]
    assert facts[0].held == []
