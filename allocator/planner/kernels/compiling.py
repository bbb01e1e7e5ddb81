"""One way to compile a kernel: cached on disk, in a folder that changes with any kernel's source."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config as numba_config

F = TypeVar("F", bound=Callable[..., Any])


def _sources() -> str:
    """Digest of every kernel: numba itself only looks at the caller's file, and would keep a stale callee."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _homes() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        yield Path(given)
    yield Path(__file__).parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "kezek"


def cache_folder() -> Path:
    """The first home that can be written to; an installed package's own folder often cannot."""
    for home in _homes():
        folder = home / f"numba-{_sources()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    # A fresh private folder, as what lies in a shared one may be anyone's code.
    return Path(tempfile.mkdtemp(prefix="kezek-numba-"))


setattr(numba_config, "CACHE_DIR", str(cache_folder()))  # noqa: B010 - numba sets its settings so itself


def compiled(function: F) -> F:
    """Compile on the first call, without Python objects; floats stay IEEE so that a seed repeats."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
