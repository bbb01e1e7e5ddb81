"""The divider on cases small enough to check by hand, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from allocator.fairshare import (
    BadDivision,
    Claim,
    Cut,
    Loan,
    Outcome,
    Pool,
    PoolBound,
    Reason,
    divide,
    recompute,
)
from tests.fairshare_cases import PERIOD, Case, large_case

ONE = (Pool("science"),)


def shares(capacity: int, *claims: Claim, pools: tuple[Pool, ...] = ONE) -> dict[str, int]:
    return dict(divide(capacity, pools, claims, period=PERIOD).shares)


def test_the_example_that_applicants_read() -> None:
    # Level 800 per weight point, weight 1.5: 1,200 of the 5,000 asked.
    claims = [
        Claim("startup", "science", 5000, Fraction(3, 2)),
        Claim("small", "science", 300),
        Claim("large", "science", 9000, 2),
    ]
    division = divide(3100, ONE, claims, period=PERIOD)
    assert division.shares == {"large": 1600, "small": 300, "startup": 1200}
    explanation = division.explain("startup")
    assert explanation.level == 800
    assert explanation.outcome is Outcome.LEVEL
    assert not explanation.asking_more_helps
    assert explanation.full_weight == Fraction(25, 4)
    assert division.explain("small").ceiling == 800


def test_weights_share_what_is_short() -> None:
    assert shares(100, Claim("a", "science", 100, 3), Claim("b", "science", 100, 1)) == {"a": 75, "b": 25}


def test_a_pool_lends_what_it_leaves_and_has_it_again() -> None:
    pools = (Pool("citizens", 40), Pool("science", 60))
    poor = [Claim("c", "citizens", 10), Claim("s", "science", 500)]
    division = divide(100, pools, poor, period=PERIOD)
    assert division.shares == {"c": 10, "s": 90}
    assert division.loans == (Loan("citizens", "science", 30),)
    assert (division.pools["citizens"].lent, division.pools["science"].borrowed) == (30, 30)
    back = divide(100, pools, [replace(poor[0], request=400), poor[1]], period=PERIOD)
    assert back.shares == {"c": 40, "s": 60}
    assert back.loans == ()


def test_what_decided_a_pools_amount() -> None:
    pools = (Pool("a", 10), Pool("b", cap=20), Pool("c", 50), Pool("d"))
    claims = [Claim(f"q-{pool.name}", pool.name, 200) for pool in pools[:3]] + [Claim("q-d", "d", 5)]
    division = divide(100, pools, claims, period=PERIOD)
    assert {name: pool.bound for name, pool in division.pools.items()} == {
        "a": PoolBound.LEVEL,
        "b": PoolBound.CAP,
        "c": PoolBound.GUARANTEE,
        "d": PoolBound.DEMAND,
    }
    assert {name: pool.amount for name, pool in division.pools.items()} == {"a": 25, "b": 20, "c": 50, "d": 5}
    assert division.level == 25


def test_the_hours_that_do_not_divide_go_by_hash() -> None:
    claims = [Claim(name, "science", 10) for name in "abc"]
    division = divide(10, ONE, claims, period=PERIOD)
    assert sorted(division.shares.values()) == [3, 3, 4]
    winner = min(claims, key=lambda claim: division.explain(claim.id).digest)
    assert division.shares[winner.id] == 4
    assert division.pools["science"].cut == Cut(Fraction(1, 3), division.explain(winner.id).digest)
    # Another period, another winner, sooner or later.
    others = {tuple(divide(10, ONE, claims, period=str(n)).shares.values()) for n in range(20)}
    assert len(others) == 3


def test_the_worst_ranked_below_its_minimum_is_set_aside() -> None:
    claims = [
        Claim("kept", "science", 30, minimum=15, rank=1),
        Claim("late", "science", 30, minimum=11, rank=2),
        Claim("free", "science", 30, rank=9),
    ]
    division = divide(30, ONE, claims, period=PERIOD)
    assert division.shares == {"free": 15, "kept": 15, "late": 0}
    gone = division.set_aside["late"]
    assert (gone.reason, gone.order, gone.reach) == (Reason.BELOW_MINIMUM, 1, 30)
    assert gone.level == 10
    assert division.explain("late").fallback_minimum == 10
    assert recompute(division.explain("late")) == 0


def test_a_minimum_beyond_reach_pushes_nobody_out() -> None:
    claims = [
        Claim("hopeless", "science", 50, minimum=21, rank=0),
        Claim("modest", "science", 8, minimum=7, rank=5),
        Claim("other", "science", 20),
    ]
    division = divide(20, ONE, claims, period=PERIOD)
    assert division.shares == {"hopeless": 0, "modest": 8, "other": 12}
    assert division.set_aside["hopeless"].reason is Reason.BEYOND_REACH
    assert division.explain("hopeless").fallback_minimum == 20


def test_hours_that_nobody_wants_go_to_those_set_aside() -> None:
    claims = [
        Claim("first", "science", 9, minimum=9, rank=0),
        Claim("second", "science", 5, minimum=5, rank=1),
        Claim("third", "science", 4, minimum=4, rank=2),
    ]
    division = divide(10, ONE, claims, period=PERIOD)
    # Level 10/3 is below all three: the third goes, then at 5 the first is still short and goes as well.
    assert division.shares == {"first": 0, "second": 5, "third": 4}
    assert division.set_aside["third"].served == 4
    assert division.explain("third").outcome is Outcome.REMAINDER
    assert recompute(division.explain("third")) == 4
    assert (division.pools["science"].remainder, division.idle) == (4, 1)


def test_fixed_shares_are_paid_from_their_pool_first() -> None:
    pools = (Pool("a", 50), Pool("b", 50))
    claims = [Claim("x", "a", 50, minimum=40), Claim("y", "a", 50), Claim("z", "b", 80)]
    division = divide(100, pools, claims, period=PERIOD, fixed={"x": 10})
    assert division.shares == {"x": 10, "y": 40, "z": 50}
    assert not division.set_aside
    assert division.explain("x").outcome is Outcome.FIXED
    assert recompute(division.explain("x")) == 10


def test_a_fixed_share_may_use_what_other_pools_leave_but_not_their_guarantee() -> None:
    pools = (Pool("a", 50), Pool("b", 50))
    claims = [Claim("x", "a", 90), Claim("y", "a", 10), Claim("z", "b", 20)]
    division = divide(100, pools, claims, period=PERIOD, fixed={"x": 80})
    assert division.shares == {"x": 80, "y": 0, "z": 20}
    assert division.pools["a"].bound is PoolBound.FIXED
    with pytest.raises(BadDivision, match="1 are missing"):
        divide(100, pools, claims, period=PERIOD, fixed={"x": 81})


def test_a_guarantee_that_only_a_hopeless_claim_wants_stands_in_no_fixed_shares_way() -> None:
    pools = (Pool("a"), Pool("b", 4))
    claims = [Claim("x", "a", 10), Claim("y", "b", 9, minimum=5), Claim("z", "b", 9, minimum=4, rank=1)]
    division = divide(8, pools, claims, period=PERIOD)
    assert division.shares == {"x": 8, "y": 0, "z": 0}
    fixed = divide(8, pools, claims, period=PERIOD, fixed={"x": 8})
    assert fixed.shares == division.shares


def test_nothing_to_divide() -> None:
    assert shares(0) == {}
    assert shares(0, Claim("a", "science", 5)) == {"a": 0}
    assert shares(5, Claim("a", "science", 0)) == {"a": 0}
    assert divide(7, (), (), period=PERIOD).idle == 7


def test_every_fault_is_named_at_once() -> None:
    pools = [
        Pool("a", 80, 70),
        Pool("a", 80),
        Pool("b", -1, weight=0),
        Pool("c", cap=True, weight=0.5),  # type: ignore[arg-type]
    ]
    claims = [
        Claim("q", "a", 5, minimum=6),
        Claim("q", "nowhere", -3),
        Claim("r", "a", 2.0, weight=0, minimum="1"),  # type: ignore[arg-type]
        Claim(7, "a", 1, weight=Fraction(-1, 2)),  # type: ignore[arg-type]
    ]
    with pytest.raises(BadDivision) as caught:
        divide(-1, pools, claims, period=PERIOD, fixed={"ghost": 1, "q": 9})
    text = str(caught.value)
    for part in (
        "capacity -1", "Pool a is given 2 times", "guarantee above its cap", "guarantee -1 of pool b",
        "weight 0 of pool b", "cap True of pool c", "weight 0.5 of pool c", "Claim q is given 2 times",
        "minimum above its request", "pool nowhere", "request -3", "request 2.0", "weight 0 of claim r",
        "minimum '1'", "id of claim 7", "weight Fraction(-1, 2)", "claim ghost", "above its request",
    ):  # fmt: skip
        assert part in text
    assert len(caught.value.faults) == 17


@pytest.mark.parametrize(
    ("case", "part"),
    [
        (Case(9, (Pool("a", 10),), ()), "guaranteed 10 in all, but the capacity is 9"),
        (Case(9, ONE, (Claim("a", "science", 1), Claim("b", "science", 1, rank="x"))), "cannot be compared"),
        (Case(9, ONE, (Claim("a", "science", 1, rank=float("nan")),)), "NaN"),
        (Case(9, (Pool("a", cap=3),), (Claim("q", "a", 5),), {"q": 4}), "above its cap"),
        (Case(9, ONE, (Claim("q", "science", 5),), {"q": -4}), "fixed share -4"),
        (Case(9, ONE, (Claim("q", "science", 5),), {"q": 6}), "above its request"),
        (Case(9, ONE, (Claim("q", "science", 50),), {"q": 10}), "1 are missing"),
    ],
)
def test_faults_that_need_a_whole_input(case: Case, part: str) -> None:
    with pytest.raises(BadDivision, match=part):
        case.divide()


def test_an_unknown_claim_has_no_explanation() -> None:
    division = divide(9, ONE, [Claim("b", "science", 1)], period=PERIOD)
    for id in ("a", "c"):
        with pytest.raises(KeyError):
            division.explain(id)


def test_ten_thousand_quotas_with_minimums_keep_their_promises() -> None:
    case = large_case(10_000, minimums=True)
    division = case.divide()
    assert len(division.set_aside) > 100
    assert sum(division.shares.values()) == case.capacity
    kept = [claim for claim in case.claims if claim.id not in division.set_aside]
    assert all(division.shares[claim.id] >= claim.minimum for claim in kept)
    assert all(recompute(division.explain(claim.id)) == division.shares[claim.id] for claim in case.claims)


def test_the_divider_starts_without_numpy() -> None:
    code = "import sys, allocator.fairshare, allocator.fairshare.what_if; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
