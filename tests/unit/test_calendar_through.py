"""What stays free from a chosen start through to a cell's end, and cells in which some hours are free."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from allocator.booking.calendar_queries import CalendarNode, Taken
from allocator.booking.windows import Shape
from allocator.models import NodeState
from tests.unit.test_calendar import BEGIN, node, week
from web.booking import calendar_grid, calendar_through
from web.booking.calendar_grid import Cell, NodeLine, Room

HOUR = timedelta(hours=1)
H = 3600


def drawn(nodes: Sequence[CalendarNode], slots: Sequence[Taken]) -> tuple[dict[int, NodeLine], list[Cell]]:
    lines = calendar_grid.lines(nodes, slots, week(), BEGIN)
    return lines, calendar_grid.cells(lines, week(), set(), None)


def test_gpus_that_are_free_one_after_the_other_are_not_free_through() -> None:
    lines, cells = drawn(
        [node(1), node(2)], [Taken(1, 0, 8, 0, 6 * H, 1, None), Taken(2, 0, 8, 6 * H, 12 * H, 2, None)]
    )
    assert [cell.free_gpus for cell in cells[:3]] == [8, 8, 16]
    ends = [cell.edge.ends_at for cell in cells]
    told = calendar_through.after(cells, 0, calendar_through.rooms(lines.values(), week(), BEGIN, ends))
    assert [(cell.free_gpus, cell.gpus, cell.free_nodes) for cell in told[:3]] == [
        (8, 16, 1),
        (0, 16, 0),
        (0, 16, 0),
    ]


def test_what_holds_a_node_before_the_stretch_counts_for_a_start_before_it() -> None:
    lines, _ = drawn([node(1)], [Taken(1, 2, 4, -5 * H, -4 * H, 1, None)])
    assert lines[1].slots == []
    for start, free in ((BEGIN - 5 * HOUR, 6), (BEGIN - 4 * HOUR, 8)):
        found = calendar_through.rooms(lines.values(), week(), start, [BEGIN + HOUR])
        assert found == [[Room(8, free, 4 if free == 6 else 8)]]


def test_only_nodes_that_are_there_for_all_of_it_count() -> None:
    lines, _ = drawn(
        [
            node(1, joins_at=BEGIN + HOUR),
            node(2, leaves_at=BEGIN + HOUR),
            node(3, state=NodeState.DOWN),
            node(4, state=NodeState.EXPECTED, joins_at=BEGIN),
        ],
        [],
    )
    ends = [BEGIN + HOUR, BEGIN + 2 * HOUR]
    found = calendar_through.rooms(lines.values(), week(), BEGIN, ends)
    assert [len(rooms) for rooms in found] == [2, 1]


@pytest.mark.parametrize(
    ("free", "wanted", "whole", "given"),
    [
        ([Room(8, 8, 8)] * 5, Shape(64, 8), True, Shape(5, 8)),
        ([Room(8, 8, 8)] * 5, Shape(2, 8), True, Shape(2, 8)),
        ([Room(8, 6, 4), Room(8, 3, 2)], Shape(64, 8), False, Shape(1, 4)),
        ([Room(8, 6, 4)], Shape(1, 3), False, Shape(1, 3)),
        ([Room(8, 6, 4)], Shape(64, 8), True, None),
        ([Room(8, 0, 0)], Shape(1, 1), False, None),
        ([], Shape(1, 1), False, None),
    ],
)
def test_the_form_comes_with_what_is_free(
    free: list[Room], wanted: Shape, whole: bool, given: Shape | None
) -> None:
    assert calendar_through.fit(free, wanted, whole) == given


def test_a_cell_that_is_free_for_some_hours_says_for_which() -> None:
    slots = [
        Taken(1, 0, 8, 4 * H, 6 * H, 1, None),  # free until 4
        Taken(1, 0, 8, 6 * H, 8 * H, 2, None),  # from 8 on, of which half is taken from 10
        Taken(1, 0, 4, 10 * H, 12 * H, 3, None),
        Taken(1, 0, 8, 11 * H, 12 * H, 4, None),
        Taken(1, 0, 8, 12 * H, 18 * H, 5, None),
    ]
    lines, cells = drawn([node(1)], slots)
    told = calendar_through.with_parts(cells, lines, week(), BEGIN)
    assert told[0].part == (BEGIN, BEGIN + 4 * HOUR, 8)
    assert told[1].part == (BEGIN + 8 * HOUR, BEGIN + 10 * HOUR, 8)
    assert told[2].part is None
    assert (told[3].free_gpus, told[3].part) == (8, None)
    late = calendar_through.with_parts(cells, lines, week(), BEGIN + 9 * HOUR)
    assert late[0].part is None
    assert late[1].part == (BEGIN + 9 * HOUR, BEGIN + 10 * HOUR, 8)
