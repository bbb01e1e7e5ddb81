"""Real scheduler processes for tests: settings in the environment, killed as the test likes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECRET = "only-for-tests-only-for-tests-only-for-tests"
FAST = {"reconcile": 1, "usage": 1, "inventory": 1, "expiry": 1, "outbox": 1}


def environment(database_url: str, folder: Path, cluster: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a site on that database with one cluster; every job runs each second."""
    return {
        "PATH": os.environ["PATH"],
        "KEZEK_SECRET_KEY": SECRET,
        "KEZEK_DATA_DIR": str(folder),
        "KEZEK_DATABASE_URL": database_url,
        "KEZEK_CLUSTERS": json.dumps([cluster]),
        **{f"KEZEK_{name.upper()}_SECONDS": str(seconds) for name, seconds in FAST.items()},
    }


def simulated(folder: Path) -> dict[str, Any]:
    return {"slug": "alem", "nodes": 4, "database": str(folder / "simulated.sqlite3")}


@contextmanager
def scheduler(env: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`kezek scheduler` until the end of the block; its log goes to this test's stderr."""
    command = [sys.executable, "-m", "config.cli", "scheduler", *arguments]
    process = subprocess.Popen(command, env=dict(env), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def seconds_until(condition: Callable[[], bool], limit: float = 60) -> float:
    """How long it takes until the condition holds; fails after `limit`."""
    start = time.monotonic()
    while time.monotonic() < start + limit:
        if condition():
            return time.monotonic() - start
        time.sleep(0.05)
    raise AssertionError(f"not within {limit} s")


def note(what: str, seconds: float) -> None:
    """A line of the table of crashes: what was killed, seconds until healed."""
    line = f"{what}: {seconds:.1f} s"
    print(line)
    if table := os.environ.get("KEZEK_TEST_CRASH_TABLE"):
        with Path(table).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
