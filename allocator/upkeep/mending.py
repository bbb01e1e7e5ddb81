"""Mending a plan whose capacity has changed: eject what lost its GPUs, and put it in again (pure).

Two answers to the same loss: ``fewest_moves`` touches only what lost its GPUs, ``fewest_drops`` also moves
others where that saves a booking. What may not move is never touched: a booking that has begun, that a
person has pinned, or that begins before the cluster is unfrozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from allocator.booking.windows import Grid, NodeHeld, Place
from allocator.upkeep.mending_board import Board, Claim, Loss

__all__ = [
    "FEWEST_DROPS",
    "FEWEST_MOVES",
    "VARIANTS",
    "Board",
    "Change",
    "ChangeKind",
    "Claim",
    "Loss",
    "Tick",
    "Variant",
    "hit",
    "mend",
    "variant_of",
]

FEWEST_MOVES, FEWEST_DROPS = VARIANTS = ("fewest_moves", "fewest_drops")
# Told before each booking: whether it is about saving those that fit nowhere, how many are done, and of how
# many. It may raise whatever ends the work.
Tick = Callable[[bool, int, int], None]
MOST_STARTS = 12  # other starts that are tried for a booking before it is dropped


class ChangeKind(StrEnum):
    """What becomes of a booking. Only a MOVE and a DROP are told to people."""

    REBIND = "rebind"  # other nodes at the same time
    REPLAN = "replan"  # another start inside of what was promised
    MOVE = "move"
    DROP = "drop"


@dataclass(frozen=True)
class Change:
    """What becomes of one booking; ``saves`` is the booking for whose sake an untouched one makes way."""

    booking_id: int
    version: int
    kind: ChangeKind
    starts_at: datetime
    ends_at: datetime
    to_starts_at: datetime | None = None
    to_ends_at: datetime | None = None
    places: tuple[Place, ...] = ()
    saves: int | None = None


@dataclass(frozen=True)
class Variant:
    """One way to mend; ``stuck`` are the bookings that lost GPUs and may not be touched."""

    changes: tuple[Change, ...]
    stuck: tuple[int, ...] = ()

    def of(self, *kinds: ChangeKind) -> list[Change]:
        return [change for change in self.changes if change.kind in kinds]


def hit(claims: Iterable[Claim], losses: Sequence[Loss]) -> list[Claim]:
    """The claims that lose a GPU at some moment, in the order in which they begin."""
    by_node: dict[int, list[Loss]] = {}
    for loss in losses:
        by_node.setdefault(loss.node_id, []).append(loss)
    lost = [
        claim
        for claim in claims
        if any(
            claim.starts_at < loss.ends_at and claim.ends_at + claim.gap > loss.starts_at
            for place in claim.places
            for loss in by_node.get(place.node_id, ())
        )
    ]
    return sorted(lost, key=lambda claim: (claim.starts_at, claim.id))


def mend(
    nodes: Sequence[NodeHeld],
    claims: Sequence[Claim],
    losses: Sequence[Loss],
    *,
    whole: bool,
    grid: Grid,
    tick: Tick = lambda saving, done, total: None,
) -> dict[str, Variant]:
    """Both variants, by name. ``claims`` are all bookings from now on, wherever they lie."""
    lost = hit(claims, losses)
    board = Board(nodes, claims, whole, grid)
    ejected = [claim for claim in lost if claim.movable]
    for claim in ejected:
        board.take(claim)
    for loss in losses:
        board.close(loss)
    dropped = _insert(board, ejected, tick)
    fewest_moves = variant_of(claims, board, dropped, losses)
    saved = _make_room(board, {claim.id: claim for claim in claims}, dropped, tick)
    left = [claim for claim in dropped if claim.id not in board.claims]
    fewest_drops = variant_of(claims, board, left, losses, saved)
    return {FEWEST_MOVES: fewest_moves, FEWEST_DROPS: fewest_drops}


def variant_of(
    claims: Sequence[Claim],
    board: Board,
    dropped: Iterable[Claim],
    losses: Sequence[Loss],
    saved: Mapping[int, int] | None = None,
) -> Variant:
    """What has changed on the board. ``saved``: for whose sake others, that lost nothing, made way."""
    lost = hit(claims, losses)
    known = {claim.id for claim in lost}
    sakes = {who: whom for who, whom in (saved or {}).items() if who not in known}
    before = {claim.id: claim for claim in claims}
    stuck = tuple(claim.id for claim in lost if not claim.movable)
    return Variant(tuple(_changes(before, board, dropped, sakes)), stuck)


def _insert(board: Board, ejected: Sequence[Claim], tick: Tick) -> list[Claim]:
    """Put them in again, first all that can keep their time; returns those that fit nowhere."""
    by_weight = sorted(ejected, key=lambda claim: (-claim.shape.nodes * claim.shape.gpus, claim.starts_at))
    waiting = []
    for claim in by_weight:
        same = board.at(claim, claim.starts_at)
        if same:
            board.put(same)
        else:
            waiting.append(claim)
    dropped = []
    for done, claim in enumerate(waiting):
        tick(False, done, len(waiting))
        other = board.nearest(claim)
        if other:
            board.put(other)
        else:
            dropped.append(claim)
    return dropped


def _make_room(
    board: Board, before: Mapping[int, Claim], dropped: Sequence[Claim], tick: Tick
) -> dict[int, int]:
    """Let others make way for each dropped claim where all of them find another place; who saved whom."""
    saved: dict[int, int] = {}
    for done, claim in enumerate(sorted(dropped, key=lambda claim: -claim.weight)):
        tick(True, done, len(dropped))
        for start in _starts(claim):
            moved = _squeeze(board, before, claim, start)
            if moved is not None:
                saved |= dict.fromkeys(moved, claim.id)
                break
    return saved


def _starts(claim: Claim) -> Iterator[datetime]:
    """Its own start and some around it, the nearest first."""
    yield claim.starts_at
    step = max(claim.length, timedelta(hours=1)) / 2
    step -= step % timedelta(hours=1)
    for n in range(1, MOST_STARTS // 2 + 1):
        for start in (claim.starts_at + n * step, claim.starts_at - n * step):
            if step and claim.first <= start <= claim.last:
                yield start


def _own(claim: Claim) -> set[int] | None:
    """The nodes that it keeps at its own time; None: any."""
    return {place.node_id for place in claim.places} if claim.told else None


def _renamed(before: Claim, after: Claim) -> bool:
    nodes = {place.node_id for place in after.places}
    return after.starts_at == before.starts_at and nodes != {place.node_id for place in before.places}


def _squeeze(board: Board, before: Mapping[int, Claim], claim: Claim, start: datetime) -> list[int] | None:
    """Place the claim there and its blockers elsewhere, or change nothing and return None."""
    blockers = board.blockers(claim, start)
    if blockers is None:
        return None
    for blocker in blockers:
        board.take(blocker)
    placed = board.at(claim, start)
    if placed:
        board.put(placed)
        again = []
        for blocker in sorted(blockers, key=lambda one: -one.weight):
            home = before[blocker.id]
            other = board.at(blocker, home.starts_at, only=_own(home)) or board.nearest(home)
            # other names at the same time are for those whose names nobody knows yet
            if other is None or (home.told and _renamed(home, other)):
                break
            board.put(other)
            again.append(other)
        if len(again) == len(blockers):
            return [blocker.id for blocker in blockers]
        for other in again:
            board.take(other)
        board.take(placed)
    for blocker in blockers:
        board.put(blocker)
    return None


def _changes(
    before: Mapping[int, Claim], board: Board, dropped: Iterable[Claim], saved: Mapping[int, int]
) -> Iterator[Change]:
    for claim in before.values():
        after = board.claims.get(claim.id)
        if after is None or (after.starts_at, set(after.places)) == (claim.starts_at, set(claim.places)):
            continue
        kind = ChangeKind.REBIND
        if after.starts_at != claim.starts_at:
            kind = ChangeKind.REPLAN if claim.silent else ChangeKind.MOVE
        yield Change(
            claim.id,
            claim.version,
            kind,
            claim.starts_at,
            claim.ends_at,
            after.starts_at,
            after.ends_at,
            after.places,
            saved.get(claim.id),
        )
    for claim in dropped:
        yield Change(claim.id, claim.version, ChangeKind.DROP, claim.starts_at, claim.ends_at)
