"""One way to compile a kernel: cached on disk, in a folder that changes with any kernel's source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import config as numba_config

from allocator.planner.cache import cache_folder

F = TypeVar("F", bound=Callable[..., Any])

setattr(numba_config, "CACHE_DIR", str(cache_folder()))  # noqa: B010 - numba sets its settings so itself


def compiled(function: F) -> F:
    """Compile on the first call, without Python objects; floats stay IEEE so that a seed repeats."""
    return _compiled(function, inside=False)


def inner(function: F) -> F:
    """For what only other kernels call: without the door from Python, which takes a quarter of the time."""
    return _compiled(function, inside=True)


def lean(function: F) -> F:
    """An inner one that makes no arrays: without counting references, which takes a third of the time."""
    return _compiled(function, inside=True, counting=False)


def _compiled(function: F, *, inside: bool, counting: bool = True) -> F:
    # The published types leave out the options about wrappers and about counting (numba's "runtime").
    njit = cast(Any, numba.njit)
    make = njit(
        cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=inside, no_cfunc_wrapper=True,
        _nrt=counting,
    )  # fmt: skip
    return cast(F, make(function))
