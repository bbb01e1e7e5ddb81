"""After a change: is what the cluster shows now what was asked for? Success that it claims proves nothing."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.clusters.base import Reservation, UnderDelivered, Unreachable


def difference(asked: Reservation, shown: Reservation) -> str:
    """How ``shown`` falls short of ``asked`` in words; empty when it doesn't. Parts of seconds do not count."""
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
