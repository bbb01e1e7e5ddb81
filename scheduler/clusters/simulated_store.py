"""The simulated cluster's file: tables, transactions, its clock and the faults it was told to have.

One SQLite file in WAL mode, a connection for each transaction: any number of threads and processes may use
the
same cluster, and a fault that one of them set is seen by all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS fault (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS node (
    name TEXT PRIMARY KEY, partition TEXT NOT NULL, gpu_type TEXT NOT NULL, gpus INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS node_switch (
    node TEXT PRIMARY KEY REFERENCES node ON DELETE CASCADE, switch TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY, description TEXT NOT NULL, gpu_minutes INTEGER, counted_from INTEGER NOT NULL,
    gpus INTEGER);
CREATE TABLE IF NOT EXISTS association (
    account TEXT NOT NULL REFERENCES account ON DELETE CASCADE, login TEXT NOT NULL,
    PRIMARY KEY (account, login));
CREATE TABLE IF NOT EXISTS account_shares (
    account TEXT PRIMARY KEY REFERENCES account ON DELETE CASCADE, shares INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS unknown_login (login TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS reservation (
    name TEXT PRIMARY KEY, starts_at INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    accounts TEXT NOT NULL, gpus_per_node INTEGER);
CREATE TABLE IF NOT EXISTS reservation_node (
    reservation TEXT NOT NULL REFERENCES reservation ON DELETE CASCADE, node TEXT NOT NULL,
    PRIMARY KEY (reservation, node));
CREATE INDEX IF NOT EXISTS reservation_of_node ON reservation_node (node);
CREATE TABLE IF NOT EXISTS maintenance (
    reservation TEXT PRIMARY KEY REFERENCES reservation ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS unsaved (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, name TEXT NOT NULL, before TEXT);
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, submitted_at INTEGER NOT NULL, name TEXT NOT NULL,
    login TEXT NOT NULL, account TEXT NOT NULL, nodes INTEGER NOT NULL, gpus INTEGER NOT NULL,
    seconds INTEGER NOT NULL, reservation TEXT, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    started_at INTEGER, planned_end INTEGER, ended_at INTEGER, UNIQUE (job_id, submitted_at));
CREATE INDEX IF NOT EXISTS run_live ON run (state) WHERE state IN ('PENDING', 'RUNNING');
CREATE INDEX IF NOT EXISTS run_ended ON run (ended_at);
CREATE INDEX IF NOT EXISTS run_account ON run (account);
CREATE TABLE IF NOT EXISTS run_node (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, node TEXT NOT NULL, gpus INTEGER NOT NULL,
    PRIMARY KEY (run, node));
"""


class Fault(StrEnum):
    """What the cluster can be told to do wrong until told otherwise; the value's meaning stands beside
    each."""

    CONTROLLER_DOWN = "controller_down"
    ACCOUNTING_DOWN = "accounting_down"
    CLOCK_SKEW = "clock_skew"  # seconds that the controller's clock is ahead
    SLOW = "slow"  # real seconds before every answer
    UNDER_DELIVERY = "under_delivery"  # nodes missing from every reservation that is made
    LOST_ANSWER = "lost_answer"  # what is asked is done, but the caller hears nothing: how many more times
    GARBLED = "garbled"  # accounting lines that cannot be read, in every reading


class Store:
    """Transactions and the clock. ``clock`` (tests) replaces the simulated clock, which runs ``speed`` ×
    real time."""

    def __init__(self, path: Path, speed: float, clock: Callable[[], datetime] | None) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as db:
            # WAL is a property of the file; asking again costs nothing and never waits for writers.
            db.execute("PRAGMA journal_mode = WAL")
        with self.transaction() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            self._set_speed(db, speed)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything that is done inside happens at once, or not at all when it raises."""
        with closing(self._connect()) as db:
            # IMMEDIATE: a reader that later writes would otherwise fail instead of waiting its turn.
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _set_speed(self, db: sqlite3.Connection, speed: float) -> None:
        real = self.real_now()
        known = _meta(db)
        if known.get("speed") == speed:
            return
        # Another speed goes on from the moment that the old one has reached: the clock never jumps.
        simulated = _simulated(known, real) if known else real
        db.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("speed", speed), ("real_epoch", real), ("simulated_epoch", simulated)],
        )

    def real_now(self) -> float:
        """This machine's clock (or the test's), in epoch seconds."""
        return (self._clock() if self._clock else datetime.now(UTC)).timestamp()

    def now(self, db: sqlite3.Connection) -> int:
        """The cluster's own time in whole epoch seconds, without the skew that a fault adds."""
        real = self.real_now()
        return int(real) if self._clock else int(_simulated(_meta(db), real))


def _meta(db: sqlite3.Connection) -> dict[str, float]:
    return {row["name"]: row["value"] for row in db.execute("SELECT name, value FROM meta")}


def _simulated(meta: dict[str, float], real: float) -> float:
    return meta["simulated_epoch"] + (real - meta["real_epoch"]) * meta["speed"]


def get_meta(db: sqlite3.Connection, name: str) -> float | None:
    """One remembered number, or None."""
    return _meta(db).get(name)


def set_meta(db: sqlite3.Connection, name: str, value: float) -> None:
    """Remember a number."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def utc(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)
