"""Slot prices by the Lagrangian dual of the count of GPUs."""

from __future__ import annotations

import numpy as np

from .compiling import compiled
from .state import Books, Floats


@compiled
def cheapest(total: Floats, duration: int, earliest: int, last: int) -> tuple[int, float]:
    """The start with the least price in a window, and that price per GPU; total: running sum of prices."""
    begin, least = earliest, total[earliest + duration] - total[earliest]
    for start in range(earliest + 1, last + 1):
        cost = total[start + duration] - total[start]
        if cost < least:
            begin, least = start, cost
    return begin, least


@compiled
def answer(books: Books, price: Floats, capacity: Floats, total: Floats, slope: Floats) -> float:
    """The bound that these prices prove; slope: the capacity left when all take their best starts."""
    slots = len(price)
    total[0] = 0.0
    bound = 0.0
    for t in range(slots):
        total[t + 1] = total[t] + price[t]
        bound += capacity[t] * price[t]
        slope[t] = 0.0
    for j in range(len(books.value)):
        asked = books.nodes[j] * books.gpus[j]
        duration = books.duration[j]
        begin, cost = cheapest(total, duration, books.earliest[j], books.last[j])
        gain = books.value[j] - asked * cost
        if gain > 0:
            bound += gain
            slope[begin] -= asked
            if begin + duration < slots:
                slope[begin + duration] += asked
    for t in range(1, slots):
        slope[t] += slope[t - 1]
    for t in range(slots):
        slope[t] += capacity[t]
    return bound


@compiled
def descend(
    books: Books, capacity: Floats, price: Floats, lower: float, rounds: int, state: Floats
) -> tuple[float, Floats]:
    """Subgradient descent with momentum and Polyak steps; state holds the share of a step."""
    slots = len(price)
    total, slope, smooth = np.zeros(slots + 1), np.zeros(slots), np.zeros(slots)
    best, best_price = np.inf, price.copy()
    theta, stall = state[0], 0
    for turn in range(rounds):
        bound = answer(books, price, capacity, total, slope)
        if bound < best * (1 - 1e-6):
            best, stall = bound, 0
            best_price[:] = price
        else:
            stall += 1
        if stall >= 12:
            theta, stall = theta * 0.6, 0
            price[:] = best_price
            if theta < 1e-4:
                break
        norm = 0.0
        for t in range(slots):
            smooth[t] = slope[t] if turn == 0 else 0.7 * smooth[t] + 0.3 * slope[t]
            norm += smooth[t] * smooth[t]
        if norm < 1e-9:
            break
        step = theta * (bound - lower) / norm
        for t in range(slots):
            price[t] = max(0.0, price[t] - step * smooth[t])
    state[0] = theta
    return best, best_price


@compiled
def least_costs(books: Books, total: Floats) -> Floats:
    """For every booking the least price per GPU in its window; infinite where the window is too short."""
    costs = np.full(len(books.value), np.inf)
    for j in range(len(costs)):
        if books.last[j] >= books.earliest[j]:
            costs[j] = cheapest(total, books.duration[j], books.earliest[j], books.last[j])[1]
    return costs
