"""Names given late: whatever fits by count gets nodes, and nothing that is fixed moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from allocator.booking.rebinding import Loose, count_starts, rebind
from allocator.booking.windows import Held, NodeHeld, Shape

T0 = datetime(2026, 12, 1, tzinfo=UTC)
HOURS = 24
NODES = 4


def at(hour: int) -> datetime:
    return T0 + timedelta(hours=hour)


@st.composite
def bookings(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(start, end, nodes) that fit by count."""
    found: list[tuple[int, int, int]] = []
    used = [0] * (HOURS + 10)
    for _ in range(draw(st.integers(0, 14))):
        start, nodes = draw(st.integers(0, HOURS - 1)), draw(st.integers(1, NODES))
        end = start + draw(st.integers(1, 9))
        if all(used[hour] + nodes <= NODES for hour in range(start, end)):
            found.append((start, end, nodes))
            for hour in range(start, end):
                used[hour] += nodes
    return found


def empty() -> list[NodeHeld]:
    return [NodeHeld(number, f"n{number}", 8) for number in range(NODES)]


@given(bookings())
def test_what_fits_by_count_gets_nodes(asked: list[tuple[int, int, int]]) -> None:
    if not asked:
        return
    *others, (start, end, nodes) = asked
    loose = [
        Loose(number, at(first), at(last), frozenset(range(count)))
        for number, (first, last, count) in enumerate(others, 1)
    ]
    found = rebind(empty(), loose, Loose(0, at(start), at(end), frozenset()), nodes)
    assert found is not None
    given_nodes = {one.id: one.nodes for one in loose} | {
        number: frozenset(place.node_id for place in places) for number, places in found.changes.items()
    }
    given_nodes[0] = frozenset(place.node_id for place in found.places)
    assert len(given_nodes[0]) == nodes
    windows = {one.id: (one.starts_at, one.ends_at) for one in loose} | {0: (at(start), at(end))}
    for one, its in windows.items():
        assert one == 0 or len(given_nodes[one]) == others[one - 1][2]
        for other, theirs in windows.items():
            if one < other and its[0] < theirs[1] and theirs[0] < its[1]:
                assert not given_nodes[one] & given_nodes[other]


def test_what_is_fixed_stays_and_the_tightest_place_is_taken() -> None:
    fixed = [
        NodeHeld(0, "n0", 8, (Held(0, 8, at(10), at(12)),)),
        NodeHeld(1, "n1", 8),
    ]
    # the long one holds the node that the other needs
    loose = [Loose(1, at(0), at(8), frozenset({1}))]
    found = rebind(fixed, loose, Loose(0, at(2), at(20), frozenset()), 1)
    assert found is not None
    assert [place.node_id for place in found.places] == [1]
    assert [place.node_id for place in found.changes[1]] == [0]


@given(bookings(), st.integers(1, NODES), st.integers(1, 6))
def test_counted_starts_are_those_of_brute_force(
    asked: list[tuple[int, int, int]], nodes: int, length: int
) -> None:
    # any names will do for counting: one booking a row of nodes, placed first free
    held: dict[int, list[Held]] = {number: [] for number in range(NODES)}
    used = [0] * (HOURS + 20)
    for start, end, count in sorted(asked):
        free = [n for n in held if all(h.ends_at <= at(start) or h.starts_at >= at(end) for h in held[n])]
        for number in free[:count]:
            held[number].append(Held(0, 8, at(start), at(end)))
        for hour in range(start, end):
            used[hour] += len(free[:count])
    rows = [NodeHeld(number, f"n{number}", 8, tuple(own)) for number, own in held.items()]
    found = count_starts(rows, Shape(nodes, 8), timedelta(hours=length), (at(0), at(HOURS)))
    for hour in range(HOURS + 1):
        fits = all(used[later] + nodes <= NODES for later in range(hour, hour + length))
        assert any(first <= at(hour) <= last for first, last in found) is fits, hour
