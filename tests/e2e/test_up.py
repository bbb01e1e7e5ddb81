"""`kezek up` as `make run` calls it: the real web server and scheduler, stopped and started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def kezek_up(data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "config.cli", "up", "--port", str(port), "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            # TERM, not KILL: it has children of its own to stop.
            process.terminate()


def greeting(process: subprocess.Popen[str]) -> str:
    """Everything it says until it is ready."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    assert process.stderr is not None
    raise AssertionError("".join(lines) + process.stderr.read())


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def test_from_nothing_to_ready_to_stopped_to_going_on(tmp_path: Path, port: int) -> None:
    people = []
    for _ in range(2):
        with kezek_up(tmp_path / "data", port) as process:
            said = greeting(process)
            assert f"http://127.0.0.1:{port}" in said
            people.append(re.findall(r"\S+@\S+", said))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                assert answer.status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=15) == 0
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
    assert people[0]
    assert people[0] == people[1]


def test_a_killed_scheduler_stops_the_rest(tmp_path: Path, port: int) -> None:
    with kezek_up(tmp_path / "data", port) as process:
        greeting(process)
        scheduler = _child(process.pid, "scheduler")
        os.kill(scheduler, signal.SIGKILL)
        assert process.wait(timeout=15) == 1
        assert process.stderr is not None
        assert process.stderr.read().startswith("kezek: the scheduler stopped")


def test_a_broken_database_is_one_line(tmp_path: Path, port: int) -> None:
    (tmp_path / "kezek.sqlite3").write_text("this is no database " * 100)
    with kezek_up(tmp_path, port) as process:
        assert process.wait(timeout=60) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith("kezek: `kezek db upgrade` failed")
    assert said.count("\n") == 1


def _child(parent: int, command: str) -> int:
    """The process id of a part that `parent` started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if command.encode() in words:
            return int(pid)
    raise AssertionError(f"{parent} runs no {command}")
