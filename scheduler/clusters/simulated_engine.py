"""How the simulated cluster moves on: jobs start, end and are limited, reservations begin and go, as Slurm
does it.

Nothing runs in the background. Whoever asks the cluster anything first lets it catch up, event after
event, to
the present of its clock; the outcome is the same however rarely somebody asks.
"""

from __future__ import annotations

import sqlite3
import zlib
from dataclasses import dataclass

from scheduler.clusters.base import OUR_PREFIX, NodeState
from scheduler.clusters.simulated_store import get_meta, set_meta

JOB_NAMES = ("pretrain-kk-7b", "finetune-asr", "eval-suite", "weather-ens", "md-protein", "vision-distill")


def catch_up(db: sqlite3.Connection, now: int, autopilot: bool) -> None:
    """Let everything happen that is due until ``now``, in order."""
    at = int(get_meta(db, "reached") or now)
    while True:
        _settle(db, at, autopilot)
        following = _next_event(db, at)
        if following is None or following > now:
            break
        at = following
    if at < now:
        _settle(db, now, autopilot)
    set_meta(db, "reached", max(at, now))


def _next_event(db: sqlite3.Connection, at: int) -> int | None:
    row = db.execute(
        """SELECT MIN(due) FROM (
            SELECT MIN(planned_end) AS due FROM run WHERE state = 'RUNNING' AND planned_end > :at
            UNION ALL SELECT MIN(starts_at) FROM reservation WHERE starts_at > :at
            UNION ALL SELECT MIN(ends_at) FROM reservation WHERE ends_at > :at)""",
        {"at": at},
    ).fetchone()
    return None if row[0] is None else int(row[0])


def _settle(db: sqlite3.Connection, at: int, autopilot: bool) -> None:
    # A job cut by its reservation's end is a TIMEOUT, as with Slurm's ResvOverRun=0.
    db.execute(
        """UPDATE run SET ended_at = planned_end,
            state = CASE WHEN planned_end < started_at + seconds THEN 'TIMEOUT' ELSE 'COMPLETED' END
        WHERE state = 'RUNNING' AND planned_end <= ?""",
        (at,),
    )
    db.execute("DELETE FROM reservation WHERE ends_at <= ?", (at,))
    if autopilot:
        _submit_by_itself(db, at)
    for run in db.execute("SELECT * FROM run WHERE state = 'PENDING' ORDER BY job_id").fetchall():
        reason = _try_start(db, run, at)
        if reason:
            db.execute("UPDATE run SET reason = ? WHERE id = ?", (reason, run["id"]))


@dataclass(frozen=True)
class Order:
    """A job as it is submitted: ``gpus`` in all, spread evenly over ``nodes``."""

    name: str
    login: str
    account: str
    gpus: int
    nodes: int
    seconds: int
    reservation: str | None


def add_run(db: sqlite3.Connection, order: Order, at: int, job_id: int | None = None) -> int:
    """Queue a run; a ``job_id`` that is given makes it another run of that job. Returns the job's id."""
    if job_id is None:
        job_id = int(db.execute("SELECT COALESCE(MAX(job_id), 0) + 1 FROM run").fetchone()[0])
    last = db.execute("SELECT MAX(submitted_at) FROM run WHERE job_id = ?", (job_id,)).fetchone()[0]
    # (job, submission) tells runs apart, also when two fall into one second.
    submitted = at if last is None else max(at, int(last) + 1)
    db.execute(
        """INSERT INTO run (job_id, submitted_at, name, login, account, nodes, gpus, seconds, reservation,
        state)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'PENDING')""",
        (job_id, submitted, order.name, order.login, order.account, order.nodes, order.gpus, order.seconds,
         order.reservation),
    )  # fmt: skip
    return job_id


def stop_run(db: sqlite3.Connection, run: sqlite3.Row, state: str, at: int, again: bool) -> None:
    """End a run in ``state``; ``again`` queues the job anew, as Slurm does when it requeues."""
    db.execute("UPDATE run SET state = ?, ended_at = ?, reason = '' WHERE id = ?", (state, at, run["id"]))
    if again:
        order = Order(run["name"], run["login"], run["account"], run["gpus"], run["nodes"], run["seconds"],
                      run["reservation"])  # fmt: skip
        add_run(db, order, at, run["job_id"])


def _try_start(db: sqlite3.Connection, run: sqlite3.Row, at: int) -> str | None:
    """Start the run, or say in Slurm's words why it waits."""
    ends_at = at + int(run["seconds"])
    if run["reservation"]:
        window = db.execute("SELECT * FROM reservation WHERE name = ?", (run["reservation"],)).fetchone()
        if window is None:
            return "ReservationDeleted"
        if at < window["starts_at"]:
            return "Reservation"
        ends_at = min(ends_at, int(window["ends_at"]))
        free = _free_in_reservation(db, window)
    else:
        free = _free_outside(db, at, ends_at)
    if left_seconds(db, run["account"], at) < run["gpus"] * (ends_at - at):
        return "QOSGrpGRESMinutes"
    if _free_of_limit(db, run["account"]) < run["gpus"]:
        return "QOSGrpGRES"
    each = -(-int(run["gpus"]) // int(run["nodes"]))
    chosen = [name for name, gpus in free.items() if gpus >= each][: run["nodes"]]
    if len(chosen) < run["nodes"]:
        return "Resources"
    db.execute(
        "UPDATE run SET state = 'RUNNING', reason = '', started_at = ?, planned_end = ? WHERE id = ?",
        (at, ends_at, run["id"]),
    )
    db.executemany("INSERT INTO run_node VALUES (?, ?, ?)", [(run["id"], name, each) for name in chosen])
    return None


def _busy(db: sqlite3.Connection, reservation: str | None = None) -> dict[str, int]:
    rows = db.execute(
        """SELECT node, SUM(run_node.gpus) AS busy FROM run_node JOIN run ON run.id = run_node.run
        WHERE run.state = 'RUNNING' AND (:name IS NULL OR run.reservation = :name) GROUP BY node""",
        {"name": reservation},
    )
    return {row["node"]: row["busy"] for row in rows}


def _up(db: sqlite3.Connection) -> dict[str, int]:
    rows = db.execute("SELECT name, gpus FROM node WHERE state = ? ORDER BY name", (NodeState.UP,))
    return {row["name"]: row["gpus"] for row in rows}


def _free_in_reservation(db: sqlite3.Connection, window: sqlite3.Row) -> dict[str, int]:
    up, busy, ours = _up(db), _busy(db), _busy(db, window["name"])
    closed = {
        row["node"]
        for row in db.execute(
            """SELECT node FROM maintenance JOIN reservation_node USING (reservation)
            JOIN reservation ON name = reservation
            WHERE name <> ? AND starts_at < ? AND ends_at > ?""",
            (window["name"], window["ends_at"], window["starts_at"]),
        )
    }
    free = {}
    for (name,) in db.execute(
        "SELECT node FROM reservation_node WHERE reservation = ? ORDER BY node", (window["name"],)
    ):
        if name in up and name not in closed:
            share = up[name] if window["gpus_per_node"] is None else int(window["gpus_per_node"])
            free[name] = min(share - ours.get(name, 0), up[name] - busy.get(name, 0))
    return free


def _free_outside(db: sqlite3.Connection, starts_at: int, ends_at: int) -> dict[str, int]:
    """GPUs that no job has and that no reservation needs before the job would be over."""
    rows = db.execute(
        """SELECT node, SUM(COALESCE(gpus_per_node, 1000000)) AS held FROM reservation_node
        JOIN reservation ON reservation.name = reservation_node.reservation
        WHERE starts_at < ? AND ends_at > ? GROUP BY node""",
        (ends_at, starts_at),
    )
    held = {row["node"]: row["held"] for row in rows}
    busy = _busy(db)
    return {name: gpus - busy.get(name, 0) - held.get(name, 0) for name, gpus in _up(db).items()}


def _free_of_limit(db: sqlite3.Connection, account: str) -> float:
    """GPUs that the account may still take at a time."""
    row = db.execute("SELECT gpus FROM account WHERE name = ?", (account,)).fetchone()
    if row is None or row["gpus"] is None:
        return float("inf")
    busy = db.execute(
        "SELECT COALESCE(SUM(gpus), 0) FROM run WHERE account = ? AND state = 'RUNNING'", (account,)
    ).fetchone()[0]
    return int(row["gpus"]) - int(busy)


def left_seconds(db: sqlite3.Connection, account: str, at: int) -> float:
    """GPU-seconds that the account may still start; running jobs count in full, as Slurm's ``safe`` does."""
    row = db.execute("SELECT gpu_minutes, counted_from FROM account WHERE name = ?", (account,)).fetchone()
    if row is None:
        return 0
    if row["gpu_minutes"] is None:
        return float("inf")
    used = db.execute(
        """SELECT COALESCE(SUM(gpus * (COALESCE(ended_at, planned_end) - started_at)), 0) FROM run
        WHERE account = ? AND started_at >= ?""",
        (account, row["counted_from"]),
    ).fetchone()[0]
    return int(row["gpu_minutes"]) * 60 - int(used)


def _submit_by_itself(db: sqlite3.Connection, at: int) -> None:
    """Give every running reservation of ours that never had a job one that fills it for most of its
    window."""
    windows = db.execute(
        """SELECT * FROM reservation WHERE starts_at <= ? AND name LIKE ? AND NOT EXISTS
            (SELECT 1 FROM run WHERE run.reservation = reservation.name) ORDER BY name""",
        (at, f"{OUR_PREFIX}%"),
    ).fetchall()
    for window in windows:
        account = window["accounts"].split(",")[0]
        login = db.execute("SELECT MIN(login) FROM association WHERE account = ?", (account,)).fetchone()[0]
        free = _free_in_reservation(db, window)
        each = min(free.values(), default=0)
        if login is None or each < 1:
            continue
        # From the name, not by chance: the same demonstration tells the same story every time.
        lot = zlib.crc32(window["name"].encode())
        gpus = each * len(free)
        seconds = (window["ends_at"] - at) * (80 + lot % 18) // 100
        seconds = int(min(seconds, left_seconds(db, account, at) // gpus))
        if seconds > 0:
            name = JOB_NAMES[lot % len(JOB_NAMES)]
            add_run(db, Order(name, login, account, gpus, len(free), seconds, window["name"]), at)
