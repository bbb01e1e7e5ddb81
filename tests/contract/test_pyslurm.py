"""The contract for pyslurm, which imports only in the Python that was built beside Slurm 26.05.

A second pytest runs there, on the same lab as slurm_cli's; every one of its results becomes one of ours.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from config.labs.forky import ForkyLab
from tests.contract import table
from tests.contract.conftest import PYSLURM_LAB

ROOT = Path(__file__).parents[2]
ADAPTER = "pyslurm-26.05"


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("forky")
@pytest.mark.integration
def test_pyslurm_keeps_the_contract(
    forky_lab: ForkyLab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = tmp_path / "report.xml"
    command = [
        str(forky_lab.python),
        "-m",
        "pytest",
        "-c",
        "tests/contract/pyslurm.ini",
        "-p",
        "no:cacheprovider",
    ]
    # The tests' other conftest wants databases and libraries that this Python does not have.
    command += [
        "--rootdir=.",
        "--confcutdir=tests/contract",
        f"--junitxml={report}",
        "tests/contract/test_clusters.py",
    ]
    environment = {
        **os.environ,
        **forky_lab.pyslurm_env,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("KEZEK_CONTRACT_TABLE", None)
    environment[PYSLURM_LAB] = str(forky_lab.place.root)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    print(done.stdout)
    assert report.exists(), done.stdout + done.stderr
    results = _results(report)
    for result in results:
        record_property(table.PROPERTY, result)
    failed = [name for _, name, outcome, _ in results if outcome != "passed"]
    assert not failed, f"{failed}\n{done.stdout}\n{done.stderr}"
    assert len(results) >= 40
    assert done.returncode == 0, done.stderr


def _results(report: Path) -> list[tuple[str, str, str, float]]:
    """(adapter, operation, outcome, seconds) of every test of the other pytest."""
    results = []
    for case in ElementTree.parse(report).iter("testcase"):
        operation = case.get("name", "").partition("[")[0].removeprefix("test_")
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        results.append((ADAPTER, operation, bad[0] if bad else "passed", float(case.get("time", 0))))
    return results
