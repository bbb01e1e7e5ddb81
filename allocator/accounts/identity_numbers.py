"""Identification numbers of persons (IIN) and organisations (BIN): 12 digits with a check digit (R-32).

The digits that look like a date of birth are not compared with anything: real numbers contradict it (R-32).
"""

import re

FIRST_WEIGHTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
SECOND_WEIGHTS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2)
# ASCII only: other scripts have digits too, and they would not compare equal.
_TWELVE_DIGITS = re.compile(r"[0-9]{12}")
_SEPARATORS = re.compile(r"[\s\u00a0\u202f-]")


def normalise(text: str) -> str:
    """The number without the spaces and hyphens that people put into it."""
    return _SEPARATORS.sub("", text)


def check_digit(digits: str) -> int | None:
    """The twelfth digit for eleven digits, or None where there is no valid one."""
    for weights in (FIRST_WEIGHTS, SECOND_WEIGHTS):
        rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11
        if rest < 10:
            return rest
    return None


def is_valid(number: str) -> bool:
    """Whether a normalised IIN or BIN has twelve digits and the right check digit."""
    return bool(_TWELVE_DIGITS.fullmatch(number)) and check_digit(number[:11]) == int(number[11])
