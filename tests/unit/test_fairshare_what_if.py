"""The float division stays within an hour of the exact one."""

from __future__ import annotations

import numpy as np
import pytest

from allocator.fairshare import Pool
from allocator.fairshare.what_if import Columns, what_if
from tests.fairshare_cases import Case, large_case, random_case


def columns(case: Case) -> Columns:
    names = [pool.name for pool in case.pools]
    return Columns(
        np.array([names.index(claim.pool) for claim in case.claims], dtype=np.int64),
        np.array([float(claim.request) for claim in case.claims]),
        np.array([float(claim.weight) for claim in case.claims]),
        np.array([float(claim.minimum) for claim in case.claims]),
        np.array([place for place, _claim in enumerate(case.claims)]),
    )


def ranked_by_place(case: Case) -> Case:
    """The float variant breaks ties by position, so ranks must differ for a comparison."""
    claims = (
        claim.__class__(claim.id, claim.pool, claim.request, claim.weight, claim.minimum, place)
        for place, claim in enumerate(case.claims)
    )
    return Case(case.capacity, case.pools, tuple(claims), period=case.period)


@pytest.mark.parametrize("case", [*map(random_case, range(200)), large_case(3000, minimums=True)])
def test_within_an_hour_of_the_exact_division(case: Case) -> None:
    case = ranked_by_place(case)
    exact, estimate = case.divide(), what_if(case.capacity, case.pools, columns(case))
    for place, claim in enumerate(case.claims):
        assert abs(estimate.shares[place] - exact.shares[claim.id]) < 1 + 1e-6
        assert bool(estimate.set_aside[place]) == (claim.id in exact.set_aside)
    assert estimate.shares.sum() == pytest.approx(sum(exact.shares.values()))


def test_bad_columns_are_refused() -> None:
    one, two = np.ones(1), np.ones(2)
    place = np.zeros(1, dtype=np.int64)
    pools = [Pool("a", 5)]
    for capacity, wrong in (
        (9, Columns(place, two, one)),
        (9, Columns(place, -one, one)),
        (9, Columns(place, one, 0 * one)),
        (9, Columns(place + 1, one, one)),
        (9, Columns(place, one, one, 2 * one)),
        (4, Columns(place, one, one)),
    ):
        with pytest.raises(ValueError, match=r"lengths|guarantees|negative"):
            what_if(capacity, pools, wrong)
