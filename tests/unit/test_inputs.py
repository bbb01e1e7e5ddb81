"""Text from outside comes out normalised, visible and bounded, or with a fault."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.errors import Invalid
from allocator.inputs import Faults, check_email, check_line, check_phone, one_line
from web.exports import FORMULA_STARTS, cell, csv_lines


@given(st.text())
def test_one_line_is_one_visible_normal_line(text: str) -> None:
    clean = one_line(text)
    assert clean == clean.strip()
    assert not any(unicodedata.category(sign) in {"Cc", "Cf", "Cs"} for sign in clean)
    assert "\n" not in clean
    clean.encode()  # fit for the database


@given(st.text(max_size=300), st.integers(1, 100))
def test_a_checked_line_fits_or_has_a_fault(text: str, most: int) -> None:
    faults = Faults()
    clean = check_line(faults, "name", text, most=most)
    assert bool(faults.fields) is not (1 <= len(clean) <= most)


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        (" Aigerim@Example.KZ ", "aigerim@example.kz"),
        ("a+b@sub.example.kz", "a+b@sub.example.kz"),
        ("user@мектеп.қаз", "user@xn--e1aqbdeh.xn--80ao21a"),
    ],
)
def test_addresses_are_stored_in_one_form(typed: str, stored: str) -> None:
    faults = Faults()
    result = check_email(faults, "email", typed)
    assert not faults.fields
    if typed.isascii():
        assert result == stored
    assert result.isascii()
    assert check_email(faults, "email", result) == result


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "nobody",
        "a@b",
        "a b@example.kz",
        "@example.kz",
        "a@example.kz\nBcc: x@y.kz",
        "x" * 300 + "@example.kz",
        "a@@b.kz",
    ],
)
def test_other_addresses_are_refused(typed: str) -> None:
    faults = Faults()
    check_email(faults, "email", typed)
    with pytest.raises(Invalid):
        faults.raise_if_any()


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", None),
        ("8 (701) 123-45-67", "+77011234567"),
        ("+7 701 123 45 67", "+77011234567"),
        ("998901234567", "+998901234567"),
    ],
)
def test_telephone_numbers(typed: str, stored: str | None) -> None:
    faults = Faults()
    assert check_phone(faults, "phone", typed) == stored
    assert not faults.fields


@given(st.text())
def test_no_cell_is_a_formula(text: str) -> None:
    assert not cell(text).startswith(FORMULA_STARTS)
    assert cell(text).endswith(text)


def test_numbers_stay_numbers() -> None:
    assert "".join(csv_lines(["a", "b"], [[-5, None]])) == "\ufeffa,b\r\n-5,\r\n"
