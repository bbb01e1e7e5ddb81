"""Engines and sessions for both databases.

SQLite writers begin IMMEDIATE: with a deferred BEGIN four processes doing read-modify-write fail "locked" in
spite of a timeout. Readers begin deferred and never wait in WAL mode.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

# Half of a web worker's time: SQLite's waiting is not fair, and among twenty the unlucky one waits long.
BUSY_TIMEOUT_MS = 30_000


def make_engine(url: str, *, pool_size: int = 8) -> Engine:
    """An engine with the settings that the rest of Kezek relies on; ``url`` is an SQLAlchemy URL."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_size=pool_size,
        pool_pre_ping=True,
        # A database that vanished without a word is away after seconds, not after the kernel's 15 minutes.
        connect_args={"options": "-c timezone=UTC", "connect_timeout": 10, "tcp_user_timeout": 30_000},
        # What people typed, and the tokens of letters, must not reach the log in the text of an error.
        hide_parameters=True,
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, below
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def is_passing(error: DBAPIError) -> bool:
    """Whether the same may well work a moment later: a deadlock, a lost connection, another writer."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    # connection, rollback (deadlocks), no resources, stopped by an operator; SQLite has only words
    passing = state[:2] in ("08", "40", "53", "57") or state == "55P03"
    return error.connection_invalidated or passing or "database is locked" in str(error.orig)


class Database:
    """Where sessions come from: ``reader()`` for looking, ``transaction()`` for changing."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.reader = sessionmaker(self.engine)
        self.writer = sessionmaker(self.engine.execution_options(sqlite_begin="IMMEDIATE"))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A writing session that commits at the end, or rolls back on an error."""
        with self.writer() as session, session.begin():
            yield session

    def dispose(self) -> None:
        self.engine.dispose()
