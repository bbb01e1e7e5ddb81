"""Which of several schedulers works: the one that holds a lock. The others wait to take over when it is gone.

PostgreSQL: an advisory lock on a connection of its own, so that the server gives it up with the connection.
SQLite: a lock on a file beside the database, which the kernel gives up with the process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import psycopg
import structlog
from sqlalchemy.engine import make_url

# Any number that no other program on the same database uses: the letters "kezek" and a one.
LOCK_KEY = 0x6B657A656B01
# A leader whose machine vanished without a word must not keep the lock for TCP's two hours.
SESSION = (
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    "SET idle_session_timeout = 0",
)
# The other way round: a question that nobody answers must not hold us for the kernel's 15 minutes.
ANSWER_MS = 10_000
POOLER = (
    "a connection pooler stands before PostgreSQL; give the scheduler a direct address in KEZEK_DATABASE_URL"
)

log = structlog.get_logger(__name__)


class Leadership(Protocol):
    """The lock; any thread may ask ``holds``."""

    def acquire(self) -> bool:
        """Try once; False when another holds it or the database is away."""
        ...

    def holds(self) -> bool:
        """Whether it is still ours, asked of whoever keeps it. Once lost, acquire() must be called again."""
        ...

    def release(self) -> None:
        """Give it up; giving up what one does not hold is no error."""
        ...


def identity() -> str:
    """Who we are, for people who look at the jobs' health."""
    return f"{socket.gethostname()}:{os.getpid()}"


def leadership(database_url: str) -> Leadership:
    """The lock that belongs to the database."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return FileLeadership(Path(f"{url.database}.scheduler.lock"))
    return PostgresLeadership(url.set(drivername="postgresql").render_as_string(hide_password=False))


class FileLeadership:
    """A lock on a file; the file stays, only the lock goes with its holder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        if self._file is not None:
            return True
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def holds(self) -> bool:
        if self._file is None:
            return False
        try:
            there = self._path.stat().st_ino
        except FileNotFoundError:
            there = 0
        # Somebody removed the file: the next one to come locks another file of that name.
        if there != os.fstat(self._file.fileno()).st_ino:
            self.release()
            return False
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class PostgresLeadership:
    """An advisory lock on a dedicated connection."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        # Jobs ask from their own threads; one connection answers one question at a time.
        self._one_at_a_time = threading.Lock()
        self._told = ""

    def acquire(self) -> bool:
        with self._one_at_a_time:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
            except psycopg.Error as error:
                self._tell(str(error))
                self._drop()
                return False
            self._told = ""
            return row is not None and bool(row[0])

    def holds(self) -> bool:
        with self._one_at_a_time:
            if self._connection is None:
                return False
            try:
                # The lock lives exactly as long as this session: an answer on it is the proof.
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self._drop()
                return False
            return True

    def release(self) -> None:
        with self._one_at_a_time:
            if self._connection is not None:
                # Said aloud: the server notices a closed connection only a moment later.
                with suppress(psycopg.Error):
                    self._connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))
            self._drop()

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        connection = psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=ANSWER_MS,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        if row is None or row[0] != connection.info.backend_pid:
            # A pooler hands one server session to many: each of them would hold the lock, or none.
            raise psycopg.OperationalError(POOLER)
        for statement in SESSION:
            # Unix sockets have no keepalives to set, and old servers no idle_session_timeout.
            with suppress(psycopg.errors.DataError, psycopg.errors.UndefinedObject):
                connection.execute(statement)

    def _tell(self, problem: str) -> None:
        # Asked every second: the same answer is told once.
        if problem != self._told:
            log.warning("no leadership to be had", problem=problem)
        self._told = problem

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
