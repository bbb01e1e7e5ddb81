"""Which clusters there are, how they are and what nodes they have: read from them, written down."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update

from allocator import capacity, problems
from allocator.db import Database
from allocator.models import Cluster, NodeState
from allocator.upkeep import failures
from config.settings import Settings
from scheduler.clusters import base
from scheduler.clusters.base import Capability, ClusterError, Health
from scheduler.reconcile import NotKnown, check_clock

LONGEST = 500


def declare(database: Database, settings: Settings, now: datetime) -> None:
    """A row for every cluster of the settings."""
    clusters = [(cluster.slug, cluster.title("en")) for cluster in settings.clusters]
    with database.transaction() as session:
        capacity.declare_clusters(session, clusters, now)


def take(database: Database, cluster: base.Cluster, now: datetime, whole_nodes: bool = False) -> int:
    """Write down the cluster's health and nodes; returns the number of nodes.

    ``whole_nodes``: the site gives no parts of nodes there. Raises what the cluster raised, after writing
    that down: pages show why nothing moves.
    """
    try:
        health = check_clock(cluster)
        nodes = cluster.nodes()
        reserves_gpus = Capability.GPU_RESERVATIONS in cluster.capabilities
    except ClusterError as error:
        _write(database, cluster.slug, now, {"problem_code": error.code, "problem": str(error)[:LONGEST]})
        raise
    _write(database, cluster.slug, now, _healthy(health, now))
    with database.transaction() as session:
        row = session.scalar(select(Cluster).where(Cluster.slug == cluster.slug))
        if row is None:
            raise NotKnown.said(cluster.slug, "its row was taken away")
        row.shares_nodes, row.reserves_gpus = not whole_nodes, reserves_gpus
        capacity.save_nodes(session, row, [_seen(node) for node in nodes], now)
    return len(nodes)


def watch(database: Database, slug: str, now: datetime) -> int:
    """Ask for repairs when nodes have failed for more than a moment; returns how many are new."""
    with database.transaction() as session:
        row = session.scalar(select(Cluster).where(Cluster.slug == slug))
        return failures.watch(session, row, now=now) if row is not None else 0


def _healthy(health: Health, now: datetime) -> dict[str, object]:
    away = not health.accounting
    return {
        "reachable_at": now,
        "version": health.version[:40],
        "clock_skew_seconds": round(health.clock_skew.total_seconds()),
        "problem_code": problems.ACCOUNTING if away else None,
        "problem": problems.sentence(problems.ACCOUNTING) if away else None,
    }


def _write(database: Database, slug: str, now: datetime, values: dict[str, object]) -> None:
    with database.transaction() as session:
        session.execute(update(Cluster).where(Cluster.slug == slug).values(checked_at=now, **values))


def _seen(node: base.Node) -> capacity.NodeSeen:
    return capacity.NodeSeen(
        node.name,
        # A node may be in several partitions; people are shown the first.
        node.partitions[0] if node.partitions else "",
        node.gpu_type,
        node.gpus,
        NodeState(node.state.value),
        node.reason,
        node.switch,
    )
