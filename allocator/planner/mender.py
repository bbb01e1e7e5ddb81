"""The search behind a repair."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .binding import bind, rescue, stay
from .board import board_of, books_of, ground_of, guide_of, near_of
from .calendar import Calendar
from .demand import GPUS_PER_NODE, Demand, Pin
from .kernels import mending
from .kernels.filling import Guide, bring, new_memory, send
from .kernels.state import NOWHERE, put
from .plan import Plan
from .repair import Change, Drop, Move, Variant, Why

BATCH = 200
HEAT = 0.3  # in moves


class Mender:
    """A plan around a change: first what fits as it was, then the rest."""

    def __init__(self, plan: Plan, change: Change, seed: int) -> None:
        self.before, self.change = plan, change
        self.drops: dict[int, Why] = {}
        self.demand = self._remaining()
        self.books = books_of(self.demand)
        self.ground = ground_of(self.demand)
        self.board = board_of(self.demand, self.books, self.ground, seed)
        self.home = plan.start.astype(np.int32).copy()
        settled = {*self.demand.pinned, *self.drops, *self.over.tolist()}
        self.kept = np.array([j for j in np.flatnonzero(self.home >= 0) if j not in settled], np.int64)
        self.home_row = self._rows()
        self._restore()

    def _remaining(self) -> Demand:
        """What is left of the demand from now on: started bookings pinned, for the rest of their time."""
        plan, now = self.before, self.change.now
        demand = plan.demand
        for j in self.change.cancelled:
            self.drops[j] = Why.CANCELLED
        capacity = self.change.capacity if self.change.capacity is not None else demand.capacity
        if capacity is None:
            capacity = np.full((demand.nodes_total, demand.slots), GPUS_PER_NODE, np.int8)
        capacity = capacity.astype(np.int8)
        capacity[:, :now] = 0
        duration, earliest = np.array(demand.duration), np.maximum(demand.earliest, now)
        end = plan.start + duration
        over = (plan.start >= 0) & (end <= now)
        started = (plan.start >= 0) & (plan.start < now) & (end > now)
        duration[started] = end[started] - now
        left = capacity.copy()
        pinned = self._pin_started(np.flatnonzero(started), duration, left)
        for j, pin in demand.pinned.items():
            if j not in self.drops and not over[j] and not started[j] and pin.start >= now:
                self._pin_again(j, pin, left, pinned)
        self.over = np.flatnonzero(over)
        return replace(demand, capacity=capacity, duration=duration, earliest=earliest, pinned=pinned)

    def _pin_started(
        self, started: NDArray[np.int64], duration: NDArray[np.int64], left: NDArray[np.int8]
    ) -> dict[int, Pin]:
        demand, now = self.before.demand, self.change.now
        pinned: dict[int, Pin] = {}
        lame = []
        for j in started.tolist():
            if j in self.drops:
                continue
            span = slice(now, now + int(duration[j]))
            names = self.before.assigned[j]
            whole = [node for node in names if left[node, span].min() >= demand.gpus[j]]
            left[whole, span] -= np.int8(demand.gpus[j])
            if len(whole) == len(names):
                pinned[j] = Pin(now, tuple(names))
            else:
                lame.append((j, span, whole))
        for j, span, whole in lame:
            able = [
                n
                for n in np.flatnonzero(left[:, span].min(axis=1) >= demand.gpus[j]).tolist()
                if n not in whole
            ]
            # The fullest that will do; an empty node may be wanted whole.
            able.sort(key=lambda node: int(left[node, span].sum()))
            missing = int(demand.nodes[j]) - len(whole)
            if len(able) < missing:
                left[whole, span] += np.int8(demand.gpus[j])
                self.drops[j] = Why.INTERRUPTED
                continue
            left[able[:missing], span] -= np.int8(demand.gpus[j])
            pinned[j] = Pin(now, (*whole, *able[:missing]))
        return pinned

    def _pin_again(self, j: int, pin: Pin, left: NDArray[np.int8], pinned: dict[int, Pin]) -> None:
        """A pin by an operator holds unless its nodes are gone; then the booking is like any other."""
        demand = self.before.demand
        span = slice(pin.start, pin.start + int(demand.duration[j]))
        nodes = list(pin.nodes)
        if not nodes or left[nodes, span].min() < demand.gpus[j]:
            return
        left[nodes, span] -= np.int8(demand.gpus[j])
        pinned[j] = pin

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
        books, board = self.books, self.board
        for j in self.kept.tolist():
            put(books, board, j, int(self.home[j]), int(self.home_row[j]))
        count = len(self.demand)
        # Those who only wait are no part of a repair: they are in no bucket.
        absent = np.setdiff1d(np.arange(count), self.kept)
        self.near = near_of(self.demand, books, board.start, 24, leave_out=absent)
        flat = np.ones(self.demand.slots)
        self.guide: Guide = guide_of(books, flat)
        # Each booking counts once, whatever its size: those go that free most for one.
        self.even = books._replace(value=np.ones(count))
        self.memory = new_memory(books)
        mending.relieve(self.even, board, self.near, self.guide, self.memory)
        self.displaced = {int(j) for j in self.kept if board.start[j] < 0}
        order = sorted(self.displaced, key=lambda j: -int(books.nodes[j]) * int(books.duration[j]))
        for j in order:
            self.memory.tally[:] = 0, self.memory.tally[1] + 1
            mending.settle(
                self.even, board, self.near, self.memory, j, self.home, self.home_row, self.guide.total
            )

    def improve(self, *, drop: float, until: float, iterations: int | None) -> None:
        """Fewer moves and drops; a drop costs as much as so many moves."""
        dropped = np.zeros(len(self.demand))
        dropped[self.kept] = drop
        away = np.empty(len(self.demand), np.int32)
        cost, best, done = 0.0, 0.0, 0
        start, row = self.board.start.copy(), self.board.row.copy()
        while time.perf_counter() < until if iterations is None else done < iterations:
            cost += mending.mend(
                self.even, self.board, self.near, self.guide, self.memory, self.home, self.home_row,
                dropped, 1.0, True, BATCH, HEAT, away,
            )  # fmt: skip
            done += BATCH
            if cost < best - 1e-9:
                best = cost
                start, row = self.board.start.copy(), self.board.row.copy()
            if not (self.board.start[self.kept] != self.home[self.kept]).any():
                break
        self._go_back(start, row)

    def _go_back(self, start: NDArray[np.int32], row: NDArray[np.int32]) -> None:
        """The best board again."""
        other = np.flatnonzero((self.board.start != start) | (self.board.row != row))
        self.memory.tally[:] = 0, self.memory.tally[1] + 1
        for j in other.tolist():
            if self.board.start[j] >= 0:
                send(self.even, self.board, self.near, self.memory, j)
        for j in other.tolist():
            if start[j] >= 0:
                bring(self.even, self.board, self.near, self.memory, j, int(start[j]), int(row[j]))

    def answer(self, began: float) -> Variant:
        """The board as a plan with names, and what has changed against the old one."""
        board = self.board._replace(
            start=self.board.start.copy(), row=self.board.row.copy(), room=self.board.room.copy(),
            free=self.board.free.copy(),
        )  # fmt: skip
        for j, pin in self.demand.pinned.items():
            board.start[j] = pin.start
        assigned, unbound = stay(self.demand, self.books, board, self.before)
        if unbound:
            # Names must change hands: colour all anew, but let who can keep what it had.
            other, fewer = bind(self.demand, self.books, board, self.ground, self.before.assigned)
            if len(fewer) < len(unbound):
                assigned, unbound = other, fewer
            rescue(self.demand, self.books, board, assigned, unbound)
        start = board.start.copy()
        old = self.before
        for j in self.demand.pinned:
            start[j] = old.start[j]
        for j in self.over.tolist():
            start[j], assigned[j] = old.start[j], old.assigned[j]
        moves = tuple(
            Move(int(j), int(old.start[j]), int(start[j]), self._why(int(j)))
            for j in np.flatnonzero((old.start >= 0) & (start >= 0) & (start != old.start))
        )
        ground = Calendar(self.demand.nodes_total, self.demand.slots, self.ground.base)
        drops = tuple(
            Drop(int(j), int(old.start[j]), self.drops.get(int(j)) or self._why_dropped(int(j), ground))
            for j in np.flatnonzero((old.start >= 0) & (start < 0))
        )
        renamed = tuple(
            int(j)
            for j in np.flatnonzero((start >= 0) & (start == old.start))
            if sorted(assigned[j]) != sorted(old.assigned[j])
        )
        value = float(old.demand.value[start >= 0].sum())
        capacity = self.change.capacity if self.change.capacity is not None else old.demand.capacity
        demand = replace(old.demand, capacity=capacity, pinned={})
        plan = Plan(
            start, assigned, value, max(value, old.bound), old.price, (), 0, demand
        )  # fmt: skip
        return Variant(plan, moves, drops, renamed, time.perf_counter() - began)

    def _why_dropped(self, j: int, ground: Calendar) -> Why:
        """ground: what is left if nobody but the started were there."""
        books = self.books
        end = int(books.last[j] + books.duration[j])
        opening = ground.earliest(
            int(books.nodes[j]), int(books.gpus[j]), int(books.duration[j]), int(books.earliest[j]), end
        )
        return self._why(j) if opening else Why.WINDOW_GONE

    def _why(self, j: int) -> Why:
        return Why.NODES_GONE if j in self.displaced else Why.MADE_WAY
