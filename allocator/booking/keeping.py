"""What is kept together for whoever is first in line while nothing suits: the likeliest place (pure).

By today's plan the place is not free, but bookings are given back, one after the other. Where the least of
it is missing is where a large wish has its best hope, if nothing small is put there meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from allocator.booking.planning import Picture
from allocator.booking.windows import NodeHeld, Place, natural
from allocator.sqltime import Window
from allocator.upkeep.mending import Board, Claim

MOST_MOMENTS = 120  # starts that are tried: with each, every node is looked at


def likeliest(board: Board, claim: Claim, starts: Sequence[Window], picture: Picture) -> Claim | None:
    """The claim where the least is missing, the earliest of such; None if nothing of it is free anywhere.

    Only from ``picture.keep_from`` on: so short before, anybody may have what would else be lost.
    """
    late = [(max(first, picture.keep_from), last) for first, last in starts if last >= picture.keep_from]
    full = claim.shape.nodes * claim.shape.gpus * claim.length.total_seconds()
    best: tuple[float, Claim] | None = None
    for start in moments(board, claim, late, picture):
        found = _at(board, claim, start, picture)
        if found and (best is None or found[0] < best[0]):
            best = found
    return best[1] if best and best[0] < full else None


def again(board: Board, kept: Claim, beside: Claim, picture: Picture) -> Claim | None:
    """Its place with the other one on the board, if no more of it is missing then; or None."""
    before = _at(board, kept, kept.starts_at, picture)
    board.put(beside)
    after = _at(board, kept, kept.starts_at, picture)
    board.take(beside)
    return after[1] if before and after and after[0] <= before[0] else None


def moments(
    board: Board, claim: Claim, starts: Sequence[Window], picture: Picture, kept: Iterable[Claim] = ()
) -> list[datetime]:
    """The starts of these closed intervals at which something changes for the claim, in order."""
    length = claim.length + claim.gap
    found: set[datetime] = set()
    for first, last in starts:
        rows = board.rows(first, last + length)
        edges = [(held.starts_at, held.ends_at) for node in rows for held in node.held]
        edges += [(one.starts_at, one.ends_at + one.gap) for one in kept]
        possible = [first, *(end for _, end in edges), *(begin - length for begin, _ in edges), last]
        later = {picture.grid.ceil(moment) for moment in possible if first <= moment <= last}
        sooner = {picture.grid.floor(moment) for moment in possible if first <= moment <= last}
        found.update(moment for moment in later | sooner if first <= moment <= last)
    step = -(-len(found) // MOST_MOMENTS) or 1
    return sorted(found)[::step]


def _at(board: Board, claim: Claim, start: datetime, picture: Picture) -> tuple[float, Claim] | None:
    """GPU-seconds that are taken of the best place there, and the claim on it."""
    end = start + claim.length
    costs = sorted(
        (
            (*_missing(node, claim.shape.gpus, start, end + claim.gap), natural(node.name), node)
            for node in board.rows(start, end + claim.gap)
            if claim.shape.suits(node.gpus, picture.whole)
        ),
        key=lambda one: one[:3],
    )[: claim.shape.nodes]
    if len(costs) < claim.shape.nodes:
        return None
    places = tuple(Place(node.id, node.name, low, low + claim.shape.gpus) for _, low, _, node in costs)
    return sum(cost for cost, *_ in costs), replace(claim, starts_at=start, ends_at=end, places=places)


def _missing(node: NodeHeld, gpus: int, start: datetime, end: datetime) -> tuple[float, int]:
    """The least that is taken of so many GPUs of the node next to each other, and the first of these."""
    taken = [held for held in node.held if held.starts_at < end and held.ends_at > start]
    return min(
        (
            sum(
                (min(held.gpu_to, low + gpus) - max(held.gpu_from, low))
                * (min(held.ends_at, end) - max(held.starts_at, start)).total_seconds()
                for held in taken
                if held.gpu_from < low + gpus and held.gpu_to > low
            ),
            low,
        )
        for low in range(node.gpus - gpus + 1)
    )
