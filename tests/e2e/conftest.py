"""What whole paths need besides databases: a real Slurm and a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.labs import native
from config.labs.native import NativeLab
from tests.browser.conftest import browser

__all__ = ["browser", "own_lab"]


@pytest.fixture
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLab]:
    """A Slurm 22.05 of 4 nodes that no other test sees."""
    native.install()
    with NativeLab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
