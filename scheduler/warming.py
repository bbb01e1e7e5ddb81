"""Compiling the planner's kernels beside everything else, so that no plan has to wait for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from allocator.planner import cache

STOP_SECONDS = 5


@contextmanager
def warming() -> Iterator[None]:
    """A process of its own at the lowest priority: compiling in ours would hold up every job.

    It is ended with us and goes on where it ended when we are started again.
    """
    if cache.is_warm():
        yield
        return
    with subprocess.Popen(
        (sys.executable, "-m", cache.__name__), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
