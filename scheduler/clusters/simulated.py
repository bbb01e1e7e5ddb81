"""A cluster that is not there: the demonstration's, and the tests' where a real Slurm would be too slow.

It answers as Slurm would, moves on by its own clock, keeps everything in one SQLite file, and fails on
request in every way that was seen of a real one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from scheduler.clusters import simulated_engine as engine
from scheduler.clusters import simulated_reservations as windows
from scheduler.clusters.base import (
    OUR_PREFIX,
    Account,
    Capability,
    Health,
    InUse,
    JobUsage,
    Missing,
    Node,
    NodeState,
    Partition,
    Refused,
    Reservation,
    UsageReading,
)
from scheduler.clusters.names import (
    check_account,
    check_reservation,
    require_account,
    require_ours,
)
from scheduler.clusters.simulated_site import PARTITION, SimulatedSite
from scheduler.clusters.simulated_store import Fault, utc

VERSION = "simulated 25.11"


class SimulatedCluster(SimulatedSite):
    """The Cluster protocol and, besides it, what people at the cluster do: submit, requeue, break things.

    ``clock`` replaces the clock (tests); ``autopilot`` lets jobs appear by themselves in our reservations
    (the demonstration). Raises ValueError for settings without ``database``.
    """

    capabilities = frozenset({Capability.GPU_RESERVATIONS})

    # What Kezek asks

    def health(self) -> Health:
        with self._controller() as db:
            faults = self._faults(db)
            skew = timedelta(seconds=faults.get(Fault.CLOCK_SKEW, 0))
            # Running faster than real is this clock's nature, not a fault of it: only the fault counts as
            # skew.
            return Health(VERSION, utc(self._store.now(db)) + skew, skew, Fault.ACCOUNTING_DOWN not in faults)

    def nodes(self) -> list[Node]:
        with self._controller() as db:
            return [
                Node(row["name"], (row["partition"],), row["gpu_type"], row["gpus"], NodeState(row["state"]),
                     row["reason"], row["switch"])
                for row in db.execute(
                    "SELECT node.*, switch FROM node LEFT JOIN node_switch ON node = name ORDER BY name"
                )
            ]  # fmt: skip

    def partitions(self) -> list[Partition]:
        with self._controller() as db:
            rows = db.execute(
                "SELECT partition, COUNT(*) AS nodes FROM node GROUP BY partition ORDER BY partition"
            )
            return [Partition(row["partition"], row["nodes"], row["partition"] == PARTITION) for row in rows]

    def accounts(self) -> list[Account]:
        with self._accounting() as db:
            logins: dict[str, set[str]] = {}
            for row in db.execute("SELECT account, login FROM association"):
                logins.setdefault(row["account"], set()).add(row["login"])
            shares = {row["account"]: row["shares"] for row in db.execute("SELECT * FROM account_shares")}
            return [
                Account(
                    row["name"],
                    row["description"],
                    row["gpu_minutes"],
                    frozenset(logins.get(row["name"], ())),
                    shares.get(row["name"], 1),
                    row["gpus"],
                )
                for row in db.execute("SELECT * FROM account ORDER BY name")
                if row["name"].startswith(OUR_PREFIX)
            ]

    def save_accounts(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            check_account(self.slug, account)
        with self._accounting() as db:
            unknown = {row[0] for row in db.execute("SELECT login FROM unknown_login")}
            now = self._store.now(db)
            busy = _busy(db)
            kept = set()
            for account in accounts:
                if strangers := sorted(account.logins & unknown):
                    raise Refused.said(self.slug, f"{account.name}: unknown login {strangers[0]}")
                before = {row[0] for row in db.execute(_LOGINS, (account.name,))}
                staying = {login for login in before - account.logins if (account.name, login) in busy}
                self._save(db, replace(account, logins=account.logins | staying), now)
                kept |= {f"{login} in {account.name}" for login in staying}
        # Only now, when all else is saved: as with sacctmgr, one job does not keep the others waiting.
        if kept:
            raise InUse.said(self.slug, f"jobs are active: {', '.join(sorted(kept))}")

    def remove_accounts(self, names: Sequence[str]) -> None:
        names = [require_account(name) for name in names]
        with self._accounting() as db:
            used = {account for account, _ in _busy(db)} & set(names)
            db.executemany(
                "DELETE FROM account WHERE name = ?", [(name,) for name in names if name not in used]
            )
        if used:
            raise InUse.said(self.slug, f"jobs are active: {', '.join(sorted(used))}")

    def reservations(self) -> list[Reservation]:
        with self._controller() as db:
            return windows.read(db)

    def create_reservation(self, reservation: Reservation) -> None:
        check_reservation(self.slug, reservation)
        with self._controller() as db:
            now = self._store.now(db)
            windows.check(self.slug, db, reservation, now)
            self._put(db, reservation, now)
        self._answer(reservation)

    def update_reservation(self, reservation: Reservation) -> None:
        check_reservation(self.slug, reservation)
        with self._controller() as db:
            windows.check(self.slug, db, reservation, self._store.now(db), existing=True)
            self._put(db, reservation, self._store.now(db))
        self._answer(reservation)

    def _put(self, db: sqlite3.Connection, reservation: Reservation, now: int) -> None:
        missing = int(self._faults(db).get(Fault.UNDER_DELIVERY, 0))
        windows.remember_unsaved(db, reservation.name, self._store.real_now())
        windows.write(db, reservation, windows.fewer(db, reservation.nodes, missing))
        engine.catch_up(db, now, self._autopilot)

    def _answer(self, asked: Reservation) -> None:
        self._lose_answer()
        windows.compare(self.slug, asked, self.reservations())

    def delete_reservation(self, name: str) -> None:
        require_ours(name)
        with self._controller() as db:
            windows.require(self.slug, db, name)
            if db.execute(_LIVE_IN, (name,)).fetchone():
                raise InUse.said(self.slug, f"{name}: Requested reservation is in use")
            windows.remember_unsaved(db, name, self._store.real_now())
            db.execute("DELETE FROM reservation WHERE name = ?", (name,))
        self._lose_answer()

    def usage(self, since: datetime, until: datetime) -> UsageReading:
        with self._accounting() as db:
            now = self._store.now(db)
            rows = db.execute(
                """SELECT * FROM run WHERE gpus > 0 AND started_at < :until
                AND :since < :until
                AND (ended_at IS NULL OR ended_at > :since OR started_at >= :since) ORDER BY job_id,
                submitted_at""",
                {"since": since.timestamp(), "until": until.timestamp()},
            ).fetchall()
            unreadable = rows[: int(self._faults(db).get(Fault.GARBLED, 0))]
            # What cannot be read is missing from the jobs: counting it as anything would be a guess.
            jobs = [_usage_of(row, now) for row in rows[len(unreadable) :]]
            return UsageReading(
                jobs, len(unreadable), [f"{row['job_id']}|\x7f|garbled" for row in unreadable[:5]]
            )

    def cancel_jobs(self, reservation: str) -> int:
        require_ours(reservation)
        with self._controller() as db:
            live = db.execute(_LIVE_IN, (reservation,)).fetchall()
            for run in live:
                engine.stop_run(db, run, "CANCELLED", self._store.now(db), again=False)
            return len(live)

    # What others do on it

    def submit(
        self,
        login: str,
        account: str,
        gpus: int,
        nodes: int = 1,
        seconds: int = 3600,
        reservation: str | None = None,
        name: str = "job",
    ) -> int:
        """sbatch: ``gpus`` in all over ``nodes``, for ``seconds``; returns the job's id, raises Refused as
        Slurm."""
        with self._controller() as db:
            known = "SELECT 1 FROM association WHERE account = ? AND login = ?"
            if not db.execute(known, (account, login)).fetchone():
                raise Refused.said(self.slug, "Invalid account or account/partition combination specified")
            if reservation is not None:
                window = windows.require(self.slug, db, reservation)
                if account not in window["accounts"].split(","):
                    raise Refused.said(self.slug, "Access denied to requested reservation")
            now = self._store.now(db)
            job = engine.add_run(
                db, engine.Order(name, login, account, gpus, nodes, seconds, reservation), now
            )
            engine.catch_up(db, now, self._autopilot)
            return job

    def requeue(self, job_id: int) -> None:
        """scontrol requeue: the run ends as REQUEUED, another submission of the job waits. Raises Missing."""
        with self._controller() as db:
            run = _live_run(self.slug, db, job_id)
            engine.stop_run(db, run, "REQUEUED", self._store.now(db), again=True)

    def cancel(self, job_id: int) -> None:
        """scancel. Raises Missing."""
        with self._controller() as db:
            engine.stop_run(
                db, _live_run(self.slug, db, job_id), "CANCELLED", self._store.now(db), again=False
            )

    def jobs(self) -> list[tuple[JobUsage, str]]:
        """squeue and more: every run, waiting ones too, each with the reason why it waits."""
        with self._controller() as db:
            now = self._store.now(db)
            rows = db.execute("SELECT * FROM run ORDER BY job_id, submitted_at")
            return [(_usage_of(row, now), row["reason"]) for row in rows]


_LOGINS = "SELECT login FROM association WHERE account = ?"
_LIVE_IN = "SELECT * FROM run WHERE reservation = ? AND state IN ('PENDING', 'RUNNING')"


def _busy(db: sqlite3.Connection) -> set[tuple[str, str]]:
    rows = db.execute("SELECT DISTINCT account, login FROM run WHERE state IN ('PENDING', 'RUNNING')")
    return {(row["account"], row["login"]) for row in rows}


def _live_run(slug: str, db: sqlite3.Connection, job_id: int) -> sqlite3.Row:
    query = "SELECT * FROM run WHERE job_id = ? AND state IN ('PENDING', 'RUNNING')"
    run: sqlite3.Row | None = db.execute(query, (job_id,)).fetchone()
    if run is None:
        raise Missing.said(slug, f"Invalid job id specified: {job_id}")
    return run


def _usage_of(row: sqlite3.Row, now: int) -> JobUsage:
    started, ended = row["started_at"], row["ended_at"]
    elapsed = 0 if started is None else max(0, (now if ended is None else ended) - started)
    return JobUsage(
        job_id=row["job_id"],
        submitted_at=utc(row["submitted_at"]),
        login=row["login"],
        account=row["account"],
        state=row["state"],
        started_at=None if started is None else utc(started),
        ended_at=None if ended is None else utc(ended),
        elapsed_seconds=elapsed,
        gpus=row["gpus"],
        reservation=row["reservation"],
    )
