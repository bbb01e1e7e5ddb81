"""The line of those who wait: whoever is first is put off by nobody, and nobody is refused without need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.booking import keeping, line, plan_search
from allocator.booking.line import Stand, Turn
from allocator.booking.line_limits import Limits
from allocator.booking.planning import Picture
from allocator.booking.windows import Grid, NodeHeld, Place, Shape
from allocator.upkeep.mending import Claim

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
GRID = Grid(HOUR, NOW)
GPUS, HORIZON = 2, 9
NODES = tuple(NodeHeld(n, f"n{n}", GPUS) for n in (1, 2, 3))
NAMES = {node.id: node.name for node in NODES}

Cell = tuple[int, int, int]  # node, GPU, hour


def at(hour: int) -> datetime:
    return NOW + hour * HOUR


def booked(number: int, start: int, hours: int, *parts: tuple[int, int, int]) -> Claim:
    """A booking on parts of nodes: number of the node, first GPU, GPU after the last."""
    places = tuple(Place(node, NAMES[node], low, high) for node, low, high in parts)
    shape = Shape(len(parts), parts[0][2] - parts[0][1])
    begin = at(start)
    return Claim(number, 1, shape, begin, begin + hours * HOUR, places, begin, begin - HOUR)


def wish(number: int, nodes: int, gpus: int, hours: int, since: int = 0, until: int = HORIZON) -> Claim:
    begin, length = at(since), hours * HOUR
    return Claim(
        -number, 1, Shape(nodes, gpus), begin, begin + length, (), begin, at(until) - length, movable=True
    )


def picture(
    claims: Sequence[Claim], waiting: Sequence[Claim], offered: Sequence[int] = (), keep: int = HORIZON
) -> Picture:
    return Picture(
        NOW,
        NODES,
        tuple(claims),
        tuple(waiting),
        whole=False,
        grid=GRID,
        cleaning=timedelta(),
        keep_from=at(keep),
        offered=frozenset(offered),
    )


def hour_of(moment: datetime) -> int:
    return (moment - NOW) // HOUR


def cells(claim: Claim) -> set[Cell]:
    hours = range(hour_of(claim.starts_at), hour_of(claim.ends_at))
    return {
        (place.node_id, gpu, hour)
        for place in claim.places
        for gpu in range(place.gpu_from, place.gpu_to)
        for hour in hours
    }


def taken(claims: Sequence[Claim]) -> set[Cell]:
    return set().union(*(cells(claim) for claim in claims))


def ways(claim: Claim, start: int) -> Iterator[Claim]:
    """All places of a claim at one start, free or not."""
    nodes, gpus = claim.shape.nodes, claim.shape.gpus
    lows = range(GPUS - gpus + 1)
    for chosen in combinations(NAMES, nodes):
        for low in lows if nodes == 1 else [0]:
            places = tuple(Place(node, NAMES[node], low, low + gpus) for node in chosen)
            begin = at(start)
            yield replace(claim, starts_at=begin, ends_at=begin + claim.length, places=places)


def hours_of(claim: Claim) -> range:
    return range(hour_of(claim.first), hour_of(claim.last) + 1)


def free(claim: Claim, held: set[Cell], start: int) -> bool:
    return any(not cells(way) & held for way in ways(claim, start))


def missing(claim: Claim, held: set[Cell], start: int) -> int:
    """GPU-hours that others have of the best place at that start."""
    return min(len(cells(way) & held) for way in ways(claim, start))


@st.composite
def worlds(draw: st.DrawFn, most_waiting: int = 4) -> Picture:
    held: set[Cell] = set()
    claims = []
    for number in range(1, draw(st.integers(1, 7)) + 1):
        whole = draw(st.booleans())
        nodes = draw(st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=3, unique=True))
        low = draw(st.integers(0, GPUS - 1))
        parts = [(node, 0, GPUS) for node in nodes] if whole else [(nodes[0], low, low + 1)]
        start = draw(st.integers(0, HORIZON - 1))
        one = booked(number, start, draw(st.integers(1, HORIZON - start)), *parts)
        if not cells(one) & held:
            held |= cells(one)
            claims.append(one)
    offered = [claim.id for claim in claims if draw(st.integers(0, 3)) == 0]
    waiting = []
    for number in range(1, draw(st.integers(2, most_waiting)) + 1):
        nodes_wanted = draw(st.integers(1, 3))
        gpus = GPUS if nodes_wanted > 1 else draw(st.integers(1, GPUS))
        since = draw(st.integers(0, HORIZON - 2))
        until = draw(st.integers(since + 1, HORIZON))
        hours = draw(st.integers(1, until - since))
        waiting.append(wish(number, nodes_wanted, gpus, hours, since, until))
    return picture(claims, waiting, offered, draw(st.integers(0, HORIZON)))


def admitted(stands: Sequence[Stand]) -> list[Claim]:
    return [one.claim for one in stands if one.turn is Turn.NOW]


@given(worlds())
def test_nobody_first_is_put_off_by_those_behind(seen: Picture) -> None:
    """Whoever stands behind says yes to the offers: the expected place of who is first is still there."""
    stands = line.stand(seen)
    offers = admitted(stands)
    everything = taken([*seen.claims, *offers])
    assert len(everything) == sum(len(cells(claim)) for claim in [*seen.claims, *offers])  # nothing twice
    firm = [claim for claim in seen.claims if claim.id not in seen.offered]
    for place, one in enumerate(stands):
        before = [claim for claim in offers if claim.id > one.claim.id]  # numbers fall along the line
        if one.turn is Turn.NOW:
            assert seen.waiting[place].first <= one.claim.starts_at <= seen.waiting[place].last
        elif one.first and one.turn is Turn.LATER:
            start = hour_of(one.claim.starts_at)
            behind = [claim for claim in offers if claim not in before]
            assert free(one.claim, taken([*firm, *behind]), start)
            starts = [hour for hour in hours_of(one.claim) if free(one.claim, taken(firm), hour)]
            assert start == starts[0]
        elif one.turn is Turn.TOGETHER:
            start = hour_of(one.claim.starts_at)
            assert missing(one.claim, everything, start) <= missing(
                one.claim, taken([*seen.claims, *before]), start
            )
            assert hour_of(seen.keep_from) <= start


@given(worlds(most_waiting=3))
def test_nobody_is_refused_what_harms_nobody(seen: Picture) -> None:
    """For whoever gets nothing now, every place that is free would put somebody off who is first."""
    stands = line.stand(seen)
    for place, one in enumerate(stands):
        if one.turn is Turn.NOW:
            continue
        offers = admitted(stands[:place])
        kept = [other for other in stands[:place] if other.keeps]
        everything = taken([*seen.claims, *offers])
        firm = [claim for claim in seen.claims if claim.id not in seen.offered]
        beside = {  # what is surely gone for who is first: all but what those before it may still decline
            other.claim.id: taken([*firm, *(offer for offer in offers if offer.id < other.claim.id)])
            for other in kept
        }
        best = {
            other.claim.id: missing(other.claim, everything, hour_of(other.claim.starts_at)) for other in kept
        }
        for way in (way for hour in hours_of(one.claim) for way in ways(one.claim, hour)):
            if cells(way) & everything:
                continue
            unharmed = [
                free(other.claim, beside[other.claim.id] | cells(way), hour_of(other.claim.starts_at))
                if other.turn is Turn.LATER
                else missing(other.claim, everything | cells(way), hour_of(other.claim.starts_at))
                <= best[other.claim.id]
                for other in kept
            ]
            assert kept, "something is free, and nobody stands before it"
            assert not all(unharmed), f"{way} would have harmed nobody"


@given(worlds())
def test_whoever_is_first_gets_the_first_that_is_free(seen: Picture) -> None:
    first = line.stand(seen)[0]
    starts = [hour for hour in hours_of(first.claim) if free(first.claim, taken(seen.claims), hour)]
    assert (first.turn is Turn.NOW) == bool(starts)
    if starts:
        assert hour_of(first.claim.starts_at) == starts[0]


OFFER = booked(1, 0, HORIZON, (3, 0, GPUS))  # the third node is held for somebody who may not want it


def turns(seen: Picture) -> list[Turn]:
    return [one.turn for one in line.stand(seen)]


def test_what_an_offer_leaves_free_waits_with_the_first() -> None:
    large, small = wish(1, 3, GPUS, HORIZON), wish(2, 1, GPUS, 4)
    assert turns(picture([OFFER], [small], [1])) == [Turn.NOW]
    assert turns(picture([OFFER], [large, small], [1])) == [Turn.LATER, Turn.UNKNOWN]
    assert turns(picture([OFFER], [small, large], [1])) == [Turn.NOW, Turn.LATER]
    # booked for good, the third node is nothing to wait for
    assert turns(picture([OFFER], [large, small])) == [Turn.UNKNOWN, Turn.NOW]


def test_who_is_done_before_the_first_begins_passes_it() -> None:
    large = wish(1, 3, GPUS, 4, since=5)
    early, late = wish(2, 1, GPUS, 5, until=5), wish(3, 1, GPUS, 5)
    stands = line.stand(picture([OFFER], [large, late, early], [1]))
    assert [one.turn for one in stands] == [Turn.LATER, Turn.NOW, Turn.NOW]
    assert stands[1].claim.starts_at == stands[2].claim.starts_at == NOW
    too_long = wish(3, 1, GPUS, 6)
    assert turns(picture([OFFER], [large, too_long], [1])) == [Turn.LATER, Turn.UNKNOWN]


def test_what_gets_free_is_kept_together_until_it_is_too_near() -> None:
    rest = booked(1, 0, HORIZON, (2, 0, GPUS), (3, 0, GPUS))
    large, small = wish(1, 3, GPUS, 4, since=3), wish(2, 1, GPUS, 3)
    far = line.stand(picture([rest], [large, small], keep=2))
    assert [one.turn for one in far] == [Turn.TOGETHER, Turn.NOW]
    assert [hour_of(one.claim.starts_at) for one in far] == [3, 0]
    inside = wish(2, 1, GPUS, 3, since=3, until=7)
    assert turns(picture([rest], [large, inside], keep=2)) == [Turn.TOGETHER, Turn.UNKNOWN]
    assert turns(picture([rest], [large, inside], keep=HORIZON)) == [Turn.UNKNOWN, Turn.NOW]


def test_a_node_that_nobody_first_can_use_is_given_away() -> None:
    """Two of three nodes are free in the days of the first; the third is free only for who stands behind."""
    late = booked(1, 4, 5, (1, 0, GPUS))
    first, behind = wish(1, 2, GPUS, 9), wish(2, 1, GPUS, 4)
    held = booked(2, 0, 9, (2, 0, 1))
    stands = line.stand(picture([late, held], [first, behind], [2]))
    assert [one.turn for one in stands] == [Turn.LATER, Turn.NOW]
    assert stands[1].claim.places[0].node_id == 1


def test_who_could_not_take_it_keeps_nobody_waiting() -> None:
    large, small = wish(1, 3, GPUS, HORIZON), wish(2, 1, GPUS, 4)
    seen = picture([OFFER], [large, small], [1])
    able = Limits(((large.first, large.last),), able=False)
    assert turns(replace(seen, limits={large.id: able})) == [Turn.UNKNOWN, Turn.NOW]


def test_days_that_are_not_open_yet_are_waited_for() -> None:
    """Its first place lies beyond the days that may be booked now: nobody behind may reach into it."""
    full = booked(1, 0, 4, *((node, 0, GPUS) for node in NAMES))
    large, small = wish(1, 3, GPUS, 4), wish(2, 1, GPUS, 3)
    closed = replace(large, last=at(2))
    seen = replace(picture([full], [closed, small]), limits={large.id: Limits(((large.first, large.last),))})
    first, second = line.stand(seen)
    assert (first.turn, hour_of(first.claim.starts_at)) == (Turn.LATER, 4)
    assert second.turn is Turn.UNKNOWN or hour_of(second.claim.starts_at) >= 8


def test_a_plan_that_puts_the_first_off_is_not_taken() -> None:
    """The planner would rather have two large ones in: the first in line is small, and comes first."""
    stands = line.stand(picture([], [wish(1, 1, GPUS, 4)]))
    later = [replace(stands[0], claim=replace(stands[0].claim, starts_at=at(2)))]
    gone = [replace(stands[0], turn=Turn.UNKNOWN)]
    assert line.puts_off(stands, later)
    assert line.puts_off(stands, gone)
    assert not line.puts_off(later, stands)
    assert not line.puts_off(gone, later)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_gets_its_time_though_others_are_worth_more(seed: int) -> None:
    """Room for one of them can be made: it is made for whoever came first."""
    loose = replace(
        booked(1, 2, 4, *((node, 0, GPUS) for node in NAMES)), silent=True, first=NOW, last=at(HORIZON - 4)
    )
    first, other = wish(1, 1, GPUS, 3, until=6), wish(2, 3, GPUS, 5, until=6)
    found = plan_search.solve(picture([loose], [first, other]), seconds=0.3, seed=seed)
    assert first.id in [claim.id for claim in found.admitted]


def large_cluster(nodes: int, waiting: int) -> Picture:
    """A day is taken of each node, and whoever is first wants them all at once; the others one GPU of one."""
    names = [NodeHeld(n, f"n{n}", 8) for n in range(nodes)]
    claims = []
    for node in names:
        begin = at(node.id * 7 % 140)
        place = Place(node.id, node.name, 0, 8)
        end = begin + 24 * HOUR
        claims.append(Claim(node.id + 1, 1, Shape(1, 8), begin, end, (place,), begin, begin - HOUR))
    wishes = [wish(2 + n, 1, 1, 24, until=168) for n in range(waiting)]
    seen = picture(claims, [wish(1, nodes, 8, 168, until=168), *wishes], keep=0)
    return replace(seen, nodes=tuple(names))


@pytest.mark.parametrize(("nodes", "waiting"), [(24, 1), (64, 8)])
def test_places_beside_the_first_are_looked_for_within_bounds(
    nodes: int, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Counter[int]()
    again = keeping.Spare.again

    def counted(self: keeping.Spare, beside: Claim) -> Claim | None:
        tries[beside.id] += 1
        return again(self, beside)

    monkeypatch.setattr(keeping.Spare, "again", counted)
    stands = line.stand(large_cluster(nodes, waiting))
    assert [one.turn for one in stands] == [Turn.TOGETHER, *[Turn.UNKNOWN] * waiting]
    # the GPUs of a node are alike to the first: each node is tried once at each start
    assert 0 < max(tries.values()) <= min(line.LOOKS, keeping.MOST_MOMENTS * nodes)
    assert sum(tries.values()) <= line.MOST_LOOKS


def test_at_the_end_of_the_looks_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could be had without harm is left for another round, and whoever is first keeps its place."""
    taken_hours = [
        booked(1, 5, 1, (1, 0, GPUS)),
        booked(2, 4, 1, (2, 0, GPUS)),
        booked(3, 0, 9, (3, 0, GPUS)),
    ]
    seen = picture(taken_hours, [wish(1, 1, GPUS, 9), wish(2, 1, 1, 5)], keep=0)
    before = line.stand(seen)
    monkeypatch.setattr(line, "MOST_LOOKS", 0)
    after = line.stand(seen)
    assert [one.turn for one in before] == [Turn.TOGETHER, Turn.NOW]
    assert [one.turn for one in after] == [Turn.TOGETHER, Turn.UNKNOWN]
    assert after[0] == before[0]
