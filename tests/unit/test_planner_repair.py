"""After a repair the plan can be carried out, and nobody moved without need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocator.planner import Change, Demand, Pin, Plan, Variant, Why, plan, repair
from allocator.planner.calendar import Calendar
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


def short_of(old: Plan, capacity: np.ndarray, now: int) -> set[int]:
    """Who stands on a node at a time when it can no longer carry all that was booked there."""
    used = np.zeros(capacity.shape, int)
    for j in np.flatnonzero(old.start >= 0).tolist():
        used[old.assigned[j], old.start[j] : old.start[j] + old.demand.duration[j]] += old.demand.gpus[j]
    over = used > capacity
    over[:, :now] = False
    return {
        j
        for j in np.flatnonzero(old.start >= 0).tolist()
        if over[old.assigned[j], old.start[j] : old.start[j] + old.demand.duration[j]].any()
    }


def room_without(new: Plan, capacity: np.ndarray, since: int, *left_out: int) -> np.ndarray:
    """Whole nodes free at each slot, by count, if some were not there."""
    room: np.ndarray = (capacity == 8).sum(axis=0).astype(int)
    for j in np.flatnonzero(new.start >= 0).tolist():
        if j not in left_out:
            begin = max(int(new.start[j]), since)
            room[begin : int(new.start[j] + new.demand.duration[j])] -= new.demand.nodes[j]
    return room


def fits_somewhere(new: Plan, room: np.ndarray, j: int, since: int) -> bool:
    demand, length = new.demand, int(new.demand.duration[j])
    starts = range(max(int(demand.earliest[j]), since), int(demand.latest[j]) - length + 1)
    return any(room[start : start + length].min() >= demand.nodes[j] for start in starts)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 119), st.integers(1, 60)), min_size=1))
def test_nobody_moves_who_neither_lost_a_node_nor_saves_another(
    seed: int, failures: list[tuple[int, int, int]]
) -> None:
    """S3: whoever makes way could not stay, for then the one saved would find no room in its whole window."""
    old = before(seed, whole=True)
    capacity = np.full((6, old.demand.slots), 8, np.int8)
    for node, start, length in failures[:3]:
        capacity[node, max(start, NOW) : start + length] = 0
    later = np.flatnonzero(old.start >= NOW)
    pinned = {int(j): Pin(int(old.start[j]), tuple(old.assigned[j])) for j in later[::5]}
    old = replace(old, demand=replace(old.demand, pinned=pinned))
    answer = repair(old, Change(NOW, capacity), seconds=60, iterations=1_200)
    lost = short_of(old, capacity, NOW)
    for variant in (answer.first, answer.fewest_moves, answer.fewest_drops):
        check(old, variant, NOW)
        settled = {*pinned, *np.flatnonzero((old.start >= 0) & (old.start < NOW)).tolist()}
        _check_sakes(old, variant, capacity, lost, settled)
        assert not settled & {move.booking for move in variant.moves}
        assert {drop.booking for drop in variant.drops} <= lost or lost & settled
    assert len(answer.fewest_drops.drops) <= len(answer.fewest_moves.drops)
    assert len(answer.fewest_moves.moves) <= len(answer.fewest_drops.moves)


def _check_sakes(
    old: Plan, variant: Variant, capacity: np.ndarray, lost: set[int], settled: set[int]
) -> None:
    new = variant.plan
    changed = {*lost, *variant.renamed, *(move.booking for move in variant.moves)}
    for move in variant.moves:
        assert (move.why == Why.MADE_WAY) == (move.saves is not None) == (move.booking not in lost)
        if move.saves is None:
            continue
        assert move.saves in changed
        assert new.start[move.saves] >= 0
        at_home = move.saves not in lost and new.start[move.saves] == old.start[move.saves]
        if move.saves in settled or at_home:
            # It keeps its time on other nodes, as its own serve another, and moves no more than the settled.
            assert set(new.assigned[move.saves]) != set(old.assigned[move.saves])
            continue
        room = room_without(new, capacity, NOW, move.booking, move.saves)
        room[move.before : move.before + old.demand.duration[move.booking]] -= old.demand.nodes[move.booking]
        span = room[move.before : move.before + old.demand.duration[move.booking]]
        # Several may owe their places to it together: then it cannot go home beside the others either.
        by_count = span.min() < 0 or not fits_somewhere(new, room, move.saves, NOW)
        assert by_count or not _fits_by_name(old, new, move.booking, move.saves)


def _fits_by_name(old: Plan, new: Plan, home: int, saved: int) -> bool:
    """Whether one finds nodes in its window if another is back on its old ones and all others stay."""
    demand = new.demand
    free = np.array(demand.capacity, np.int8)
    for j in np.flatnonzero(new.start >= 0).tolist():
        if j != saved:
            start, names = (old.start[j], old.assigned[j]) if j == home else (new.start[j], new.assigned[j])
            free[names, max(int(start), NOW) : int(start + demand.duration[j])] -= np.int8(demand.gpus[j])
    free[:, :NOW] = 0
    calendar = Calendar(demand.nodes_total, demand.slots, np.maximum(free, 0))
    opening = calendar.earliest(
        int(demand.nodes[saved]), 8, int(demand.duration[saved]), int(demand.earliest[saved]),
        int(demand.latest[saved]),
    )  # fmt: skip
    return free.min() >= 0 and opening is not None


def test_fewest_moves_and_fewest_drops_are_two_answers() -> None:
    """Of two nodes one fails. Its booking could only take the other's place, which could go elsewhere."""
    column = np.array
    demand = Demand(
        2, 120, 1.0, column([1, 1]), column([8, 8]), column([20, 20]), column([40, 40]), column([60, 120]),
        column([1.0, 1.0]),
    )  # fmt: skip
    start, names = np.array([40, 40], np.int32), [[0], [1]]
    old = Plan(start, names, 320.0, 320.0, np.zeros(120), (), 0, demand)
    capacity = np.full((2, 120), 8, np.int8)
    capacity[0, 30:70] = 0
    answer = repair(old, Change(20, capacity), seconds=60, iterations=400)
    moves, drops = answer.fewest_moves, answer.fewest_drops
    assert [(drop.booking, drop.why) for drop in moves.drops] == [(0, Why.NODES_GONE)]
    assert not moves.moves
    assert not drops.drops
    assert [(move.booking, move.why, move.saves) for move in drops.moves] == [(1, Why.MADE_WAY, 0)]
    assert drops.renamed == (0,)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.booleans())
def test_names_that_people_know_are_kept(seed: int, whole: bool) -> None:
    old = before(seed, whole=whole)
    told = frozenset(np.flatnonzero((old.start >= 0) & (old.start < NOW + 30)).tolist())
    capacity = capacity_of(old.demand, seed)
    lost = short_of(old, capacity, NOW)
    # One that runs already takes any node for its failed one, whoever was to have that.
    assume(not lost & set(np.flatnonzero((old.start >= 0) & (old.start < NOW)).tolist()))
    answer = repair(old, Change(NOW, capacity, told=told), seconds=60, iterations=800)
    for variant in (answer.first, answer.fewest_moves, answer.fewest_drops):
        check(old, variant, NOW)
        assert not (told - lost) & set(variant.renamed)


def test_a_pin_in_time_only_is_one_in_a_repair_too() -> None:
    """Its node fails: it goes on beside at the same time, and whoever is there makes way."""
    column = np.array
    demand = Demand(
        2, 120, 1.0, column([1, 1]), column([8, 8]), column([20, 20]), column([40, 40]), column([120, 120]),
        column([1.0, 1.0]), pinned={0: Pin(40)},
    )  # fmt: skip
    old = Plan(np.array([40, 40], np.int32), [[0], [1]], 320.0, 320.0, np.zeros(120), (), 0, demand)
    capacity = np.full((2, 120), 8, np.int8)
    capacity[0, 30:70] = 0
    variant = repair(old, Change(20, capacity), seconds=60, iterations=400).fewest_drops
    assert [(move.booking, move.saves) for move in variant.moves] == [(1, 0)]
    assert variant.plan.assigned[0] == [1]
    assert variant.plan.demand.pinned == {0: Pin(40, (1,))}


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
