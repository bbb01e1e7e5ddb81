"""Inputs for the divider: what hypothesis draws, and seeded random periods for checker and benchmarks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from fractions import Fraction

from hypothesis import strategies as st

from allocator.fairshare import BadDivision, Claim, Division, Pool, Weight, divide

PERIOD = "2026-12"


@dataclass(frozen=True)
class Case:
    """One division to be made."""

    capacity: int
    pools: tuple[Pool, ...]
    claims: tuple[Claim, ...]
    fixed: dict[str, int] = field(default_factory=dict)
    period: str = PERIOD

    def divide(self) -> Division:
        return divide(self.capacity, self.pools, self.claims, period=self.period, fixed=self.fixed)

    def with_claim(self, changed: Claim) -> Case:
        claims = tuple(changed if claim.id == changed.id else claim for claim in self.claims)
        return replace(self, claims=claims)

    def without(self, id: str) -> Case:
        return replace(self, claims=tuple(claim for claim in self.claims if claim.id != id))


# Drawn from a short list, since drawing is most of a test's time.
WEIGHTS: st.SearchStrategy[Weight] = st.sampled_from(
    [1, 2, 3, 5, Fraction(1, 2), Fraction(3, 2), Fraction(7, 5), Fraction(11, 8)]
)
_CLAIMS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(-60, 60), WEIGHTS, st.integers(0, 3)),
    max_size=9,
)
_POOLS = st.lists(
    st.tuples(st.integers(0, 60), st.none() | st.integers(0, 100), WEIGHTS), min_size=1, max_size=4
)


@st.composite
def cases(draw: st.DrawFn, *, minimums: bool = True) -> Case:
    """Up to 4 pools and 9 claims, small enough that ties, zeros and exact hits come up all the time."""
    pools = tuple(
        Pool(f"p{number}", guarantee, None if more is None else guarantee + more, weight)
        for number, (guarantee, more, weight) in enumerate(draw(_POOLS))
    )
    claims = tuple(
        Claim(
            f"q{number}",
            pools[place % len(pools)].name,
            request,
            weight,
            # Half of all claims have no minimum.
            max(0, min(minimum, request)) if minimums else 0,
            rank,
        )
        for number, (place, request, minimum, weight, rank) in enumerate(draw(_CLAIMS))
    )
    return Case(sum(pool.guarantee for pool in pools) + draw(st.integers(0, 100)), pools, claims)


@st.composite
def cases_with_one(draw: st.DrawFn, *, minimums: bool = True) -> tuple[Case, Claim]:
    """A case and one of its claims."""
    case = draw(cases(minimums=minimums).filter(lambda case: case.claims))
    return case, draw(st.sampled_from(case.claims))


@st.composite
def pressed_cases(draw: st.DrawFn) -> Case:
    """A capacity hardly above the guarantees, claims that want all or nothing, and up to three shares that
    a person fixed against them."""
    case = draw(cases())
    claims = tuple(replace(one, minimum=one.request if one.minimum else 0) for one in case.claims)
    spare = case.capacity - sum(pool.guarantee for pool in case.pools)
    hours = draw(st.lists(st.integers(0, 60), max_size=3))
    fixed = {claim.id: min(claim.request, most) for claim, most in zip(case.claims, hours, strict=False)}
    return replace(case, capacity=case.capacity - spare + spare % 4, claims=claims, fixed=fixed)


def random_case(seed: int, *, size: int = 30, minimums: bool = True) -> Case:
    """A random period: caps, fractions, minimums, equal ranks, and every third with fixed shares."""
    dice = random.Random(seed)
    capacity, count = dice.randint(0, 10 * size), dice.randint(1, 6)
    pools = []
    for number in range(count):
        guarantee = dice.randint(0, capacity // count)
        cap = guarantee + dice.randint(0, 4 * size) if dice.random() < 0.4 else None
        pools.append(Pool(f"p{number}", guarantee, cap, Fraction(dice.randint(1, 6), dice.randint(1, 3))))
    claims = []
    for number in range(dice.randint(0, size)):
        request = dice.randint(0, 60)
        minimum = dice.randint(0, request) if minimums and dice.random() < 0.5 else 0
        weight = Fraction(dice.randint(1, 9), dice.randint(1, 4))
        claims.append(
            Claim(f"q{number}", dice.choice(pools).name, request, weight, minimum, dice.randint(0, 5))
        )
    fixed = {one.id: dice.randint(0, one.request) for one in claims if seed % 3 == 0 and dice.random() < 0.15}
    case = Case(capacity, tuple(pools), tuple(claims), fixed, period=f"period-{seed}")
    try:
        case.divide()
    except BadDivision:
        # Fixed shares can ask for too much; then the period goes without them.
        return replace(case, fixed={})
    return case


def large_case(count: int, *, minimums: bool, seed: int = 1) -> Case:
    """``count`` quotas of log-normal size in six guaranteed pools, demand at 5/3 of the capacity."""
    dice = random.Random(seed)
    shares = (30, 20, 20, 15, 5, 5)
    names = [f"p{number}" for number in range(len(shares))]
    claims = []
    for number in range(count):
        request = int(dice.lognormvariate(5, 1.5)) + 1
        minimum = dice.randint(0, request // 2) if minimums and dice.random() < 0.5 else 0
        weight = Fraction(dice.randint(500, 4000), 1000)
        pool = dice.choices(names, shares)[0]
        claims.append(Claim(f"q{number:07}", pool, request, weight, minimum, (dice.randint(0, 4), number)))
    capacity = sum(claim.request for claim in claims) * 6 // 10
    pools = tuple(
        Pool(name, capacity * share // 100, None, share) for name, share in zip(names, shares, strict=True)
    )
    return Case(capacity, pools, tuple(claims))


def useful(share: int, wanted: int) -> int:
    """Hours that an applicant can use who in truth wanted ``wanted``."""
    return min(share, wanted)


def shuffled(case: Case, dice: random.Random) -> Case:
    """The same input in another order."""
    pools = tuple(dice.sample(case.pools, len(case.pools)))
    return replace(case, pools=pools, claims=tuple(dice.sample(case.claims, len(case.claims))))
