"""Mend a plan when the world has changed: who must move, who must go, and two ways to choose between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Why(StrEnum):
    """Why a booking is moved or dropped."""

    NODES_GONE = "nodes_gone"  # what it stood on is no longer there
    MADE_WAY = "made_way"  # so that another need not be dropped
    WINDOW_GONE = "window_gone"  # nobody could place it: too few nodes are left all through its window
    INTERRUPTED = "interrupted"  # it had started and no other node can take its place
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What has happened. capacity: nodes × slots as it is from now on. now: slot; what began before stays."""

    now: int
    capacity: NDArray[np.int8] | None = None
    cancelled: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    booking: int
    before: int
    after: int
    why: Why


@dataclass(frozen=True, slots=True)
class Drop:
    booking: int
    before: int
    why: Why


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A mended plan. renamed: bookings with other nodes at the same start, which nobody need be told."""

    plan: Plan
    moves: tuple[Move, ...]
    drops: tuple[Drop, ...]
    renamed: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Repair:
    """first: the answer at once. The other two trade moves against drops; an operator chooses."""

    first: Variant
    fewest_moves: Variant
    fewest_drops: Variant


def repair(
    plan: Plan, change: Change, *, seconds: float = 5.0, seed: int = 0, iterations: int | None = None
) -> Repair:
    """Eject what no longer fits and put it back elsewhere, then improve; half the seconds for each variant.

    A booking that has started keeps its start and its working nodes; a failed node is replaced by another.
    Others move only if their nodes are gone or to save another from being dropped. Raises BadDemand.
    """
    from .mender import Mender  # brings numba

    began = time.perf_counter()
    mender = Mender(plan, change, seed)
    first = mender.answer(began)
    limit = None if iterations is None else iterations // 2
    # Moving one more hurts less than dropping one even where moves count; but not nine of them.
    mender.improve(drop=8.0, until=began + seconds / 2, iterations=limit)
    moved = mender.answer(began)
    mender.improve(drop=1000.0, until=began + seconds, iterations=limit)
    kept = mender.answer(began)
    # Binding names can cost what the search had won; an earlier answer is then the better one.
    answers = (kept, moved, first)
    return Repair(
        first,
        min(answers, key=lambda one: 8 * len(one.drops) + len(one.moves)),
        min(answers, key=lambda one: (len(one.drops), len(one.moves))),
    )
