"""How crowded the hours ahead are: by the latest plan's prices, or by what is taken while there is none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

from sqlalchemy.orm import Session

from allocator.booking import calendar_queries
from allocator.booking.windows import NodeHeld
from allocator.models import Quota
from allocator.sqltime import Window

HOUR = timedelta(hours=1)
FRESH = timedelta(days=2)  # an older plan says little about what was booked since


@dataclass(frozen=True)
class Congestion:
    """A number for each hour from ``starts_at``, 0 where nobody else wants it; ``sums`` is their running sum.

    ``planned``: prices of a plan, 1 for an average booking's worth. Otherwise the share of GPUs taken, to 1.
    """

    starts_at: datetime
    sums: Sequence[float]
    planned: bool

    def mean(self, since: datetime, until: datetime) -> float:
        """The mean over the hours of [since, until); beyond what is known it is 0."""
        whole = (until - since) / HOUR
        return (self._until(until) - self._until(since)) / whole if whole > 0 else 0.0

    def _until(self, moment: datetime) -> float:
        """The sum of all hours before the moment, the last one in part."""
        position = min(max((moment - self.starts_at) / HOUR, 0.0), len(self.sums) - 1)
        hour = int(position)
        rest = position - hour
        return self.sums[hour] if not rest else self.sums[hour] * (1 - rest) + self.sums[hour + 1] * rest


def of_hours(starts_at: datetime, hours: Iterable[float], planned: bool) -> Congestion:
    return Congestion(starts_at, list(accumulate(hours, initial=0.0)), planned)


def read(
    session: Session, quota: Quota, nodes: Sequence[NodeHeld], window: Window, now: datetime
) -> Congestion:
    """The congestion where the quota books: the latest plan's, or that of ``nodes`` within the window."""
    demand = calendar_queries.demand(session, quota.cluster, quota.gpu_type)
    if demand is not None and demand.made_at > now - FRESH:
        return of_hours(demand.starts_at, demand.prices, planned=True)
    return of_hours(window[0], occupancy(nodes, window), planned=False)


def occupancy(nodes: Sequence[NodeHeld], window: Window) -> list[float]:
    """The share of all GPUs that is taken in each hour of the window."""
    since, until = window
    hours = max(-int((since - until) / HOUR // 1), 0) if until > since else 0
    # whole hours by their ends, the parts of hours by themselves: one step a slot, however long it is
    changes, parts = [0.0] * (hours + 2), [0.0] * (hours + 2)
    for node in nodes:
        for held in node.held:
            first = (max(held.starts_at, since) - since) / HOUR
            last = (min(held.ends_at, until) - since) / HOUR
            if last <= first:
                continue
            gpus = held.gpu_to - held.gpu_from
            low, high = int(first), int(last)
            changes[low] += gpus
            changes[high] -= gpus
            parts[low] -= gpus * (first - low)
            parts[high] += gpus * (last - high)
    gpus_total = sum(node.gpus for node in nodes) or 1
    return [(whole + part) / gpus_total for whole, part in zip(accumulate(changes), parts, strict=True)][
        :hours
    ]
