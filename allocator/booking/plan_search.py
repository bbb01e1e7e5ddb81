"""Looking for room: among those who were promised a time in a window, for those who wait (pure).

A plan moves nothing without need: what keeps its promise where it is stays there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from allocator.booking import line
from allocator.booking.line import Stand, Turn
from allocator.booking.planning import Picture, Slots, demand_of
from allocator.sqltime import Window
from allocator.upkeep.mending import Board, Change, Claim, variant_of

STEPS = 48  # starts at which others are asked to make way for one
SETTLING = 2  # whoever goes back to the old place leaves room for others to go back to theirs
PATIENCE = 2.0  # seconds that a person waits for that


@dataclass(frozen=True)
class Solution:
    """Changes of bookings that were promised a window, and the starts at which entries get room.

    ``admitted`` are in order; without places, others have to get other names of nodes for them. ``kept`` is
    for those who are first in line and get nothing yet.
    """

    changes: tuple[Change, ...] = ()
    admitted: tuple[Claim, ...] = ()
    kept: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class _Spot:
    """Where the planner puts a booking: a start, and numbers of nodes."""

    start: datetime
    nodes: frozenset[int]


def solve(picture: Picture, *, seconds: float, seed: int = 0) -> Solution:
    """Room for those who wait, moving as little as possible; nothing promised is ever given up (pure).

    First as everything lies now; only if that leaves somebody out does the planner look for ``seconds``. What
    it finds may put nobody off who is first in line.
    """
    as_it_is = line.stand(picture)
    admitted = _of(as_it_is, Turn.NOW)
    if len(admitted) < len(picture.waiting) and picture.loose and seconds > 0:
        planned = _planned(picture, as_it_is, seconds, seed)
        if planned is not None:
            found, board = planned
            better = _first(found) > _first(as_it_is) or _worth(_of(found, Turn.NOW)) > _worth(admitted)
            if better and not line.puts_off(as_it_is, found):
                return Solution(_changes(picture, board), tuple(_of(found, Turn.NOW)), _kept(found))
    # of those who fit by count the first, and another one each time: what is missing may be a name only
    by_count = [one.id for one in _of(as_it_is, Turn.BY_COUNT)]
    tried = {*by_count[:1], *([by_count[seed % len(by_count)]] if by_count else [])}
    offered = [one for one in _of(as_it_is, Turn.NOW, Turn.BY_COUNT) if one.places or one.id in tried]
    return Solution((), tuple(offered), _kept(as_it_is))


def _of(stands: Iterable[Stand], *turns: Turn) -> list[Claim]:
    return [one.claim for one in stands if one.turn in turns]


def _kept(stands: Iterable[Stand]) -> tuple[Claim, ...]:
    return tuple(one.claim for one in stands if one.keeps)


def _first(stands: Iterable[Stand]) -> int:
    """How many get something now who are first in line."""
    return sum(one.first for one in stands if one.turn is Turn.NOW)


def _worth(claims: Iterable[Claim]) -> float:
    return sum(claim.weight for claim in claims)


def _changes(picture: Picture, board: Board) -> tuple[Change, ...]:
    return variant_of(picture.claims, board, (), ()).changes


def _planned(
    picture: Picture, as_it_is: Sequence[Stand], seconds: float, seed: int
) -> tuple[list[Stand], Board] | None:
    """Who stands how by the planner's plan and the board after that; None unless every promise is kept."""
    loose = picture.loose
    planned = _starts(picture, loose, {one.claim.id for one in as_it_is if one.first}, seconds, seed)
    board = Board(picture.nodes, picture.claims, picture.whole, picture.grid)
    for claim in loose:
        board.take(claim)
    # the planner counts GPUs in slots; where ours then do not fit, promises go before those who wait
    for claim in _put(board, loose, planned):
        found = board.nearest(claim)
        if found is None:
            return None
        board.put(found)
    _put(board, [claim for claim in picture.waiting if claim.id in planned], planned)
    for _ in range(SETTLING):
        _settle(board, loose)
    given = {one.id: board.claims[one.id] for one in picture.waiting if one.id in board.claims}
    for one in given.values():
        board.take(one)
    return line.stand(picture, board.claims.values(), given), board


def _put(board: Board, claims: Iterable[Claim], planned: Mapping[int, _Spot]) -> list[Claim]:
    """Put them where the planner has them, on its nodes if that can be; returns those that do not fit."""
    missed = []
    for claim in sorted(claims, key=lambda one: -one.shape.nodes * one.shape.gpus):
        spot = planned.get(claim.id)
        found = spot and (board.at(claim, spot.start, spot.nodes) or board.at(claim, spot.start))
        if found:
            board.put(found)
        else:
            missed.append(claim)
    return missed


def _settle(board: Board, loose: Iterable[Claim]) -> None:
    """Let whoever still can have back what it had: nobody's plan changes without need."""
    for claim in loose:
        now = board.claims[claim.id]
        board.take(now)
        own = {place.node_id for place in claim.places}
        before = board.at(claim, claim.starts_at, own) or board.at(claim, claim.starts_at)
        board.put(before or now)


def make_room(
    picture: Picture, claim: Claim, starts: Sequence[Window] | None = None, *, seconds: float = PATIENCE
) -> tuple[Claim, tuple[Change, ...]] | None:
    """A start for the claim if others that were promised a window make way, looked for while a person waits.

    ``starts``: closed intervals of those that the rules allow, if not all of the claim's. Returns the claim
    with its places and what becomes of the others, or None.
    """
    end = monotonic() + seconds
    loose = {one.id for one in picture.loose}
    claims = [replace(one, movable=one.id in loose) for one in picture.claims]
    board = Board(picture.nodes, claims, picture.whole, picture.grid)
    step = max((claim.last - claim.first) / STEPS, picture.grid.step)
    for first, last in [(claim.first, claim.last)] if starts is None else starts:
        start = picture.grid.ceil(first)
        while start <= last and monotonic() < end:
            found = _squeeze(board, claim, start)
            if found:
                return found, _changes(picture, board)
            start = picture.grid.ceil(start + step)
    return None


def _squeeze(board: Board, claim: Claim, start: datetime) -> Claim | None:
    """The claim on the board at that start, its blockers elsewhere; or None and a board as it was."""
    blockers = board.blockers(claim, start)
    if blockers is None:
        return None
    for blocker in blockers:
        board.take(blocker)
    put: list[Claim] = []
    for one in (claim, *sorted(blockers, key=lambda one: -one.weight)):
        found = board.at(one, start if one is claim else one.starts_at)
        if found is None and one is not claim:
            found = board.nearest(one)
        if found is None:
            break
        board.put(found)
        put.append(found)
    if len(put) == 1 + len(blockers):
        return put[0]
    for found in put:
        board.take(found)
    for blocker in blockers:
        board.put(blocker)
    return None


def _starts(
    picture: Picture, loose: Sequence[Claim], first: Collection[int], seconds: float, seed: int
) -> dict[int, _Spot]:
    """Where the planner has them, by number, for those that it lets in."""
    from allocator.planner import plan  # numba comes with it, and only the scheduler needs that

    fixed = [claim for claim in picture.claims if claim.id not in {one.id for one in loose}]
    wanted = [*loose, *picture.waiting]
    slots = Slots(picture, max(one.last + one.length + one.gap for one in wanted))
    made = demand_of(picture, slots, fixed, wanted, first)
    if made is None:
        return {}
    demand, kept = made
    found = plan(demand, seconds=seconds, seed=seed)
    return {
        claim.id: _Spot(slots.at(int(start)), frozenset(picture.nodes[node].id for node in nodes))
        for claim, start, nodes in zip(kept, found.start, found.assigned, strict=True)
        if start >= 0
    }
