"""The simulated cluster's reservations: what Slurm would refuse, and how they are stored, read, lost and
compared."""

from __future__ import annotations

import json
import sqlite3

from scheduler.clusters.base import Conflict, Exists, Missing, Refused, Reservation
from scheduler.clusters.readback import compare
from scheduler.clusters.simulated_store import utc

# Slurm refuses a reservation that would begin longer ago than this.
OLDEST_START_SECONDS = 600

__all__ = ["check", "compare", "fewer", "forget_unsaved", "read", "remember_unsaved", "require", "write"]


def require(slug: str, db: sqlite3.Connection, name: str) -> sqlite3.Row:
    """The reservation's row; raises Missing."""
    row: sqlite3.Row | None = db.execute("SELECT * FROM reservation WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise Missing.said(slug, f"{name}: Requested reservation is invalid")
    return row


def read(db: sqlite3.Connection) -> list[Reservation]:
    """All of them, by name."""
    nodes: dict[str, list[str]] = {}
    for row in db.execute("SELECT reservation, node FROM reservation_node ORDER BY node"):
        nodes.setdefault(row["reservation"], []).append(row["node"])
    maintenance = {row["reservation"] for row in db.execute("SELECT reservation FROM maintenance")}
    return [
        Reservation(
            row["name"],
            utc(row["starts_at"]),
            utc(row["ends_at"]),
            tuple(nodes.get(row["name"], ())),
            tuple(filter(None, row["accounts"].split(","))),
            row["gpus_per_node"],
            row["name"] in maintenance,
        )
        for row in db.execute("SELECT * FROM reservation ORDER BY name")
    ]


def write(db: sqlite3.Connection, reservation: Reservation, nodes: tuple[str, ...]) -> None:
    """Put it in place of whatever has its name, on ``nodes`` (under-delivery: not always those asked for)."""
    db.execute("DELETE FROM reservation WHERE name = ?", (reservation.name,))
    db.execute(
        "INSERT INTO reservation VALUES (?, ?, ?, ?, ?)",
        (
            reservation.name,
            int(reservation.starts_at.timestamp()),
            int(reservation.ends_at.timestamp()),
            ",".join(sorted(reservation.accounts)),
            reservation.gpus_per_node,
        ),
    )
    db.executemany("INSERT INTO reservation_node VALUES (?, ?)", [(reservation.name, node) for node in nodes])
    if reservation.maintenance:
        db.execute("INSERT INTO maintenance VALUES (?)", (reservation.name,))


def check(slug: str, db: sqlite3.Connection, asked: Reservation, now: int, existing: bool = False) -> None:
    """Refuse what Slurm refuses, in its words and its order."""
    if existing:
        before = require(slug, db, asked.name)
        moved = int(asked.starts_at.timestamp()) != before["starts_at"]
        if moved and before["starts_at"] <= now:
            raise Refused.said(slug, f"{asked.name}: Invalid time specified: it has begun")
    elif db.execute("SELECT 1 FROM reservation WHERE name = ?", (asked.name,)).fetchone():
        raise Exists.said(slug, f"{asked.name}: Duplicate reservation name")
    too_old = asked.starts_at.timestamp() < now - OLDEST_START_SECONDS
    if asked.ends_at.timestamp() <= now or (too_old and not existing):
        raise Refused.said(slug, f"{asked.name}: Invalid time specified")
    for account in asked.accounts:
        if not db.execute("SELECT 1 FROM account WHERE name = ?", (account,)).fetchone():
            raise Refused.said(slug, f"{asked.name}: Invalid account or account/partition: {account}")
    gpus = {row["name"]: int(row["gpus"]) for row in db.execute("SELECT name, gpus FROM node")}
    for node in asked.nodes:
        if node not in gpus:
            raise Refused.said(slug, f"{asked.name}: Invalid node name specified: {node}")
        if asked.gpus_per_node is not None and asked.gpus_per_node > gpus[node]:
            raise Refused.said(slug, f"{asked.name}: Requested node configuration is not available: {node}")
        if not asked.maintenance:
            _check_free(slug, db, asked, node, gpus[node])


def _check_free(slug: str, db: sqlite3.Connection, asked: Reservation, node: str, gpus: int) -> None:
    span = {
        "name": asked.name,
        "node": node,
        "starts": asked.starts_at.timestamp(),
        "ends": asked.ends_at.timestamp(),
    }
    others = db.execute(
        """SELECT starts_at, ends_at, COALESCE(gpus_per_node, :gpus) AS gpus FROM reservation
        JOIN reservation_node ON reservation = name
        WHERE node = :node AND name <> :name AND starts_at < :ends AND ends_at > :starts""",
        {**span, "gpus": gpus},
    ).fetchall()
    wanted = gpus if asked.gpus_per_node is None else asked.gpus_per_node
    # The most that others hold at once is reached where our window or one of theirs begins.
    for begin in {span["starts"], *(row["starts_at"] for row in others if row["starts_at"] > span["starts"])}:
        held = sum(row["gpus"] for row in others if row["starts_at"] <= begin < row["ends_at"])
        if held + wanted > gpus:
            raise Conflict.said(slug, f"{asked.name}: overlaps with another reservation: {node}")
    row = db.execute(
        """SELECT SUM(run_node.gpus) AS busy FROM run JOIN run_node ON run = run.id
        WHERE state = 'RUNNING' AND node = :node AND planned_end > :starts
        AND (reservation IS NULL OR reservation <> :name)
        AND NOT EXISTS (SELECT 1 FROM reservation AS own WHERE own.name = run.reservation
                        AND own.gpus_per_node IS NOT NULL)""",
        span,
    ).fetchone()
    if (row["busy"] or 0) + wanted > gpus:
        raise Conflict.said(slug, f"{asked.name}: Requested nodes are busy: {node}")


def fewer(db: sqlite3.Connection, nodes: tuple[str, ...], missing: int) -> tuple[str, ...]:
    """What an under-delivering cluster gives: some nodes less, or a wrong one in place of the only one."""
    if missing <= 0:
        return nodes
    if len(nodes) > missing:
        return nodes[:-missing]
    row = db.execute("SELECT name FROM node WHERE name <> ? ORDER BY name DESC", (nodes[0],)).fetchone()
    return (row["name"],) if row else nodes


def remember_unsaved(db: sqlite3.Connection, name: str, at: float) -> None:
    """Note how the reservation was before a change, in case a crash takes the change back."""
    before = next((found for found in read(db) if found.name == name), None)
    text = None
    if before is not None:
        text = json.dumps(
            [before.starts_at.timestamp(), before.ends_at.timestamp(), before.nodes, before.accounts,
             before.gpus_per_node, before.maintenance]
        )  # fmt: skip
    db.execute("INSERT INTO unsaved (at, name, before) VALUES (?, ?, ?)", (at, name, text))
    # Slurm saves within seconds: what is a minute old can no longer be lost.
    db.execute("DELETE FROM unsaved WHERE at < ?", (at - 60,))


def forget_unsaved(db: sqlite3.Connection, since: float) -> None:
    """Take back every change made after ``since``, the latest first."""
    for row in db.execute("SELECT * FROM unsaved WHERE at > ? ORDER BY id DESC", (since,)).fetchall():
        db.execute("DELETE FROM reservation WHERE name = ?", (row["name"],))
        if row["before"]:
            starts, ends, nodes, accounts, gpus, maintenance = json.loads(row["before"])
            who = tuple(accounts)
            before = Reservation(row["name"], utc(starts), utc(ends), tuple(nodes), who, gpus, maintenance)
            write(db, before, before.nodes)
    db.execute("DELETE FROM unsaved WHERE at > ?", (since,))
