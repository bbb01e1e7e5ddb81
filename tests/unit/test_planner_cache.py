"""Compiled kernels lie where they can be written, and nobody who waits for an answer compiles them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from allocator.planner import cache

NOWHERE = Path("/proc/kezek")  # where not even root makes a folder


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    cache.cache_folder.cache_clear()
    yield
    cache.cache_folder.cache_clear()


def test_an_installation_that_cannot_be_written_keeps_them_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache, "KERNELS", NOWHERE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder().parent == tmp_path / "kezek"
    assert not cache.is_warm()
    (cache.cache_folder() / cache.READY).touch()
    assert cache.is_warm()


def test_a_folder_that_is_named_goes_before_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cache.cache_folder().parent == tmp_path


def test_where_nothing_can_be_written_they_last_as_long_as_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cache, "KERNELS", NOWHERE)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(NOWHERE))
    monkeypatch.setenv("XDG_CACHE_HOME", str(NOWHERE))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache.cache_folder().parent == tmp_path
    assert cache.cache_folder() == cache.cache_folder()


def test_asking_whether_all_is_compiled_loads_no_compiler() -> None:
    code = (
        "import sys; from allocator.planner.cache import is_warm; from allocator.upkeep import repairs;"
        "is_warm(); sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
