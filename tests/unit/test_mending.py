"""Mending a plan, pure: whatever is lost, the answer holds together and touches nobody without need."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.booking.windows import Grid, NodeHeld, Place, Shape
from allocator.upkeep.mending import (
    FEWEST_DROPS,
    FEWEST_MOVES,
    VARIANTS,
    Board,
    ChangeKind,
    Claim,
    Loss,
    Variant,
    hit,
    mend,
)
from allocator.upkeep.mending_search import search
from tests.factories import NOW

HOUR = timedelta(hours=1)
GRID = Grid(HOUR, NOW)
GPUS = 8


def nodes(count: int) -> list[NodeHeld]:
    return [NodeHeld(number, f"n{number}", GPUS) for number in range(1, count + 1)]


def world(seed: int, node_count: int, tries: int, horizon: int) -> tuple[list[NodeHeld], list[Claim]]:
    """Nodes with claims of all shapes, put wherever they fit."""
    rng = random.Random(seed)
    there = nodes(node_count)
    board = Board(there, [], False, GRID)
    for number in range(1, tries + 1):
        part = rng.random() < 0.3
        shape = (
            Shape(1, rng.choice([1, 2, 4])) if part else Shape(rng.randint(1, max(node_count // 2, 1)), GPUS)
        )
        length = rng.choice([1, 2, 3, 6, 12]) * HOUR
        start = NOW + rng.randint(1, horizon) * HOUR
        claim = Claim(
            number,
            1,
            shape,
            start,
            start + length,
            (),
            first=start - rng.randint(0, 12) * HOUR,
            last=start + rng.randint(0, 24) * HOUR,
            gap=HOUR if rng.random() < 0.2 else timedelta(),
            movable=rng.random() > 0.1,
            silent=rng.random() < 0.2,
        )
        placed = board.at(claim, start)
        if placed:
            board.put(placed)
    return there, list(board.claims.values())


def after(
    claims: Sequence[Claim], variant: Variant
) -> dict[int, tuple[datetime, datetime, tuple[Place, ...]]]:
    """Where everybody is when the variant is applied."""
    held = {claim.id: (claim.starts_at, claim.ends_at, claim.places) for claim in claims}
    for change in variant.changes:
        if change.to_starts_at is None or change.to_ends_at is None:
            del held[change.booking_id]
        else:
            held[change.booking_id] = (change.to_starts_at, change.to_ends_at, change.places)
    return held


def check(claims: Sequence[Claim], losses: Sequence[Loss], variant: Variant, name: str) -> None:
    known = {claim.id: claim for claim in claims}
    lost = {claim.id for claim in hit(claims, losses)}
    held = after(claims, variant)
    pieces = [
        (place, start, end + known[number].gap, number)
        for number, (start, end, places) in held.items()
        for place in places
    ]
    for (one, since, until, _), (other, start, end, _) in combinations(pieces, 2):
        apart = one.node_id != other.node_id or one.gpu_to <= other.gpu_from or other.gpu_to <= one.gpu_from
        assert apart or until <= start or end <= since
    for change in variant.changes:
        claim = known[change.booking_id]
        assert claim.movable
        assert change.version == claim.version
        if change.kind is ChangeKind.DROP:
            continue
        start, end, places = held[claim.id]
        assert (end - start, len(places)) == (claim.length, claim.shape.nodes)
        assert {place.gpu_to - place.gpu_from for place in places} == {claim.shape.gpus}
        assert start == claim.starts_at or claim.first <= start <= claim.last
        assert GRID.holds(start)
        for loss in losses:
            on_it = any(place.node_id == loss.node_id for place in places)
            assert not on_it or end + claim.gap <= loss.starts_at or start >= loss.ends_at
    touched = {change.booking_id for change in variant.of(ChangeKind.MOVE, ChangeKind.DROP)}
    if name == FEWEST_MOVES:
        assert touched <= lost
    assert {change.booking_id for change in variant.of(ChangeKind.DROP)} <= lost or name == FEWEST_DROPS
    assert set(variant.stuck) == {number for number in lost if not known[number].movable}


losses_of = st.lists(
    st.builds(
        lambda node, start, hours: Loss(node, NOW + start * HOUR, NOW + (start + hours) * HOUR),
        st.integers(1, 4),
        st.integers(0, 30),
        st.integers(1, 24),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(st.integers(0, 10_000), losses_of)
def test_whatever_is_lost_the_answer_holds_together(seed: int, losses: list[Loss]) -> None:
    there, claims = world(seed, 4, 25, 40)
    variants = mend(there, claims, losses, whole=False, grid=GRID)
    assert set(variants) == set(VARIANTS)
    for name, variant in variants.items():
        check(claims, losses, variant, name)
    drops = [len(variants[name].of(ChangeKind.DROP)) for name in (FEWEST_DROPS, FEWEST_MOVES)]
    assert drops[0] <= drops[1]


@settings(max_examples=60)
@given(st.integers(0, 10_000), losses_of)
def test_names_that_the_cluster_knows_are_kept(seed: int, losses: list[Loss]) -> None:
    there, claims = world(seed, 4, 25, 40)
    claims = [replace(claim, told=claim.id % 2 == 0) for claim in claims]
    lost = {claim.id for claim in hit(claims, losses)}
    known = {claim.id for claim in claims if claim.told} - lost
    for variant in mend(there, claims, losses, whole=False, grid=GRID).values():
        for change in variant.of(ChangeKind.REBIND):
            claim = next(one for one in claims if one.id == change.booking_id)
            nodes = {place.node_id for place in claim.places}
            assert claim.id not in known or {place.node_id for place in change.places} == nodes


def test_nothing_lost_changes_nothing() -> None:
    there, claims = world(1, 4, 25, 40)
    for variant in mend(there, claims, [], whole=False, grid=GRID).values():
        assert (variant.changes, variant.stuck) == ((), ())


def test_the_same_loss_has_the_same_answer() -> None:
    there, claims = world(5, 6, 60, 60)
    losses = [Loss(1, NOW, NOW + 40 * HOUR)]
    answers = [mend(there, claims, losses, whole=False, grid=GRID) for _ in range(2)]
    assert answers[0] == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_search_holds_together_and_is_never_worse(seed: int) -> None:
    there, claims = world(seed, 12, 260, 120)
    losses = [Loss(node, NOW, NOW + 72 * HOUR) for node in (1, 2)]
    plain = mend(there, claims, losses, whole=False, grid=GRID)
    began = time.perf_counter()
    found = search(
        there, claims, losses, plain, whole=False, grid=GRID, now=NOW, seconds=2.0, iterations=2_000
    )
    print(f"\n{len(claims)} bookings, {time.perf_counter() - began:.1f} s")
    for name in VARIANTS:
        check(claims, losses, found[name], name)
        cost = [
            (len(one.of(ChangeKind.DROP)), len(one.of(ChangeKind.MOVE))) for one in (plain[name], found[name])
        ]
        print(name, "drops, moves:", cost)
        assert cost[1] <= cost[0]


def test_where_slots_do_not_fit_the_search_leaves_all_as_it_is() -> None:
    there, claims = world(2, 4, 25, 40)
    plain = mend(there, claims, [Loss(1, NOW, NOW + 9 * HOUR)], whole=False, grid=GRID)
    shifted = Grid(HOUR, NOW + timedelta(minutes=20))
    losses = [Loss(1, NOW, NOW + 9 * HOUR)]
    found = search(there, claims, losses, plain, whole=False, grid=shifted, now=NOW, seconds=1.0)
    assert found is plain
