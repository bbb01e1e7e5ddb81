"""Where compiled kernels are kept, and whether they all are: known without loading the compiler."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"
READY, LOCK = "ready", "lock"


def _sources() -> str:
    """Digest of every kernel: numba itself only looks at the caller's file, and would keep a stale callee."""
    digest = hashlib.sha256(version("numba").encode())
    for path in sorted(KERNELS.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _homes() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        yield Path(given)
    yield KERNELS / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "kezek"


@cache
def cache_folder() -> Path:
    """The first home that can be written to; an installed package's own folder often cannot.

    A folder that holds everything already serves even where nothing can be written.
    """
    for home in _homes():
        folder = home / f"numba-{_sources()}"
        if (folder / READY).exists():
            return folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    # A fresh private folder, as what lies in a shared one may be anyone's code.
    return Path(tempfile.mkdtemp(prefix="kezek-numba-"))


def is_warm() -> bool:
    """Whether everything is compiled: whoever answers a person plans only then."""
    return (cache_folder() / READY).exists()


def warm_up() -> None:
    """Compile whatever is not compiled yet: a minute of work once, for the scheduler or an installation.

    Cut short, it goes on where it ended. Of several at once one works and the others leave it to that one.
    """
    with (cache_folder() / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not is_warm():
            _compile_all()
            (cache_folder() / READY).touch()


def _compile_all() -> None:
    """A little of everything that is ever planned or asked."""
    import numpy as np

    from allocator.planner import Change, Demand, Pin, Plan, plan, repair
    from allocator.planner.bound import upper_bound
    from allocator.planner.calendar import Calendar

    column = np.array
    demand = Demand(
        3, 24, 1.0, column([1, 2, 1, 1]), column([8, 8, 4, 2]), column([6, 6, 6, 6]), column([0, 2, 2, 2]),
        column([24, 24, 24, 24]), column([1.0, 1.0, 1.0, 1.0]), pinned={3: Pin(12)}, groups=(0, 0, 1),
    )  # fmt: skip
    upper_bound(demand)
    capacity = np.full((3, 24), 8, np.int8)
    capacity[0, 2:20] = 0
    repair(plan(demand, seconds=9, iterations=100), Change(1, capacity), seconds=9, iterations=100)
    # One that lost nothing makes way for one that could not go elsewhere.
    demand = Demand(
        2, 24, 1.0, column([1, 1]), column([8, 8]), column([6, 6]), column([4, 4]), column([10, 24]),
        column([1.0, 1.0]),
    )  # fmt: skip
    made = Plan(column([4, 4], np.int32), [[0], [1]], 96.0, 96.0, np.zeros(24), (), 0, demand)
    repair(made, Change(1, capacity[:2]), seconds=9, iterations=400)
    calendar = Calendar(3, 24)
    calendar.place(range(3), 8, 0, 1)
    calendar.earliest(1, 8, 2)
    calendar.free(0)
    calendar.nodes_free()


if __name__ == "__main__":
    # Nobody waits for it, and everybody else on this machine goes first.
    os.nice(19)
    warm_up()
