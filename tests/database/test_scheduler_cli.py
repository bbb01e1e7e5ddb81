"""The scheduler's commands, as a person runs them, and its part of `kezek doctor`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, update

from allocator.db import Database
from allocator.models import Node, NodeState
from allocator.states import BookingState
from config.cli import kezek
from config.clock import utcnow
from config.settings import Settings
from scheduler import checks
from scheduler.clusters import base
from scheduler.clusters.base import Reservation
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.clusters.simulated_store import Fault
from tests.scheduling import Site, cluster_settings, site

SECRET = "only-for-tests-only-for-tests-only-for-tests"


@pytest.fixture
def here(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site in real time, with its settings in the environment."""
    made = site(sqlite_database, tmp_path, now=utcnow())
    made.cluster = SimulatedCluster(cluster_settings(tmp_path))
    cluster = {"slug": "alem", "nodes": 4, "database": str(tmp_path / "simulated.sqlite3")}
    for name, value in {
        "KEZEK_SECRET_KEY": SECRET,
        "KEZEK_DATA_DIR": str(tmp_path),
        "KEZEK_DATABASE_URL": str(sqlite_database.engine.url),
        "KEZEK_CLUSTERS": json.dumps([cluster]),
    }.items():
        monkeypatch.setenv(name, value)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(kezek, arguments, color=True)


def tomorrow(here: Site) -> int:
    return here.book(1, starts_at=utcnow() + timedelta(days=1))


def test_a_node_of_the_simulated_cluster_fails_and_comes_back(here: Site) -> None:
    def nodes() -> dict[str, tuple[str, str]]:
        return {node.name: (node.state.value, node.reason) for node in here.cluster.nodes()}

    assert run("slurm", "node", "gpu0002", "down", "--reason", "XID 79").output == "gpu0002 is down\n"
    assert nodes()["gpu0002"] == ("down", "XID 79")
    assert run("slurm", "node", "gpu0002", "up").exit_code == 0
    assert nodes()["gpu0002"] == ("up", "")
    assert "no node gpu0099" in run("slurm", "node", "gpu0099", "down").output


def test_plan_shows_a_diff_and_changes_nothing(here: Site) -> None:
    booking = tomorrow(here)
    over = here.book(4, state=BookingState.CANCELLED)
    here.cluster.put_by_hand(
        Reservation(f"kezek-{over}", utcnow(), utcnow() + timedelta(hours=1), ("gpu0004",), ("root",))
    )
    result = run("slurm", "plan")
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert lines[0] == "cluster alem: 3 to do"
    assert lines[1].startswith(f"\x1b[32m+ account kezek-q{here.quota_id}  60000 GPU-minutes  aigerim")
    assert lines[2].startswith(f"\x1b[31m- reservation kezek-{over}")
    assert lines[3].startswith(f"\x1b[32m+ reservation kezek-{booking}")
    assert here.names() == [f"kezek-{over}"]


def test_apply_then_nothing_to_do(here: Site) -> None:
    tomorrow(here)
    assert run("slurm", "apply").exit_code == 0
    result = run("slurm", "plan", "--cluster", "alem")
    assert (result.exit_code, result.output) == (0, "cluster alem: nothing to do\n")


def test_a_failed_step_is_an_exit_code(here: Site) -> None:
    tomorrow(here)
    here.cluster.set_fault(Fault.UNDER_DELIVERY, 1)
    result = run("slurm", "apply")
    assert result.exit_code == 1
    assert "failed kezek-1: Cluster alem gave something else than asked" in result.output


def test_an_unreachable_cluster_is_one_line(here: Site) -> None:
    here.cluster.set_fault(Fault.CONTROLLER_DOWN)
    result = run("slurm", "plan")
    assert result.exit_code == 1
    assert result.output == "kezek: Cluster alem does not answer: Slurmctld(primary) is DOWN\n"


def test_an_unknown_cluster_is_one_line(here: Site) -> None:
    result = run("slurm", "plan", "--cluster", "moon")
    assert (result.exit_code, result.output) == (1, "kezek: There is no cluster moon; there are: alem.\n")


def test_usage_import_tells_days_and_numbers(here: Site) -> None:
    run("slurm", "apply")
    here.cluster.submit("aigerim", f"kezek-q{here.quota_id}", 8)
    time.sleep(1.1)  # Slurm counts in whole seconds: one that has just begun did not run before now
    result = run("usage", "import", "--since", f"{utcnow() - timedelta(days=3):%Y-%m-%d}")
    assert result.exit_code == 0
    assert "alem: jobs 1, written 1, bad lines 0, of unknown accounts 0" in result.output
    assert result.output.count("  until ") >= 3


def test_inventory_declares_clusters_and_reads_their_nodes(here: Site) -> None:
    with here.database.transaction() as session:
        session.execute(update(Node).values(state=NodeState.GONE))
    result = run("slurm", "inventory")
    assert (result.exit_code, result.output) == (0, "cluster alem: 4 nodes with GPUs\n")
    assert set(here.ask(lambda session: session.scalars(select(Node.state)).all())) == {NodeState.UP}


def test_every_job_once(here: Site) -> None:
    booking = tomorrow(here)
    result = subprocess.run(
        [sys.executable, "-m", "config.cli", "scheduler", "--once"], capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert here.names() == [f"kezek-{booking}"]
    jobs = [json.loads(line)["job"] for line in result.stderr.splitlines() if b"job done" in line]
    of_the_cluster = [f"{name}:alem" for name in ("inventory", "reconcile", "usage", "plan")]
    assert jobs == [*of_the_cluster, "expiry", "no-shows", "repairs", "periods", "outbox"]


def test_help_loads_none_of_it() -> None:
    code = (
        "import sys, scheduler.cli; "
        "print([name for name in ('sqlalchemy', 'apscheduler', 'structlog') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


class TestDoctor:
    def check(self, folder: Path) -> dict[str, bool]:
        settings = Settings(data_dir=folder, secret_key=SECRET, clusters=(cluster_settings(folder),))
        return {check.name: check.ok for check in checks.cluster(settings)}

    def test_all_well(self, tmp_path: Path) -> None:
        assert self.check(tmp_path) == {
            "cluster alem": True,
            "cluster alem accounting": True,
            "cluster alem clock": True,
        }

    def test_nodes_that_do_not_work_are_counted(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, secret_key=SECRET, clusters=(cluster_settings(tmp_path),))
        SimulatedCluster(settings.clusters[0]).set_node("gpu0001", base.NodeState.DOWN, "fan")
        told = next(check for check in checks.cluster(settings) if check.name == "cluster alem")
        assert told.ok
        assert "4 nodes with 32 GPUs, 1 of them down or drained" in told.detail

    @pytest.mark.parametrize(
        ("fault", "value", "bad"),
        [
            (Fault.CONTROLLER_DOWN, 1, "cluster alem"),
            (Fault.ACCOUNTING_DOWN, 1, "cluster alem accounting"),
            (Fault.CLOCK_SKEW, -400, "cluster alem clock"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, fault: Fault, value: float, bad: str) -> None:
        SimulatedCluster(cluster_settings(tmp_path)).set_fault(fault, value)
        assert [name for name, ok in self.check(tmp_path).items() if not ok] == [bad]
