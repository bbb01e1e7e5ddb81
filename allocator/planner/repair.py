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
    """What has happened. capacity: nodes × slots as it is from now on. now: slot; what began before stays.

    told: bookings whose nodes' names are known to the cluster and to people: they keep them unless they lose
    one of them or make way in time.
    """

    now: int
    capacity: NDArray[np.int8] | None = None
    cancelled: tuple[int, ...] = ()
    told: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """saves: whose sake it is for where the booking itself lost nothing: back at its old start, the one saved
    would find no place in its window."""

    booking: int
    before: int
    after: int
    why: Why
    saves: int | None = None


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
    """first: the answer at once. The other two trade moves against drops; an operator chooses.

    fewest_moves touches only bookings that lost nodes, and drops one rather than move many; fewest_drops lets
    others make way too. They are the same where nothing is to be traded.
    """

    first: Variant
    fewest_moves: Variant
    fewest_drops: Variant


# Where moves count, moving one more still hurts less than dropping one; moving nine does not.
DROP_IN_MOVES = 8.0


def repair(
    plan: Plan, change: Change, *, seconds: float = 5.0, seed: int = 0, iterations: int | None = None
) -> Repair:
    """Eject what no longer fits and put it back elsewhere, then improve; half the seconds for each variant.

    A booking that has started or is pinned keeps its start and its working nodes; a failed node is replaced
    by another. Who lost nothing moves only to save another from being dropped (``Move.saves``), and is
    dropped only for one that has started. Raises BadDemand.
    """
    from .mender import Mender  # brings numba

    began = time.perf_counter()
    mender = Mender(plan, change, seed)
    first = mender.answer(began)
    limit = None if iterations is None else iterations // 2
    mender.improve(drop=DROP_IN_MOVES, others=False, until=began + seconds / 2, iterations=limit)
    moved = mender.answer(began)
    mender.improve(drop=1000.0, others=True, until=began + seconds, iterations=limit)
    kept = mender.answer(began)
    # Binding names can cost what the search had won; an earlier answer is then the better one.
    drops = min((kept, moved, first), key=lambda one: (len(one.drops), len(one.moves)))
    fewer = [one for one in (moved, first) if len(one.moves) < len(drops.moves)]
    return Repair(
        first,
        min(fewer, key=lambda one: DROP_IN_MOVES * len(one.drops) + len(one.moves), default=drops),
        drops,
    )
