"""Which GPUs of which node are taken when, and by whom: what the mender moves bookings about on (pure)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from allocator.booking.windows import (
    Grid,
    Held,
    NodeHeld,
    Place,
    Shape,
    free_during,
    free_starts,
    nearest_after,
    nearest_before,
    pick,
)

NEAR = (timedelta(days=4),)  # how far around its own start another is looked for first
LONG = timedelta(days=30)  # what is taken for longer is kept in a list of its own


@dataclass(frozen=True)
class Claim:
    """A booking as the mender sees it; ``first`` to ``last`` are the starts that would do.

    ``gap`` stays free behind it. ``movable``: it may get other nodes; ``silent``: another start of these
    breaks no promise. With ``first`` after ``last`` only its own start will do.
    """

    id: int
    version: int
    shape: Shape
    starts_at: datetime
    ends_at: datetime
    places: tuple[Place, ...]
    first: datetime
    last: datetime
    gap: timedelta = timedelta()
    movable: bool = True
    silent: bool = False
    told: bool = False  # the cluster knows its nodes by name

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.starts_at

    @property
    def weight(self) -> float:
        return self.shape.nodes * self.shape.gpus * self.length.total_seconds()


@dataclass(frozen=True)
class Loss:
    """All GPUs of one node for [starts_at, ends_at)."""

    node_id: int
    starts_at: datetime
    ends_at: datetime


class _Taken:
    """What is taken of one node, in order of its beginning: most questions are about a few days of eighty."""

    def __init__(self, held: Iterable[Held]) -> None:
        every = sorted(held, key=lambda one: one.starts_at)
        own = [one for one in every if one.ends_at - one.starts_at <= LONG]
        self._starts = [one.starts_at for one in own]
        self._held = [(one, 0) for one in own]
        self._always = [(one, 0) for one in every if one.ends_at - one.starts_at > LONG]
        self._longest = max((one.ends_at - one.starts_at for one in own), default=timedelta())

    def copy(self) -> _Taken:
        other = _Taken(())
        other._starts, other._held, other._always = self._starts[:], self._held[:], self._always[:]
        other._longest = self._longest
        return other

    def add(self, held: Held, who: int) -> None:
        length = held.ends_at - held.starts_at
        if length > LONG:
            self._always.append((held, who))
            return
        self._longest = max(self._longest, length)
        place = bisect_right(self._starts, held.starts_at)
        self._starts.insert(place, held.starts_at)
        self._held.insert(place, (held, who))

    def drop(self, held: Held, who: int) -> None:
        if held.ends_at - held.starts_at > LONG:
            self._always.remove((held, who))
            return
        place = self._held.index((held, who), bisect_left(self._starts, held.starts_at))
        del self._starts[place], self._held[place]

    def between(self, since: datetime, until: datetime) -> list[tuple[Held, int]]:
        """All that overlaps [since, until), and some that only comes near."""
        first = bisect_left(self._starts, since - self._longest)
        return self._always + self._held[first : bisect_left(self._starts, until)]


class Board:
    """Which GPUs of which node are taken when, and by which claim."""

    def __init__(self, nodes: Sequence[NodeHeld], claims: Iterable[Claim], whole: bool, grid: Grid) -> None:
        self._whole, self._grid = whole, grid
        self._nodes = {node.id: node for node in nodes}
        self._held = {node.id: _Taken(node.held) for node in nodes}
        self.claims: dict[int, Claim] = {}
        for claim in claims:
            self.put(claim)

    def copy(self) -> Board:
        """Another one on which the same is taken."""
        other = Board((), (), self._whole, self._grid)
        other._nodes, other.claims = self._nodes, dict(self.claims)
        other._held = {number: taken.copy() for number, taken in self._held.items()}
        return other

    def put(self, claim: Claim) -> None:
        self.claims[claim.id] = claim
        for node_id, held in self._of(claim):
            self._held[node_id].add(held, claim.id)

    def take(self, claim: Claim) -> None:
        del self.claims[claim.id]
        for node_id, held in self._of(claim):
            self._held[node_id].drop(held, claim.id)

    def _of(self, claim: Claim) -> Iterator[tuple[int, Held]]:
        for place in claim.places:
            if place.node_id in self._held:  # a node that is down is nobody's to place on
                yield (
                    place.node_id,
                    Held(place.gpu_from, place.gpu_to, claim.starts_at, claim.ends_at + claim.gap),
                )

    def close(self, loss: Loss) -> None:
        if loss.node_id in self._held:
            gpus = self._nodes[loss.node_id].gpus
            self._held[loss.node_id].add(Held(0, gpus, loss.starts_at, loss.ends_at), 0)

    def at(self, claim: Claim, start: datetime, only: Collection[int] | None = None) -> Claim | None:
        """The claim with that start and places for it (on ``only`` these nodes), or None."""
        end = start + claim.length
        free = [
            free_during(node, start, end + claim.gap)
            for node in self._rows(start, end + claim.gap, only, claim.shape)
        ]
        places = pick(free, claim.shape, whole=self._whole)
        return replace(claim, starts_at=start, ends_at=end, places=tuple(places)) if places else None

    def nearest(self, claim: Claim) -> Claim | None:
        """The claim at the allowed start that is nearest to its own; of two as near the later one."""
        if claim.first > claim.last:
            return None
        for radius in NEAR:  # what is found within it is nearer than all that lies outside
            first, last = (
                max(claim.first, claim.starts_at - radius),
                min(claim.last, claim.starts_at + radius),
            )
            start = self._nearest_start(claim, first, last) if first <= last else None
            if start is not None:
                return self.at(claim, start)
        start = self._nearest_start(claim, claim.first, claim.last)
        return self.at(claim, start) if start is not None else None

    def _nearest_start(self, claim: Claim, first: datetime, last: datetime) -> datetime | None:
        length = claim.length + claim.gap
        rows = self._rows(first, last + length)
        starts = free_starts(rows, claim.shape, length, first, last, whole=self._whole)
        found = (
            nearest_after(starts, claim.starts_at, self._grid),
            nearest_before(starts, claim.starts_at, self._grid),
        )
        near = sorted((start for start in found if start), key=lambda start: abs(start - claim.starts_at))
        return near[0] if near else None

    def blockers(self, claim: Claim, start: datetime) -> list[Claim] | None:
        """The lightest claims that must go so that the claim fits at that start; None: it cannot be."""
        end = start + claim.length + claim.gap
        found = []
        for node_id, node in self._nodes.items():
            if not claim.shape.suits(node.gpus, self._whole):
                continue
            taken = self._held[node_id].between(start, end)
            for low in range(node.gpus - claim.shape.gpus + 1):
                high = low + claim.shape.gpus
                holders = {
                    who
                    for held, who in taken
                    if held.starts_at < end and held.ends_at > start
                    if held.gpu_from < high and held.gpu_to > low
                }
                if 0 in holders or not all(self.claims[who].movable for who in holders):
                    continue
                cost = sum(self.claims[who].weight for who in holders)
                found.append((cost, node_id, low, holders))
        return self._lightest(found, claim.shape.nodes)

    def _lightest(self, found: Iterable[tuple[float, int, int, set[int]]], nodes: int) -> list[Claim] | None:
        chosen: dict[int, set[int]] = {}
        for _, node_id, _, holders in sorted(found, key=lambda one: one[:3]):
            if node_id not in chosen and len(chosen) < nodes:
                chosen[node_id] = holders
        if len(chosen) < nodes:
            return None
        return [self.claims[who] for who in sorted(set().union(*chosen.values()))]

    def rows(self, since: datetime, until: datetime) -> list[NodeHeld]:
        """The nodes with all that is taken of them in [since, until)."""
        return list(self._rows(since, until))

    def _rows(
        self,
        since: datetime,
        until: datetime,
        only: Collection[int] | None = None,
        all_along: Shape | None = None,
    ) -> Iterator[NodeHeld]:
        """The nodes with what is taken of them in [since, until), and perhaps more.

        Without those that are of no use to a shape that is to stay there ``all_along``.
        """
        for node in self._nodes.values():
            if only is not None and node.id not in only:
                continue
            held = [one for one, _ in self._held[node.id].between(since, until)]
            if all_along is not None:
                held = [one for one in held if one.ends_at > since and one.starts_at < until]
                if held and (self._whole or all_along.gpus == node.gpus):
                    continue
            yield NodeHeld(node.id, node.name, node.gpus, tuple(held), node.switch)
