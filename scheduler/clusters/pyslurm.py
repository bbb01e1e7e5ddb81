"""A cluster through libslurm with pyslurm 25.11: nodes, partitions and whole-node reservations without
processes.

What pyslurm cannot do stays with the commands: accounts and limits, parts of nodes (it has no
``TRESPerNode``), making maintenance (it would clear flags that Slurm sets by itself),
and usage (it keeps one run for each job, so a requeued job would lose all but one of its runs).

pyslurm is GPL-2.0, optional and built against the site's own libslurm. libslurm reads SLURM_CONF once for the
whole process, so one process can have one such cluster; a wrong file makes libslurm end the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from config.settings import ClusterSettings
from scheduler.clusters import slurm_text as text
from scheduler.clusters.base import Garbled, Node, Partition, Reservation
from scheduler.clusters.names import require_ours
from scheduler.clusters.readback import Held
from scheduler.clusters.slurm_cli import SlurmCliCluster, changed
from scheduler.clusters.slurm_tools import error_for

_Answer = TypeVar("_Answer")


class PyslurmCluster(SlurmCliCluster):
    """The Cluster protocol, by the library where it can and by the commands where it cannot."""

    def __init__(self, settings: ClusterSettings) -> None:
        super().__init__(settings)
        # Before the import: libslurm looks at the environment when it is loaded.
        if settings.slurm_conf:
            os.environ["SLURM_CONF"] = str(settings.slurm_conf)
        os.environ.update({name: value for name, value in settings.env.items() if name.startswith("SLURM_")})
        import pyslurm

        self._library: Any = pyslurm

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Call the library while the controller lives; its errors become ours."""
        self._ping()
        try:
            return question()
        except self._library.PyslurmError as error:
            raise error_for(self.slug, str(error), getattr(error, "errno", None) or 0) from error
        except text.Unreadable as error:
            raise Garbled.said(self.slug, f"pyslurm: {error}") from error

    def nodes(self) -> list[Node]:
        nodes = self._ask(
            lambda: [node for one in self._library.Nodes.load().values() if (node := _node(one))]
        )
        return self._under_switches(nodes)

    def partitions(self) -> list[Partition]:
        loaded = self._ask(lambda: self._library.Partitions.load().values())
        found = [Partition(one.name, int(one.total_nodes), bool(one.is_default)) for one in loaded]
        return sorted(found, key=lambda partition: partition.name)

    def _held(self) -> list[Held]:
        flag = self._library.ReservationFlags.MAINTENANCE
        every = self._ask(self._library.Reservations.load).values()
        loaded = [_reservation(one, flag) for one in every]
        return sorted((Held(one) for one in loaded), key=lambda held: held.reservation.name)

    def _make(self, reservation: Reservation) -> None:
        if reservation.gpus_per_node is not None or reservation.maintenance:
            super()._make(reservation)
            return
        # The order matters: an end that is given before the start would be counted from now.
        wanted = self._library.Reservation(
            reservation.name,
            start_time=int(reservation.starts_at.timestamp()),
            end_time=int(reservation.ends_at.timestamp()),
            nodes=",".join(reservation.nodes),
            accounts=list(reservation.accounts),
        )
        self._ask(wanted.create)

    def _alter(self, before: Reservation, wanted: Reservation) -> None:
        keys = changed(before, wanted)
        changes = self._library.Reservation()
        if "StartTime" in keys:
            changes.start_time = int(wanted.starts_at.timestamp())
        if "EndTime" in keys:
            changes.end_time = int(wanted.ends_at.timestamp())
        if "Nodes" in keys:
            changes.nodes = ",".join(wanted.nodes)
        if "Accounts" in keys:
            changes.accounts = list(wanted.accounts)
        if keys:
            self._ask(lambda: self._library.Reservation(wanted.name).modify(changes))

    def delete_reservation(self, name: str) -> None:
        self._ask(self._library.Reservation(require_ours(name)).delete)


def _node(one: Any) -> Node | None:
    # Both {"gpu": 8} and {"gpu:h200": 8} occur, depending on how the site named its GPUs.
    gres = ",".join(f"{name}:{count}" for name, count in (one.configured_gres or {}).items())
    kind, gpus = text.gpus_of_gres(gres)
    if not gpus:
        return None
    state = text.node_state(str(one.state))
    return Node(one.name, tuple(one.partitions or ()), kind, gpus, state, one.reason or "")


def _is_maintenance(one: Any, flag: Any) -> bool:
    try:
        return flag in one.flags
    except ValueError:
        # Flags that pyslurm does not know, as reservations of parts of nodes have: no maintenance of ours.
        return False


def _reservation(one: Any, maintenance: Any) -> Reservation:
    names = tuple(text.expand_hosts(one.nodes or ""))
    gpus = int((one.tres or {}).get("gres/gpu", 0))
    return Reservation(
        name=one.name,
        starts_at=datetime.fromtimestamp(int(one.start_time), UTC),
        ends_at=datetime.fromtimestamp(int(one.end_time), UTC),
        nodes=names,
        accounts=tuple(one.accounts or ()),
        gpus_per_node=gpus // len(names) if gpus and names else None,
        maintenance=_is_maintenance(one, maintenance),
    )
