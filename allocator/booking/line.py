"""The line of those who wait: who is offered what is free now, and what is kept for whoever is first (pure).

As in EASY backfill (Lifka 1995): whoever is first keeps the earliest place that can be expected for it, and
whoever stands behind is offered only what does not put that place off. First is everybody before whom nobody
else waits for a part of the same days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from allocator.booking import keeping
from allocator.booking.planning import Picture
from allocator.booking.rebinding import count_starts
from allocator.booking.windows import NodeHeld, Place, free_during, free_starts, nearest_after
from allocator.sqltime import Window
from allocator.upkeep.mending import Board, Claim

# How many nodes are looked at to find one who waits a place beside those who are first, and all of a line.
# At the end of them it is not offered anything this time: that harms nobody first, and a page and a round of
# the scheduler have to end. Counted, not timed: the same picture always gives the same answer.
LOOKS, MOST_LOOKS = 10_000, 40_000


class Turn(Enum):
    """What somebody who waits can hope for."""

    NOW = auto()  # is free, and nobody before it is put off by it
    BY_COUNT = auto()  # would be free if others got other names of nodes
    LATER = auto()  # by a known time: offers to others lapse, or days are opened for booking
    TOGETHER = auto()  # not by today's plan: what gets free is kept together at the likeliest place
    UNKNOWN = auto()


@dataclass(frozen=True)
class Stand:
    """One who waits: the claim with the place that ``turn`` speaks of; ``first`` as the module says."""

    turn: Turn
    claim: Claim
    first: bool

    @property
    def keeps(self) -> bool:
        """Whether the place is kept from those who stand behind."""
        return self.turn is Turn.TOGETHER or (self.first and self.turn is Turn.LATER)


def stand(
    picture: Picture, claims: Iterable[Claim] | None = None, given: Mapping[int, Claim] | None = None
) -> list[Stand]:
    """Everybody of the picture who waits, in their order.

    ``claims`` in place of the picture's bookings, and places that some of those who wait are ``given``
    already: for plans that move others.
    """
    line = _Line(picture, picture.claims if claims is None else list(claims))
    return [line.add(claim, (given or {}).get(claim.id)) for claim in picture.waiting]


def puts_off(before: Sequence[Stand], after: Sequence[Stand]) -> bool:
    """Whether somebody first in line has to wait longer ``after`` a change of plans; both of one picture."""
    return any(one.first and _moment(other) > _moment(one) for one, other in zip(before, after, strict=True))


def _moment(one: Stand) -> tuple[bool, bool, datetime]:
    at_once = one.turn in (Turn.NOW, Turn.BY_COUNT)
    if at_once or one.turn is Turn.LATER:
        return False, not at_once, one.claim.starts_at
    return True, False, one.claim.first


class _Line:
    """The boards on which places are looked for, and what is kept on them.

    ``_board`` is what is free now, ``_later`` what will be when offers have lapsed, those of this round as
    well; on both lies what is kept. ``_dates`` has everybody's expected place too, for honest dates.
    """

    def __init__(self, picture: Picture, claims: Sequence[Claim]) -> None:
        self._picture = picture
        self._board = Board(picture.nodes, claims, picture.whole, picture.grid)
        self._later = self._board.copy()
        for claim in claims:
            if claim.id in picture.offered:
                self._later.take(claim)
        self._dates = self._later.copy()
        self._waits: list[Claim] = []
        self._kept: dict[int, Claim] = {}
        self._behind: dict[int, list[Claim]] = {}  # what got a place after somebody who is kept one
        self._together: set[int] = set()
        self._nodes = len(picture.nodes)
        self.looks = 0  # at nodes, for places beside those who are first

    def add(self, claim: Claim, given: Claim | None = None) -> Stand:
        first = not any(meet(claim, other) for other in self._waits)
        found = given or self._free(self._board, claim, claim.last) or self._beside(claim)
        if found:
            self._put(found, self._board)
            for behind in self._behind.values():
                behind.append(found)
            return Stand(Turn.NOW, found, first)
        if found := self._by_count(claim):
            return Stand(Turn.BY_COUNT, found, first)
        if not self._picture.limits_of(claim).able:  # whoever could not take it keeps nobody waiting
            return Stand(Turn.UNKNOWN, claim, first)
        self._waits.append(claim)
        board = self._later if first else self._dates
        if found := self._free(board, claim, None):
            self._put(found, *((self._board, self._later) if first else ()), self._dates)
            if first:
                self._kept[claim.id], self._behind[claim.id] = found, []
            return Stand(Turn.LATER, found, first)
        likeliest = (
            keeping.likeliest(self._board, claim, self._starts(claim), self._picture) if first else None
        )
        if likeliest:
            self._put(likeliest, self._board, self._later, self._dates)
            self._kept[claim.id], self._behind[claim.id] = likeliest, []
            self._together.add(claim.id)
            return Stand(Turn.TOGETHER, likeliest, first)
        return Stand(Turn.UNKNOWN, claim, first)

    @staticmethod
    def _put(claim: Claim, *boards: Board) -> None:
        for board in boards:
            board.put(claim)

    def _starts(self, claim: Claim, last: datetime | None = None) -> list[Window]:
        """The starts that rules and grants allow, as closed intervals."""
        windows = self._picture.limits_of(claim).starts
        return [(a, b if last is None else min(b, last)) for a, b in windows if last is None or a <= last]

    def _open(self, board: Board, claim: Claim, last: datetime | None) -> list[Window]:
        """The allowed starts that are free on the board, as closed intervals in order."""
        length = claim.length + claim.gap
        found: list[Window] = []
        for first, until in self._starts(claim, last):
            rows = board.rows(first, until + length)
            found += free_starts(rows, claim.shape, length, first, until, self._picture.whole)
        return found

    def _free(self, board: Board, claim: Claim, last: datetime | None) -> Claim | None:
        """At the first start that is free on the board."""
        start = nearest_after(self._open(board, claim, last), claim.first, self._picture.grid)
        return board.at(claim, start) if start is not None else None

    def _by_count(self, claim: Claim) -> Claim | None:
        """With other names of nodes for others: whoever books it sees to that (late binding)."""
        length, loose_from = claim.length + claim.gap, self._picture.loose_from
        for first, last in self._starts(claim, claim.last):
            if loose_from > last:
                continue
            span = (max(first, loose_from), last)
            starts = count_starts(self._board.rows(span[0], last + length), claim.shape, length, span)
            start = nearest_after(starts, span[0], self._picture.grid)
            if start is not None:
                return replace(claim, starts_at=start, ends_at=start + claim.length)
        return None

    def _beside(self, claim: Claim) -> Claim | None:
        """Where those who are first could as well have other GPUs at the same time, as good for them."""
        kept = [one for one in self._kept.values() if meet(claim, one)]
        if not kept:
            return None
        for one in kept:
            self._board.take(one)
            self._later.take(one)
        found = self._harmless(claim, kept) if self.looks < MOST_LOOKS else None
        if found is None:
            self._keep(kept, kept)
        return found

    def _harmless(self, claim: Claim, kept: Sequence[Claim]) -> Claim | None:
        """The first of the tries that none of them minds; they have then got other places."""
        starts = self._open(self._board, claim, claim.last)
        if not starts:
            return None
        useful = [self._useful(one) for one in kept]
        spare = {
            one.id: keeping.Spare(self._board, one, self._picture) for one in kept if one.id in self._together
        }
        # to whoever wants whole nodes all GPUs of a node are alike
        alike = self._picture.whole or all(one.shape.nodes > 1 for one in kept)
        most = min(self.looks + LOOKS, MOST_LOOKS)
        for start in keeping.moments(self._board, claim, starts, self._picture, kept):
            self.looks += self._nodes
            for found in self._choices(claim, start, useful, alike):
                if self.looks >= most:
                    return None
                again = self._all_again(kept, found, spare)
                if again is not None:
                    self._keep(again, kept)
                    return found
        return None

    def _all_again(
        self, kept: Sequence[Claim], beside: Claim, spare: Mapping[int, keeping.Spare]
    ) -> list[Claim] | None:
        """Their places with the other one there: at the same time, and as much of it free; or None."""
        places: list[Claim] = []
        for one in kept:
            self.looks += 1 if one.id in spare else self._nodes
            if one.id in spare:
                again = spare[one.id].again(beside)
            else:
                with self._all_say_yes(one, beside):
                    again = self._later.at(one, one.starts_at)
            if again is None:
                return None
            places.append(again)
        return places

    def _keep(self, places: Sequence[Claim], before: Sequence[Claim]) -> None:
        for one in before:
            self._dates.take(one)
        for one in places:
            self._put(one, self._board, self._later, self._dates)
            self._kept[one.id] = one

    def _useful(self, kept: Claim) -> dict[int, float]:
        """The nodes that would do for it too, and how much it would miss each."""
        if kept.id in self._together:  # those of which most is free stand first
            return {place.node_id: 1 - rank / 1000 for rank, place in enumerate(kept.places)}
        end = kept.ends_at + kept.gap
        with self._all_say_yes(kept):
            return {
                node.id: 1.0
                for node in self._later.rows(kept.starts_at, end)
                if kept.shape.suits(node.gpus, self._picture.whole)
                and any(b - a >= kept.shape.gpus for a, b in free_during(node, kept.starts_at, end).free)
            }

    @contextmanager
    def _all_say_yes(self, kept: Claim, *more: Claim) -> Iterator[None]:
        """Offers lapse for whoever stands behind, but who is first shall not have to hope for theirs."""
        theirs = [*self._behind[kept.id], *more]
        for one in theirs:
            self._later.put(one)
        yield
        for one in theirs:
            self._later.take(one)

    def _choices(
        self, claim: Claim, start: datetime, useful: Sequence[Mapping[int, float]], alike: bool
    ) -> Iterator[Claim]:
        """The claim there, first on nodes that the others have no use for; on ``alike`` GPUs once."""
        end = start + claim.length
        rows = [
            (sum(those.get(node.id, 0.0) for those in useful), node)
            for node in self._board.rows(start, end + claim.gap)
            if claim.shape.suits(node.gpus, self._picture.whole)
        ]
        gaps = [
            (node, low, high)
            for _, node in sorted(rows, key=lambda row: row[0])
            for low, high in free_during(node, start, end + claim.gap).free
            if high - low >= claim.shape.gpus
        ]
        if claim.shape.nodes > 1:
            chosen = [node.id for node, _, _ in gaps[: claim.shape.nodes]]
            found = self._board.at(claim, start, chosen)
            yield from [found] if found else []
            return
        tried: set[int] = set()
        for node, low, high in gaps:
            for gpu in range(low, high - claim.shape.gpus + 1):
                if not (alike and node.id in tried):
                    tried.add(node.id)
                    yield _placed(claim, start, node, gpu)


def _placed(claim: Claim, start: datetime, node: NodeHeld, gpu: int) -> Claim:
    place = Place(node.id, node.name, gpu, gpu + claim.shape.gpus)
    return replace(claim, starts_at=start, ends_at=start + claim.length, places=(place,))


def meet(claim: Claim, other: Claim) -> bool:
    """Whether both want a part of the same days."""
    return claim.first < other.last + other.length and other.first < claim.last + claim.length
