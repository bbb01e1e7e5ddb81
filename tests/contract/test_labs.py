"""The labs themselves: they start, run jobs as somebody else, keep accounts, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.labs.errors import LabError
from config.labs.forky import ForkyLab
from config.labs.native import NativeLab
from config.labs.processes import wait_until
from config.labs.slurm import SlurmLab

CHECKOUT = Path(__file__).parents[2]


def finished(lab: SlurmLab, job: int) -> dict[str, str]:
    """The job's accounting record once it has ended."""
    fields = ("user", "state", "alloctres", "elapsedraw")

    def record() -> dict[str, str]:
        command = ["sacct", "-a", "-X", "-P", "-n", "-j", str(job), "-o", ",".join(fields)]
        return dict(zip(fields, lab.run(*command).strip().split("|"), strict=False))

    assert wait_until(lambda: record().get("state", "") not in ("", "PENDING", "RUNNING"), 60, 0.5), record()
    return record()


def runs_a_job(lab: SlurmLab) -> None:
    lab.add_user("demo")
    job = lab.sbatch(["--account=demo", "--gres=gpu:h200:2"], "#!/bin/sh\nsleep 1\n")
    record = finished(lab, job)
    assert record["state"] == "COMPLETED"
    assert record["user"] == lab.job_user
    assert "gres/gpu=2" in record["alloctres"].split(",")


def keeps_a_reservation(lab: SlurmLab) -> None:
    lab.add_user("demo")
    node = lab.node_names[-1]
    create = f"create reservation=trial starttime=now+1hour duration=60 nodes={node} accounts=demo"
    lab.run("scontrol", *create.split())
    assert f"Nodes={node}" in lab.run("scontrol", "-o", "show", "reservation", "trial")
    lab.run("scontrol", "delete", "reservation=trial")
    with pytest.raises(LabError):
        lab.run("scontrol", "-o", "show", "reservation", "trial")


CHECKS: list[Callable[[SlurmLab], None]] = [runs_a_job, keeps_a_reservation]


@pytest.mark.parametrize("check", CHECKS)
def test_native(native_lab: NativeLab, check: Callable[[SlurmLab], None]) -> None:
    check(native_lab)


@pytest.mark.parametrize("check", CHECKS)
def test_forky(forky_lab: ForkyLab, check: Callable[[SlurmLab], None]) -> None:
    check(forky_lab)


def test_jobs_run_as_nobody_special(native_lab: NativeLab) -> None:
    """Limits and reservations must hold for ordinary people, so root's jobs would prove nothing."""
    assert native_lab.job_user != "root"
    assert native_lab.ready


def test_secrets_are_the_owners(native_lab: NativeLab) -> None:
    for secret in (native_lab.slurm_conf.with_name("slurmdbd.conf"), native_lab.place.root / "munge.key"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_killed_slurmd_is_noticed_and_returns(native_lab: NativeLab) -> None:
    node = native_lab.node_names[0]
    native_lab.kill_slurmd(node)
    assert wait_until(lambda: "DOWN" in native_lab.node_state(node), 45, 0.5), native_lab.node_state(node)
    native_lab.start_slurmd(node)
    assert "IDLE" in native_lab.node_state(node)


def survive_kills(lab: SlurmLab) -> None:
    lab.kill_slurmctld()
    assert lab.daemons.pid("slurmctld") is None
    # Accounting answers while the controller is away: clients are signed for by neither.
    assert "lab" in lab.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split()
    lab.start_slurmctld()
    lab.kill_slurmdbd()
    lab.run("scontrol", "show", "partition")
    with pytest.raises(LabError):
        lab.run("sacctmgr", "-n", "show", "cluster", timeout=60)
    lab.start_slurmdbd()
    # A job that ended after slurmctld's last save runs again for it; only minutes later would it be missed.
    lab.cancel_jobs()
    lab.wait_idle()


def test_killed_daemons_come_back(native_lab: NativeLab) -> None:
    survive_kills(native_lab)


def test_killed_daemons_of_forky_come_back(forky_lab: ForkyLab) -> None:
    survive_kills(forky_lab)


def test_pyslurm_reaches_the_lab(forky_lab: ForkyLab) -> None:
    """From the host's own Python, without root's chroot: also a write, whose memory the shim has to mend."""
    script = """
import pyslurm, time
print(sorted(pyslurm.Nodes.load()))
start = int(time.time()) + 3600
pyslurm.Reservation("shim", start_time=start, duration=60, nodes="gpu0002", users=["root"]).create()
print(pyslurm.Reservation.load("shim").name)
pyslurm.Reservation.load("shim").delete()
print("shim" in pyslurm.Reservations.load())
"""
    env = {**os.environ, **forky_lab.pyslurm_env}
    done = subprocess.run(
        [forky_lab.python, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [str(forky_lab.node_names), "shim", "False"], done.stderr


def test_the_venv_has_what_contract_tests_need(forky_lab: ForkyLab) -> None:
    modules = "pytest, sqlalchemy, pydantic_settings, click, config.labs.native, sys"
    script = f"import {modules}\nprint(sys.version_info[:2])"
    env = {**os.environ, **forky_lab.pyslurm_env, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [forky_lab.python, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(sys.version_info[:2]), done.stderr


def commands(pids: list[int]) -> str:
    """The command lines of processes, those that just ended left out."""
    files = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    return "\n".join(file.read_text().replace("\0", " ") for file in files if file.exists())


def alive_under(marker: Path) -> list[int]:
    """Living processes whose command line or environment speaks of the directory, apart from ourselves."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(marker).encode() in text:
            found.append(int(entry.name))
    return found


def test_stop_ends_the_jobs_of_a_lab_whose_slurmctld_is_dead(forky_lab: ForkyLab, tmp_path: Path) -> None:
    """slurmstepd and the job belong to init by then: they are found by what they inherited."""
    with ForkyLab(tmp_path, nodes=1) as lab:
        lab.add_user("demo")
        job = lab.sbatch(["--account=demo"], "#!/bin/sh\nexec sleep 1234567\n")
        assert wait_until(lambda: "sleep 1234567" in commands(lab.daemons.leftovers()), 20), job
        lab.kill_slurmctld()
    assert lab.daemons.leftovers() == []
    assert alive_under(lab.place.run) == []
    lab.wipe()
    assert forky_lab.forky.root.is_dir()


def test_cluster_commands_of_forky_need_no_root(forky_lab: ForkyLab) -> None:
    """scontrol and its kin run from outside the root, by the prefix alone."""
    env = {"PATH": "/usr/bin:/bin", **forky_lab.env}
    done = subprocess.run(
        [*forky_lab.client_prefix, "scontrol", "--version"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("slurm-wlm 26.05.")
    assert all("chroot" not in word and "unshare" not in word for word in forky_lab.client_prefix)


@pytest.mark.xdist_group("native")
def test_state_outlives_a_stop_and_stop_leaves_no_process(native_lab: NativeLab, tmp_path: Path) -> None:
    lab = NativeLab(tmp_path / "a" / ("deep" * 20), nodes=1)
    with lab:
        lab.add_user("kept")
        lab.sbatch(["--account=kept"], "#!/bin/sh\nsleep 1000\n")
        ports = lab.plan.ports
        with pytest.raises(LabError, match="Another process"):
            NativeLab(lab.place.root).start()
    assert alive_under(lab.place.run) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ports[0])) != 0
    with lab:
        assert "kept" in lab.run("sacctmgr", "-n", "-P", "show", "account", "format=account").split()
        assert lab.plan.ports == ports
    lab.wipe()
    assert not lab.place.run.exists()


@pytest.mark.xdist_group("native")
def test_a_lab_whose_starter_was_killed_is_cleaned_up(native_lab: NativeLab, tmp_path: Path) -> None:
    """kill -9 in the middle of a start: the next start or stop ends what it finds."""
    script = (
        "import sys, pathlib, config.labs.native as native\n"
        "native.NativeLab(pathlib.Path(sys.argv[1]), nodes=1).start()"
    )
    starter = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=CHECKOUT)
    lab = NativeLab(tmp_path, nodes=1)
    assert wait_until(lambda: lab.daemons.pid("slurmdbd") is not None, 30)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    assert lab.daemons.leftovers()
    lab.stop()
    assert alive_under(lab.place.run) == []
    lab.wipe()


@pytest.mark.xdist_group("native")
def test_an_interrupted_start_leaves_nothing(native_lab: NativeLab, tmp_path: Path) -> None:
    lab = NativeLab(tmp_path, nodes=1)
    taken = socket.socket()
    with taken:
        # slurmctld's port is taken between the choice and the start: slurmctld dies, the start fails.
        original = lab.start_slurmctld

        def steal() -> None:
            taken.bind(("127.0.0.1", lab.plan.ports[0]))
            taken.listen()
            original()

        lab.start_slurmctld = steal  # type: ignore[method-assign]
        with pytest.raises(LabError, match="slurmctld does not answer"):
            lab.start()
    assert alive_under(lab.place.run) == []
    lab.wipe()
