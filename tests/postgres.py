"""A private PostgreSQL server for tests: own folder, socket only, gone with the process that started it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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

    def _admin(self, statement: sql.Composed) -> None:
        with psycopg.connect(
            host=str(self.root), user="postgres", dbname="postgres", autocommit=True
        ) as link:
            link.execute(statement)


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
