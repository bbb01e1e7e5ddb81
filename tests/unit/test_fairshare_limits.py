"""What the model does NOT promise once there are minimums, each with its smallest example.

A useful minimum is a step: a claim has either nothing or at least that. So a little more of something good
can lift a level over a step, and the claim that is then kept takes hours from others. Applicants and
operators are to be told, not promised otherwise.
"""

from dataclasses import replace

from allocator.fairshare import Claim, Pool
from tests.fairshare_cases import Case

POOL = (Pool("science"),)


def test_more_capacity_can_hurt_resource_monotonicity_fails() -> None:
    case = Case(9, POOL, (Claim("a", "science", 10), Claim("b", "science", 10, minimum=5)))
    assert case.divide().shares == {"a": 9, "b": 0}
    # One hour more lifts the level from 4.5 to 5, b is kept, and a falls from 9 to 5.
    assert replace(case, capacity=10).divide().shares == {"a": 5, "b": 5}


def test_a_claimant_that_leaves_can_hurt_population_monotonicity_fails() -> None:
    claims = (Claim("a", "science", 20), Claim("b", "science", 20, minimum=5), Claim("c", "science", 1))
    case = Case(10, POOL, claims)
    assert case.divide().shares == {"a": 9, "b": 0, "c": 1}
    assert case.without("c").divide().shares == {"a": 5, "b": 5}


def test_a_higher_weight_can_hurt() -> None:
    case = Case(
        30,
        POOL,
        (
            Claim("a", "science", 100, weight=5),
            Claim("small", "science", 10, weight=5, minimum=10, rank=2),
            Claim("large", "science", 100, weight=5, minimum=11, rank=1),
        ),
    )
    # At level 2 the small one just has its minimum, the large one not.
    assert case.divide().shares == {"a": 20, "small": 10, "large": 0}
    # A sixth point for a lowers the level under the small one's step; it goes, and so the large one is kept.
    heavier = case.with_claim(replace(case.claims[0], weight=6)).divide()
    assert heavier.shares == {"a": 16, "small": 0, "large": 14}
