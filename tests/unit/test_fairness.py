"""The figures of fairness are exact, and mean what the public page says."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from allocator.dividing.fairness import Served, fairness, figures, jain

PARTS = st.lists(st.fractions(min_value=0, max_value=1), min_size=1, max_size=20)


def test_worst_and_jain() -> None:
    rows = [
        Served("science", "science", requested=100, entitled=50, served=40),
        Served("startup", "startups", requested=10, entitled=10, served=10),
        Served("citizen", "citizens", requested=0, entitled=0, served=0),
    ]
    found = fairness(rows)
    assert (found.total.claims, found.total.requested, found.total.served) == (3, 110, 50)
    assert found.total.worst == Fraction(4, 5)
    assert found.total.jain == Fraction(49, 58)  # (2/5 + 1)² / (2 · (4/25 + 1))
    assert found.total.part == Fraction(5, 11)
    assert found.by_category["citizen"].worst is None
    assert list(found.by_pool) == ["citizens", "science", "startups"]


def test_nobody_asked_for_anything() -> None:
    assert figures([]).jain is None
    assert figures([]).part is None
    assert jain([Fraction(0), Fraction(0)]) == 1


@given(PARTS)
def test_jain_lies_between_one_nth_and_one(parts: list[Fraction]) -> None:
    index = jain(parts)
    assert index is not None
    assert Fraction(1, len(parts)) <= index <= 1
    if any(parts):
        assert (index == 1) == (len(set(parts)) == 1)
