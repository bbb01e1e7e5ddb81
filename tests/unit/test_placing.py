"""Starts that a period's grant allows, and the crowding of hours, against brute force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.booking.congestion import occupancy, of_hours
from allocator.booking.grounds import Ground
from allocator.booking.windows import Held, NodeHeld, Shape
from allocator.dividing.grants import Room
from allocator.models import Period

T0 = datetime(2026, 12, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 48


def at(hour: float) -> datetime:
    return T0 + hour * HOUR


@given(
    st.lists(st.tuples(st.integers(-5, 40), st.integers(1, 20), st.integers(0, 400)), max_size=3),
    st.integers(1, 30),
    st.integers(1, 8),
)
def test_a_grant_forbids_just_what_it_cannot_carry(
    rooms: list[tuple[int, int, int]], length: int, gpus: int
) -> None:
    periods = [
        Room(Period(starts_at=at(start), ends_at=at(start + hours)), granted * 3600, 0)
        for start, hours, granted in rooms
    ]
    ground = Ground([NodeHeld(1, "n1", 8)], periods, False, timedelta())
    starts = ground.starts(Shape(1, gpus), length * HOUR, at(0), at(HOURS))
    for hour in range(HOURS + 1):
        fits = all(
            gpus * max(min(hour + length, start + hours) - max(hour, start), 0) <= granted
            for start, hours, granted in rooms
        )
        assert any(first <= at(hour) <= last for first, last in starts) is fits, hour


@given(st.lists(st.tuples(st.integers(-8, 60), st.integers(1, 30), st.integers(1, 8)), max_size=6))
def test_crowding_is_the_share_of_gpus_taken(taken: list[tuple[int, int, int]]) -> None:
    """In half hours, so that parts of hours count too."""
    nodes = [
        NodeHeld(number, f"n{number}", 8, (Held(0, gpus, at(start / 2), at((start + length) / 2)),))
        for number, (start, length, gpus) in enumerate(taken)
    ] or [NodeHeld(0, "n0", 8)]
    shares = occupancy(nodes, (at(0), at(24)))
    assert len(shares) == 24
    for hour, share in enumerate(shares):
        halves = sum(
            gpus
            for start, length, gpus in taken
            for half in (2 * hour, 2 * hour + 1)
            if start <= half < start + length
        )
        assert share == pytest.approx(halves / 2 / (8 * len(nodes)))


def test_the_mean_counts_parts_of_hours_and_nothing_beyond() -> None:
    crowds = of_hours(T0, [0.0, 1.0, 0.5], planned=True)
    assert crowds.mean(at(0), at(2)) == 0.5
    assert crowds.mean(at(0.5), at(1.5)) == 0.5
    assert crowds.mean(at(2), at(4)) == 0.25
    assert crowds.mean(at(-2), at(0)) == 0
    assert crowds.mean(at(1), at(1)) == 0
