"""Plans can always be carried out, around whatever is settled, and repeat for a seed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.planner import BadDemand, Demand, Pin, by_pool, plan
from allocator.planner.bound import upper_bound
from tests.planning import capacity_of, demand_of, judge

SEEDS = st.integers(0, 10_000)


def planned(demand: Demand, turns: int = 400, seed: int = 0) -> Any:
    return plan(demand, seconds=60, seed=seed, iterations=turns)


def test_importing_the_planner_does_not_import_numba() -> None:
    code = "import sys, allocator.planner; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_a_plan_is_feasible_and_below_its_bound(seed: int, whole: bool) -> None:
    demand = demand_of(whole=whole, seed=seed)
    made = planned(demand, seed=seed)
    assert judge(demand, made.start, made.assigned) == pytest.approx(made.value)
    assert made.value <= made.bound * (1 + 1e-9)
    assert 0 <= made.gap < 1


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_plan_respects_capacity_that_varies(seed: int) -> None:
    demand = demand_of(seed=seed)
    demand = replace(demand, capacity=capacity_of(demand, seed))
    made = planned(demand)
    assert judge(demand, made.start, made.assigned) == pytest.approx(made.value)
    assert made.value <= made.bound * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_what_is_pinned_stays(seed: int) -> None:
    """Some of a first plan pinned by name, some in time only, the rest planned anew with another seed."""
    demand = demand_of(seed=seed)
    first = planned(demand)
    placed = np.flatnonzero(first.start >= 0).tolist()
    pins = {j: Pin(int(first.start[j]), tuple(first.assigned[j])) for j in placed[::4]}
    demand = replace(demand, pinned=pins)
    made = planned(demand, seed=1)
    judge(demand, made.start, made.assigned)
    for j, pin in pins.items():
        assert made.start[j] == pin.start
        assert tuple(made.assigned[j]) == pin.nodes
    assert made.value <= made.bound * (1 + 1e-9)


def test_a_pin_in_time_only_keeps_the_start_and_gets_nodes() -> None:
    demand = demand_of(whole=True, seed=3)
    demand = replace(demand, pinned={0: Pin(50), 1: Pin(50)})
    made = planned(demand)
    judge(demand, made.start, made.assigned)
    assert made.start[:2].tolist() == [50, 50]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_no_plan_of_a_small_demand_beats_the_bound(seed: int) -> None:
    """Every choice of starts of four bookings on one node tried out: the bound holds for the best."""
    demand = demand_of(4, nodes=1, slots=12, seed=seed)
    best = 0.0
    for code in np.ndindex(*(int(n) for n in demand.latest - demand.duration - demand.earliest + 2)):
        start = np.array([demand.earliest[j] + c - 1 if c else -1 for j, c in enumerate(code)])
        try:
            best = max(best, judge(demand, start, [[0]] * 4))
        except AssertionError:
            continue
    assert upper_bound(demand).value >= best - 1e-9
    made = planned(demand)
    assert made.value <= best + 1e-9


def test_a_seed_and_a_number_of_iterations_repeat() -> None:
    demand = demand_of(200, nodes=12, seed=5)
    one, two = planned(demand, 3000, seed=9), planned(demand, 3000, seed=9)
    assert one.start.tolist() == two.start.tolist()
    assert one.assigned == two.assigned


def test_more_time_is_never_worse_and_history_rises() -> None:
    demand = demand_of(200, nodes=12, seed=6)
    short, long = planned(demand, 0), planned(demand, 20_000)
    values = [moment.value for moment in long.history]
    assert values == sorted(values)
    assert long.value >= short.value
    assert long.value > 0.9 * long.bound


def test_a_search_begins_the_hotter_the_more_turns_there_are_and_ends_cold() -> None:
    from allocator.planner.search import COLDEST, HOTTEST, WARM, Search

    search = Search(demand_of(100, nodes=12, seed=7), 0)
    hot = [search._heat(turns) for turns in (0, 100, 1000, 4000, 10**9)]
    assert hot == sorted(hot)
    assert (hot[0], hot[-1]) == (WARM, HOTTEST)
    assert hot[0] > COLDEST
    search.ready = 2.0
    assert [search._done(past, 10.0, None) for past in (2.0, 6.0, 10.0, 11.0)] == [0, 0.5, 1, 1]
    assert search._done(1.0, 0.5, None) == 1, "no time was left after the first plan"
    assert search._done(99.0, 1.0, 100) == 0, "with iterations, time is no limit"


def test_few_turns_already_come_near_the_bound_with_whole_nodes() -> None:
    """Ten turns a booking gain on what the prices alone place, even where six times too much is asked."""
    for count, gain in ((100, 1.01), (400, 1.005)):
        demand = demand_of(count, nodes=16, slots=400, whole=True, seed=8)
        first, made = planned(demand, 0), planned(demand, 10 * count)
        assert made.value > gain * first.value


def test_nearly_all_of_what_fits_beside_each_other_is_placed() -> None:
    """Load far below capacity: nothing is left out."""
    made = planned(demand_of(20, nodes=40, seed=1))
    assert (made.start >= 0).all()
    assert made.gap == pytest.approx(0, abs=1e-6)


def test_a_booking_stays_under_one_leaf_switch_where_it_can() -> None:
    """Two leaves of four nodes; two bookings of three at once and one of two later."""
    column = np.array
    demand = Demand(
        8, 10, 1.0, column([3, 3, 2]), column([8, 8, 8]), column([4, 4, 4]), column([0, 0, 4]),
        column([4, 4, 10]), column([1.0, 1.0, 1.0]), groups=(0, 1, 0, 1, 0, 1, 0, 1),
    )  # fmt: skip
    made = planned(demand, 10)
    for names in made.assigned:
        assert len({node % 2 for node in names}) == 1


def test_several_gpu_types_are_several_demands() -> None:
    demand = demand_of(30, seed=2)
    pool = np.array(["h200", "a100", "h200"] * 10)
    parts = by_pool(demand, pool)
    assert sorted(parts) == ["a100", "h200"]
    places, columns = parts["a100"]
    made = planned(replace(demand, **cast(dict[str, Any], columns)))
    assert len(made.start) == len(places) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": np.zeros(5, int)}, "asks for no node"),
        ({"gpus": np.full(5, 9)}, "more than eight"),
        ({"nodes": np.full(5, 2), "gpus": np.full(5, 4)}, "parts of several nodes"),
        ({"duration": np.zeros(5, int)}, "lasts no slot"),
        ({"latest": np.full(5, 10_000)}, "beyond the horizon"),
        ({"weight": np.full(5, -1.0)}, "below nought"),
        ({"weight": np.ones(4)}, "has not 5 entries"),
        ({"capacity": np.zeros((2, 2), np.int8)}, "capacity must be"),
        ({"groups": (0,)}, "leaf switch for every node"),
        ({"pinned": {7: Pin(0)}}, "does not exist"),
        ({"pinned": {0: Pin(10_000)}}, "beyond the horizon"),
        ({"pinned": {0: Pin(0, (99,))}}, "pinned to"),
    ],
)
def test_a_demand_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    demand = replace(demand_of(5, whole=True), nodes=np.ones(5, int))
    with pytest.raises(BadDemand, match=message):
        planned(replace(demand, **change))


def test_pins_that_overbook_a_node_are_refused() -> None:
    demand = replace(demand_of(5, whole=True), nodes=np.ones(5, int))
    with pytest.raises(BadDemand, match="overbooks"):
        planned(replace(demand, pinned={0: Pin(0, (0,)), 1: Pin(0, (0,))}))


def test_nothing_asked_gives_an_empty_plan() -> None:
    made = planned(demand_of(0))
    assert made.start.tolist() == []
    assert made.value == made.bound == made.gap == 0
