"""Credit by hand, its bounds, and that it brings the unlucky back."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.fairshare import Claim, Pool, divide
from allocator.fairshare.credit import CreditRules, PastClaim, credits_of


def test_a_shortfall_by_hand() -> None:
    # In the first period b asked for nothing and a had everything; in the second they shared.
    history = [
        {"a": PastClaim(100, 100, 1), "b": PastClaim(0, 0, 1)},
        {"a": PastClaim(100, 50, 1), "b": PastClaim(100, 50, 1)},
    ]
    credits = credits_of(history, CreditRules())
    # Of 200 hours together a was entitled to 100 and b to 100; a usual period is 50 for each.
    assert [credits["a"].entitled, credits["a"].served, credits["a"].usual] == [100, 150, 50]
    assert credits["a"].factor == Fraction(1, 2)
    assert [credits["b"].shortfall, credits["b"].factor] == [50, 2]


def test_older_periods_fade() -> None:
    history = [{"a": PastClaim(90, 90, 1), "b": PastClaim(10, 10, 1)}]
    history += [{"a": PastClaim(100, 50, 1), "b": PastClaim(100, 50, 1)}] * 6
    steady = credits_of(history, CreditRules())["b"]
    fading = credits_of(history, CreditRules(decay=Fraction(1, 2)))["b"]
    assert 1 < fading.factor < steady.factor


def test_without_history_or_hours_nobody_has_credit() -> None:
    assert credits_of([], CreditRules()) == {}
    assert credits_of([{"a": PastClaim(5, 0, 1)}], CreditRules())["a"].factor == 1


def test_rules_that_make_no_sense_are_refused() -> None:
    for rules in ({"minimum": Fraction(0)}, {"maximum": Fraction(1, 2)}, {"decay": Fraction(2)}):
        with pytest.raises(ValueError, match="make sense"):
            CreditRules(**rules)


PAST = st.builds(PastClaim, st.integers(0, 50), st.integers(0, 50), st.sampled_from([1, 2, Fraction(3, 2)]))


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), PAST), max_size=5))
def test_factors_stay_within_bounds_and_on_steps(history: list[dict[str, PastClaim]]) -> None:
    rules = CreditRules(decay=Fraction(3, 4))
    for credit in credits_of(history, rules).values():
        assert rules.minimum <= credit.factor <= rules.maximum
        assert credit.factor % rules.step == 0


def test_credit_brings_the_unlucky_back() -> None:
    """b wants its hours only when a is there too; a has every other period for itself."""
    history: list[dict[str, PastClaim]] = []
    served = {"a": 0, "b": 0}
    for period in range(12):
        requests = {"a": 100, "b": 100 if period % 2 else 0}
        credits = credits_of(history, CreditRules())
        claims = [
            Claim(id, "p", asked, credits[id].factor if id in credits else 1)
            for id, asked in requests.items()
        ]
        shares = divide(100, [Pool("p")], claims, period=str(period)).shares
        history.append({id: PastClaim(requests[id], shares[id], 1) for id in requests})
        served = {id: served[id] + shares[id] for id in served}
    # Without credit b has 300 of the 600 that it is entitled to.
    assert served["b"] >= 400
    assert sum(served.values()) == 1200
