"""A private Slurm cluster: what the labs of both releases have in common."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from config.labs.clients import SYSTEM_PATH, TMP, Clients
from config.labs.conf import CLUSTER, Layout, Plan, gres_conf, slurm_conf, slurmdbd_conf, topology_conf
from config.labs.errors import LabError
from config.labs.place import Host, Place, Sizes
from config.labs.processes import Daemons, wait_until


class SlurmLab(Clients):
    """MariaDB, slurmdbd, slurmctld and `nodes` real slurmd with `gpus` pretended H200 each, on 127.0.0.1.

    State persists under `root`; start() over the same root goes on where stop() or a crash ended. As root
    the daemons are root's and jobs run as `job_user`, a spare system login; otherwise all is the caller's.
    A killed slurmd's node is DOWN about `slurmd_timeout` seconds later.
    """

    def __init__(
        self,
        root: Path,
        *,
        nodes: int = 4,
        gpus: int = 8,
        base_port: int | None = None,
        slurmd_timeout: int = 20,
    ) -> None:
        self.place = Place(root)
        self.sizes = Sizes(nodes, gpus, base_port, slurmd_timeout)
        self.layout = Layout(run=self.place.run, state=self._state_seen())
        self.daemons = Daemons(self.place.run / "pids", self.place.root / "log")
        self.ready = False
        self._plan: Plan | None = None

    @abstractmethod
    def _state_seen(self) -> Path:
        """The root as the daemons see it."""

    @abstractmethod
    def _daemon(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a daemon of this release."""

    @abstractmethod
    def _auth(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """The authentication lines of slurm.conf and of slurmdbd.conf."""

    @abstractmethod
    def _host(self) -> Host:
        """Where the daemons believe they run, and as whom."""

    @abstractmethod
    def _cgroup_conf(self) -> str:
        """cgroup.conf: no cgroups, as this release says it."""

    @abstractmethod
    def _etc(self) -> Path:
        """The /etc whose people the daemons know."""

    @abstractmethod
    def _start_database(self) -> None:
        """Start mariadbd and whatever must run before it."""

    @property
    def plan(self) -> Plan:
        """Nodes and ports of the lab; raises LabError before its first start."""
        self._plan = self._plan or self.place.saved_plan()
        if self._plan is None:
            raise LabError("There is no lab in %(root)s yet.", {"root": self.place.root})
        return self._plan

    @property
    def node_names(self) -> list[str]:
        """gpu0001, gpu0002, …"""
        return self.plan.node_names

    @property
    def slurm_conf(self) -> Path:
        return self.place.run / "etc/slurm.conf"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up and wait for idle nodes; on any failure nothing is left running."""
        self.place.claim()
        try:
            # A run that was killed may have left daemons; a new one cannot share their state.
            self.daemons.sweep()
            self.place.make()
            self._plan = self.place.new_plan(self.sizes, self._host())
            self._write_files(self._plan)
            self.place.people(self._etc())
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
            # slurmstepd outlives its slurmd: the jobs go first, while slurmctld can record their end.
            with suppress(LabError):
                self.cancel_jobs()
        slurmds = [name for name in self.daemons.names() if name.startswith("slurmd.")]
        for name in slurmds:
            self.daemons.end(name, signal.SIGKILL)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged", "sackd"):
            self.daemons.end(name)
        self.daemons.sweep()
        self.place.clear_run()
        self.place.release()

    def wipe(self) -> None:
        """Stop and forget all state."""
        self.stop()
        self.place.remove()

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until every node is idle; raises with sinfo's words when they don't become so."""

        def dead() -> list[str]:
            return [node for node in self.node_names if self.daemons.pid(f"slurmd.{node}") is None]

        def idle() -> bool:
            states = self.run("sinfo", "-h", "-N", "-o", "%N %T", timeout=5).split()[1::2]
            return len(states) == self.plan.nodes and set(states) == {"idle"}

        wait_until(lambda: bool(dead()) or _true(idle), seconds)
        if gone := dead():
            raise LabError(
                "slurmd of %(node)s died:\n%(log)s", {"node": gone[0], "log": self._tail(f"slurmd.{gone[0]}")}
            )
        if not _true(idle):
            sinfo = self.run("sinfo", "-N", "-o", "%N %T %E")
            late = next((node for node in self.node_names if "IDLE" not in self.node_state(node)), "")
            details = {"sinfo": sinfo, "log": self._tail(f"slurmd.{late}")}
            raise LabError("The nodes do not become idle:\n%(sinfo)s%(log)s", details)

    def status(self) -> list[tuple[str, int | None]]:
        """Every daemon that should run, with its pid; None for one that is dead."""
        return [(name, self.daemons.pid(name)) for name in self.daemons.names()]

    def kill_slurmctld(self) -> None:
        """SIGKILL: what it has not saved yet is lost."""
        self.daemons.end("slurmctld", signal.SIGKILL)

    def start_slurmctld(self) -> None:
        """Start slurmctld and wait until it answers."""
        saved = (self.place.root / "ctld/assoc_usage").exists()
        # Killed before its first periodic save, 26.05 refuses to start again unless told to ignore that.
        self._spawn("slurmctld", ["slurmctld", "-D", *([] if saved else ["-i"])])
        self._await("slurmctld", lambda: " UP" in self.run("scontrol", "ping", timeout=5))

    def kill_slurmdbd(self) -> None:
        """SIGKILL: accounting is away, scheduling goes on."""
        self.daemons.end("slurmdbd", signal.SIGKILL)

    def start_slurmdbd(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self._await("slurmdbd", lambda: self.run("sacctmgr", "-n", "show", "cluster", timeout=5) is not None)

    def kill_slurmd(self, node: str) -> None:
        """SIGKILL: the node is DOWN after slurmd_timeout; slurmstepd of its jobs live on."""
        self.daemons.end(f"slurmd.{node}", signal.SIGKILL)

    def start_slurmd(self, node: str) -> None:
        """Start a node's slurmd and wait until slurmctld takes it back."""
        self._spawn_slurmd(node)
        away = {"DOWN", "NOT_RESPONDING", "UNKNOWN"}
        self._await(f"slurmd.{node}", lambda: not self.node_state(node) & away)

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        env = {
            "PATH": SYSTEM_PATH,
            "HOME": TMP,
            "SLURM_CONF": str(self.slurm_conf.with_name("server.conf")),
            "MYSQL_UNIX_PORT": str(self.layout.mysql_socket),
        }
        self.daemons.start(name, self._daemon(argv), env)

    def _spawn_slurmd(self, node: str) -> None:
        self.place.open_folder(f"spool/{node}")
        self._spawn(f"slurmd.{node}", ["slurmd", "-D", "-N", node])

    def _await(self, daemon: str, answers: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for a daemon's answer, but not for one that has died."""
        wait_until(lambda: self.daemons.pid(daemon) is None or _true(answers), seconds)
        if self.daemons.pid(daemon) is None or not _true(answers):
            raise LabError("%(name)s does not answer:\n%(log)s", {"name": daemon, "log": self._tail(daemon)})

    def _tail(self, daemon: str) -> str:
        """The last words of a daemon: of its own log and of its standard error."""
        texts: list[str] = []
        for suffix in ("out", "log"):
            file = self.place.root / "log" / f"{daemon}.{suffix}"
            if file.exists():
                texts += file.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        return "\n".join(texts)

    def cancel_jobs(self) -> None:
        """End every job and wait a moment until none is left."""

        def jobs() -> list[str]:
            return self.run("squeue", "-h", "-o", "%A", timeout=5).split()

        if there := jobs():
            self.run("scancel", "--quiet", *there, timeout=5)
            wait_until(lambda: not jobs(), 5)

    def _register(self) -> None:
        """slurmctld refuses to start for a cluster that accounting does not know."""
        if CLUSTER not in self.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split():
            self.run("sacctmgr", "-i", "add", "cluster", CLUSTER)

    def _write_files(self, plan: Plan) -> None:
        etc = self.slurm_conf.parent
        auth, dbd_auth = self._auth()
        texts = {
            "server.conf": slurm_conf(plan, self.layout, auth),
            "slurm.conf": f"include {etc / 'server.conf'}\n{self._client_conf()}",
            "gres.conf": gres_conf(self._devices(plan.gpus)),
            "topology.conf": topology_conf(plan),
            "cgroup.conf": self._cgroup_conf(),
        }
        for name, text in texts.items():
            (etc / name).write_text(text, encoding="utf-8")
            (etc / name).chmod(0o644)  # whatever the umask: job users read them
        self.place.private(etc / "slurmdbd.conf", slurmdbd_conf(plan, self.layout, dbd_auth).encode())

    def _devices(self, count: int) -> list[Path]:
        """Files that stand for `count` GPUs; Slurm never opens them."""
        terminals = [Path(f"/dev/tty{number}") for number in range(count)]
        if all(path.is_char_device() for path in terminals):
            return terminals
        # A container has no consoles. With plain files jobs lack CUDA_VISIBLE_DEVICES, but are counted alike.
        return self.place.files("gpu", count)

    def _client_conf(self) -> str:
        """What only clients outside need in their slurm.conf."""
        return ""


def _true(condition: Callable[[], bool]) -> bool:
    """A condition that cannot be asked yet does not hold."""
    try:
        return condition()
    except LabError:
        return False
