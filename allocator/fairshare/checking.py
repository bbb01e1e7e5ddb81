"""Refuses bad input with one error that lists every fault, so that nobody mends a file line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from allocator.errors import Fault, KezekError
from config.i18n import N_

from .model import Claim, Pool


class BadDivision(KezekError):
    """The input cannot be divided; ``faults`` has each thing that is wrong, as msgids with their values."""

    code = "bad_division"
    http_status = 422

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        sentences = " ".join(fault.message % fault.details for fault in faults)
        super().__init__(N_("This cannot be divided: %(faults)s"), {"faults": sentences})


def is_amount(value: object) -> bool:
    """Whether it is a non-negative whole number; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_weight(value: object) -> bool:
    return isinstance(value, int | Fraction) and not isinstance(value, bool) and value > 0


def check(capacity: int, pools: Sequence[Pool], claims: Sequence[Claim], fixed: Mapping[str, int]) -> None:
    """Raise BadDivision if anything is wrong with the input of ``divide``."""
    faults = [*_capacity_faults(capacity), *_pool_faults(pools), *_claim_faults(pools, claims)]
    faults += _fixed_faults(claims, fixed)
    # Sums mean something only once every part is an amount.
    if not faults:
        faults += _sum_faults(capacity, pools, claims, fixed)
    if faults:
        raise BadDivision(faults)


def _capacity_faults(capacity: int) -> Iterator[Fault]:
    if not is_amount(capacity):
        yield Fault(N_("The capacity %(value)s is not a whole number from 0 up."), {"value": repr(capacity)})


def _pool_faults(pools: Sequence[Pool]) -> Iterator[Fault]:
    for name, times in Counter(str(pool.name) for pool in pools).items():
        if times > 1:
            yield Fault(N_("Pool %(pool)s is given %(times)s times."), {"pool": name, "times": times})
    for pool in pools:
        where = {"pool": pool.name}
        if type(pool.name) is not str:
            yield Fault(N_("The name of pool %(pool)s is not a text."), where)
        if not is_amount(pool.guarantee):
            yield Fault(
                N_("The guarantee %(value)s of pool %(pool)s is not a whole number from 0 up."),
                {**where, "value": repr(pool.guarantee)},
            )
        if pool.cap is not None and not is_amount(pool.cap):
            yield Fault(
                N_("The cap %(value)s of pool %(pool)s is not a whole number from 0 up."),
                {**where, "value": repr(pool.cap)},
            )
        elif pool.cap is not None and is_amount(pool.guarantee) and pool.guarantee > pool.cap:
            yield Fault(N_("Pool %(pool)s has a guarantee above its cap."), where)
        if not _is_weight(pool.weight):
            yield Fault(
                N_("The weight %(value)s of pool %(pool)s is not a positive whole number or fraction."),
                {**where, "value": repr(pool.weight)},
            )


def _claim_faults(pools: Sequence[Pool], claims: Sequence[Claim]) -> Iterator[Fault]:
    known = {str(pool.name) for pool in pools}
    counted = Counter(str(claim.id) for claim in claims)
    for id, times in counted.items():
        if times > 1:
            yield Fault(N_("Claim %(claim)s is given %(times)s times."), {"claim": id, "times": times})
    for claim in claims:
        # Most claims are sound, and there may be a million of them.
        if not _is_sound(claim, known):
            yield from _faults_of_claim(claim, known)
    try:
        # What is its own successor or no match for others would make the outcome depend on the order.
        ranks = [claim.rank for claim in claims]
        if any(rank != rank for rank in ranks):
            yield Fault(N_("A rank is not a number (NaN)."))
        sorted(ranks)
    except TypeError as error:
        yield Fault(N_("The ranks cannot be compared: %(error)s."), {"error": str(error)})


def _is_sound(claim: Claim, known: set[str]) -> bool:
    return (
        type(claim.request) is int
        and type(claim.minimum) is int
        and 0 <= claim.minimum <= claim.request
        and type(claim.id) is str
        and claim.pool in known
        and _is_weight(claim.weight)
    )


def _faults_of_claim(claim: Claim, known: set[str]) -> Iterator[Fault]:
    where = {"claim": claim.id}
    if type(claim.id) is not str:
        yield Fault(N_("The id of claim %(claim)s is not a text."), where)
    if claim.pool not in known:
        yield Fault(
            N_("Claim %(claim)s is in pool %(pool)s, which does not exist."), {**where, "pool": claim.pool}
        )
    for message, value in (
        (N_("The request %(value)s of claim %(claim)s is not a whole number from 0 up."), claim.request),
        (N_("The minimum %(value)s of claim %(claim)s is not a whole number from 0 up."), claim.minimum),
    ):
        if not is_amount(value):
            yield Fault(message, {**where, "value": repr(value)})
    if is_amount(claim.request) and is_amount(claim.minimum) and claim.minimum > claim.request:
        yield Fault(N_("Claim %(claim)s has a minimum above its request."), where)
    if not _is_weight(claim.weight):
        yield Fault(
            N_("The weight %(value)s of claim %(claim)s is not a positive whole number or fraction."),
            {**where, "value": repr(claim.weight)},
        )


def _fixed_faults(claims: Sequence[Claim], fixed: Mapping[str, int]) -> Iterator[Fault]:
    # Looked up only where needed: a million claims need no second index.
    requests = {claim.id: claim.request for claim in claims if claim.id in fixed} if fixed else {}
    for id, hours in fixed.items():
        if id not in requests:
            yield Fault(N_("The fixed share of claim %(claim)s has no claim to belong to."), {"claim": id})
        elif not is_amount(hours):
            yield Fault(
                N_("The fixed share %(value)s of claim %(claim)s is not a whole number from 0 up."),
                {"claim": id, "value": repr(hours)},
            )
        elif is_amount(requests[id]) and hours > requests[id]:
            yield Fault(N_("The fixed share of claim %(claim)s is above its request."), {"claim": id})


def _sum_faults(
    capacity: int, pools: Sequence[Pool], claims: Sequence[Claim], fixed: Mapping[str, int]
) -> Iterator[Fault]:
    guaranteed = sum(pool.guarantee for pool in pools)
    if guaranteed > capacity:
        yield Fault(
            N_("The pools are guaranteed %(guaranteed)s in all, but the capacity is %(capacity)s."),
            {"guaranteed": guaranteed, "capacity": capacity},
        )
        return
    if not fixed:
        return
    given: Counter[str] = Counter()
    for claim in claims:
        given[claim.pool] += fixed.get(claim.id, 0)
    for pool in pools:
        if pool.cap is not None and given[pool.name] > pool.cap:
            yield Fault(N_("The fixed shares of pool %(pool)s are above its cap."), {"pool": pool.name})
    if given.total() > capacity:
        yield shortage(given.total() - capacity)


def shortage(hours: int) -> Fault:
    """A person's adjustments may move hours, but no pool's promise, as far as kept claims want it."""
    return Fault(
        N_("The fixed shares leave the pools less than their guarantees: %(short)s are missing."),
        {"short": hours},
    )
