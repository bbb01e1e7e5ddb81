"""Looking for room, without a database: who makes way, what stays, and what a picture costs to look at."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from allocator.booking import plan_search, planning
from allocator.booking.planning import Picture, Slots
from allocator.booking.windows import Grid, Held, NodeHeld, Place, Shape
from allocator.upkeep.mending import Claim

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GRID = Grid(HOUR, NOW)
NODES = tuple(NodeHeld(n, f"n{n}", 8) for n in (1, 2))


def picture(*claims: Claim, waiting: tuple[Claim, ...] = (), nodes: tuple[NodeHeld, ...] = NODES) -> Picture:
    return Picture(NOW, nodes, claims, waiting, whole=False, grid=GRID, cleaning=timedelta())


def claim(
    number: int,
    start: datetime,
    hours: int = 10,
    nodes: tuple[int, ...] = (1,),
    window: tuple[datetime, datetime] | None = None,
    gpus: int = 8,
) -> Claim:
    """A booking; with a window it is one that was promised only that."""
    length = timedelta(hours=hours)
    first, last = (window[0], window[1] - length) if window else (start, start - HOUR)
    places = tuple(Place(node, f"n{node}", 0, gpus) for node in nodes)
    shape = Shape(max(len(nodes), 1), gpus)
    return Claim(number, 1, shape, start, start + length, places, first, last, silent=window is not None)


def entry(number: int, nodes: int, hours: int, since: datetime, until: datetime) -> Claim:
    length = timedelta(hours=hours)
    return Claim(-number, 1, Shape(nodes, 8), since, since + length, (), since, until - length)


def test_a_site_starts_without_a_compiler() -> None:
    """Pages and commands need no planner: it comes with the first plan, and costs seconds."""
    code = (
        "import sys, web.app, scheduler.jobs, allocator.booking.flexible, allocator.booking.waitlist; "
        "sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_who_fits_is_let_in_and_nothing_moves() -> None:
    lone = claim(1, NOW + DAY, window=(NOW, NOW + 3 * DAY))
    found = plan_search.solve(picture(lone, waiting=(entry(7, 1, 10, NOW + DAY, NOW + 2 * DAY),)), seconds=0)
    assert found.changes == ()
    assert [(one.id, one.starts_at) for one in found.admitted] == [(-7, NOW + DAY)]


def test_who_is_first_is_let_in_first() -> None:
    rivals = tuple(entry(n, 2, 24, NOW + DAY, NOW + 2 * DAY) for n in (3, 4))
    found = plan_search.solve(picture(waiting=rivals), seconds=0)
    assert [one.id for one in found.admitted] == [-3]


def test_the_planner_moves_only_what_may_move() -> None:
    """Both nodes are wanted for a day in the middle of two days; one of the two bookings there is firm."""
    window = (NOW, NOW + 4 * DAY)
    loose, firm = claim(1, NOW + DAY, 24, (1,), window), claim(2, NOW, 24, (2,))
    wanted = entry(7, 2, 24, NOW + DAY, NOW + 2 * DAY)
    found = plan_search.solve(picture(loose, firm, waiting=(wanted,)), seconds=0.2)
    assert [one.id for one in found.admitted] == [-7]
    [change] = found.changes
    assert change.booking_id == 1
    assert change.to_starts_at is not None
    assert window[0] <= change.to_starts_at <= window[1] - DAY
    assert change.to_starts_at >= NOW + 2 * DAY or change.to_starts_at == NOW


def test_without_time_nobody_makes_way() -> None:
    loose = claim(1, NOW + DAY, 24, (1, 2), (NOW, NOW + 4 * DAY))
    wanted = entry(7, 2, 24, NOW + DAY, NOW + 2 * DAY)
    assert plan_search.solve(picture(loose, waiting=(wanted,)), seconds=0) == plan_search.Solution()


def test_room_is_made_at_once_where_one_step_aside_suffices() -> None:
    loose = claim(1, NOW + DAY, 24, (1, 2), (NOW, NOW + 4 * DAY))
    wanted = entry(7, 1, 24, NOW + DAY, NOW + 2 * DAY)
    found = plan_search.make_room(picture(loose), wanted)
    assert found is not None
    placed, changes = found
    assert (placed.starts_at, [change.booking_id for change in changes]) == (NOW + DAY, [1])
    firm = claim(1, NOW + DAY, 24, (1, 2))
    assert plan_search.make_room(picture(firm), wanted) is None


def test_what_lost_its_nodes_is_left_to_the_repair() -> None:
    loose = claim(1, NOW + DAY, 24, (9,), (NOW, NOW + 4 * DAY))
    assert picture(loose).loose == []


@pytest.mark.parametrize(("gpus", "planned"), [(1, True), (4, True), (8, True), (6, False), (16, False)])
def test_nodes_of_any_size_are_shown_or_left_out(gpus: int, planned: bool) -> None:
    nodes = (NodeHeld(1, "n1", gpus, (Held(0, 1, NOW + HOUR, NOW + 2 * HOUR),)),)
    seen = picture(nodes=nodes)
    made = planning.demand_of(seen, Slots(seen, NOW + 3 * HOUR), (), ())
    assert (made is not None) == planned
    if made is not None:
        capacity = made[0].capacity
        assert capacity is not None
        assert capacity.tolist() == [[8, 8 - 8 // gpus, 8]]


def test_slots_cover_what_is_taken_in_part() -> None:
    seen = picture(claim(1, NOW + timedelta(minutes=30), 1))
    made = planning.demand_of(seen, Slots(seen, NOW + 3 * HOUR), seen.claims, ())
    assert made is not None
    assert made[0].capacity is not None
    assert made[0].capacity[0].tolist() == [0, 0, 8]


def test_prices_stand_where_more_is_wanted_than_there_is() -> None:
    firm = claim(1, NOW + DAY, 24, (1, 2))
    seen = picture(firm, waiting=(entry(7, 2, 24, NOW + DAY, NOW + 2 * DAY),))
    worth = planning.worth(seen)
    assert worth.value == 2 * 8 * 24
    assert worth.value <= worth.bound <= 2 * worth.value
    assert len(worth.prices) == 48
    assert min(worth.prices[24:]) > max(worth.prices[:24])


def test_an_empty_cluster_has_a_picture_too() -> None:
    worth = planning.worth(picture())
    assert (worth.value, worth.bound, worth.bookings) == (0, 0, 0)
    assert planning.worth(picture(nodes=())).prices == ()
    assert plan_search.solve(picture(nodes=()), seconds=1) == plan_search.Solution()
