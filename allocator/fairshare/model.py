"""What goes into a division and what comes out: frozen data, amounts in one unit (periods: GPU-hours)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .explaining import Explanation

Weight: TypeAlias = "int | Fraction"


@dataclass(frozen=True, slots=True)
class Pool:
    """Part of the capacity: at least ``guarantee`` as far as it is asked for, at most ``cap``."""

    name: str
    guarantee: int = 0
    cap: int | None = None
    weight: Weight = 1


@dataclass(frozen=True, slots=True)
class Claim:
    """A quota's demand on the period. ``rank`` is any ordered value; the lower, the longer it is kept."""

    id: str
    pool: str
    request: int
    weight: Weight = 1
    minimum: int = 0
    rank: Any = 0


class PoolBound(StrEnum):
    """What decided a pool's amount."""

    LEVEL = "level"
    GUARANTEE = "guarantee"
    CAP = "cap"
    DEMAND = "demand"
    FIXED = "fixed"


class Reason(StrEnum):
    """Why a claim was set aside."""

    BELOW_MINIMUM = "below_minimum"
    BEYOND_REACH = "beyond_reach"


@dataclass(frozen=True, slots=True)
class SetAside:
    """One claim set aside as number ``order`` (from 1), when its pool's level stood at ``level``.

    ``reach`` is the most that the pool could ever give beside what a person fixed; ``served`` are hours from
    the remainder that nobody else wanted.
    """

    id: str
    reason: Reason
    order: int
    level: Fraction | None
    reach: int
    served: int = 0


@dataclass(frozen=True, slots=True)
class Loan:
    """Hours of ``lender``'s guarantee that ``borrower`` uses; the lender's own claims did not want them."""

    lender: str
    borrower: str
    amount: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The last claim of a pool to be rounded up: its exact share's fraction, and its hash."""

    fraction: Fraction
    digest: str


@dataclass(frozen=True, slots=True)
class PoolShare:
    """One pool's outcome. ``exact`` is rounded to ``amount``; ``level`` is None when all kept claims are
    full.

    ``demand`` counts the claims that were kept and the fixed shares; ``remainder`` (part of ``amount``) went
    to claims that had been set aside.
    """

    name: str
    guarantee: int
    cap: int | None
    weight: Weight
    demand: int
    fixed: int
    exact: Fraction
    amount: int
    bound: PoolBound
    level: Fraction | None
    remainder: int
    cut: Cut | None
    lent: int = 0
    borrowed: int = 0


@dataclass(frozen=True, slots=True)
class Division:
    """A period's result. ``shares`` has every claim, those set aside too; ``level`` is that of the pools."""

    period: str
    capacity: int
    shares: Mapping[str, int]
    pools: Mapping[str, PoolShare]
    level: Fraction | None
    loans: tuple[Loan, ...]
    set_aside: Mapping[str, SetAside]
    fixed: Mapping[str, int]
    idle: int
    claims: tuple[Claim, ...] = field(repr=False)

    def claim(self, id: str) -> Claim:
        """The claim of that id, or KeyError."""
        place = bisect_left(self.claims, id, key=lambda claim: claim.id)
        if place == len(self.claims) or self.claims[place].id != id:
            raise KeyError(id)
        return self.claims[place]

    def explain(self, id: str) -> Explanation:
        """The numbers from which the share of claim ``id`` can be recomputed (R-15); KeyError if unknown."""
        from .explaining import explain

        return explain(self, id)


def digest(period: str, id: str) -> str:
    """The public hash that breaks ties: SHA-256 of ``period:id`` in hexadecimal; the lower one wins."""
    return sha256(f"{period}:{id}".encode()).hexdigest()
