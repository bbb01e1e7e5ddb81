"""What a cluster shows against what is asked of it: before a change, is the place free? After it, was it
done?

Success that Slurm claims proves nothing, and it does not see every overlap itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from scheduler.clusters.base import OUR_PREFIX, Capability, Conflict, Reservation, UnderDelivered, Unreachable


@dataclass(frozen=True)
class Held:
    """A reservation as the cluster has it; ``shared``: made with ``overlap``, as parts of nodes are on old
    Slurms."""

    reservation: Reservation
    shared: bool = False


def check_free(slug: str, asked: Reservation, held: Iterable[Held]) -> None:
    """Raises Conflict for overlaps that Slurm lets pass: whole nodes over parts of nodes (26.05), and over
    reservations with ``overlap`` or ``maint`` (all). How many GPUs of a node are free is Slurm's to say.

    Maintenance lies over everything: nodes that are taken apart serve nobody's reservation.
    """
    if asked.maintenance:
        return
    for other in held:
        one = other.reservation
        apart = one.ends_at <= asked.starts_at or one.starts_at >= asked.ends_at
        common = sorted(set(one.nodes) & set(asked.nodes))
        ours_shared = other.shared and one.name.startswith(OUR_PREFIX)
        parts = asked.gpus_per_node is not None and (one.gpus_per_node is not None or ours_shared)
        if one.name != asked.name and common and not apart and not parts:
            text = f"{asked.name}: overlaps with another reservation: {one.name} on {','.join(common[:5])}"
            raise Conflict.said(slug, text)


def difference(asked: Reservation, shown: Reservation) -> str:
    """How ``shown`` falls short of ``asked`` in words; empty when it doesn't. Parts of seconds do not
    count."""
    faults = []
    if set(asked.nodes) != set(shown.nodes):
        faults.append(f"nodes {','.join(shown.nodes) or 'none'} instead of {','.join(asked.nodes)}")
    if int(asked.starts_at.timestamp()) != int(shown.starts_at.timestamp()):
        faults.append(
            f"start {shown.starts_at:%Y-%m-%dT%H:%M:%SZ} instead of {asked.starts_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    if int(asked.ends_at.timestamp()) != int(shown.ends_at.timestamp()):
        faults.append(f"end {shown.ends_at:%Y-%m-%dT%H:%M:%SZ} instead of {asked.ends_at:%Y-%m-%dT%H:%M:%SZ}")
    if set(asked.accounts) != set(shown.accounts):
        faults.append(f"accounts {','.join(shown.accounts) or 'none'} instead of {','.join(asked.accounts)}")
    if asked.maintenance != shown.maintenance:
        faults.append("maintenance" if shown.maintenance else "no maintenance")
    if asked.gpus_per_node != shown.gpus_per_node:
        faults.append(f"{shown.gpus_per_node or 'all'} GPUs a node instead of {asked.gpus_per_node or 'all'}")
    return "; ".join(faults)


def compare(slug: str, asked: Reservation, shown: Iterable[Reservation]) -> None:
    """Raises UnderDelivered when the cluster has another reservation of that name than was asked for.

    One that vanished at once is Unreachable: the controller lost it, and asking again is right.
    """
    found = next((one for one in shown if one.name == asked.name), None)
    if found is None:
        raise Unreachable.said(slug, f"{asked.name}: acknowledged, but not there when read back")
    fault = difference(asked, found)
    if fault:
        raise UnderDelivered.said(slug, f"{asked.name}: {fault}")


def as_shown(asked: Reservation, capabilities: Set[Capability]) -> Reservation:
    """What a cluster of these capabilities shows for it: without GPU reservations, nodes are always whole."""
    if Capability.GPU_RESERVATIONS in capabilities:
        return asked
    return replace(asked, gpus_per_node=None)
