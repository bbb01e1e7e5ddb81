"""IIN and BIN: the check digit of R-32."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.accounts.identity_numbers import check_digit, is_valid, normalise

ELEVEN = st.text("0123456789", min_size=11, max_size=11)


def reference(digits: str) -> int | None:
    """R-32 in its own words."""
    total = sum(int(digits[i - 1]) * i for i in range(1, 12)) % 11
    if total == 10:
        weights = [3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2]
        total = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11
    return None if total == 10 else total


@given(ELEVEN)
def test_follows_the_rule(digits: str) -> None:
    assert check_digit(digits) == reference(digits)


@given(ELEVEN)
def test_at_most_one_last_digit_is_right(digits: str) -> None:
    right = [last for last in "0123456789" if is_valid(digits + last)]
    assert right == ([] if check_digit(digits) is None else [str(check_digit(digits))])


@given(ELEVEN, st.integers(0, 9), st.integers(1, 9))
def test_most_slips_of_one_digit_show(digits: str, place: int, shift: int) -> None:
    # With the first weights a wrong digit always changes the sum, as 11 is prime; only the eleventh digit,
    # whose weight is 11, is left out by the rule itself.
    slipped = digits[:place] + str((int(digits[place]) + shift) % 10) + digits[place + 1 :]
    first = [sum(int(d) * w for w, d in enumerate(text, 1)) % 11 for text in (digits, slipped)]
    if 10 not in first:
        assert check_digit(digits) != check_digit(slipped)


@pytest.mark.parametrize("number", ["490140000012", "490240000026", "490340000031"])
def test_numbers_of_the_demonstration(number: str) -> None:
    assert is_valid(number)


@pytest.mark.parametrize(
    "number",
    ["", "49014000001", "4901400000120", "49014000001a", "٤٩٠١٤٠٠٠٠٠١٢", "490140000013", "-90140000012"],
)
def test_others_are_not(number: str) -> None:
    assert not is_valid(number)


def test_birth_dates_are_nobodys_business() -> None:
    digits = "99999999999"  # the 99th day of the 99th month
    digit = check_digit(digits)
    assert digit is not None
    assert is_valid(f"{digits}{digit}")


def test_people_write_spaces_and_hyphens() -> None:
    assert normalise(" 4901-4000\u00a00012 ") == "490140000012"
