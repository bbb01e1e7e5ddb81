"""A private Slurm cluster: what the labs of both releases have in common."""

from __future__ import annotations

import fcntl
import getpass
import grp
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from config.labs.conf import CLUSTER, Layout, Plan, gres_conf, slurm_conf, slurmdbd_conf
from config.labs.errors import LabError
from config.labs.ports import all_free, free_block
from config.labs.processes import Daemons, wait_until

# Logins that every Debian has (base-passwd), none of which owns a daemon: people who submit jobs.
_SPARE_LOGINS = ("games", "news", "mail", "lp", "uucp", "irc")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


class SlurmLab(ABC):
    """munge or auth/slurm, MariaDB, slurmdbd, slurmctld and `nodes` real slurmd on 127.0.0.1.

    State persists under `root`; start() on the same root goes on where stop() or a crash ended. As root
    the daemons are root's and jobs run as `job_user`, a spare system login; otherwise all is the caller's.
    """

    release: str

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 4,
        gpus: int = 8,
        base_port: int | None = None,
        slurmd_timeout: int = 20,
    ) -> None:
        self.root = root.resolve()
        self._sizes = (nodes, gpus, base_port, slurmd_timeout)
        tag = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        # Not TMPDIR and not XDG_RUNTIME_DIR: the path must be short, and other logins must reach it.
        self.run_dir = Path("/tmp") / f"kezek-lab-{os.geteuid()}-{tag}"
        self.layout = Layout(run=self.run_dir, state=self._state_seen())
        self.logs = self.root / "log"
        self.daemons = Daemons(self.run_dir / "pids", self.logs)
        self.ready = False
        self._lock: IO[str] | None = None
        self._plan: Plan | None = None

    # -- what a release decides -------------------------------------------------------------------

    @abstractmethod
    def _state_seen(self) -> Path:
        """`root` as the daemons see it."""

    @abstractmethod
    def _daemon(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a daemon of this release."""

    @abstractmethod
    def _client(self, argv: Sequence[str], user: str | None) -> list[str]:
        """The command line that runs a client command of this release."""

    @abstractmethod
    def _auth(self, *, dbd: bool) -> Mapping[str, object]:
        """The authentication lines of slurm.conf or slurmdbd.conf."""

    @abstractmethod
    def _devices(self, count: int) -> list[Path]:
        """Files that stand for `count` GPUs."""

    @abstractmethod
    def _start_database(self) -> None:
        """Start mariadbd (and what must run before it)."""

    # -- people and environment -------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """Ports, nodes and names: as saved under the root, or freshly chosen."""
        if self._plan is None:
            self._plan = self._choose_plan()
        return self._plan

    @property
    def node_names(self) -> list[str]:
        return self.plan.node_names

    @property
    def slurm_conf(self) -> Path:
        return self.run_dir / "etc/slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """What client commands need in their environment."""
        return {"SLURM_CONF": str(self.slurm_conf)}

    @property
    def client_prefix(self) -> list[str]:
        """Stands before `scontrol`, `sacctmgr`, … ; empty where the commands are on the PATH."""
        return []

    @property
    def job_users(self) -> list[str]:
        """Logins that can run jobs: spare ones as root, only our own otherwise."""
        if os.geteuid() != 0:
            return [getpass.getuser()]
        known = {entry.pw_name for entry in pwd.getpwall()}
        return [login for login in _SPARE_LOGINS if login in known]

    @property
    def job_user(self) -> str:
        return self.job_users[0]

    def run(self, *argv: str, user: str | None = None, stdin: str = "", timeout: float = 30) -> str:
        """A client command's output; raises LabError with what it said when it fails."""
        env = {"PATH": _PATH, "HOME": "/tmp", "LC_ALL": "C.UTF-8", **self.env}
        done = subprocess.run(
            self._client(argv, user),
            input=stdin,
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise LabError("%(command)s: %(said)s", {"command": " ".join(argv), "said": said})
        return done.stdout

    def sbatch(self, args: Sequence[str], script: str, *, user: str | None = None) -> int:
        """Submit as `user` (the job user by default); returns the job's id."""
        quiet = ("--parsable", "--chdir=/tmp", "--output=/dev/null")
        out = self.run("sbatch", *quiet, *args, user=user or self.job_user, stdin=script)
        return int(out.split(";")[0])

    def add_user(self, account: str, user: str | None = None) -> None:
        """Let a login submit under an account: sbatch is refused without an association."""
        for command in (f"account {account}", f"user {user or self.job_user} account={account}"):
            try:
                self.run("sacctmgr", "-i", "add", *command.split())
            except LabError as error:
                if "Nothing new added" not in str(error):
                    raise

    # -- the whole --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up and wait for idle nodes; on any failure nothing is left running."""
        self._claim()
        try:
            # A run that was killed may have left daemons; a new one cannot share their state.
            self.daemons.sweep()
            self._plan = self._choose_plan()
            self._write_files()
            self._start_database()
            self.start_slurmdbd()
            self._register()
            self.start_slurmctld()
            for node in self.node_names:
                self._spawn_slurmd(node)
            self.wait_idle()
            self.ready = True
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process in the order that loses nothing; also of a lab that another command started."""
        self.ready = False
        if self.daemons.pid("slurmctld") is not None:
            # slurmstepd would outlive its slurmd: the jobs go first, while slurmctld can record their end.
            with suppress(LabError, subprocess.TimeoutExpired):
                self._cancel_jobs()
        names = self.daemons.names()
        slurmds = [n for n in names if n.startswith("slurmd.")]
        for name in (*slurmds, "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.daemons.end(name, signal.SIGKILL if name in slurmds else signal.SIGTERM)
        self.daemons.sweep()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def wipe(self) -> None:
        """Stop and forget all state."""
        self.stop()
        for directory in (self.run_dir, self.root):
            shutil.rmtree(directory, ignore_errors=True)

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until every node is idle; raises with sinfo's words when they don't become so."""

        def idle() -> bool:
            states = self.run("sinfo", "-h", "-N", "-o", "%N %T").split()[1::2]
            return len(states) == self.plan.nodes and set(states) == {"idle"}

        if not self._eventually(idle, seconds):
            raise LabError(
                "Nodes do not become idle: %(sinfo)s", {"sinfo": self.run("sinfo", "-N", "-o", "%N %T %E")}
            )

    # -- the pieces, for crash tests --------------------------------------------------------------

    def kill_slurmctld(self) -> None:
        """SIGKILL: what was not saved yet is lost."""
        self.daemons.end("slurmctld", signal.SIGKILL)

    def start_slurmctld(self) -> None:
        """Start slurmctld and wait until it answers."""
        self.daemons.start("slurmctld", self._daemon(["slurmctld", "-D"]), self._daemon_env())
        self._await("slurmctld", lambda: " UP" in self.run("scontrol", "ping"))

    def kill_slurmdbd(self) -> None:
        """SIGKILL: accounting is away, scheduling goes on."""
        self.daemons.end("slurmdbd", signal.SIGKILL)

    def start_slurmdbd(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self.daemons.start("slurmdbd", self._daemon(["slurmdbd", "-D"]), self._daemon_env())
        self._await("slurmdbd", lambda: bool(self.run("sacctmgr", "-n", "-P", "show", "configuration")))

    def kill_slurmd(self, node: str) -> None:
        """SIGKILL: the node is DOWN after slurmd_timeout; its jobs' slurmstepd live on."""
        self.daemons.end(f"slurmd.{node}", signal.SIGKILL)

    def start_slurmd(self, node: str) -> None:
        """Start a node's slurmd and wait until slurmctld has heard from it."""
        self._spawn_slurmd(node)
        self._await(
            f"slurmd.{node}", lambda: not self._node_state(node) & {"DOWN", "NOT_RESPONDING", "UNKNOWN"}
        )

    # -- inside -----------------------------------------------------------------------------------

    def _spawn_slurmd(self, node: str) -> None:
        self.daemons.start(f"slurmd.{node}", self._daemon(["slurmd", "-D", "-N", node]), self._daemon_env())

    def _node_state(self, node: str) -> set[str]:
        text = self.run("scontrol", "-o", "show", "node", node)
        state = next(word for word in text.split() if word.startswith("State=")).removeprefix("State=")
        return set(state.replace("*", "+NOT_RESPONDING").split("+"))

    def _daemon_env(self) -> dict[str, str]:
        return {
            "PATH": _PATH,
            "HOME": "/tmp",
            "MYSQL_UNIX_PORT": str(self.layout.mysql_socket),
            **self._server_env(),
        }

    def _server_env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.slurm_conf)}

    def _await(self, daemon: str, answers: "Callable[[], bool]", seconds: float = 60) -> None:
        """Wait for a daemon's answer, but not for one that has died."""

        def settled() -> bool:
            return self.daemons.pid(daemon) is None or self._try(answers)

        if not wait_until(settled, seconds) or self.daemons.pid(daemon) is None:
            raise LabError("%(name)s does not answer:\n%(log)s", {"name": daemon, "log": self._tail(daemon)})

    def _eventually(self, condition: "Callable[[], bool]", seconds: float) -> bool:
        return wait_until(lambda: self._try(condition), seconds)

    @staticmethod
    def _try(condition: "Callable[[], bool]") -> bool:
        try:
            return condition()
        except (LabError, subprocess.TimeoutExpired, OSError):
            return False

    def _tail(self, daemon: str) -> str:
        texts = []
        for file in (self.logs / f"{daemon}.out", self.logs / f"{daemon}.log"):
            if file.exists():
                texts += file.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return "\n".join(texts)

    def _cancel_jobs(self) -> None:
        jobs = self.run("squeue", "-h", "-o", "%A", timeout=5).split()
        if jobs:
            self.run("scancel", "--quiet", *jobs, timeout=5)
            wait_until(lambda: not self.run("squeue", "-h", "-o", "%A", timeout=5).split(), 5)

    def _register(self) -> None:
        """slurmctld refuses to start for a cluster that accounting does not know."""
        if CLUSTER not in self.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split():
            self.run("sacctmgr", "-i", "add", "cluster", CLUSTER)

    def _claim(self) -> None:
        """Hold the root for as long as this object lives, so that no second lab starts over it."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / "owner.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LabError("Another process runs the lab in %(root)s.", {"root": self.root}) from None
        self._lock = lock

    def _choose_plan(self) -> Plan:
        saved_file = self.root / "lab.json"
        nodes, gpus, base, timeout = self._sizes
        saved = json.loads(saved_file.read_text(encoding="utf-8")) if saved_file.exists() else {}
        running = self.daemons.pid("slurmctld") is not None
        if running and saved:
            nodes, gpus = saved["nodes"], saved["gpus"]
        first = base or saved.get("base_port")
        ports = range(first, first + nodes + 2) if first else free_block(nodes + 2)
        if not running and not all_free(ports):
            if base:
                raise LabError(
                    "Ports %(first)s to %(last)s are not free.", {"first": ports[0], "last": ports[-1]}
                )
            ports = free_block(nodes + 2)
        self.root.mkdir(parents=True, exist_ok=True)
        saved_file.write_text(
            json.dumps({"nodes": nodes, "gpus": gpus, "base_port": ports[0]}), encoding="utf-8"
        )
        host, address = self._host()
        return Plan(ports, nodes, gpus, host, address, getpass.getuser(), timeout)
