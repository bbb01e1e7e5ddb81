"""A better way to mend than one at a time: the planner's search, checked and bound to GPUs here (pure).

The planner works on whole slots and counts of GPUs; what it proposes is put on the mender's exact board,
where whatever does not bind is put elsewhere. The better of both answers is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from allocator.booking.windows import Grid, Held, NodeHeld
from allocator.upkeep.mending import (
    FEWEST_DROPS,
    FEWEST_MOVES,
    Board,
    ChangeKind,
    Claim,
    Loss,
    Tick,
    Variant,
    hit,
    variant_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from allocator.planner import Plan
    from allocator.planner import Variant as Planned

# So few moves and no loss are not worth a search.
FEW = 3
MOST_CELLS = 4_000_000
FULL = 8  # GPUs of a whole node, as the planner counts


@dataclass(frozen=True)
class Slots:
    """The grid of the planner: slot 0 begins at ``origin``."""

    origin: datetime
    step: timedelta
    count: int

    def before(self, moment: datetime) -> int:
        return min(max((moment - self.origin) // self.step, 0), self.count)

    def after(self, moment: datetime) -> int:
        return min(max(-((self.origin - moment) // self.step), 0), self.count)

    def at(self, slot: int) -> datetime:
        return self.origin + slot * self.step


def worth_it(variants: dict[str, Variant]) -> bool:
    """Whether a search could make a difference that people would notice."""
    few_drops = variants[FEWEST_DROPS]
    return bool(few_drops.of(ChangeKind.DROP)) or len(few_drops.of(ChangeKind.MOVE)) > FEW


def search(
    nodes: Sequence[NodeHeld],
    claims: Sequence[Claim],
    losses: Sequence[Loss],
    variants: dict[str, Variant],
    *,
    whole: bool,
    grid: Grid,
    now: datetime,
    seconds: float,
    iterations: int | None = None,
    tick: Tick = lambda saving, done, total: None,
) -> dict[str, Variant]:
    """The variants, each replaced where the planner's is better. Unchanged where its grid does not fit."""
    world = _World.of(nodes, claims, losses, grid, now)
    if world is None:
        return variants
    # Numba is compiled and loaded with the first search, and not with the program.
    from allocator.planner import Change, repair

    plan, capacity = world.plan()
    told = frozenset(number for number, claim in enumerate(world.moving) if claim.told)
    found = repair(plan, Change(0, capacity, told=told), seconds=seconds, iterations=iterations)
    lost = {claim.id for claim in hit(claims, losses)}
    better = dict(variants)
    for name, planned in ((FEWEST_MOVES, found.fewest_moves), (FEWEST_DROPS, found.fewest_drops)):
        bound = _bind(world, planned, nodes, claims, losses, whole, grid, tick)
        touched = {change.booking_id for change in bound.of(ChangeKind.MOVE, ChangeKind.DROP)}
        # nobody who lost nothing makes way unless that saves somebody
        saves = name == FEWEST_DROPS and _cost(bound)[0] < _cost(variants[FEWEST_MOVES])[0]
        if (saves or touched <= lost) and _cost(bound) < _cost(better[name]):
            better[name] = bound
    return better


def _cost(variant: Variant) -> tuple[int, int]:
    return len(variant.of(ChangeKind.DROP)), len(variant.of(ChangeKind.MOVE))


@dataclass(frozen=True)
class _World:
    """The bookings that may move, on slots; ``rows`` are nodes, those that are down behind the others."""

    slots: Slots
    rows: tuple[int, ...]
    gpus: int  # of each node
    moving: tuple[Claim, ...]
    fixed: tuple[Claim, ...]
    absent: tuple[tuple[int, Held], ...]
    losses: tuple[Loss, ...]
    there: int  # so many of the rows can be booked

    @classmethod
    def of(
        cls,
        nodes: Sequence[NodeHeld],
        claims: Sequence[Claim],
        losses: Sequence[Loss],
        grid: Grid,
        now: datetime,
    ) -> _World | None:
        """None where slots or counts of GPUs could not tell the truth."""
        sizes = {node.gpus for node in nodes}
        if len(sizes) != 1 or FULL % min(sizes) or not claims:
            return None
        lost = {claim.id for claim in hit(claims, losses)}
        there = {node.id for node in nodes}
        down = {place.node_id for claim in claims for place in claim.places} - there
        moving = tuple(
            claim
            for claim in claims
            if claim.movable and (claim.id in lost or all(place.node_id in there for place in claim.places))
        )
        if not all(grid.holds(claim.starts_at) and grid.holds(claim.ends_at + claim.gap) for claim in moving):
            return None
        origin = grid.floor(now)
        end = max((_until(claim) for claim in claims), default=origin)
        slots = Slots(origin, grid.step, max(-((origin - end) // grid.step), 1))
        if slots.count * (len(there) + len(down)) > MOST_CELLS or not moving:
            return None
        chosen = {claim.id for claim in moving}
        return cls(
            slots,
            (*(node.id for node in nodes), *sorted(down)),
            min(sizes),
            moving,
            tuple(claim for claim in claims if claim.id not in chosen),
            tuple((node.id, held) for node in nodes for held in node.held),
            tuple(losses),
            len(there),
        )

    def plan(self) -> tuple[Plan, NDArray[np.int8]]:
        """The plan as it was, and the capacity as it is now."""
        import numpy as np

        from allocator.planner import Demand, Plan

        row_of = {node_id: row for row, node_id in enumerate(self.rows)}
        before = np.full((len(self.rows), self.slots.count), FULL, np.int8)
        for node_id, held in self.absent:
            before[row_of[node_id], self._span(held.starts_at, held.ends_at)] = 0
        scale = FULL // self.gpus
        for claim in self.fixed:
            for place in claim.places:
                span = self._span(claim.starts_at, claim.ends_at + claim.gap)
                before[row_of[place.node_id], span] -= np.int8((place.gpu_to - place.gpu_from) * scale)
        np.maximum(before, 0, out=before)
        after = before.copy()
        after[self.there :] = 0
        for loss in self.losses:
            if loss.node_id in row_of:
                after[row_of[loss.node_id], self._span(loss.starts_at, loss.ends_at)] = 0
        start = np.array([self.slots.before(claim.starts_at) for claim in self.moving], np.int32)
        assigned = [[row_of[place.node_id] for place in claim.places] for claim in self.moving]
        demand = Demand(
            nodes_total=len(self.rows),
            slots=self.slots.count,
            slot_hours=self.slots.step / timedelta(hours=1),
            nodes=self._column(claim.shape.nodes for claim in self.moving),
            gpus=self._column(claim.shape.gpus * scale for claim in self.moving),
            duration=self._column(self._length(claim) for claim in self.moving),
            earliest=self._column(
                min(self.slots.after(claim.first), self.slots.before(claim.starts_at))
                if claim.first <= claim.last
                else self.slots.before(claim.starts_at)
                for claim in self.moving
            ),
            latest=self._column(self.slots.before(_until(claim)) for claim in self.moving),
            weight=np.ones(len(self.moving)),
            capacity=before,
        )
        price = np.zeros(self.slots.count)
        return Plan(start, assigned, 0.0, 0.0, price, (), 0, demand), after

    def _column(self, values: Iterable[int]) -> NDArray[np.int64]:
        import numpy as np

        return np.array(list(values), np.int64)

    def _length(self, claim: Claim) -> int:
        return (claim.length + claim.gap) // self.slots.step

    def _span(self, starts_at: datetime, ends_at: datetime) -> slice:
        return slice(self.slots.before(starts_at), self.slots.after(ends_at))


def _until(claim: Claim) -> datetime:
    """The latest end that would do, what stays free behind it included."""
    return max(claim.last + claim.length, claim.ends_at) + claim.gap


def _bind(
    world: _World,
    planned: Planned,
    nodes: Sequence[NodeHeld],
    claims: Sequence[Claim],
    losses: Sequence[Loss],
    whole: bool,
    grid: Grid,
    tick: Tick,
) -> Variant:
    """The planner's starts on the exact board, with as few other nodes as will do.

    First with the old nodes for all who keep their time. Where those that move do not fit in between, with
    the planner's own nodes for everybody.
    """
    wanted = {claim.id: world.slots.at(int(slot)) for claim, slot in _placed(world, planned.plan)}
    names = {
        claim.id: {world.rows[row] for row in planned.plan.assigned[number]}
        for number, claim in enumerate(world.moving)
    }
    lost = {claim.id for claim in hit(claims, losses)}
    found = []
    for keep in (True, False):
        board = Board(nodes, world.fixed, whole, grid)
        for loss in losses:
            board.close(loss)
        stays = {
            claim.id
            for claim in world.moving
            if wanted.get(claim.id) == claim.starts_at
            and claim.id not in lost
            and (keep or {place.node_id for place in claim.places} == names[claim.id])
        }
        for claim in world.moving:
            if claim.id in stays:
                board.put(claim)
        rest = [claim for claim in world.moving if claim.id not in stays]
        dropped = _fill(board, rest, wanted, None if keep else names, tick)
        found.append(variant_of(claims, board, dropped, losses, dict(_sakes(claims, board, lost))))
    return min(found, key=lambda one: (*_cost(one), len(one.changes)))


def _fill(
    board: Board,
    rest: Sequence[Claim],
    wanted: Mapping[int, datetime],
    names: Mapping[int, Collection[int]] | None,
    tick: Tick,
) -> list[Claim]:
    """Place the rest where the planner wants it, what does not bind as near as may be; returns the others."""
    by_size = sorted(rest, key=lambda one: (-one.weight, one.id))
    left = []
    for done, claim in enumerate(by_size):
        tick(True, done, len(by_size))
        if not _put(board, claim, wanted.get(claim.id), names[claim.id] if names else None):
            left.append(claim)
    dropped = []
    for claim in sorted(left, key=lambda one: (one.id not in wanted, -one.weight, one.id)):
        tick(True, len(by_size), len(by_size))
        other = board.at(claim, claim.starts_at) or board.nearest(claim)
        if other:
            board.put(other)
        else:
            dropped.append(claim)
    return dropped


def _put(board: Board, claim: Claim, start: datetime | None, nodes: Collection[int] | None) -> bool:
    """Whether the claim has its place where the planner put it."""
    found = board.at(claim, start, only=nodes) if start else None
    if found:
        board.put(found)
    return found is not None


def _sakes(claims: Sequence[Claim], board: Board, lost: set[int]) -> Iterator[tuple[int, int]]:
    """For each that makes way without having lost anything, one that now stands where it stood."""
    before = {claim.id: claim for claim in claims}
    moved = [one for one in board.claims.values() if one.places != before[one.id].places]
    for claim in board.claims.values():
        old = before[claim.id]
        if claim.id in lost or claim.starts_at == old.starts_at:
            continue
        spots = {place.node_id for place in old.places}
        for other in moved:
            overlap = other.starts_at < old.ends_at and other.ends_at > old.starts_at
            if other.id != claim.id and overlap and spots & {place.node_id for place in other.places}:
                yield claim.id, other.id
                break


def _placed(world: _World, plan: Plan) -> Iterator[tuple[Claim, int]]:
    for claim, slot in zip(world.moving, plan.start.tolist(), strict=True):
        if slot >= 0:
            yield claim, slot
