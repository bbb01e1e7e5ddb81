"""Every property the model promises, on drawn inputs: 500 of each, 10,000 in the profile `nightly`."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocator.fairshare import (
    BadDivision,
    Claim,
    Division,
    Outcome,
    Pool,
    PoolBound,
    check_division,
    divide,
    document,
    recompute,
)
from tests.fairshare_cases import WEIGHTS, Case, cases, cases_with_one, pressed_cases, shuffled, useful

often = settings(max_examples=max(500, settings.default.max_examples if settings.default else 0))


def kept(case: Case, division: Division) -> list[Claim]:
    """Claims that the level serves: not those set aside, nor those whose share a person fixed."""
    return [
        claim for claim in case.claims if claim.id not in division.set_aside and claim.id not in case.fixed
    ]


def no_more_than_the_capacity_and_nobody_more_than_asked(case: Case, division: Division) -> None:
    assert sum(division.shares.values()) + division.idle == case.capacity
    assert division.idle >= 0
    assert all(0 <= division.shares[claim.id] <= claim.request for claim in case.claims)


def guarantees_caps_and_minimums_hold(case: Case, division: Division) -> None:
    for pool in division.pools.values():
        assert sum(division.shares[one.id] for one in case.claims if one.pool == pool.name) == pool.amount
        assert min(pool.guarantee, pool.demand) <= pool.amount
        assert pool.cap is None or pool.amount <= pool.cap
        assert abs(pool.amount - pool.remainder - pool.exact) < 1
    assert all(division.shares[claim.id] >= claim.minimum for claim in kept(case, division))
    for gone in division.set_aside.values():
        assert gone.served == 0 or gone.served >= division.claim(gone.id).minimum


def nothing_is_left_while_anyone_may_have_it(case: Case, division: Division) -> None:
    for claim in case.claims if division.idle else ():
        if claim.id in case.fixed:
            continue
        pool = division.pools[claim.pool]
        room = division.idle if pool.cap is None else min(division.idle, pool.cap - pool.amount)
        if division.shares[claim.id] < claim.request and room:
            assert claim.id in division.set_aside
            # What is idle is less than the claim can use.
            assert division.shares[claim.id] or claim.minimum > min(room, claim.request)


def nobody_kept_envies_anybody_of_the_pool_by_weight(case: Case, division: Division) -> None:
    for one in kept(case, division):
        for other in kept(case, division):
            if one.pool == other.pool:
                theirs = (division.shares[other.id] - 1) * Fraction(one.weight) / other.weight
                assert division.shares[one.id] + 1 > min(Fraction(one.request), theirs)


def everyone_kept_has_at_least_its_part_by_weight(case: Case, division: Division) -> None:
    for claim in kept(case, division):
        pool = division.pools[claim.pool]
        whole = sum(Fraction(one.weight) for one in kept(case, division) if one.pool == claim.pool)
        part = (pool.exact - pool.fixed) * claim.weight / whole
        assert division.shares[claim.id] + 1 > min(Fraction(claim.request), part)


def loans_balance(case: Case, division: Division) -> None:
    free = case.capacity - sum(pool.guarantee for pool in case.pools)
    above = sum(max(0, pool.amount - pool.guarantee) for pool in division.pools.values())
    assert sum(loan.amount for loan in division.loans) == max(0, above - free)
    for pool in division.pools.values():
        assert pool.lent <= max(0, pool.guarantee - pool.amount)
        assert pool.borrowed <= max(0, pool.amount - pool.guarantee)
        assert not (pool.lent and pool.borrowed)


PROMISES = (
    no_more_than_the_capacity_and_nobody_more_than_asked,
    guarantees_caps_and_minimums_hold,
    nothing_is_left_while_anyone_may_have_it,
    nobody_kept_envies_anybody_of_the_pool_by_weight,
    everyone_kept_has_at_least_its_part_by_weight,
    loans_balance,
)


@often
@given(cases())
def test_every_division_keeps_its_promises(case: Case) -> None:
    division = case.divide()
    for promise in PROMISES:
        promise(case, division)


@often
@given(cases(), st.integers(0, 99))
def test_the_order_of_input_does_not_matter(case: Case, seed: int) -> None:
    assert shuffled(case, random.Random(seed)).divide() == case.divide()


@often
@given(cases_with_one(), st.integers(0, 200), st.integers(0, 200))
def test_inflating_a_request_or_a_minimum_gains_no_useful_hour(
    drawn: tuple[Case, Claim], more: int, minimum: int
) -> None:
    case, claim = drawn
    inflated = replace(claim, request=claim.request + more)
    inflated = replace(inflated, minimum=min(inflated.request, claim.minimum + minimum))
    honest = case.divide().shares[claim.id]
    assert useful(case.with_claim(inflated).divide().shares[claim.id], claim.request) <= honest + 1


@often
@given(cases_with_one(minimums=False), WEIGHTS)
def test_a_higher_weight_never_hurts_without_minimums(
    drawn: tuple[Case, Claim], more: int | Fraction
) -> None:
    case, claim = drawn
    heavier = case.with_claim(replace(claim, weight=claim.weight + more))
    assert heavier.divide().shares[claim.id] >= case.divide().shares[claim.id] - 1


@often
@given(cases(minimums=False), st.integers(1, 100))
def test_more_capacity_never_hurts_without_minimums(case: Case, more: int) -> None:
    before = case.divide().shares
    after = replace(case, capacity=case.capacity + more).divide().shares
    assert all(after[id] >= before[id] - 1 for id in before)


@often
@given(cases_with_one(minimums=False))
def test_fewer_claims_never_hurt_without_minimums(drawn: tuple[Case, Claim]) -> None:
    case, leaving = drawn
    before, after = case.divide().shares, case.without(leaving.id).divide().shares
    assert all(after[id] >= before[id] - 1 for id in after)


def fix(case: Case, before: Division, claim: Claim, hours: int) -> Division | None:
    """The case with that claim fixed at no more than it had; None where the guarantees forbid even that.

    They can only if somebody was set aside: who was, may be kept now, and then has a guarantee to stand on.
    """
    try:
        return replace(case, fixed={claim.id: hours}).divide()
    except BadDivision:
        assert before.set_aside
        return None


@often
@given(cases_with_one(), st.integers(-60, 60))
def test_every_explanation_recomputes_to_its_share(drawn: tuple[Case, Claim], hours: int) -> None:
    case, one = drawn
    division = case.divide()
    if 0 <= hours <= division.shares[one.id]:
        division = fix(case, division, one, hours) or division
    for claim in case.claims:
        explanation = division.explain(claim.id)
        assert recompute(explanation) == division.shares[claim.id] == explanation.share
        assert explanation.outcome is not Outcome.LEVEL or not explanation.asking_more_helps


@often
@given(cases_with_one(), st.integers(1, 200))
def test_where_asking_more_would_not_help_it_does_not(drawn: tuple[Case, Claim], more: int) -> None:
    case, claim = drawn
    division = case.divide()
    asked_more = case.with_claim(replace(claim, request=claim.request + more)).divide().shares[claim.id]
    explanation = division.explain(claim.id)
    if not explanation.asking_more_helps:
        assert asked_more <= division.shares[claim.id] + 1
    if explanation.ceiling is not None and not any(one.minimum for one in case.claims):
        assert asked_more <= explanation.ceiling + 1


@often
@given(cases())
def test_the_minimum_that_was_named_would_have_been_kept(case: Case) -> None:
    division = case.divide()
    for gone in list(division.set_aside.values())[:3]:
        lower = division.explain(gone.id).fallback_minimum
        if lower is None or gone.level is None:
            continue
        changed = case.with_claim(replace(division.claim(gone.id), minimum=lower)).divide()
        assert gone.id not in changed.set_aside
        assert changed.shares[gone.id] >= lower


@often
@given(cases_with_one(), st.integers(0, 60))
def test_what_a_person_fixed_stands_and_the_rest_is_fair_around_it(
    drawn: tuple[Case, Claim], hours: int
) -> None:
    case, claim = drawn
    before = case.divide()
    hours = min(hours, before.shares[claim.id])
    fixed = fix(case, before, claim, hours)
    if fixed is None:
        return
    assert fixed.shares[claim.id] == hours
    assert claim.id not in fixed.set_aside
    for pool in fixed.pools.values():
        assert min(pool.guarantee, pool.demand) <= pool.amount
        assert pool.bound is not PoolBound.FIXED or pool.fixed == pool.exact
    # Inside the pool the others stand as if only the rest were there to divide.
    pool = fixed.pools[claim.pool]
    others = [one for one in kept(case, fixed) if one.pool == claim.pool and one.id != claim.id]
    plain = [replace(one, minimum=0) for one in others]
    rest = divide(pool.amount - hours - pool.remainder, [Pool(claim.pool)], plain, period="x")
    assert all(abs(rest.shares[one.id] - fixed.shares[one.id]) <= 1 for one in others)


def divided(case: Case) -> Division:
    """The division, of cases that are not refused."""
    try:
        return case.divide()
    except BadDivision:
        assume(False)
        raise


@often
@given(pressed_cases(), st.integers(0, 99))
def test_fixed_shares_that_press_on_guarantees_break_no_promise(case: Case, seed: int) -> None:
    division = divided(case)
    assert {id: division.shares[id] for id in case.fixed} == case.fixed
    assert shuffled(case, random.Random(seed)).divide() == division
    for promise in PROMISES:
        promise(case, division)
    for claim in case.claims:
        assert recompute(division.explain(claim.id)) == division.shares[claim.id]


@often
@given(pressed_cases())
def test_the_outsiders_checker_agrees_whatever_is_drawn(case: Case) -> None:
    assert check_division.differences(json.loads(json.dumps(document(divided(case))))) == []
