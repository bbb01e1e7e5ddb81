"""After a repair the plan can be carried out, and nobody moved without need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.planner import Change, Plan, Variant, Why, plan, repair
from tests.planning import capacity_of, demand_of, judge

SEEDS = st.integers(0, 10_000)
NOW = 40


def before(seed: int, *, whole: bool = False) -> Plan:
    return plan(demand_of(70, whole=whole, seed=seed), seconds=60, iterations=400)


def check(old: Plan, variant: Variant, now: int) -> None:
    new = variant.plan
    judge(new.demand, new.start, new.assigned, since=now)
    started = (old.start >= 0) & (old.start < now)
    gone = [drop.booking for drop in variant.drops]
    for j in np.flatnonzero(started).tolist():
        assert new.start[j] == old.start[j] or j in gone
    moved = np.flatnonzero((old.start >= 0) & (new.start >= 0) & (old.start != new.start)).tolist()
    assert [move.booking for move in variant.moves] == moved
    assert gone == np.flatnonzero((old.start >= 0) & (new.start < 0)).tolist()
    assert (new.start[new.start != old.start] >= now).all() or gone
    assert (new.start[old.start < 0] < 0).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_a_repair_is_feasible_and_what_has_started_stays(seed: int, whole: bool) -> None:
    old = before(seed, whole=whole)
    answer = repair(old, Change(NOW, capacity_of(old.demand, seed)), seconds=60, iterations=800)
    for variant in (answer.first, answer.fewest_moves, answer.fewest_drops):
        check(old, variant, NOW)
    first, last = len(answer.first.drops), len(answer.fewest_drops.drops)
    assert last <= first


def test_when_nothing_changes_nobody_moves() -> None:
    old = before(1)
    answer = repair(old, Change(NOW), seconds=60, iterations=400)
    for variant in (answer.first, answer.fewest_moves, answer.fewest_drops):
        assert not variant.moves
        assert not variant.drops
        assert variant.plan.start.tolist() == old.start.tolist()


def test_a_failure_that_touches_nobody_moves_nobody() -> None:
    """Nodes that nobody has fail: of forty under four bookings."""
    demand = replace(demand_of(4, nodes=2, seed=4), nodes_total=40)
    old = plan(demand, seconds=60, iterations=100)
    idle = [node for node in range(40) if not any(node in names for names in old.assigned)]
    assert idle
    capacity = np.full((40, demand.slots), 8, np.int8)
    capacity[idle] = 0
    answer = repair(old, Change(NOW, capacity), seconds=60, iterations=200)
    assert not answer.fewest_moves.moves
    assert not answer.fewest_moves.drops


def test_a_started_booking_gets_another_node_for_the_failed_one() -> None:
    demand = demand_of(1, nodes=4, whole=True, seed=0)
    demand = replace(
        demand, nodes=np.array([2]), duration=np.array([20]), earliest=np.array([30]), latest=np.array([50])
    )
    old = plan(demand, seconds=60, iterations=10)
    failed, healthy = old.assigned[0]
    capacity = np.full((4, demand.slots), 8, np.int8)
    capacity[failed, NOW:] = 0
    answer = repair(old, Change(NOW, capacity), seconds=60, iterations=10)
    new = answer.first.plan
    assert new.start.tolist() == [30]
    assert healthy in new.assigned[0]
    assert failed not in new.assigned[0]
    assert answer.first.renamed == (0,)


def test_a_started_booking_without_another_node_is_interrupted() -> None:
    demand = demand_of(1, nodes=2, whole=True, seed=0)
    demand = replace(
        demand, nodes=np.array([2]), duration=np.array([20]), earliest=np.array([30]), latest=np.array([60])
    )
    old = plan(demand, seconds=60, iterations=10)
    start = int(old.start[0])
    capacity = np.full((2, demand.slots), 8, np.int8)
    capacity[0, start + 2 :] = 0
    answer = repair(old, Change(start + 2, capacity), seconds=60, iterations=10)
    assert [(drop.booking, drop.why) for drop in answer.first.drops] == [(0, Why.INTERRUPTED)]


def test_who_has_no_window_left_is_told_so() -> None:
    demand = demand_of(1, nodes=2, whole=True, seed=0)
    demand = replace(
        demand, nodes=np.array([2]), duration=np.array([20]), earliest=np.array([60]), latest=np.array([85])
    )
    old = plan(demand, seconds=60, iterations=10)
    capacity = np.full((2, demand.slots), 8, np.int8)
    capacity[:, 70:75] = 0
    answer = repair(old, Change(NOW, capacity), seconds=60, iterations=10)
    assert [drop.why for drop in answer.fewest_drops.drops] == [Why.WINDOW_GONE]


def test_the_cancelled_are_dropped_as_such() -> None:
    old = before(2)
    later = int(np.flatnonzero(old.start > NOW)[0])
    answer = repair(old, Change(NOW, cancelled=(later,)), seconds=60, iterations=100)
    assert [(drop.booking, drop.why) for drop in answer.first.drops] == [(later, Why.CANCELLED)]
    check(old, answer.first, NOW)


def test_a_repair_repeats_for_a_seed() -> None:
    old = before(3)
    change = Change(NOW, capacity_of(old.demand, 3))
    one, two = (repair(old, change, seconds=60, seed=4, iterations=600) for _ in range(2))
    assert one.fewest_drops.moves == two.fewest_drops.moves
    assert one.fewest_drops.plan.assigned == two.fewest_drops.plan.assigned
