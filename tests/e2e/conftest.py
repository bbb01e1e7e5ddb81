"""What whole paths need besides databases and a browser: a real Slurm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.labs import native
from config.labs.native import NativeLab


@pytest.fixture
def own_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLab]:
    """A Slurm 22.05 of 4 nodes that no other test sees."""
    native.install()
    with NativeLab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
