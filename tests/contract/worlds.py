"""A cluster and everybody else who is at it: people who submit jobs, operators, and the power cut.

The contract suite knows only this; one class makes it of the simulated cluster, one of a real Slurm.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.labs.errors import LabError
from config.labs.slurm import SlurmLab
from config.settings import ClusterSettings
from scheduler.clusters import connect
from scheduler.clusters.base import Account, Cluster, ClusterError, JobUsage, NodeState, Reservation
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.clusters.simulated_store import Fault


class World(ABC):
    """``nodes`` are the cluster's; ``logins`` may have associations, jobs run as the first of them.

    ``leaves``: the nodes under each leaf switch.
    """

    cluster: Cluster
    leaves: dict[str, list[str]]
    nodes: list[str]
    logins: list[str]
    # Whether accounting knows which logins exist; a slurmdbd takes any name.
    knows_logins = False

    @abstractmethod
    def now(self) -> datetime:
        """The cluster's clock in whole seconds."""

    @abstractmethod
    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Let the cluster's time pass until something holds; whether it came to hold."""

    @abstractmethod
    def submit(
        self,
        account: str,
        gpus: int,
        seconds: int,
        *,
        nodes: int = 1,
        reservation: str | None = None,
        cpus: int = 1,
    ) -> int:
        """A job with ``gpus`` on each of ``nodes`` for ``seconds``; its id, or the tool's error."""

    @abstractmethod
    def job(self, job_id: int) -> tuple[str, str]:
        """A living job's state and why it waits."""

    @abstractmethod
    def requeue(self, job_id: int) -> None:
        """End the run and let the job start again at once."""

    @abstractmethod
    def cancel(self, job_id: int) -> None: ...

    @abstractmethod
    def cancel_all(self) -> None:
        """Every job of everybody ends, and has ended."""

    @abstractmethod
    def put_reservation(self, reservation: Reservation) -> None:
        """Somebody else makes this reservation."""

    @abstractmethod
    def delete_reservation(self, name: str) -> None:
        """Somebody else deletes a reservation."""

    @abstractmethod
    def add_login(self, account: str, login: str) -> None:
        """Somebody else lets another person into an account."""

    @abstractmethod
    def stop_controller(self) -> None: ...

    @abstractmethod
    def hang_controller(self) -> None:
        """It takes connections and says nothing."""

    @abstractmethod
    def start_controller(self) -> None: ...

    @abstractmethod
    def stop_accounting(self) -> None: ...

    @abstractmethod
    def start_accounting(self) -> None: ...

    def running(self, job_id: int) -> bool:
        return self.job(job_id)[0] == "RUNNING"

    def runs(self, job_id: int, hours: int = 1) -> list[JobUsage]:
        """What the adapter tells of a job's runs in the last hours."""
        now = self.now()
        reading = self.cluster.usage(now - timedelta(hours=hours), now + timedelta(minutes=1))
        assert reading.bad_lines == 0, reading.samples
        return [run for run in reading.jobs if run.job_id == job_id]

    def clean(self) -> None:
        """No jobs and no reservations."""
        self.cancel_all()
        for held in self.cluster.reservations():
            self.delete_reservation(held.name)


class SimulatedWorld(World):
    knows_logins = True

    def __init__(self, folder: Path) -> None:
        self._time = datetime(2026, 11, 20, 8, tzinfo=UTC)
        settings = ClusterSettings(slug="alem", database=folder / "alem.sqlite3", nodes=4, timeout=1)
        self.cluster = self._simulated = SimulatedCluster(settings, clock=lambda: self._time)
        self.nodes = [node.name for node in self._simulated.nodes()]
        self.logins = ["games", "news", "mail"]
        self._simulated.set_unknown_logins(["stranger"])
        self.leaves = {"leaf1": self.nodes[:2], "leaf2": self.nodes[2:]}
        self._simulated.set_switches(self.leaves)

    def now(self) -> datetime:
        return self._simulated.now()

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        for _ in range(int(seconds)):
            if until():
                return True
            self._time += timedelta(seconds=1)
        return until()

    def submit(
        self,
        account: str,
        gpus: int,
        seconds: int,
        *,
        nodes: int = 1,
        reservation: str | None = None,
        cpus: int = 1,
    ) -> int:
        return self._simulated.submit(self.logins[0], account, gpus * nodes, nodes, seconds, reservation)

    def job(self, job_id: int) -> tuple[str, str]:
        run, reason = [one for one in self._simulated.jobs() if one[0].job_id == job_id][-1]
        return run.state, reason

    def requeue(self, job_id: int) -> None:
        self._simulated.requeue(job_id)

    def cancel(self, job_id: int) -> None:
        self._simulated.cancel(job_id)

    def cancel_all(self) -> None:
        for run, _ in self._simulated.jobs():
            if run.state in {"PENDING", "RUNNING"}:
                self.cancel(run.job_id)

    def put_reservation(self, reservation: Reservation) -> None:
        self._simulated.put_by_hand(reservation)

    def delete_reservation(self, name: str) -> None:
        self._simulated.delete_by_hand(name)

    def add_login(self, account: str, login: str) -> None:
        found = next(one for one in self._simulated.accounts() if one.name == account)
        self._simulated.put_account_by_hand(replace(found, logins=found.logins | {login}))

    def stop_controller(self) -> None:
        self._simulated.set_fault(Fault.CONTROLLER_DOWN)

    def hang_controller(self) -> None:
        self._simulated.set_fault(Fault.SLOW, 10)

    def start_controller(self) -> None:
        self._simulated.clear_faults(Fault.CONTROLLER_DOWN, Fault.SLOW)

    def stop_accounting(self) -> None:
        self._simulated.set_fault(Fault.ACCOUNTING_DOWN)

    def start_accounting(self) -> None:
        self._simulated.clear_faults(Fault.ACCOUNTING_DOWN)


class LabWorld(World):
    """A real Slurm; ``adapter`` as in the settings."""

    def __init__(self, lab: SlurmLab, adapter: str) -> None:
        self._lab = lab
        settings = {
            "slug": "lab",
            "adapter": adapter,
            "slurm_conf": lab.slurm_conf,
            "command_prefix": lab.client_prefix,
            "env": lab.env,
            "timeout": 60,
        }
        self.cluster = connect(ClusterSettings.model_validate(settings))
        self.nodes = lab.node_names
        self.leaves = lab.plan.leaves
        # Associations may be for logins that cannot run jobs here.
        self.logins = [*dict.fromkeys([*lab.job_users, "games", "news", "mail"])][:3]

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            time.sleep(0.3)
        return until()

    def submit(
        self,
        account: str,
        gpus: int,
        seconds: int,
        *,
        nodes: int = 1,
        reservation: str | None = None,
        cpus: int = 1,
    ) -> int:
        # A time limit of one minute more: what is limited is what a job may use.
        minutes = -(-seconds // 60) + 1
        args = [f"--account={account}", f"--gres=gpu:{gpus}", f"--nodes={nodes}", f"--time={minutes}"]
        args += [f"--cpus-per-task={cpus}", "--mem=100M", "--requeue"]
        if reservation:
            args.append(f"--reservation={reservation}")
        return self._lab.sbatch(args, f"#!/bin/sh\nexec sleep {seconds}\n", user=self.logins[0])

    def job(self, job_id: int) -> tuple[str, str]:
        words = self._lab.run("squeue", "-h", "-j", str(job_id), "-o", "%T %r", "--states=all").split()
        return (words[0], words[1]) if words else ("", "")

    def requeue(self, job_id: int) -> None:
        self._lab.run("scontrol", "requeue", str(job_id))
        # Slurm holds a requeued job for two minutes, of which a few seconds must pass: until then slurmd
        # takes the new run's credential for the old one's, which it has revoked.
        assert self.wait(lambda: self.job(job_id)[0] == "PENDING", 30)
        time.sleep(4)
        self._lab.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def cancel(self, job_id: int) -> None:
        self._lab.run("scancel", str(job_id))

    def cancel_all(self) -> None:
        def gone() -> bool:
            jobs = self._lab.run("squeue", "-h", "-o", "%A").split()
            if jobs:
                self._lab.run("scancel", "--quiet", *jobs)
            return not jobs

        assert self.wait(gone, 30)

    def put_reservation(self, reservation: Reservation) -> None:
        times = [f"{key}=uts{int(at.timestamp())}" for key, at in
                 (("StartTime", reservation.starts_at), ("EndTime", reservation.ends_at))]  # fmt: skip
        who = f"Accounts={','.join(reservation.accounts)}"
        where = f"Nodes={','.join(reservation.nodes)}"
        self._lab.run("scontrol", "create", f"ReservationName={reservation.name}", *times, where, who)

    def delete_reservation(self, name: str) -> None:
        def gone() -> bool:
            try:
                self._lab.run("scontrol", "delete", f"ReservationName={name}")
            except LabError as error:
                return "invalid" in str(error)
            return True

        # Jobs that were cancelled a moment ago still count.
        assert self.wait(gone, 15), name

    def add_login(self, account: str, login: str) -> None:
        # With another QOS than the account's: past its limit.
        qos = ("qos=normal", "defaultqos=normal")
        self._lab.run("sacctmgr", "-i", "add", "user", login, f"account={account}", *qos)

    def stop_controller(self) -> None:
        self._lab.kill_slurmctld()

    def hang_controller(self) -> None:
        os.kill(self._pid(), signal.SIGSTOP)

    def start_controller(self) -> None:
        if self._lab.daemons.pid("slurmctld") is None:
            self._lab.start_slurmctld()
        os.kill(self._pid(), signal.SIGCONT)
        assert self.wait(self._settled, 90), self._lab.run("sinfo", "-N", "-o", "%N %T %E")

    def _pid(self) -> int:
        pid = self._lab.daemons.pid("slurmctld")
        assert pid is not None
        return pid

    def _settled(self) -> bool:
        try:
            # Nodes report themselves again after the controller's return; until then nothing can start.
            return {node.state for node in self.cluster.nodes()} == {NodeState.UP}
        except ClusterError:
            return False

    def stop_accounting(self) -> None:
        self._lab.kill_slurmdbd()

    def start_accounting(self) -> None:
        self._lab.start_slurmdbd()


def account(name: str, world: World, minutes: int | None = 100_000, people: int = 1) -> Account:
    return Account(name, f"quota {name}", minutes, frozenset(world.logins[:people]))
