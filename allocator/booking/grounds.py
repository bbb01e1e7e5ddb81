"""The ground that starts are searched on: nodes with what is taken of them, and what the grants carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from allocator import capacity
from allocator.booking import rebinding
from allocator.booking.booking_checks import grid_of
from allocator.booking.windows import Held, NodeHeld, Place, Shape, free_during, free_starts, merged, pick
from allocator.dividing import grants
from allocator.dividing.grants import Room
from allocator.models import Booking, Quota
from allocator.policy import BookingRules
from allocator.sqltime import Window
from allocator.upkeep.mending_board import Claim


@dataclass(frozen=True)
class Ground:
    """What starts are searched on, read once: nodes with what is taken of them, and the periods' rooms."""

    nodes: Sequence[NodeHeld]
    rooms: Sequence[Room]
    whole: bool
    cleaning: timedelta

    def starts(
        self,
        shape: Shape,
        length: timedelta,
        since: datetime,
        until: datetime,
        loose_from: datetime | None = None,
    ) -> list[Window]:
        """All moments of [since, until] at which the shape could start, as closed intervals in order.

        From ``loose_from`` on also those at which it fits by the number of nodes alone: others may have to
        get other names for it (``rebinding``), and rarely that turns out to be impossible.
        """
        lasting = length + self.cleaning
        found = free_starts(self.nodes, shape, lasting, since, until, self.whole)
        if loose_from is not None and loose_from <= until:
            span = (max(since, loose_from), until)
            found = merged(sorted([*found, *rebinding.count_starts(self.nodes, shape, lasting, span)]))
        return self.granted(shape, length, found)

    def granted(self, shape: Shape, length: timedelta, starts: list[Window]) -> list[Window]:
        """Those of the starts at which the periods' grants carry the shape."""
        found = starts
        for room in self.rooms:
            most = timedelta(seconds=room.available // max(shape.nodes * shape.gpus, 1))
            period = room.period
            if most < min(length, period.ends_at - period.starts_at):
                # between these two starts more of the booking lies in the period than its room carries
                found = _without(found, period.starts_at + most - length, period.ends_at - most)
        return found

    def places(self, shape: Shape, starts_at: datetime, ends_at: datetime) -> list[Place]:
        """The GPUs to take for [starts_at, ends_at), or none."""
        free = [free_during(node, starts_at, ends_at + self.cleaning) for node in self.nodes]
        return pick(free, shape, self.whole) or []

    def has(self, places: Iterable[Place]) -> bool:
        """Whether these GPUs are free in all of the time that was read."""
        held = {node.id: node.held for node in self.nodes}
        return all(
            place.node_id in held
            and not any(
                one.gpu_from < place.gpu_to and one.gpu_to > place.gpu_from for one in held[place.node_id]
            )
            for place in places
        )

    def without(self, kept: Iterable[Claim]) -> Ground:
        """The same ground with the places of these claims taken as well."""
        more: dict[int, list[Held]] = {}
        for claim in kept:
            for place in claim.places:
                held = Held(place.gpu_from, place.gpu_to, claim.starts_at, claim.ends_at + claim.gap)
                more.setdefault(place.node_id, []).append(held)
        nodes = [replace(node, held=(*node.held, *more.get(node.id, ()))) for node in self.nodes]
        return replace(self, nodes=nodes)


def _without(intervals: Iterable[Window], after: datetime, before: datetime) -> list[Window]:
    """The closed intervals without the open interval (after, before)."""
    kept = []
    for first, last in intervals:
        if first <= after:
            kept.append((first, min(last, after)))
        if last >= before:
            kept.append((max(first, before), last))
    return kept


def ground(
    session: Session,
    quota: Quota,
    since: datetime,
    until: datetime,
    rules: BookingRules,
    besides: Booking | None = None,
) -> Ground:
    """What lies in [since, until); ``besides`` is a booking whose own GPUs and hours count as free."""
    number = besides.id if besides else None
    end = until + rules.cleaning
    nodes = capacity.held(session, quota.cluster, quota.gpu_type, since, end, number)
    rooms = grants.rooms(session, quota, since, until)
    if besides is not None:
        rooms = [_room_besides(room, besides) for room in rooms]
    return Ground(nodes, rooms, not quota.cluster.shares_nodes, rules.cleaning)


def _room_besides(room: Room, booking: Booking) -> Room:
    first = max(booking.starts_at, room.period.starts_at)
    last = min(booking.ends_at, room.period.ends_at)
    own = max(int((last - first).total_seconds()), 0) * booking.nodes * booking.gpus_per_node
    return replace(room, charged=room.charged - own)


def span(quota: Quota, length: timedelta, rules: BookingRules, now: datetime) -> Window:
    """The first and last start that the rules allow for a booking of that length."""
    first = grid_of(rules).ceil(max(now + rules.lead_time, quota.valid_from))
    return first, min(now + rules.max_ahead, quota.valid_until - length)
