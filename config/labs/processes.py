"""A lab's daemons: run in the foreground, known by pid and start time, never by name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from config.labs.errors import LabError

# In the environment of every daemon (and so of slurmstepd), but of no client: what a lab may sweep away.
MARKER = "KEZEK_LAB_DAEMON"


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Ask until the condition holds; False when it never did within `seconds`."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(every)
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on; None for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold spaces and parentheses, so count from the last one.
    return text.rpartition(")")[2].split()


def started_at(pid: int) -> str | None:
    """Clock ticks since boot at which a living process started; a zombie counts as gone."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


class Daemons:
    """The processes of one lab, remembered in files so that another command can end them."""

    def __init__(self, pid_dir: Path, log_dir: Path) -> None:
        self._pids = pid_dir
        self._logs = log_dir
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a daemon that stays in the foreground, in its own session (Ctrl-C is ours to handle)."""
        if self.pid(name) is not None:
            raise LabError("%(name)s is already running.", {"name": name})
        self._pids.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{name}.out").open("ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**env, MARKER: str(self._pids)},
                cwd="/",
                start_new_session=True,
            )
        self._children[name] = child
        file = self._pids / name
        file.with_suffix(".new").write_text(f"{child.pid} {started_at(child.pid)}\n", encoding="ascii")
        file.with_suffix(".new").replace(file)

    def pid(self, name: str) -> int | None:
        """The daemon's pid while it lives: a recycled pid has another start time."""
        child = self._children.get(name)
        if child is not None and child.poll() is not None:
            del self._children[name]
        try:
            pid, started = (self._pids / name).read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if started_at(int(pid)) == started else None

    def names(self) -> list[str]:
        """Every daemon that was started and not ended, living or dead."""
        return (
            sorted(f.name for f in self._pids.glob("*") if f.suffix != ".new") if self._pids.is_dir() else []
        )

    def end(self, name: str, number: signal.Signals = signal.SIGTERM, grace: float = 10) -> None:
        """Signal a daemon, wait for it to go, kill it when it does not within `grace` seconds."""
        pid = self.pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if not wait_until(lambda: self.pid(name) is None, grace, 0.02):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda: self.pid(name) is None, 5, 0.02)
        # Its first thread may be gone while others still die: only then can it be waited for.
        if (child := self._children.pop(name, None)) is not None:
            child.wait(timeout=5)
        self._reap(name)
        (self._pids / name).unlink(missing_ok=True)

    def _reap(self, name: str) -> None:
        """Take a dead child's status: a zombie counts as gone before its parent has noticed."""
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(timeout=10)

    def leftovers(self) -> list[int]:
        """Every process that descends from this lab's daemons, wherever it was reparented to."""
        parents: dict[int, int] = {}
        found: set[int] = set()
        for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()):
            fields = _stat(pid)
            if fields is None or fields[0] in "ZX":
                continue
            parents[pid] = int(fields[1])
            if self._is_ours(pid):
                found.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found - {os.getpid()})

    def _is_ours(self, pid: int) -> bool:
        """By the marker, or by a mount of the run directory: 26.05's slurmstepd loses its environment."""
        process = Path(f"/proc/{pid}")
        marker = f"{MARKER}={self._pids}".encode()
        mounted = f"{self._pids.parent.name}/".encode()
        # Another login's process cannot be read and is none of ours, unless its parent is.
        with suppress(OSError):
            if marker in (process / "environ").read_bytes().split(b"\0"):
                return True
            return mounted in (process / "mountinfo").read_bytes()
        return False

    def sweep(self) -> None:
        """Kill whatever a crash or an interrupted start left behind; raises when something survives."""

        def gone() -> bool:
            rest = self.leftovers()
            for pid in rest:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not rest

        if not wait_until(gone, 10):
            raise LabError("Processes of the lab would not end: %(pids)s.", {"pids": self.leftovers()})
        for name in list(self._children):
            self._reap(name)
        for name in self.names():
            (self._pids / name).unlink(missing_ok=True)
