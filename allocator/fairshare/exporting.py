"""Inputs and result as one JSON document, for anyone to recompute with ``check_division.py``."""

from __future__ import annotations

from collections.abc import Sequence

from .model import Claim, Division, Pool, Weight

FORMAT = "kezek-division-1"


def document(division: Division, *, unit: str = "GPU-hour") -> dict[str, object]:
    """The division as data for ``json.dumps``: inputs (period, capacity, pools, claims, fixed) and result.

    Fractions are texts such as "3/2". Ranks become their places among the ranks that occur: the order
    decides, not the value, which may be private. Ids go out as they are, because ties hang on them: give
    ``divide`` pseudonyms if its result is to be public.
    """
    places = _places(division.claims)
    return {
        "format": FORMAT,
        "period": division.period,
        "unit": unit,
        "capacity": division.capacity,
        "pools": [
            {"name": pool.name, "guarantee": pool.guarantee, "cap": pool.cap, "weight": _number(pool.weight)}
            for pool in division.pools.values()
        ],
        "claims": [
            {
                "id": claim.id,
                "pool": claim.pool,
                "request": claim.request,
                "weight": _number(claim.weight),
                "minimum": claim.minimum,
                "rank": place,
            }
            for claim, place in zip(division.claims, places, strict=True)
        ],
        "fixed": dict(division.fixed),
        "shares": dict(division.shares),
        "set_aside": [
            {"id": gone.id, "reason": gone.reason.value, "served": gone.served}
            for gone in division.set_aside.values()
        ],
        "pool_shares": {pool.name: pool.amount for pool in division.pools.values()},
        "loans": [
            {"lender": loan.lender, "borrower": loan.borrower, "amount": loan.amount}
            for loan in division.loans
        ],
    }


def pools_of(division: Division) -> tuple[Pool, ...]:
    """The pools as they went into the division, to divide again with something changed."""
    return tuple(Pool(one.name, one.guarantee, one.cap, one.weight) for one in division.pools.values())


def _number(weight: Weight) -> int | str:
    return weight.numerator if weight.denominator == 1 else f"{weight.numerator}/{weight.denominator}"


def _places(claims: Sequence[Claim]) -> list[int]:
    """Each claim's place among the distinct ranks, from 0."""
    order = sorted(range(len(claims)), key=lambda place: claims[place].rank)
    places, distinct = [0] * len(claims), -1
    for before, one in zip([None, *order], order, strict=False):
        if before is None or claims[before].rank != claims[one].rank:
            distinct += 1
        places[one] = distinct
    return places
