"""What Kezek asks of a cluster: a small protocol, its data, and the errors that every adapter raises alike.

Amounts: GPU-seconds and GPU-minutes are integers, times are aware UTC and come from the controller's clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Protocol, Self

from config.errors import KezekError
from config.i18n import N_


class NodeState(StrEnum):
    UP = "up"
    DOWN = "down"
    DRAINED = "drained"


@dataclass(frozen=True)
class Node:
    """A node with GPUs; ``gpus`` of one ``gpu_type`` (``h200``)."""

    name: str
    partitions: tuple[str, ...]
    gpu_type: str
    gpus: int
    state: NodeState
    reason: str = ""
    # the leaf switch above it, where the cluster tells
    switch: str | None = None


@dataclass(frozen=True)
class Partition:
    name: str
    nodes: int
    is_default: bool


@dataclass(frozen=True)
class Health:
    """``clock_skew`` is controller minus ours; ``accounting`` tells whether the accounting service
    answers."""

    version: str
    controller_time: datetime
    clock_skew: timedelta
    accounting: bool


@dataclass(frozen=True)
class Account:
    """A project's account as the cluster should have (or has) it.

    The account, a QOS of the same name that limits it to ``gpu_minutes`` (``GrpTRESMins=gres/gpu``; None:
    no limit),
    and an association for each of ``logins`` whose only and default QOS is that one.
    """

    name: str
    description: str
    gpu_minutes: int | None
    logins: frozenset[str] = frozenset()
    # weight in the cluster's own fair share, by which it ranks queued jobs; None: left as it is. Every
    # account has one there, so that it says nothing about whether two accounts are the same.
    shares: int | None = field(default=None, compare=False)
    # how many GPUs its jobs may have at a time (``GrpTRES=gres/gpu``, with the cores that belong to them);
    # None: as many as there are. This is what keeps bookings apart that share a node on an old Slurm.
    gpus: int | None = None


@dataclass(frozen=True)
class Reservation:
    """Named nodes for a window. ``gpus_per_node`` None: whole nodes; a number: only so many GPUs of each.

    ``maintenance``: nobody's jobs start there, whatever else holds the nodes; what runs already is not
    ended. It has no accounts: only the cluster's own administrator may try the nodes out.
    """

    name: str
    starts_at: datetime
    ends_at: datetime
    nodes: tuple[str, ...]
    accounts: tuple[str, ...]
    gpus_per_node: int | None = None
    maintenance: bool = False


@dataclass(frozen=True)
class JobUsage:
    """One run of one job as accounting has it; ``elapsed_seconds`` so far, whole job, not cut to the
    window."""

    job_id: int
    submitted_at: datetime
    login: str
    account: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_seconds: int
    gpus: int
    reservation: str | None

    @property
    def gpu_seconds(self) -> int:
        return self.gpus * self.elapsed_seconds


@dataclass
class UsageReading:
    """``bad_lines`` counts records that could not be understood (never guessed); ``samples`` shows a few
    of them."""

    jobs: list[JobUsage] = field(default_factory=list)
    bad_lines: int = 0
    samples: list[str] = field(default_factory=list)


class Capability(StrEnum):
    """What a cluster's version can do beyond the common ground."""

    # a reservation of some GPUs of a node (Slurm ≥ 23.11); without it, accounts are limited instead
    GPU_RESERVATIONS = "gpu_reservations"


class Cluster(Protocol):
    """One cluster. Every method raises a ClusterError (below) and nothing else of its own; none retries."""

    slug: str

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Asked of the cluster once; raises Unreachable while that is not possible."""
        ...

    def health(self) -> Health:
        """Fast (≤ 2 s) when the controller is down: raises Unreachable."""
        ...

    def nodes(self) -> list[Node]:
        """Nodes that have GPUs, by name."""
        ...

    def partitions(self) -> list[Partition]: ...

    def accounts(self) -> list[Account]:
        """Accounts whose name starts with ``kezek-``; without a QOS of its name one has gpu_minutes None.

        A login whose association is not limited by that QOS reads ``login (QOS …)``: unlike any login, so
        that a comparison finds it and save_accounts corrects it.
        """
        ...

    def save_accounts(self, accounts: Sequence[Account]) -> None:
        """Create or correct all of them: account, QOS and limit, associations; logins not named lose theirs.

        Idempotent and batched. Raises Refused naming the account for an unknown login (where the cluster
        checks), and InUse, after all else is done, when a login that must go still has jobs.
        """
        ...

    def remove_accounts(self, names: Sequence[str]) -> None:
        """Remove accounts, their associations and QOS; a missing one is no error.

        Only names with our prefix: else ValueError. Raises InUse, after all else is done, when one has jobs.
        """
        ...

    def reservations(self) -> list[Reservation]:
        """Every reservation of the cluster, foreign ones too; a GPU count is given where the cluster tells
        it."""
        ...

    def create_reservation(self, reservation: Reservation) -> None:
        """Create and read back. Raises Conflict (overlap, busy nodes; never for maintenance), Exists (name
        taken), Refused (account, time, node), UnderDelivered when the cluster gave other nodes than asked."""
        ...

    def update_reservation(self, reservation: Reservation) -> None:
        """Make the existing one of that name be like this and read back; raises Missing, and what create
        raises."""
        ...

    def delete_reservation(self, name: str) -> None:
        """Raises Missing, or InUse while jobs run in it. Only names with our prefix: else ValueError."""
        ...

    def usage(self, since: datetime, until: datetime) -> UsageReading:
        """Jobs with GPUs that ran at any moment of [since, until), read in windows of at most a day, each
        run once."""
        ...

    def cancel_jobs(self, reservation: str) -> int:
        """Cancel the jobs that run or wait in our reservation (needed before it can be deleted); returns
        how many."""
        ...


class ClusterError(KezekError):
    """The root of what clusters raise; ``details`` has ``cluster`` and, when a tool said something,
    ``output``."""

    code = "cluster_error"
    http_status = 502
    summary: ClassVar[str] = N_("Cluster %(cluster)s: %(output)s")

    @classmethod
    def said(cls, cluster: str, output: str) -> Self:
        """The error with its usual message; ``output`` is what the cluster's own tool said."""
        return cls(cls.summary, {"cluster": cluster, "output": output.strip()[:1000]})


class Unreachable(ClusterError):
    """No answer from the controller or accounting (down, timeout, clocks too far apart); worth trying
    again."""

    code = "cluster_unreachable"
    summary = N_("Cluster %(cluster)s does not answer: %(output)s")


class Conflict(ClusterError):
    """Overlap with another reservation, or the nodes are busy."""

    code = "cluster_conflict"
    summary = N_("Cluster %(cluster)s: something else has these nodes: %(output)s")


class Exists(ClusterError):
    code = "cluster_exists"
    summary = N_("Cluster %(cluster)s: the name is taken: %(output)s")


class Missing(ClusterError):
    code = "cluster_missing"
    summary = N_("Cluster %(cluster)s does not have it: %(output)s")


class InUse(ClusterError):
    code = "cluster_in_use"
    summary = N_("Cluster %(cluster)s: jobs still use it: %(output)s")


class Refused(ClusterError):
    """The cluster understood and said no: unknown account, node, login or time, no permission."""

    code = "cluster_refused"
    summary = N_("Cluster %(cluster)s refused: %(output)s")


class UnderDelivered(ClusterError):
    """Success was reported, but what was read back is less than what was asked for."""

    code = "cluster_under_delivered"
    summary = N_("Cluster %(cluster)s gave something else than asked: %(output)s")


class Garbled(ClusterError):
    """An answer that could not be understood; never guessed at."""

    code = "cluster_garbled"
    summary = N_("Cluster %(cluster)s gave an answer that could not be understood: %(output)s")


OUR_PREFIX = "kezek-"


def ours(name: str) -> str:
    """The name itself if it is one of ours; ValueError otherwise: nothing foreign is ever touched."""
    if not name.startswith(OUR_PREFIX):
        raise ValueError(f"not one of ours: {name!r}")
    return name


def days(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut [since, until) into windows of at most a day: accounting slows down out of proportion beyond
    that."""
    while since < until:
        end = min(since + timedelta(days=1), until)
        yield since, end
        since = end
