"""Looking for room: among those who were promised a time in a window, for those who wait (pure).

A plan moves nothing without need: what keeps its promise where it is stays there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from allocator.booking.planning import Picture, Slots, demand_of
from allocator.booking.rebinding import count_starts
from allocator.booking.windows import nearest_after
from allocator.sqltime import Window
from allocator.upkeep.mending import Board, Change, Claim, variant_of

STEPS = 48  # starts at which others are asked to make way for one
SETTLING = 2  # whoever goes back to the old place leaves room for others to go back to theirs
PATIENCE = 2.0  # seconds that a person waits for that


@dataclass(frozen=True)
class Solution:
    """Changes of bookings that were promised a window, and the starts at which entries get room."""

    changes: tuple[Change, ...] = ()
    admitted: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class _Spot:
    """Where the planner puts a booking: a start, and numbers of nodes."""

    start: datetime
    nodes: frozenset[int]


def solve(picture: Picture, *, seconds: float, seed: int = 0) -> Solution:
    """Room for those who wait, moving as little as possible; nothing promised is ever given up (pure).

    First as everything lies now; only if that leaves somebody out does the planner look for ``seconds``.
    """
    board = Board(picture.nodes, picture.claims, picture.whole, picture.grid)
    admitted = _admit(board, picture.waiting)
    if len(admitted) == len(picture.waiting):
        return Solution((), tuple(admitted))
    if picture.loose and seconds > 0:
        planned = _planned(picture, picture.loose, seconds, seed)
        if planned is not None and _worth(planned[0]) > _worth(admitted):
            return Solution(_changes(picture, planned[1]), tuple(planned[0]))
    # one in a round, as nothing on the board says what is left after it; another one each time
    by_count = list(_by_count(picture, board))
    chosen = by_count[seed % len(by_count)] if by_count else None
    return Solution((), (*admitted, chosen) if chosen else tuple(admitted))


def _by_count(picture: Picture, board: Board) -> Iterator[Claim]:
    """Who would fit if others got other names of nodes: whoever books it sees to that (late binding)."""
    for claim in picture.waiting:
        span = (max(claim.first, picture.loose_from), claim.last)
        if claim.id in board.claims or span[0] > span[1]:
            continue
        length = claim.length + claim.gap
        starts = count_starts(board.rows(span[0], span[1] + length), claim.shape, length, span)
        start = nearest_after(starts, span[0], picture.grid)
        if start is not None:
            yield replace(claim, starts_at=start, ends_at=start + claim.length)


def _worth(claims: Iterable[Claim]) -> float:
    return sum(claim.weight for claim in claims)


def _changes(picture: Picture, board: Board) -> tuple[Change, ...]:
    return variant_of(picture.claims, board, (), ()).changes


def _admit(board: Board, waiting: Iterable[Claim]) -> list[Claim]:
    """Each at the first start that is free on the board, in their order."""
    admitted = []
    for claim in waiting:
        found = board.nearest(claim)
        if found:
            board.put(found)
            admitted.append(found)
    return admitted


def _planned(
    picture: Picture, loose: Sequence[Claim], seconds: float, seed: int
) -> tuple[list[Claim], Board] | None:
    """Whom the planner lets in and the board after that; None unless every promise is kept."""
    planned = _starts(picture, loose, seconds, seed)
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
    admitted = [board.claims[one.id] for one in picture.waiting if one.id in board.claims]
    return admitted + _admit(board, [one for one in picture.waiting if one.id not in board.claims]), board


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


def _starts(picture: Picture, loose: Sequence[Claim], seconds: float, seed: int) -> dict[int, _Spot]:
    """Where the planner has them, by number, for those that it lets in."""
    from allocator.planner import plan  # numba comes with it, and only the scheduler needs that

    fixed = [claim for claim in picture.claims if claim.id not in {one.id for one in loose}]
    wanted = [*loose, *picture.waiting]
    slots = Slots(picture, max(one.last + one.length + one.gap for one in wanted))
    made = demand_of(picture, slots, fixed, wanted)
    if made is None:
        return {}
    demand, kept = made
    found = plan(demand, seconds=seconds, seed=seed)
    return {
        claim.id: _Spot(slots.at(int(start)), frozenset(picture.nodes[node].id for node in nodes))
        for claim, start, nodes in zip(kept, found.start, found.assigned, strict=True)
        if start >= 0
    }
