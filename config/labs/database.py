"""An empty MariaDB, prepared once and copied: mariadb-install-db is the slowest part of a start."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from config.labs.errors import LabError
from config.labs.processes import wait_until


def cache_dir() -> Path:
    """Where labs keep what is costly to make: KEZEK_CACHE, else ~/.cache/kezek."""
    named = os.environ.get("KEZEK_CACHE")
    path = Path(named) if named else Path.home() / ".cache/kezek"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock: others who want the same thing built wait instead of building it too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Template:
    """A data directory whose superuser is the login `owner`, known by the socket, without a password."""

    def __init__(self, release: str, owner: str, command: Callable[[Sequence[str]], list[str]]) -> None:
        self._command = command
        self._owner = owner
        self._path = cache_dir() / f"mariadb-{release}-{owner}"

    def fill(self, target: Path, scratch: Path) -> None:
        """Make `target` a data directory unless it is one; `scratch` is a folder that the command can see."""
        if (target / "mysql").is_dir():
            return
        with locked(self._path.with_suffix(".lock")):
            if not self._path.is_dir():
                self._build(scratch)
        # Copied beside and renamed: an interrupted copy must not pass for a database.
        half = target.with_name(target.name + ".new")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(self._path, half)
        shutil.rmtree(target, ignore_errors=True)
        half.rename(target)

    def _build(self, scratch: Path) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            options = [
                "--no-defaults",
                f"--user={self._owner}",
                f"--datadir={folder}/data",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={self._owner}",
                "--skip-test-db",
                # As in conf.mariadbd: a log of another size would be rebuilt at every lab's first start.
                "--innodb-log-file-size=32M",
            ]
            Path(folder, "data").mkdir()
            command = self._command(["mariadb-install-db", *options])
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            if done.returncode:
                words = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
                raise LabError("mariadb-install-db failed:\n%(words)s", {"words": words})
            half = self._path.with_suffix(".new")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(Path(folder, "data"), half)
            half.rename(self._path)


def wait_for_database(path: Path, alive: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until mariadbd greets on its socket."""

    def greets() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(path))
                # The first packet carries the version; an empty answer is a server that is not ready.
                return len(probe.recv(16)) > 0
            except OSError:
                return False

    if not wait_until(lambda: not alive() or greets(), seconds) or not alive():
        raise LabError("mariadbd does not start: see mariadbd.out in the lab's log directory.")
