"""A cluster through Slurm's own commands (scontrol, sacctmgr, sacct, squeue, scancel): Slurm 22.05 and
later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from config.settings import ClusterSettings
from scheduler.clusters import slurm_text as text
from scheduler.clusters.base import (
    Account,
    Capability,
    Exists,
    Garbled,
    Health,
    JobUsage,
    Missing,
    Node,
    Partition,
    Refused,
    Reservation,
    Unreachable,
    UsageReading,
    days,
)
from scheduler.clusters.names import check_reservation, require_ours
from scheduler.clusters.readback import Held, as_shown, check_free, compare
from scheduler.clusters.slurm_accounts import BATCH, SlurmAccounts
from scheduler.clusters.slurm_tools import Tools

# scontrol itself blocks for nine seconds when nobody listens; ping answers or fails at once.
PING_SECONDS = 2
# Reservations of some GPUs of named nodes (TRESPerNode=gres/gpu=…) came with this release.
GPU_RESERVATIONS_SINCE = (23, 11)
# Slurm makes no reservation that is nobody's, and who mends a node has this login anyway.
ADMINISTRATOR = "root"
MAINTENANCE = ("MAINT", "IGNORE_JOBS")
_Parsed = TypeVar("_Parsed")
_VERSION = re.compile(r"SLURM_VERSION\s*=\s*(?P<version>(\d+)\.(\d+)\S*)")
_NAME = re.compile(r"^ClusterName\s*=\s*(?P<name>[A-Za-z0-9_-]+)\s*$", re.MULTILINE)
_CLOCK = re.compile(r"Configuration data as of (?P<clock>\d+)")


class SlurmCliCluster:
    """The Cluster protocol by running commands; ``settings`` say where they are and how long they may
    take."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.slug = settings.slug
        self._tools = Tools(settings)
        self._accounts = SlurmAccounts(self._tools, self._live, self._cores_per_gpu)
        self._name = ""
        self._version = ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Asked of the cluster once; raises Unreachable when it cannot be."""
        if not self._version:
            self._config()
        numbers = tuple(int(number) for number in self._version.split(".")[:2])
        return frozenset({Capability.GPU_RESERVATIONS} if numbers >= GPU_RESERVATIONS_SINCE else ())

    def health(self) -> Health:
        before = datetime.now(UTC).replace(microsecond=0)
        clock = self._config()
        after = datetime.now(UTC)
        # Slurm tells whole seconds; between asking and hearing any of them may be right.
        skew = timedelta(0) if before <= clock <= after else clock - (before if clock < before else after)
        try:
            self._tools.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster", timeout=PING_SECONDS)
        except Unreachable:
            return Health(self._version, clock, skew, accounting=False)
        return Health(self._version, clock, skew, accounting=True)

    def _config(self) -> datetime:
        """Learn version and name; returns the controller's clock."""
        output = self._controller("scontrol", "show", "config")
        version, name, clock = _VERSION.search(output), _NAME.search(output), _CLOCK.search(output)
        if version is None or name is None or clock is None:
            raise Garbled.said(self.slug, f"scontrol show config: {output[:200]}")
        self._version, self._name = version["version"], name["name"]
        return datetime.fromtimestamp(int(clock["clock"]), UTC)

    def _cluster_name(self) -> str:
        if not self._name:
            self._config()
        return self._name

    def _controller(self, *argv: str) -> str:
        """Run what needs slurmctld, but only while it lives: the tools themselves would wait long for a
        dead one."""
        self._ping()
        return self._tools.run(*argv)

    def _ping(self) -> None:
        ping = self._tools.run("scontrol", "ping", timeout=PING_SECONDS)
        if " UP" not in ping:
            raise Unreachable.said(self.slug, ping)

    def nodes(self) -> list[Node]:
        return self._under_switches(self._parsed(text.nodes, "scontrol", "-o", "show", "nodes"))

    def _under_switches(self, nodes: list[Node]) -> list[Node]:
        """With their leaf switches, where the cluster has a topology and tells it."""
        try:
            leaves = self._parsed(text.leaves, "scontrol", "show", "topology")
        except (Refused, Missing):
            # Some releases call it an error that there is none.
            return nodes
        return [replace(node, switch=leaves.get(node.name)) for node in nodes]

    def partitions(self) -> list[Partition]:
        return self._parsed(text.partitions, "scontrol", "-o", "show", "partition")

    def reservations(self) -> list[Reservation]:
        return [held.reservation for held in self._held()]

    def _held(self) -> list[Held]:
        return self._parsed(text.reservations, "scontrol", "-o", "show", "reservation")

    def create_reservation(self, reservation: Reservation) -> None:
        """As the protocol says; on a cluster without GPU reservations a part of a node becomes the whole
        node with
        ``overlap``: several parts may share it, and the limits of their accounts keep them apart."""
        check_reservation(self.slug, reservation)
        held = self._held()
        if any(one.reservation.name == reservation.name for one in held):
            raise Exists.said(self.slug, f"{reservation.name}: Duplicate reservation name")
        check_free(self.slug, reservation, held)
        self._make(reservation)
        self._compare(reservation)

    def _make(self, reservation: Reservation) -> None:
        self._controller(
            "scontrol",
            "create",
            "reservation",
            f"ReservationName={reservation.name}",
            f"StartTime={_uts(reservation.starts_at)}",
            f"EndTime={_uts(reservation.ends_at)}",
            f"Nodes={','.join(reservation.nodes)}",
            *_holders(reservation),
            *self._part(reservation),
        )

    def _part(self, reservation: Reservation) -> list[str]:
        """How to ask for some GPUs of every node: with their share of the cores, or a job could use only
        two."""
        gpus = reservation.gpus_per_node
        if gpus is None:
            return []
        if Capability.GPU_RESERVATIONS not in self.capabilities:
            return ["Flags=overlap"]
        nodes = ",".join(reservation.nodes)
        shapes = self._parsed(text.shapes, "scontrol", "-o", "show", "node", nodes)
        # A node without such GPUs gets no share; Slurm then refuses in its own words.
        cores = min((cpus * gpus // there for cpus, there in shapes if there), default=0)
        share = f",cpu={cores}" if cores else ""
        return [f"TRESPerNode=gres/gpu={gpus}{share}"]

    def update_reservation(self, reservation: Reservation) -> None:
        """As the protocol says; another share of GPUs is made by deleting and creating (Slurm changes no such
        reservation), so it raises InUse while jobs run in it."""
        check_reservation(self.slug, reservation)
        held = self._held()
        found = next((one for one in held if one.reservation.name == reservation.name), None)
        if found is None:
            raise Missing.said(self.slug, f"{reservation.name}: Requested reservation is invalid")
        check_free(self.slug, reservation, [one for one in held if one is not found])
        wanted = as_shown(reservation, self.capabilities)
        before = found.reservation
        same_nodes = set(before.nodes) == set(wanted.nodes)
        gpus = (before.gpus_per_node, wanted.gpus_per_node)
        another_kind = gpus[0] != gpus[1] or before.maintenance != wanted.maintenance
        if another_kind or (not same_nodes and gpus != (None, None)):
            self.delete_reservation(reservation.name)
            self._make(reservation)
        else:
            self._alter(before, wanted)
        self._compare(reservation)

    def _alter(self, before: Reservation, wanted: Reservation) -> None:
        changes = [f"{key}={value}" for key, value in changed(before, wanted).items()]
        if changes:
            self._controller("scontrol", "update", f"ReservationName={wanted.name}", *changes)

    def _compare(self, asked: Reservation) -> None:
        compare(self.slug, as_shown(asked, self.capabilities), self.reservations())

    def delete_reservation(self, name: str) -> None:
        self._controller("scontrol", "delete", "reservation", require_ours(name))

    def cancel_jobs(self, reservation: str) -> int:
        listed = self._controller("squeue", "-h", f"--reservation={require_ours(reservation)}", "--format=%A")
        jobs = sorted(set(listed.split()))
        if any(not job.isdecimal() for job in jobs):
            raise Garbled.said(self.slug, f"squeue: {listed[:200]}")
        for begin in range(0, len(jobs), BATCH):
            self._controller("scancel", "--quiet", *jobs[begin : begin + BATCH])
        return len(jobs)

    def _cores_per_gpu(self) -> int:
        shapes = self._parsed(text.shapes, "scontrol", "-o", "show", "nodes")
        return min((cpus // gpus for cpus, gpus in shapes if gpus), default=0)

    def _live(self, accounts: Sequence[str]) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for begin in range(0, len(accounts), BATCH):
            some = ",".join(accounts[begin : begin + BATCH])
            rows = self._parsed(
                lambda output: text.table(output, 2), "squeue", "-h", f"--account={some}", "--format=%a|%u"
            )
            found |= {(account, login) for account, login in rows}
        return found

    def accounts(self) -> list[Account]:
        return self._accounts.read(self._cluster_name())

    def save_accounts(self, accounts: Sequence[Account]) -> None:
        self._accounts.save(accounts, self._cluster_name())

    def remove_accounts(self, names: Sequence[str]) -> None:
        self._accounts.remove(names, self._cluster_name())

    def usage(self, since: datetime, until: datetime) -> UsageReading:
        reading = UsageReading()
        runs: list[text.Run] = []
        for begin, end in days(since, until):
            # -D: every run of a requeued job (their submissions differ). -X: jobs without their steps.
            window = ("-S", _uts(begin), "-E", _uts(end))
            output = self._tools.run("sacct", "-a", "-X", "-D", "-P", "-n", *window, "-o", text.USAGE_FIELDS)
            runs += text.usage(output, reading)
        reading.jobs = runs_within(text.named(runs, self._periods(runs, since, until)), since, until)
        return reading

    def _periods(self, runs: list[text.Run], since: datetime, until: datetime) -> list[text.Period]:
        if not text.any_unnamed(runs):
            return []
        argv = ("-n", "-P", "show", "reservation", f"cluster={self._cluster_name()}")
        # A day more: a run may have begun before the window.
        window = (f"start={_uts(since - timedelta(days=1))}", f"end={_uts(until)}")
        output = self._tools.run("sacctmgr", *argv, *window, "format=id,name,start,end")
        try:
            return text.periods(output)
        except text.Unreadable as error:
            raise Garbled.said(self.slug, f"sacctmgr show reservation: {error}") from error

    def _parsed(self, parse: Callable[[str], _Parsed], *argv: str) -> _Parsed:
        output = self._controller(*argv)
        try:
            return parse(output)
        except text.Unreadable as error:
            raise Garbled.said(self.slug, f"{' '.join(argv)[:80]}: {error}") from error


def _holders(reservation: Reservation) -> list[str]:
    """Who may use it. Jobs that run when maintenance is announced are neither in its way nor ended by it."""
    if reservation.maintenance:
        return [f"Users={ADMINISTRATOR}", f"Flags={','.join(MAINTENANCE)}"]
    return [f"Accounts={','.join(reservation.accounts)}"]


def _uts(moment: datetime) -> str:
    """Slurm's own notation for epoch seconds: the only one that no time zone can change."""
    return f"uts{int(moment.timestamp())}"


def changed(before: Reservation, wanted: Reservation) -> dict[str, str]:
    """Only what differs, in scontrol's words: a start that has passed must not be named again, even
    unchanged."""
    old, new = _words(before), _words(wanted)
    return {key: text for key, text in new.items() if old[key] != text}


def _words(reservation: Reservation) -> dict[str, str]:
    return {
        "StartTime": _uts(reservation.starts_at),
        "EndTime": _uts(reservation.ends_at),
        "Nodes": ",".join(sorted(reservation.nodes)),
        "Accounts": ",".join(sorted(reservation.accounts)),
    }


def runs_within(jobs: Iterable[JobUsage], since: datetime, until: datetime) -> list[JobUsage]:
    """Each run once, in order, that ran at any moment of [since, until); sacct tells more than was asked."""
    runs = {(job.job_id, job.submitted_at): job for job in jobs}
    return [
        run
        for _, run in sorted(runs.items())
        if run.started_at is not None
        and run.started_at < until
        and (run.ended_at is None or run.ended_at > since or run.started_at >= since)
    ]
