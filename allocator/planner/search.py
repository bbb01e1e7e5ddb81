"""The search behind a plan: batches of turns at falling heat, then names for the nodes."""

from __future__ import annotations

import time

import numpy as np

from .binding import bind, rescue
from .board import board_of, books_of, ground_of, guide_of, near_of
from .bound import dual
from .demand import Demand
from .kernels import placing
from .kernels.filling import new_memory
from .kernels.improving import Knobs, improve
from .plan import Moment, Plan

# Heat as a part of what a booking brings on average, at the start and at the end. The more turns there are
# for each booking, the hotter the search can afford to begin: measured, .03 with one turn, .4 with forty.
WARM, HOTTEST, COLDEST, RISE = 0.03, 0.8, 0.001, 0.7
FIRST = 100  # turns of the first batch, which shows how fast turns are here
BATCH = 2000
WIDTH = 24  # slots a bucket
KNOBS = Knobs(10, 8, 2, 8)


class Search:
    """One run over one demand."""

    def __init__(self, demand: Demand, seed: int) -> None:
        self.began = time.perf_counter()
        self.demand = demand
        self.books = books_of(demand)
        self.ground = ground_of(demand)
        self.board = board_of(demand, self.books, self.ground, seed)
        self.bound = dual(demand, self.books, self.ground)
        self.guide = guide_of(self.books, self.bound.price)
        self.memory = new_memory(self.books)
        self.history: list[Moment] = []
        self.iterations = 0

    def run(self, *, seconds: float, iterations: int | None) -> Plan:
        self._start()
        # What a booking brings to a plan on average; where far too much is asked, far less than its value.
        mean = self.bound.value / max(1, len(self.demand))
        while len(self.demand):
            past = time.perf_counter() - self.began
            done = self._done(past, seconds, iterations)
            if done >= 1:
                break
            turns = BATCH if self.iterations else FIRST
            if iterations is not None:
                turns = min(turns, iterations - self.iterations)
            hot = self._heat(iterations or self._expected(past, seconds))
            self._batch(mean * hot * (COLDEST / hot) ** done, turns)
        return self._finish()

    def _done(self, past: float, seconds: float, iterations: int | None) -> float:
        """The part of the search that lies behind."""
        if iterations is not None:
            return self.iterations / iterations if iterations else 1.0
        return (past - self.ready) / (seconds - self.ready) if past < seconds else 1.0

    def _expected(self, past: float, seconds: float) -> float:
        """How many turns there will be, going by those so far; a busy machine makes fewer."""
        if not self.iterations:
            return len(self.demand)
        return self.iterations * float(seconds - self.ready) / (past - self.ready)

    def _heat(self, expected: float) -> float:
        """The heat to begin with."""
        return float(min(HOTTEST, WARM * max(1.0, expected / len(self.demand)) ** RISE))

    def _start(self) -> None:
        for j, pin in self.demand.pinned.items():
            if pin.nodes:
                self.board.start[j] = pin.start
        value = float(self.books.value[self.board.start >= 0].sum())
        possible = np.flatnonzero((self.board.start < 0) & (self.books.last >= self.books.earliest))
        # What gains most over its price first: it is the hardest to fit in later.
        wish = self.guide.gain[possible] + 0.01 * self.books.value[possible]
        order = possible[np.argsort(-wish, kind="stable")].astype(np.int32)
        value += placing.insert_all(self.books, self.board, order, placing.CHEAPEST, self.guide.total)
        self.near = near_of(self.demand, self.books, self.board.start, WIDTH)
        self.value = self.best = value
        self.best_start, self.best_row = self.board.start.copy(), self.board.row.copy()
        self.ready = time.perf_counter() - self.began
        self._note()

    def _batch(self, heat: float, turns: int) -> None:
        before = self.best
        self.value, self.best = improve(
            self.books, self.board, self.near, self.guide, KNOBS, self.memory, max(heat, 1e-9), turns,
            self.value, self.best, self.best_start, self.best_row,
        )  # fmt: skip
        self.iterations += turns
        if self.best > before:
            self._note()

    def _note(self) -> None:
        self.history.append(Moment(time.perf_counter() - self.began, self.iterations, self.best))

    def _finish(self) -> Plan:
        board = self.board._replace(start=self.best_start, row=self.best_row)
        assigned, unbound = bind(self.demand, self.books, board, self.ground)
        rescue(self.demand, self.books, board, assigned, unbound)
        start = board.start.copy()
        value = float(self.books.value[start >= 0].sum())
        return Plan(
            start,
            assigned,
            value,
            self.bound.value,
            self.bound.price,
            tuple(self.history),
            self.iterations,
            self.demand,
        )
