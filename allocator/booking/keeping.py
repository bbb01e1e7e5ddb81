"""What is kept together for whoever is first in line while nothing suits: the likeliest place (pure).

By today's plan the place is not free, but bookings are given back, one after the other. Where the least of
it is missing is where a large wish has its best hope, if nothing small is put there meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from allocator.booking.planning import Picture
from allocator.booking.windows import Held, NodeHeld, Place, natural
from allocator.sqltime import Window
from allocator.upkeep.mending import Board, Claim

MOST_MOMENTS, MOST_LOOKS = 120, 40_000  # starts that are tried; with each, every node is looked at

_Cost = tuple[float, int, tuple[tuple[int, str], ...], NodeHeld]  # what is missing, first GPU, name, node


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


class Spare:
    """What of a kept claim's time is taken on each node: counted once for all that are tried beside it."""

    def __init__(self, board: Board, kept: Claim, picture: Picture) -> None:
        self._kept = kept
        self._costs = _costs(board, kept, kept.starts_at, picture)
        self._rank = {node.id: rank for rank, (*_, node) in enumerate(self._costs)}

    def again(self, beside: Claim) -> Claim | None:
        """Its place with the other one there, if no more of it is missing then; or None."""
        kept, wanted = self._kept, self._kept.shape.nodes
        end = kept.ends_at + kept.gap
        changed = {}
        for place in beside.places:
            if place.node_id in self._rank:
                _, _, name, node = self._costs[self._rank[place.node_id]]
                held = Held(place.gpu_from, place.gpu_to, beside.starts_at, beside.ends_at + beside.gap)
                node = replace(node, held=(*node.held, held))
                changed[node.id] = (*_missing(node, kept.shape.gpus, kept.starts_at, end), name, node)
        # only these have become dearer: all others of the cheapest stay, and the next may take their parts
        lost = [one for one in changed if self._rank[one] < wanted]
        after = self._costs[wanted : wanted + len(changed)]
        pool = sorted(
            [*changed.values(), *(one for one in after if one[3].id not in changed)], key=lambda one: one[:3]
        )[: len(lost)]
        before = sum(self._costs[self._rank[one]][0] for one in lost)
        if len(self._costs) < wanted or sum(one[0] for one in pool) > before:
            return None
        stay = [one for one in self._costs[:wanted] if one[3].id not in changed]
        chosen = sorted([*stay, *pool], key=lambda one: one[:3])
        return _on(kept, kept.starts_at, chosen)


def moments(
    board: Board, claim: Claim, starts: Sequence[Window], picture: Picture, kept: Iterable[Claim] = ()
) -> list[datetime]:
    """The starts of these closed intervals at which something changes for the claim, in order."""
    length = claim.length + claim.gap
    most = min(MOST_MOMENTS, MOST_LOOKS // max(1, len(picture.nodes)) + 1)
    found: set[datetime] = set()
    for first, last in starts:
        rows = board.rows(first, last + length)
        edges = [(held.starts_at, held.ends_at) for node in rows for held in node.held]
        edges += [(one.starts_at, one.ends_at + one.gap) for one in kept]
        possible = {first, *(end for _, end in edges), *(begin - length for begin, _ in edges), last}
        later = {picture.grid.ceil(moment) for moment in possible if first <= moment <= last}
        sooner = {picture.grid.floor(moment) for moment in possible if first <= moment <= last}
        found.update(moment for moment in later | sooner if first <= moment <= last)
    step = -(-len(found) // most) or 1
    return sorted(found)[::step]


def _at(board: Board, claim: Claim, start: datetime, picture: Picture) -> tuple[float, Claim] | None:
    """GPU-seconds that are taken of the best place there, and the claim on it."""
    costs = _costs(board, claim, start, picture)[: claim.shape.nodes]
    if len(costs) < claim.shape.nodes:
        return None
    return sum(cost for cost, *_ in costs), _on(claim, start, costs)


def _costs(board: Board, claim: Claim, start: datetime, picture: Picture) -> list[_Cost]:
    """Every node that suits, with what is taken of its best part; the least first."""
    end = start + claim.length + claim.gap
    costs = [
        (*_missing(node, claim.shape.gpus, start, end), natural(node.name), node)
        for node in board.rows(start, end)
        if claim.shape.suits(node.gpus, picture.whole)
    ]
    return sorted(costs, key=lambda one: one[:3])


def _on(claim: Claim, start: datetime, costs: Iterable[_Cost]) -> Claim:
    places = tuple(Place(node.id, node.name, low, low + claim.shape.gpus) for _, low, _, node in costs)
    return replace(claim, starts_at=start, ends_at=start + claim.length, places=places)


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
