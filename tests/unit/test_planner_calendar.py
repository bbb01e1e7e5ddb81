"""The calendar's answers are those of a search by hand, and placing undoes removing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.planner.calendar import Calendar, Overbooked

NODES, SLOTS = 4, 24
ASKED = st.tuples(
    st.integers(1, NODES), st.integers(1, 8), st.integers(1, 8), st.integers(0, SLOTS), st.integers(0, SLOTS)
)


def by_hand(free: np.ndarray, nodes: int, gpus: int, duration: int, after: int, before: int) -> int | None:
    for start in range(after, before - duration + 1):
        if (free[:, start : start + duration].min(axis=1) >= gpus).sum() >= nodes:
            return start
    return None


@settings(max_examples=200, deadline=None)
@given(st.lists(ASKED, max_size=25), st.integers(0, 5))
def test_the_earliest_opening_is_the_earliest(asked: list[tuple[int, ...]], broken: int) -> None:
    capacity = np.full((NODES, SLOTS), 8, np.int8)
    capacity[0, broken : broken + 3] = 2
    calendar, free, placed = Calendar(NODES, SLOTS, capacity), capacity.astype(int), []
    for nodes, gpus, duration, after, before in asked:
        opening = calendar.book(nodes, gpus, duration, after, before)
        assert (opening and opening.start) == by_hand(free, nodes, gpus, duration, after, before)
        if opening:
            free[list(opening.nodes), opening.start : opening.start + duration] -= gpus
            placed.append((opening.nodes, gpus, opening.start, duration))
        assert free.min() >= 0
    assert calendar.free(0).tolist() == free[:, 0].tolist()
    assert calendar.free(3, 9).tolist() == free[:, 3:9].min(axis=1).tolist()
    assert calendar.nodes_free(5).tolist() == (free >= 5).sum(axis=0).tolist()
    for booking in placed:
        calendar.remove(*booking)
    assert calendar.nodes_free().tolist() == (capacity == 8).sum(axis=0).tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_more_nodes_than_a_word_has_bits_are_asked_alike(seed: int) -> None:
    """One hundred and thirty nodes over a long horizon, long bookings among short ones."""
    dice, nodes, slots = np.random.default_rng(seed), 130, 90
    capacity = np.full((nodes, slots), 8, np.int8)
    capacity[dice.integers(nodes, size=20), dice.integers(slots)] = dice.integers(0, 8)
    calendar, free = Calendar(nodes, slots, capacity), capacity.astype(int)
    for _ in range(40):
        wide, gpus = int(dice.choice([1, 60, 100, 130])), int(dice.choice([1, 4, 8]))
        duration, after = int(dice.choice([1, 5, 40])), int(dice.integers(slots))
        opening = calendar.book(wide, gpus, duration, after)
        assert (opening and opening.start) == by_hand(free, wide, gpus, duration, after, slots)
        if opening:
            free[list(opening.nodes), opening.start : opening.start + duration] -= gpus
        assert free.min() >= 0
    for gpus in range(1, 9):
        assert calendar.nodes_free(gpus).tolist() == (free >= gpus).sum(axis=0).tolist()


def test_several_nodes_come_from_one_leaf_switch_where_they_can() -> None:
    calendar = Calendar(8, 10, groups=[0, 1, 0, 1, 0, 1, 0, 2])
    calendar.place([0], 8, 0, 10)
    for wanted, expected in ((3, {2, 4, 6}), (2, {2, 4}), (5, {1, 2, 3, 4, 6})):
        opening = calendar.earliest(wanted, 8, 4)
        assert opening
        assert (opening.start, len(opening.nodes)) == (0, wanted)
        assert set(opening.nodes) == expected


def test_a_part_goes_to_the_fullest_node_that_has_room() -> None:
    calendar = Calendar(3, 10)
    calendar.place([1], 5, 0, 10)
    calendar.place([2], 3, 0, 10)
    opening = calendar.earliest(1, 2, 4)
    assert opening
    assert opening.nodes == (1,)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    calendar = Calendar(2, 10)
    calendar.place([0], 6, 2, 4)
    before = calendar.nodes_free(3).tolist()
    for nodes, gpus, start, duration in (
        ([0, 1], 3, 0, 5), ([0], 8, 8, 3), ([0], 1, -1, 2), ([0, 0], 1, 0, 1), ([2], 1, 0, 1),
    ):  # fmt: skip
        with pytest.raises(Overbooked):
            calendar.place(nodes, gpus, start, duration)
    with pytest.raises(Overbooked):
        calendar.remove([1], 1, 0, 1)
    assert calendar.nodes_free(3).tolist() == before


def test_nonsense_is_refused() -> None:
    calendar = Calendar(2, 10)
    for nodes, gpus, duration in ((0, 8, 1), (1, 9, 1), (1, 8, 0)):
        with pytest.raises(ValueError, match="ask for"):
            calendar.earliest(nodes, gpus, duration)
    with pytest.raises(ValueError, match="outside"):
        calendar.free(10)
    with pytest.raises(ValueError, match="capacity"):
        Calendar(2, 10, np.zeros((3, 10), np.int8))
    assert calendar.earliest(3, 8, 1) is None
