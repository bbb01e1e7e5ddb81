"""The lexicographic max-min optimum by successive linear programs (SciPy's HiGHS): the levels' rival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from allocator.fairshare import Division
from tests.fairshare_cases import Case

CLOSE = 1e-7


def optimum(
    total: float, weights: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[float]:
    """Amounts that make the smallest amount/weight as large as can be, then the next smallest, and so on.

    Each round maximises the smallest ratio of those not yet settled, then settles whoever cannot exceed it.
    """
    count = len(weights)
    settled: dict[int, float] = {}
    while len(settled) < count:
        free = [one for one in range(count) if one not in settled]
        bounds = [
            (settled[one], settled[one]) if one in settled else (lows[one], highs[one])
            for one in range(count)
        ]
        ratio = _largest_ratio(total, weights, bounds, free)
        newly = [
            one
            for one in free
            if _most(total, weights, bounds, free, ratio, one) <= ratio * weights[one] + CLOSE
        ]
        # Numerically nobody may be stuck by a hair; then the nearest is.
        for one in newly or free[:1]:
            settled[one] = min(max(ratio * weights[one], lows[one]), highs[one])
    return [settled[one] for one in range(count)]


def _largest_ratio(
    total: float,
    weights: Sequence[float],
    bounds: Sequence[tuple[float, float]],
    free: Sequence[int],
) -> float:
    count = len(weights)
    rows, limits = [np.r_[np.ones(count), 0.0]], [total]
    for one in free:
        row = np.zeros(count + 1)
        row[one], row[count] = -1, weights[one]
        rows.append(row)
        limits.append(0.0)
    answer = linprog(
        np.r_[np.zeros(count), -1.0], A_ub=np.array(rows), b_ub=limits, bounds=[*bounds, (0, None)]
    )
    assert answer.success, answer.message
    return float(answer.x[count])


def _most(
    total: float,
    weights: Sequence[float],
    bounds: Sequence[tuple[float, float]],
    free: Sequence[int],
    ratio: float,
    one: int,
) -> float:
    """The most that ``one`` can have while every free one keeps the ratio."""
    kept = [
        (max(low, min(high, ratio * weights[place])), high) if place in free else (low, high)
        for place, (low, high) in enumerate(bounds)
    ]
    aim = np.zeros(len(weights))
    aim[one] = -1
    answer = linprog(aim, A_ub=[np.ones(len(weights))], b_ub=[total + CLOSE / 10], bounds=kept)
    assert answer.success, answer.message
    return float(answer.x[one])


def distances(case: Case, division: Division) -> tuple[float, float]:
    """How far shares, rounded and exact, are from the optimum at most; kept claims only."""
    names = list(division.pools)
    pools = [division.pools[name] for name in names]
    highs = [min(one.demand, one.cap if one.cap is not None else one.demand) for one in pools]
    lows = [min(one.guarantee, high) for one, high in zip(pools, highs, strict=True)]
    amounts = optimum(case.capacity, [float(one.weight) for one in pools], lows, highs)
    worst = before = 0.0
    for name, amount in zip(names, amounts, strict=True):
        claims = [one for one in case.claims if one.pool == name and one.id not in division.set_aside]
        requests = [float(one.request) for one in claims]
        best = optimum(amount, [float(one.weight) for one in claims], [0.0] * len(claims), requests)
        for claim, right in zip(claims, best, strict=True):
            worst = max(worst, abs(division.shares[claim.id] - right))
            before = max(before, abs(float(division.explain(claim.id).exact) - right))
    return worst, before
