"""The search behind a repair."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .board import board_of, books_of, ground_of, guide_of, near_of
from .demand import GPUS_PER_NODE, Demand, Pin
from .kernels import mending
from .kernels.filling import Guide, new_memory
from .kernels.state import NOWHERE
from .mended import Mended, tell
from .plan import Plan
from .repair import Change, Variant, Why

BATCH = 200
HEAT = 0.3  # in moves
SMALLER = 0.15  # moves, for each time that a booking is half as large
WIDTH = 24  # slots a bucket
NEVER = 1e6  # in moves: whoever lost nothing is not dropped in another's place
UNTOUCHED = 1e3  # the same, where nobody else may be moved
OTHERS = 1.1  # what a move of somebody costs who lost nothing


class Mender:
    """A plan around a change: first what fits as it was, then the rest."""

    def __init__(self, plan: Plan, change: Change, seed: int) -> None:
        self.before, self.change = plan, change
        self.drops: dict[int, Why] = {}
        self.used = self._used()
        self.demand = self._remaining()
        self.books = books_of(self.demand)
        self.ground = ground_of(self.demand)
        self.board = board_of(self.demand, self.books, self.ground, seed)
        self.home = plan.start.astype(np.int32).copy()
        settled = {*self.demand.pinned, *self.drops, *self.over.tolist()}
        self.kept = np.array([j for j in np.flatnonzero(self.home >= 0) if j not in settled], np.int64)
        self.lost = self._lost()
        self.home_row = self._rows()
        self._restore()

    def _used(self) -> NDArray[np.int16]:
        """GPUs booked on each node at each slot, before the change."""
        plan = self.before
        used = np.zeros((plan.demand.nodes_total, plan.demand.slots), np.int16)
        for j in np.flatnonzero(plan.start >= 0).tolist():
            begin = int(plan.start[j])
            for node in plan.assigned[j]:
                used[node, begin : begin + int(plan.demand.duration[j])] += int(plan.demand.gpus[j])
        return used

    def _remaining(self) -> Demand:
        """What is left of the demand from now on; what has started or is pinned stays, for the time left."""
        plan, now = self.before, self.change.now
        demand = plan.demand
        for j in self.change.cancelled:
            self.drops[j] = Why.CANCELLED
        capacity = self.change.capacity if self.change.capacity is not None else demand.capacity
        if capacity is None:
            capacity = np.full((demand.nodes_total, demand.slots), GPUS_PER_NODE, np.int8)
        capacity = capacity.astype(np.int8)
        capacity[:, :now] = 0
        self.capacity = capacity
        duration, earliest = np.array(demand.duration), np.maximum(demand.earliest, now)
        end = plan.start + duration
        over = (plan.start >= 0) & (end <= now)
        started = (plan.start >= 0) & (plan.start < now) & (end > now)
        duration[started] = end[started] - now
        self.over = np.flatnonzero(over)
        tied = {int(j): now for j in np.flatnonzero(started)}
        tied |= {j: pin.start for j, pin in demand.pinned.items() if plan.start[j] >= now}
        pinned = self._pin({j: at for j, at in tied.items() if j not in self.drops}, duration, started)
        return replace(demand, capacity=capacity, duration=duration, earliest=earliest, pinned=pinned)

    def _pin(
        self, tied: dict[int, int], duration: NDArray[np.int64], started: NDArray[np.bool_]
    ) -> dict[int, Pin]:
        """Those that keep their start: on their own nodes, others taking the place of those that are gone."""
        left, gpus = self.capacity.copy(), self.before.demand.gpus
        pinned: dict[int, Pin] = {}
        lame = []
        for j, at in sorted(tied.items()):
            span = slice(at, at + int(duration[j]))
            names = self.before.assigned[j]
            whole = [node for node in names if left[node, span].min() >= gpus[j]]
            left[whole, span] -= np.int8(gpus[j])
            if len(whole) == len(names):
                pinned[j] = Pin(at, tuple(names))
            else:
                lame.append((j, at, span, whole))
        self.replaced = []
        for j, at, span, whole in lame:
            able = [
                n for n in np.flatnonzero(left[:, span].min(axis=1) >= gpus[j]).tolist() if n not in whole
            ]
            # A node that nobody has booked; else the fullest that will do: an empty one may be wanted whole.
            able.sort(key=lambda node: (int(self.used[node, span].max()), int(left[node, span].sum())))
            missing = int(self.before.demand.nodes[j]) - len(whole)
            if len(able) < missing:
                left[whole, span] += np.int8(gpus[j])
                self.drops[j] = Why.INTERRUPTED if started[j] else Why.NODES_GONE
                continue
            left[able[:missing], span] -= np.int8(gpus[j])
            pinned[j] = Pin(at, (*whole, *able[:missing]))
            self.replaced.append(j)
        return pinned

    def _lost(self) -> NDArray[np.bool_]:
        """Whether some of a booking's own nodes can no longer carry all that was booked there in its time."""
        short = self.used > self.capacity
        lost = np.zeros(len(self.demand), np.bool_)
        for j in self.kept.tolist():
            span = slice(int(self.home[j]), int(self.home[j] + self.books.duration[j]))
            lost[j] = any(short[node, span].any() for node in self.before.assigned[j])
        return lost

    def _rows(self) -> NDArray[np.int32]:
        """Parts that shared a node share a row: the node's own if it is tied to one."""
        nodes = self.demand.nodes_total
        row_of = np.full(nodes, NOWHERE, np.int32)
        tied = self.ground.tied
        row_of[tied[tied >= 0]] = np.flatnonzero(tied >= 0)
        others = np.flatnonzero(row_of < 0)
        row_of[others] = np.arange(nodes - len(others), nodes)
        rows = np.full(len(self.demand), NOWHERE, np.int32)
        for j in self.kept.tolist():
            if self.demand.gpus[j] < GPUS_PER_NODE:
                rows[j] = row_of[self.before.assigned[j][0]]
        return rows

    def _restore(self) -> None:
        """Everything where it was, then what is too much out, and in again where it can be."""
        books, count = self.books, len(self.demand)
        # Those who only wait are no part of a repair: they are in no bucket.
        absent = np.setdiff1d(np.arange(count), self.kept)
        self.near = near_of(self.demand, books, self.board.start, WIDTH, leave_out=absent)
        self.guide: Guide = guide_of(books, np.ones(self.demand.slots))
        # Each booking counts once, whatever its size: those go that free most for one; and only those that
        # have lost something, as long as that is enough.
        self.even = books._replace(value=np.where(self.lost, 1.0, NEVER))
        self.memory = new_memory(books)
        size = books.nodes[self.kept].astype(np.int64) * books.duration[self.kept]
        order = self.kept[np.argsort(-size, kind="stable")]
        mending.restore(
            self.even, self.board, self.near, self.guide, self.memory, self.home, self.home_row,
            self.kept, order,
        )  # fmt: skip

    def improve(self, *, drop: float, others: bool, until: float, iterations: int | None) -> None:
        """Fewer moves and drops; a drop costs as much as so many moves. others: may they make way?"""
        size = self.books.nodes.astype(np.float64) * self.books.duration
        # Who is small finds a place sooner: of two that may be out it had better be the one that waits.
        out = drop + SMALLER * np.log2(size)
        dropped = np.zeros(len(self.demand))
        dropped[self.kept] = np.where(self.lost, out, NEVER)[self.kept]
        moved = np.where(self.lost, 1.0, OTHERS if others else UNTOUCHED)
        self.even = self.even._replace(value=moved)
        away, spot = np.empty(len(self.demand), np.int32), np.empty(len(self.demand), np.int32)
        board, done = self.board, 0
        cost, best = 0.0, 0.0
        start, row = board.start.copy(), board.row.copy()
        while time.perf_counter() < until if iterations is None else done < iterations:
            cost, best = mending.mend(
                self.even, board, self.near, self.guide, self.memory, self.home, self.home_row, dropped,
                moved, self.lost, BATCH, HEAT, away, spot, cost, best, start, row,
            )  # fmt: skip
            done += BATCH
            if (board.start[self.kept] == self.home[self.kept]).all():
                break
        mending.go_back(self.even, self.board, self.near, self.memory, start, row)

    def _send_home(self) -> dict[int, int]:
        """Whoever lost nothing goes home, or is kept away for one that would then find no place: that one."""
        while True:
            saves: dict[int, int] = {}
            start = self.board.start
            for j in self.kept[(start[self.kept] != self.home[self.kept]) & ~self.lost[self.kept]].tolist():
                if start[j] < 0:
                    continue
                whom = mending.go_home(
                    self.even, self.board, self.near, self.memory, self.home, self.home_row, self.lost,
                    self.guide.total, j,
                )  # fmt: skip
                if whom == -2:
                    # There may be room for others to go home now.
                    saves = {}
                    break
                saves[j] = whom
            else:
                return saves

    def answer(self, began: float) -> Variant:
        """The board as a plan with names, and what has changed against the old one."""
        saves = self._send_home()
        mended = Mended(
            self.before, self.change, self.demand, self.books, self.board, self.ground, self.lost,
            self.over, self.drops, self.replaced, saves,
        )  # fmt: skip
        return tell(mended, time.perf_counter() - began)
