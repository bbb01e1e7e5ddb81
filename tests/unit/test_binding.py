"""Which limit ends booking first, and that it is said with its figure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from allocator.binding import Binding, Limit, binding
from allocator.booking.booking_checks import Opened
from allocator.dividing.grants import Room
from allocator.ledger import Balance
from allocator.models import Period, Quota
from allocator.policy import load_policy

RULES = replace(load_policy().bookings, max_open=3, max_open_percent=50)
HOUR = 3600


@pytest.mark.parametrize(
    ("left", "granted", "ahead", "count", "found"),
    [
        (60, None, 0, 0, Binding(Limit.AHEAD, 50 * HOUR)),
        (40, None, 0, 0, Binding(Limit.QUOTA, 40 * HOUR)),
        (40, 30, 0, 0, Binding(Limit.GRANT, 30 * HOUR)),
        (40, 40, 0, 0, Binding(Limit.QUOTA, 40 * HOUR)),
        (40, 30, 45, 1, Binding(Limit.AHEAD, 5 * HOUR)),
        (40, 30, 70, 2, Binding(Limit.AHEAD, 0)),
        (40, 0, 0, 0, Binding(Limit.GRANT, 0)),
        (40, 30, 0, 3, Binding(Limit.OPEN, 0)),
    ],
)
def test_the_limit_that_leaves_least_is_told(
    left: int, granted: int | None, ahead: int, count: int, found: Binding
) -> None:
    quota = Quota(gpu_seconds=100 * HOUR)
    balance = Balance(100 * HOUR, booked_ahead=(100 - left) * HOUR)
    room = None if granted is None else Room(Period(), granted * HOUR, 0)
    assert binding(quota, balance, room, Opened(count, ahead * HOUR), RULES) == found


def test_a_limit_of_all_hours_is_none() -> None:
    rules = replace(RULES, max_open_percent=100)
    quota = Quota(gpu_seconds=100 * HOUR)
    full = Opened(1, 100 * HOUR)
    assert binding(quota, Balance(100 * HOUR), None, full, rules).limit is Limit.QUOTA
