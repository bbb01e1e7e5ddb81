"""The worlds that the contract is held against, each made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.labs.forky import ForkyLab
from tests.contract import table
from tests.contract.worlds import LabWorld, SimulatedWorld, World, account

# Set where pyslurm can be imported: the root of a running Slurm 26.05 lab.
PYSLURM_LAB = "KEZEK_TEST_PYSLURM_LAB"
HERE = (
    ["pyslurm-26.05"]
    if PYSLURM_LAB in os.environ
    else [
        "simulated",
        pytest.param("slurm_cli-22.05", marks=[pytest.mark.xdist_group("native"), pytest.mark.integration]),
        pytest.param("slurm_cli-26.05", marks=[pytest.mark.xdist_group("forky"), pytest.mark.integration]),
    ]
)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    table.show(terminalreporter)


@pytest.fixture(scope="session", params=HERE)
def one_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The cluster with one account to start from, `kezek-q1`."""
    world: World
    if request.param == "simulated":
        world = SimulatedWorld(tmp_path_factory.mktemp("simulated"))
    elif request.param == "pyslurm-26.05":
        world = LabWorld(ForkyLab(Path(os.environ[PYSLURM_LAB])), "pyslurm")
    else:
        fixture = "native_lab" if request.param.endswith("22.05") else "forky_lab"
        world = LabWorld(request.getfixturevalue(fixture), "slurm_cli")
    world.cluster.save_accounts([account("kezek-q1", world)])
    return world


@pytest.fixture
def world(one_world: World) -> Iterator[World]:
    """A world without reservations before and after."""
    one_world.clean()
    yield one_world
    one_world.clean()
