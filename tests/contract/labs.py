"""The two Slurm labs as session fixtures; a pytest plugin, named in tests/conftest.py's `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.labs import forky_build, native
from config.labs.forky import ForkyLab
from config.labs.native import NativeLab

_GROUPS = {"native_lab": "native", "forky_lab": "forky"}


# Before xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all tests of a lab on one xdist worker, so that each lab is started once."""
    for item in items:
        used = [group for name, group in _GROUPS.items() if name in getattr(item, "fixturenames", ())]
        if used:
            item.add_marker(pytest.mark.xdist_group("-".join(used)))
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def native_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLab]:
    """A running Slurm 22.05 of 4 nodes; missing packages are installed, or the test fails saying which."""
    native.install()
    with NativeLab(tmp_path_factory.mktemp("native-lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def forky_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkyLab]:
    """A running Slurm 26.05 of 4 nodes, built first where the cache has none (minutes)."""
    forky_build.prepare()
    with ForkyLab(tmp_path_factory.mktemp("forky-lab")) as lab:
        yield lab
