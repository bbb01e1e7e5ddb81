"""Free GPUs against a model that tries every minute and every GPU by brute force."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.booking.windows import (
    Grid,
    Held,
    NodeHeld,
    Shape,
    free_during,
    free_starts,
    nearest_after,
    nearest_before,
    pick,
)

T0 = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HORIZON = 24


def at(minute: int) -> datetime:
    return T0 + timedelta(minutes=minute)


@st.composite
def nodes(draw: st.DrawFn) -> list[NodeHeld]:
    """Up to four nodes of four GPUs with slots that never overlap, as the database keeps them."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        held: list[Held] = []
        for _ in range(draw(st.integers(0, 6))):
            low, start = draw(st.integers(0, 3)), draw(st.integers(-4, HORIZON))
            high, end = draw(st.integers(low + 1, 4)), start + draw(st.integers(1, 8))
            slot = Held(low, high, at(start), at(end))
            if not any(_meet(slot, other) for other in held):
                held.append(slot)
        found.append(NodeHeld(number, f"n{number}", 4, tuple(held)))
    return found


def _meet(a: Held, b: Held) -> bool:
    in_time = a.starts_at < b.ends_at and b.starts_at < a.ends_at
    return in_time and a.gpu_from < b.gpu_to and b.gpu_from < a.gpu_to


def _free_gpus(node: NodeHeld, start: int, length: int) -> list[bool]:
    return [
        not any(
            held.gpu_from <= gpu < held.gpu_to and held.starts_at <= at(minute) < held.ends_at
            for held in node.held
            for minute in range(start, start + length)
        )
        for gpu in range(node.gpus)
    ]


def _fits(all_nodes: list[NodeHeld], shape: Shape, start: int, length: int) -> bool:
    able = 0
    for node in all_nodes:
        gpus = _free_gpus(node, start, length)
        able += any(all(gpus[low : low + shape.gpus]) for low in range(node.gpus - shape.gpus + 1))
    return able >= shape.nodes


shapes = st.one_of(
    st.builds(Shape, st.just(1), st.integers(1, 4)), st.builds(Shape, st.integers(2, 4), st.just(4))
)


@settings(max_examples=200, deadline=None)
@given(nodes(), shapes, st.integers(0, HORIZON), st.integers(1, 8))
def test_pick_finds_places_exactly_when_brute_force_does(
    all_nodes: list[NodeHeld], shape: Shape, start: int, length: int
) -> None:
    window = at(start), at(start + length)
    places = pick([free_during(node, *window) for node in all_nodes], shape)
    assert (places is not None) == _fits(all_nodes, shape, start, length)
    for place in places or []:
        node = next(node for node in all_nodes if node.id == place.node_id)
        assert all(_free_gpus(node, start, length)[place.gpu_from : place.gpu_to])
        assert place.gpu_to - place.gpu_from == shape.gpus
    assert len({place.node_id for place in places or []}) == (shape.nodes if places else 0)


@settings(max_examples=200, deadline=None)
@given(nodes(), shapes, st.integers(1, 8), st.integers(0, HORIZON))
def test_possible_starts_are_those_of_brute_force(
    all_nodes: list[NodeHeld], shape: Shape, length: int, wanted: int
) -> None:
    starts = free_starts(all_nodes, shape, timedelta(minutes=length), at(0), at(HORIZON))
    possible = {minute for minute in range(HORIZON + 1) if _fits(all_nodes, shape, minute, length)}
    inside = {
        minute for minute in range(HORIZON + 1) if any(first <= at(minute) <= last for first, last in starts)
    }
    assert inside == possible
    after = min((minute for minute in possible if minute >= wanted), default=None)
    before = max((minute for minute in possible if minute < wanted), default=None)
    assert nearest_after(starts, at(wanted)) == (None if after is None else at(after))
    assert nearest_before(starts, at(wanted)) == (None if before is None else at(before))


def test_a_part_goes_to_the_fullest_node_and_whole_nodes_are_kept_whole() -> None:
    busy = NodeHeld(2, "n2", 8, (Held(0, 4, at(0), at(60)),))
    fuller = NodeHeld(3, "n3", 8, (Held(2, 8, at(0), at(60)),))
    free = [free_during(node, at(0), at(60)) for node in (NodeHeld(1, "n1", 8), busy, fuller)]
    two, three = pick(free, Shape(1, 2)), pick(free, Shape(1, 3))
    assert two is not None
    assert (two[0].name, two[0].gpu_from, two[0].gpu_to) == ("n3", 0, 2)
    assert three is not None
    assert (three[0].name, three[0].gpu_from) == ("n2", 4)


def test_whole_nodes_are_taken_by_the_number_in_their_name() -> None:
    free = [free_during(NodeHeld(n, f"gpu{n}", 8), at(0), at(60)) for n in (10, 9, 2)]
    places = pick(free, Shape(2, 8))
    assert places is not None
    assert [place.name for place in places] == ["gpu2", "gpu9"]


def test_several_nodes_come_from_under_one_leaf_switch_where_they_can() -> None:
    """Leaf a has n1, n3, n5; b has n2, n4; c has n6 to n9, of which n9 is taken: as many as a."""
    leaf = dict(zip(range(1, 10), "ababacccc", strict=True))
    held = {9: (Held(0, 8, at(0), at(60)),)}
    free = [
        free_during(NodeHeld(n, f"n{n}", 8, held.get(n, ()), leaf[n]), at(0), at(60)) for n in range(1, 10)
    ]
    for wanted, expected in (
        (1, ["n1"]),
        (2, ["n2", "n4"]),
        (3, ["n1", "n3", "n5"]),
        (5, ["n1", "n3", "n5", "n2", "n4"]),
        (7, ["n1", "n3", "n5", "n6", "n7", "n8", "n2"]),
    ):
        places = pick(free, Shape(wanted, 8))
        assert places is not None
        assert [place.name for place in places] == expected


def test_a_cluster_that_does_not_share_nodes_gives_no_part() -> None:
    free = [free_during(NodeHeld(1, "n1", 8), at(0), at(60))]
    assert pick(free, Shape(1, 4), whole=True) is None
    assert pick(free, Shape(1, 8), whole=True) is not None


def test_starts_are_offered_on_whole_minutes_only() -> None:
    odd = T0 + timedelta(seconds=90)
    assert nearest_after([(odd, at(10))], T0) == at(2)
    assert nearest_before([(T0, odd)], at(10)) == at(1)
    assert nearest_after([(odd, odd)], T0) is None


@given(st.sampled_from([1, 30, 60, 1440]), st.integers(-50_000, 50_000))
def test_a_grid_has_moments_on_both_sides(step: int, minute: int) -> None:
    grid = Grid(timedelta(minutes=step), T0)
    moment = at(minute) + timedelta(seconds=minute % 60)
    low, high = grid.floor(moment), grid.ceil(moment)
    assert low <= moment <= high
    assert grid.holds(low)
    assert grid.holds(high)
    assert high - low == (timedelta(0) if grid.holds(moment) else grid.step)
