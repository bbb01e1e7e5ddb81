"""Which of several limits ends booking first: the quota, the period's grant, or the rules on hoarding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from allocator.booking.booking_checks import Opened
from allocator.dividing.grants import Room
from allocator.ledger import Balance
from allocator.models import Quota
from allocator.policy import BookingRules


class Limit(StrEnum):
    QUOTA = "quota"
    GRANT = "grant"
    AHEAD = "ahead"  # hours in bookings that have not begun
    OPEN = "open"  # the number of bookings that are not over


@dataclass(frozen=True)
class Binding:
    """The limit that is reached first: ``left`` GPU-seconds may still be booked; 0 of OPEN."""

    limit: Limit
    left: int


def binding(
    quota: Quota, balance: Balance, room: Room | None, opened: Opened, rules: BookingRules
) -> Binding:
    """The one that leaves least; of equal ones the one that lasts longest."""
    if opened.count >= rules.max_open:
        return Binding(Limit.OPEN, 0)
    found = [Binding(Limit.QUOTA, balance.available)]
    if room is not None:
        found.append(Binding(Limit.GRANT, room.available))
    if rules.max_open_percent < 100:
        most = quota.gpu_seconds * rules.max_open_percent // 100
        found.append(Binding(Limit.AHEAD, max(most - opened.gpu_seconds, 0)))
    return min(found, key=lambda one: one.left)
