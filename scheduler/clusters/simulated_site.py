"""The inside of the simulated cluster: how it answers, and all that can be made to go wrong with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from config.settings import ClusterSettings
from scheduler.clusters import simulated_engine as engine
from scheduler.clusters import simulated_reservations as windows
from scheduler.clusters.base import Account, Missing, NodeState, Reservation, Unreachable
from scheduler.clusters.names import plain_text
from scheduler.clusters.simulated_store import Fault, Store, utc

PARTITION = "gpu"


class SimulatedSite:
    """What SimulatedCluster stands on. Faults and what people do by hand are seen by every process."""

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        clock: Callable[[], datetime] | None = None,
        autopilot: bool = False,
    ) -> None:
        if settings.database is None:
            raise ValueError(f"cluster {settings.slug}: the simulated adapter needs a database file")
        self.slug = settings.slug
        self._settings = settings
        self._autopilot = autopilot
        self._store = Store(Path(settings.database), settings.speed, clock)
        with self._store.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO node VALUES (?, ?, ?, ?, 'up', '')",
                [
                    (f"gpu{number:04}", PARTITION, settings.gpu_type, settings.gpus)
                    for number in range(1, settings.nodes + 1)
                ],
            )

    def now(self) -> datetime:
        """The cluster's own time, without skew."""
        with self._store.transaction() as db:
            return utc(self._store.now(db))

    # What goes wrong

    def set_fault(self, fault: Fault, value: float = 1) -> None:
        """From now on, for every process; see Fault for what ``value`` means."""
        with self._store.transaction() as db:
            db.execute("INSERT OR REPLACE INTO fault VALUES (?, ?)", (fault, value))

    def clear_faults(self, *faults: Fault) -> None:
        """Those, or all when none is named."""
        with self._store.transaction() as db:
            db.executemany("DELETE FROM fault WHERE name = ?", [(fault,) for fault in faults or Fault])

    def crash(self, lose_recent_seconds: float = 3) -> None:
        """The controller dies and comes back; changes of reservations in its last (real) seconds were
        never saved."""
        with self._store.transaction() as db:
            windows.forget_unsaved(db, self._store.real_now() - lose_recent_seconds)

    def set_node(self, name: str, state: NodeState, reason: str = "") -> None:
        """A node is drained, comes back, or fails: then its jobs end as NODE_FAIL and are queued again."""
        with self._controller() as db:
            changed = db.execute(
                "UPDATE node SET state = ?, reason = ? WHERE name = ?", (state, reason, name)
            )
            if not changed.rowcount:
                raise Missing.said(self.slug, f"no node {name}")
            if state is NodeState.DOWN:
                hit = (
                    "SELECT run.* FROM run JOIN run_node ON run = run.id WHERE node = ? AND state = 'RUNNING'"
                )
                for run in db.execute(hit, (name,)).fetchall():
                    engine.stop_run(db, run, "NODE_FAIL", self._store.now(db), again=True)

    def set_switches(self, leaves: Mapping[str, Sequence[str]]) -> None:
        """The cluster's topology: the nodes under each leaf switch; none at all until this is called."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM node_switch")
            db.executemany(
                "INSERT INTO node_switch VALUES (?, ?)",
                [(node, leaf) for leaf, nodes in leaves.items() for node in nodes],
            )

    def set_unknown_logins(self, logins: Sequence[str]) -> None:
        """Logins that the cluster's accounting does not know: save_accounts refuses them."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM unknown_login")
            db.executemany("INSERT OR IGNORE INTO unknown_login VALUES (?)", [(login,) for login in logins])

    def put_by_hand(self, reservation: Reservation) -> None:
        """Somebody at the cluster makes or changes any reservation, ours or not, without being asked
        anything."""
        with self._store.transaction() as db:
            windows.write(db, reservation, reservation.nodes)

    def put_account_by_hand(self, account: Account) -> None:
        """Somebody at the cluster makes or changes an account: its limit, its logins."""
        with self._store.transaction() as db:
            self._save(db, account, self._store.now(db))

    def delete_by_hand(self, name: str) -> None:
        """Somebody deletes any reservation; its jobs go on."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM reservation WHERE name = ?", (name,))

    def _save(self, db: sqlite3.Connection, account: Account, now: int) -> None:
        db.execute(
            """INSERT INTO account VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE
            SET description = excluded.description, gpu_minutes = excluded.gpu_minutes,
            gpus = excluded.gpus""",
            (
                account.name,
                plain_text(account.description) or account.name,
                account.gpu_minutes,
                now,
                account.gpus,
            ),
        )
        db.execute("DELETE FROM association WHERE account = ?", (account.name,))
        db.executemany(
            "INSERT INTO association VALUES (?, ?)",
            [(account.name, login) for login in sorted(account.logins)],
        )
        if account.shares is not None:
            db.execute("INSERT OR REPLACE INTO account_shares VALUES (?, ?)", (account.name, account.shares))

    # How it answers

    @contextmanager
    def _controller(self) -> Iterator[sqlite3.Connection]:
        self._be_slow()
        with self._store.transaction() as db:
            if Fault.CONTROLLER_DOWN in self._faults(db):
                raise Unreachable.said(self.slug, "Slurmctld(primary) is DOWN")
            engine.catch_up(db, self._store.now(db), self._autopilot)
            yield db

    @contextmanager
    def _accounting(self) -> Iterator[sqlite3.Connection]:
        self._be_slow()
        with self._store.transaction() as db:
            faults = self._faults(db)
            if Fault.ACCOUNTING_DOWN in faults:
                raise Unreachable.said(self.slug, "slurmdbd: Connection refused")
            # A dead controller runs nothing: time passes there once it is back.
            if Fault.CONTROLLER_DOWN not in faults:
                engine.catch_up(db, self._store.now(db), self._autopilot)
            yield db

    def _be_slow(self) -> None:
        with self._store.transaction() as db:
            seconds = self._faults(db).get(Fault.SLOW, 0)
        time.sleep(min(seconds, self._settings.timeout))
        if seconds > self._settings.timeout:
            raise Unreachable.said(self.slug, f"no answer within {self._settings.timeout} s")

    def _lose_answer(self) -> None:
        with self._store.transaction() as db:
            left = self._faults(db).get(Fault.LOST_ANSWER, 0)
            db.execute("UPDATE fault SET value = value - 1 WHERE name = ?", (Fault.LOST_ANSWER,))
            db.execute("DELETE FROM fault WHERE name = ? AND value <= 0", (Fault.LOST_ANSWER,))
        if left > 0:
            raise Unreachable.said(self.slug, "the connection broke before the answer came")

    @staticmethod
    def _faults(db: sqlite3.Connection) -> dict[Fault, float]:
        return {Fault(row["name"]): row["value"] for row in db.execute("SELECT name, value FROM fault")}
