"""A private PostgreSQL server for tests: own folder, socket only, gone with the process that started it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

START_SECONDS = 30
# Durability costs half of a test's time and a test's data is worth nothing.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum=off")


def binaries() -> Path | None:
    """The folder with initdb and postgres; Debian keeps it off PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("postgres")
    if found:
        folders.insert(0, Path(found).resolve().parent)
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _servant() -> str | None:
    """Whom to become: postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass(frozen=True)
class PostgresServer:
    """A running server; databases are made by `create` and reached by `url`."""

    root: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        """A SQLAlchemy URL through the private socket."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.root}"

    def create(self, database: str, template: str = "template0") -> None:
        """Make a database as a copy of another."""
        self._admin(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(database), sql.Identifier(template)
            )
        )

    def drop(self, database: str) -> None:
        """Drop a database with whoever is still connected to it."""
        self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def stop(self) -> None:
        """Stop at once and remove the folder."""
        self.process.terminate()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.send_signal(3)  # SIGQUIT: PostgreSQL's immediate shutdown
            self.process.wait(timeout=10)
        shutil.rmtree(self.root, ignore_errors=True)

    def connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the superuser's, which commits by itself."""
        return psycopg.connect(host=str(self.root), user="postgres", dbname=database, autocommit=True)

    def _admin(self, statement: sql.Composed) -> None:
        with self.connect("postgres") as link:
            link.execute(statement)


class Copies:
    """Databases as they come from a template, for one test after another.

    A new copy takes ten times as long as emptying one, so one is emptied: rows gone, sequences at their
    start. A test that changed the schema, if only a trigger, costs the copy.
    """

    # Of what the schema is made: any change of it is a new version of one of these rows.
    _SCHEMA = """SELECT md5(string_agg(it, ',' ORDER BY it)) FROM (
        SELECT 'r' || oid || '.' || xmin AS it FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 't' || oid || '.' || xmin FROM pg_trigger
        UNION ALL SELECT 'c' || oid || '.' || xmin FROM pg_constraint
        UNION ALL SELECT 'f' || oid || '.' || xmin FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) AS parts"""
    # What was deleted stays in the files until then, and slows the tests that come later.
    _USES = 40

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._numbers = count(1)
        self._name = ""
        self._schema = ""
        self._uses = 0
        with server.connect(template) as link:
            self._tables = [name for (name,) in link.execute(_TABLES)]
            self._rows = {name: _rows(link, name) for name in self._tables if _holds_rows(link, name)}

    def take(self) -> str:
        """The name of a migrated, empty database; give it back with ``give_back``."""
        if not self._name:
            self._name = f"kezek_{next(self._numbers)}"
            self._server.create(self._name, self._template)
            with self._server.connect(self._name) as link:
                self._schema = _one(link, self._SCHEMA)
        return self._name

    def give_back(self) -> None:
        """Empty it for the next test, or drop it."""
        self._uses += 1
        if self._uses >= self._USES or not self._emptied():
            self._server.drop(self._name)
            self._name, self._uses = "", 0

    def _emptied(self) -> bool:
        with self._server.connect(self._name) as link:
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if _one(link, self._SCHEMA) != self._schema:
                return False
            # Neither triggers nor foreign keys: they would refuse, or ask for an order.
            link.execute("SET session_replication_role = replica")
            for name in self._tables:
                if _holds_rows(link, name):
                    link.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            for name, rows in self._rows.items():
                with link.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(name))) as copy:
                    copy.write(rows)
            link.execute(_SEQUENCES_BACK)
        return True


_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
# Only those that were used: setval writes even where nothing changes.
_SEQUENCES_BACK = """SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"""


def _holds_rows(link: psycopg.Connection[tuple[Any, ...]], table: str) -> bool:
    found = link.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))).fetchone()
    return bool(found and found[0])


def _rows(link: psycopg.Connection[tuple[Any, ...]], table: str) -> bytes:
    with link.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))) as copy:
        return b"".join(bytes(part) for part in copy)


def _one(link: psycopg.Connection[tuple[Any, ...]], question: LiteralString) -> str:
    found = link.execute(question).fetchone()
    assert found is not None
    return str(found[0])


def start(folder: Path) -> PostgresServer:
    """Initialise and start a server with the binaries in `folder`; raises RuntimeError with its log."""
    servant = _servant()
    # Not under pytest's own folder: that one is closed to the user we become. Socket paths must be short too.
    root = Path(tempfile.mkdtemp(prefix="kezek-pg-", dir="/tmp"))
    become = ["setpriv", "--pdeathsig", "QUIT"]
    if servant:
        shutil.chown(root, servant)
        become += [f"--reuid={servant}", f"--regid={pwd.getpwnam(servant).pw_gid}", "--clear-groups"]
    data, log = root / "data", root / "log"
    initdb = [str(folder / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    subprocess.run(
        [*become, *initdb, "--no-locale", "--no-sync"], check=True, cwd=root, stdout=subprocess.DEVNULL
    )
    options = [part for option in FAST for part in ("-c", option)]
    private = [
        "-c",
        "listen_addresses=",
        "-k",
        str(root),
        "-c",
        "max_connections=60",
        "-c",
        "shared_buffers=32MB",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*become, str(folder / "postgres"), "-D", str(data), *private, *options],
            cwd=root,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = PostgresServer(root, process)
    _wait(server, log)
    return server


def _wait(server: PostgresServer, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(host=str(server.root), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    text = log.read_text(errors="replace")
    server.stop()
    raise RuntimeError(f"PostgreSQL did not start:\n{text}")
