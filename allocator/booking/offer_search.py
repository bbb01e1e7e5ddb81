"""The search for starts: what somebody wishes, and all that it is measured by, read once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from allocator import capacity
from allocator.booking import grounds, placing, rebinding
from allocator.booking.booking_checks import (
    SHAPE_CHECKS,
    Ask,
    Circumstances,
    faults_of,
    grid_of,
)
from allocator.booking.grounds import Ground
from allocator.booking.windows import Grid, Shape, nearest_after, nearest_before
from allocator.errors import Fault
from allocator.ledger import Balance
from allocator.models import Booking, Quota
from allocator.policy import BookingRules
from allocator.sqltime import Window
from allocator.upkeep.mending_board import Claim


@dataclass(frozen=True)
class Wish:
    """``nodes`` × ``gpus_per_node`` GPUs for ``length``, at any time of [earliest_at, latest_at).

    Either end may be left open: the rules and the quota's validity bound it. ``preferred_at`` is the start
    that would suit best.
    """

    nodes: int
    gpus_per_node: int
    length: timedelta
    earliest_at: datetime | None = None
    latest_at: datetime | None = None
    preferred_at: datetime | None = None

    @property
    def shape(self) -> Shape:
        return Shape(self.nodes, self.gpus_per_node)

    @property
    def gpu_seconds(self) -> int:
        return self.nodes * self.gpus_per_node * int(self.length.total_seconds())

    def at(self, start: datetime) -> Ask:
        """The wish as an exact ask."""
        return Ask(self.nodes, self.gpus_per_node, start, start + self.length)


@dataclass(frozen=True)
class Search:
    """A wish with the quota's circumstances; ``faults`` are rules that it breaks whatever its start."""

    wish: Wish
    around: Circumstances
    ground: Ground
    grid: Grid
    faults: Mapping[str, list[Fault]]

    @classmethod
    def read(
        cls,
        session: Session,
        quota: Quota,
        wish: Wish,
        rules: BookingRules,
        now: datetime,
        besides: Booking | None = None,
    ) -> "Search":
        """A handful of queries, whatever is asked of it later; ``besides`` is the booking to be changed."""
        grid = grid_of(rules)
        first, _ = grounds.span(quota, wish.length, rules, now)
        # to the last moment that any start could reach: alternatives are looked for on the same ground
        end = max(min(now + rules.max_ahead + rules.max_length, quota.valid_until), first + rules.boundary)
        ground = grounds.ground(session, quota, first, end, rules, besides)
        around = Circumstances(
            quota,
            placing.balance_besides(session, quota, besides),
            capacity.gpu_types(session, quota.cluster).get(quota.gpu_type),
            rules,
            now,
            ground.rooms,
            placing.opened(session, quota, now, besides),
        )
        return cls(wish, around, ground, grid, faults_of(wish.at(first), around, SHAPE_CHECKS))

    @property
    def balance(self) -> Balance:
        return self.around.balance

    @property
    def since(self) -> datetime:
        """The first start of the wish's window on a boundary."""
        return self.span(self.wish.length)[0]

    @property
    def window(self) -> Window:
        """From the first start to the end of the last booking that could be."""
        first, last = self.span(self.wish.length)
        return first, max(last + self.wish.length, first)

    def span(self, length: timedelta, anywhere: bool = False) -> Window:
        """The first and last start inside the wish's window, or ``anywhere`` that the rules allow."""
        around, wish = self.around, self.wish
        first, last = grounds.span(around.quota, length, around.rules, around.now)
        if not anywhere:
            first = max(first, self.grid.ceil(wish.earliest_at)) if wish.earliest_at else first
            last = min(last, wish.latest_at - length) if wish.latest_at else last
        return first, last

    def starts(self, by_count: bool = False) -> list[Window]:
        """All moments at which the wish could start, as closed intervals, on the boundaries or not.

        ``by_count``: also those at which other bookings would need other nodes for it.
        """
        loose = rebinding.loose_from(self.around.rules, self.around.now) if by_count else None
        return self.ground.starts(self.wish.shape, self.wish.length, *self.span(self.wish.length), loose)

    def without(self, kept: Iterable[Claim]) -> "Search":
        """The same with the places of these claims taken as well."""
        return replace(self, ground=self.ground.without(kept))

    def possible(self, session: Session, ask: Ask) -> bool:
        """Whether there are nodes for it, if need be with other names for other bookings."""
        if self.ground.places(ask.shape, ask.starts_at, ask.ends_at):
            return True
        around, window = self.around, (ask.starts_at, ask.ends_at + self.ground.cleaning)
        return bool(
            rebinding.find(
                session, around.quota, self.ground.nodes, ask.shape, window, around.rules, around.now
            )
        )

    def nearest(self, starts: Sequence[Window]) -> datetime | None:
        """The start nearest to the preferred one; without any, the first."""
        wanted = self.wish.preferred_at
        if wanted is None:
            return nearest_after(starts, self.since, self.grid)
        around = nearest_before(starts, wanted, self.grid), nearest_after(starts, wanted, self.grid)
        near = [start for start in around if start is not None]
        return min(near, key=lambda start: abs(start - wanted), default=None)

    def best_start(self, shape: Shape, length: timedelta, within: timedelta | None = None) -> datetime | None:
        """The start for another shape or length that suits the wish best, at most ``within`` away from it."""
        first, last = self.span(length)
        if within is not None and self.wish.preferred_at is not None:
            first, last = (
                max(first, self.wish.preferred_at - within),
                min(last, self.wish.preferred_at + within),
            )
        if first > last:
            return None
        return self.nearest(self.ground.starts(shape, length, first, last))

    def refused(self) -> tuple[Fault, ...]:
        """The rules that forbid the preferred start itself; none where it is only taken."""
        if self.wish.preferred_at is None:
            return ()
        found = faults_of(self.wish.at(self.wish.preferred_at), self.around)
        return tuple(fault for faults in found.values() for fault in faults)
