"""Reading values out of a parsed policy file so that every fault is found in one go.

Each method returns a value of the right type even where the file has none: the fault is noted, reading goes
on, and whoever reads asks for the faults at the end.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeVar

from allocator.policy.errors import PolicyFault
from allocator.policy.lines import KeyPath, line_of
from config.i18n import LANGUAGES

E = TypeVar("E", bound=StrEnum)
SLUG = re.compile(r"[a-z][a-z0-9_]{0,39}")
FACTOR = re.compile(r"\d{1,6}(/[1-9]\d{0,5}|\.\d{1,6})?")
# Pages, letters and PostgreSQL each stumble over some of these; lines may break.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]")
MOST = 10**12  # beyond this a number is a slip of the finger


class Faults:
    """What is wrong so far. ``lines`` is asked where the keys stand, and only when something is wrong."""

    def __init__(self, lines: Callable[[], dict[KeyPath, int]]) -> None:
        self._lines, self._found = lines, dict[KeyPath, list[str]]()

    def add(self, path: KeyPath, message: str) -> None:
        self._found.setdefault(path, []).append(message)

    def below(self, *paths: KeyPath) -> bool:
        """Whether anything at or below these keys is wrong: then what follows from them says nothing new."""
        return any(found[: len(path)] == path for found in self._found for path in paths)

    def listed(self) -> list[PolicyFault]:
        """All of them in the order of the file."""
        if not self._found:
            return []
        lines = self._lines()
        faults = [
            PolicyFault(dotted(path), line_of(lines, path), message)
            for path, messages in self._found.items()
            for message in messages
        ]
        return sorted(faults, key=lambda fault: (fault.line or 0, fault.key))


class Table:
    """One table of the file; where it is not ``there`` at all its keys are not missed once more."""

    def __init__(self, values: Mapping[str, Any], path: KeyPath, faults: Faults, there: bool = True) -> None:
        self._values, self.path, self.faults, self._there = values, path, faults, there
        self._known: set[str] = set()

    def fault(self, key: str, message: str) -> None:
        self.faults.add((*self.path, key), message)

    def whole(self, key: str, least: int = 0, most: int = MOST) -> int:
        """A whole number between two."""
        return self._whole(key, self._required(key), least, most)

    def optional_whole(self, key: str, least: int = 0, most: int = MOST) -> int | None:
        value = self._optional(key)
        return None if value is None else self._whole(key, value, least, most)

    def percent(self, key: str, least: int = 0) -> int:
        return self.whole(key, least, 100)

    def fraction(self, key: str, least: Fraction = Fraction(0), most: Fraction = Fraction(1000)) -> Fraction:
        """An exact factor between two: a whole number, or text such as "3/2" or "1.5"."""
        value = self._required(key)
        if value is None:
            return least
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (isinstance(value, str) and FACTOR.fullmatch(value))):
            self.fault(key, 'must be a whole number or an exact fraction as text, such as "3/2" or "1.25"')
            return least
        factor = Fraction(value)
        if not least <= factor <= most:
            self.fault(key, f"must lie between {least} and {most}")
        return factor

    def positive(self, key: str, most: Fraction = Fraction(1000)) -> Fraction:
        """A fraction above zero."""
        factor = self.fraction(key, most=most)
        if not factor and not self.faults.below((*self.path, key)) and self._there:
            self.fault(key, "must be more than 0")
        return factor or Fraction(1)

    def money(self, key: str) -> Decimal:
        """Tenge: a whole number, or text with at most two decimals."""
        value = self._required(key)
        if value is None:
            return Decimal(0)
        try:
            amount = Decimal(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or amount != round(amount, 2):
            self.fault(key, 'must be an amount of tenge: a whole number or text such as "1400.50"')
            return Decimal(0)
        if not 0 <= amount <= MOST:
            self.fault(key, f"must lie between 0 and {MOST}")
        return amount

    def yes(self, key: str) -> bool:
        """true or false; left out is false."""
        value = self._optional(key)
        if value is not None and not isinstance(value, bool):
            self.fault(key, "must be true or false")
        return value is True

    def day(self, key: str) -> date:
        """A date; as text too, which is how the canonical document has it."""
        value = self._required(key)
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        try:
            return date.fromisoformat(value)
        except (TypeError, ValueError):
            if value is not None:
                self.fault(key, "must be a date such as 2026-11-01")
            return date.min

    def clock(self, key: str) -> time:
        """A time of day, such as "10:00"."""
        value = self._required(key)
        try:
            return time.fromisoformat(value)
        except (TypeError, ValueError):
            if value is not None:
                self.fault(key, 'must be a time of day such as "10:00"')
            return time.min

    def choice(self, key: str, kind: type[E]) -> E:
        return self._choice(key, self._required(key), kind) or next(iter(kind))

    def optional_choice(self, key: str, kind: type[E]) -> E | None:
        return self._choice(key, self._optional(key), kind)

    def slug(self, key: str) -> str:
        """A short name that other parts of the file, the database and addresses use."""
        value = self._required(key)
        if value is not None and not (isinstance(value, str) and SLUG.fullmatch(value)):
            self.fault(key, "must be a short name of lower-case Latin letters, digits and _")
        return value if isinstance(value, str) else ""

    def codes(self, key: str) -> tuple[str, ...]:
        """Beginnings of OKED codes, 2 to 5 digits each (R-38)."""
        value = self._required(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not value:
            self.fault(key, 'must be a list of beginnings of OKED codes, such as ["06", "091"]')
            return ()
        for number, code in enumerate(value):
            if not (isinstance(code, str) and re.fullmatch(r"[0-9]{2,5}", code)):
                self.faults.add((*self.path, key, number), "must be 2 to 5 digits as text")
        return tuple(code for code in value if isinstance(code, str))

    def texts(self, key: str) -> Mapping[str, str]:
        """A text in each of the three languages (R-31)."""
        table = self.table(key)
        found = {language: table._text(language) for language in LANGUAGES}
        table.done()
        return found

    def table(self, key: str) -> Table:
        value = self._required(key)
        if value is not None and not isinstance(value, dict):
            self.fault(key, "must be a table")
        there = isinstance(value, dict)
        return Table(value if there else {}, (*self.path, key), self.faults, there)

    def named(self, key: str) -> Iterator[tuple[str, Table]]:
        """The tables below this one, by their names, in the order of the file."""
        parent = self.table(key)
        if parent._there and not parent._values:
            self.fault(key, "must have at least one entry")
        for name in parent._values:
            if not SLUG.fullmatch(name):
                parent.fault(name, "must be a short name of lower-case Latin letters, digits and _")
            yield name, parent.table(name)

    def optional_named(self, key: str) -> Iterator[tuple[str, Table]]:
        """The same where the whole section may be left out."""
        return iter(()) if self._optional(key) is None else self.named(key)

    def rows(self, key: str) -> Iterator[Table]:
        """The tables of a list."""
        value = self._required(key)
        if value is None:
            return
        if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
            self.fault(key, "must be a list of tables, at least one")
            return
        for number, row in enumerate(value):
            yield Table(row, (*self.path, key, number), self.faults)

    def done(self) -> None:
        """What nobody has asked for is unknown: a mistyped key must not be a rule that silently is none."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1)
                self.fault(key, "is not a known key" + (f"; did you mean {near[0]}?" if near else ""))

    def _required(self, key: str) -> Any:
        value = self._optional(key)
        if value is None and self._there:
            self.fault(key, "is missing")
        return value

    def _optional(self, key: str) -> Any:
        self._known.add(key)
        return self._values.get(key)

    def _whole(self, key: str, value: Any, least: int, most: int) -> int:
        if value is None:
            return least
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(key, "must be a whole number")
            return least
        if not least <= value <= most:
            self.fault(key, f"must lie between {least} and {most}")
            return least
        return value

    def _choice(self, key: str, value: Any, kind: type[E]) -> E | None:
        if value is None:
            return None
        if value not in list(kind):
            self.fault(key, "must be one of " + ", ".join(kind))
            return None
        return kind(value)

    def _text(self, key: str) -> str:
        value = self._required(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            self.fault(key, "must be a text that is not empty")
        elif value is not None and CONTROL.search(value):
            self.fault(key, "must not have control characters in it")
        return value if isinstance(value, str) else ""


def dotted(path: KeyPath) -> str:
    """`use_or_lose.steps[1].take_percent`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
