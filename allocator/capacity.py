"""What clusters can give: their nodes as last seen, and what is free of them when (R-7, R-8, R-9)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Select, func, insert, or_, select, true, update
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM
from allocator.booking.windows import Held, NodeFree, NodeHeld, free_during
from allocator.locks import hold
from allocator.models import Cluster, Node, NodeSlot, NodeState
from allocator.sqltime import Window, overlap_seconds, window_table

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
FOREVER = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NodeSeen:
    """A node as the cluster shows it now."""

    name: str
    partition: str
    gpu_type: str
    gpus: int
    state: NodeState
    reason: str = ""
    switch: str | None = None


@dataclass(frozen=True)
class GpuType:
    """Nodes of one GPU type; ``gpus_per_node`` is the largest among them, ``gpus`` the sum of all.

    Announced nodes that have not come yet count among all of them, for bookings of later days, and apart.
    """

    name: str
    nodes: int
    gpus_per_node: int
    gpus: int
    up: int
    gpus_up: int
    awaited: int = 0
    gpus_awaited: int = 0

    @property
    def nodes_there(self) -> int:
        """Nodes that have come, be they down."""
        return self.nodes - self.awaited

    @property
    def gpus_there(self) -> int:
        """The GPUs of nodes that have come."""
        return self.gpus - self.gpus_awaited


def awaited() -> ColumnElement[bool]:
    """``is_awaited`` as a condition on nodes."""
    late = (Node.state == NodeState.DOWN) & Node.joins_at.is_not(None) & (Node.seen_at < Node.joins_at)
    return or_(Node.state == NodeState.EXPECTED, late)


def declare_clusters(session: Session, clusters: Sequence[tuple[str, str]], now: datetime) -> None:
    """Make a row for each (slug, title) that the settings name, and correct titles; never takes one away."""
    known = {
        cluster.slug: cluster for cluster in session.scalars(select(Cluster).with_for_update(key_share=True))
    }
    for slug, title in clusters:
        cluster = known.get(slug)
        if cluster is None:
            cluster = Cluster(slug=slug, title=title, created_at=now)
            session.add(cluster)
            events.record(session, SYSTEM, cluster, "cluster.declared", now=now, after={"title": title})
        elif cluster.title != title:
            before, cluster.title = cluster.title, title
            events.record(
                session,
                SYSTEM,
                cluster,
                "cluster.renamed",
                now=now,
                before={"title": before},
                after={"title": title},
            )
    session.flush()


def save_nodes(session: Session, cluster: Cluster, nodes: Sequence[NodeSeen], now: datetime) -> None:
    """Write down what the inventory saw; a node that is not in it any more becomes GONE, its history stays.

    A constant number of statements, plus an event for each node whose state changed.
    """
    known = {node.name: node for node in session.scalars(select(Node).where(Node.cluster_id == cluster.id))}
    seen = {node.name: node for node in nodes}
    joined = [node for name, node in seen.items() if name not in known]
    moved: list[tuple[Node, NodeState, NodeState]] = []
    rebuilt: list[tuple[Node, dict[str, object]]] = []
    for name, node in known.items():
        target = _target(node, seen.get(name), now)
        if node.state != target:
            moved.append((node, node.state, target))
        before = _hardware(node)
        _correct(node, seen.get(name), target)
        if _hardware(node) != before:
            rebuilt.append((node, before))
    if joined:
        session.execute(insert(Node), [_new_node(cluster, node, now) for node in joined])
    session.flush()
    # the time of sight is written by one statement: a thousand unchanged nodes are no thousand updates
    session.execute(
        update(Node)
        .where(
            Node.cluster_id == cluster.id,
            Node.state.not_in((NodeState.GONE, NodeState.EXPECTED)),
            # an announced node that never came has not been seen either
            or_(Node.state != NodeState.DOWN, Node.joins_at.is_(None), Node.seen_at >= Node.joins_at),
        )
        .values(seen_at=now)
        .execution_options(synchronize_session=False)
    )
    _tell(session, cluster, joined, moved, now)
    for node, before in rebuilt:
        after = {**_hardware(node), "cluster": cluster.slug, "name": node.name}
        events.record(session, SYSTEM, node, "node.changed", now=now, before=before, after=after)


def _target(node: Node, seen: NodeSeen | None, now: datetime) -> NodeState:
    """What a node is now: an announced one that does not work yet is only late, and so DOWN, when due."""
    due = node.joins_at is None or node.joins_at <= now
    if node.state is NodeState.EXPECTED and not due and (seen is None or seen.state is not NodeState.UP):
        return NodeState.EXPECTED  # it is being set up
    if seen is not None:
        return seen.state
    return NodeState.DOWN if is_awaited(node) else NodeState.GONE


def is_awaited(node: Node) -> bool:
    """Whether the node is announced and has not worked yet, be it late."""
    late = node.state is NodeState.DOWN and node.joins_at is not None and node.seen_at < node.joins_at
    return late or node.state is NodeState.EXPECTED


def _hardware(node: Node) -> dict[str, object]:
    return {"partition": node.partition, "gpu_type": node.gpu_type, "gpus": node.gpus}


def _correct(node: Node, seen: NodeSeen | None, state: NodeState) -> None:
    node.state = state
    if seen is not None:
        node.partition, node.gpu_type, node.gpus = seen.partition, seen.gpu_type, seen.gpus
        node.switch = seen.switch[:64] if seen.switch else None
        node.reason = seen.reason[:200] or None


def _new_node(cluster: Cluster, node: NodeSeen, now: datetime) -> dict[str, object]:
    return {
        "cluster_id": cluster.id,
        "name": node.name,
        "partition": node.partition,
        "gpu_type": node.gpu_type,
        "gpus": node.gpus,
        "state": node.state,
        "reason": node.reason[:200] or None,
        "switch": node.switch[:64] if node.switch else None,
        "seen_at": now,
    }


def _tell(
    session: Session,
    cluster: Cluster,
    joined: Sequence[NodeSeen],
    moved: Sequence[tuple[Node, NodeState, NodeState]],
    now: datetime,
) -> None:
    if joined:
        after = {"nodes": sorted(node.name for node in joined)}
        events.record(session, SYSTEM, cluster, "cluster.nodes_joined", now=now, after=after)
    for node, before, state in moved:
        events.record(
            session,
            SYSTEM,
            node,
            f"node.{state.value}",
            now=now,
            reason=node.reason or "",
            before={"state": before},
            after={"state": state, "cluster": cluster.slug, "name": node.name},
        )


def gpu_types(session: Session, cluster: Cluster) -> dict[str, GpuType]:
    """What the cluster has, by GPU type; nodes that are gone do not count, nodes that are down do."""
    found = gpu_types_of(session, [cluster.id]).get(cluster.id, [])
    return {gpu_type.name: gpu_type for gpu_type in found}


def gpu_types_of(session: Session, cluster_ids: Iterable[int]) -> dict[int, list[GpuType]]:
    """``gpu_types`` of several clusters by their ids, in one query."""
    is_up, is_to_come = Node.state == NodeState.UP, awaited()
    rows = session.execute(
        select(
            Node.cluster_id,
            Node.gpu_type,
            func.count(),
            func.max(Node.gpus),
            func.sum(Node.gpus),
            func.count().filter(is_up),
            func.coalesce(func.sum(Node.gpus).filter(is_up), 0),
            func.count().filter(is_to_come),
            func.coalesce(func.sum(Node.gpus).filter(is_to_come), 0),
        )
        .where(Node.cluster_id.in_(list(cluster_ids)), Node.state != NodeState.GONE)
        .group_by(Node.cluster_id, Node.gpu_type)
        .order_by(Node.cluster_id, Node.gpu_type)
    )
    found: dict[int, list[GpuType]] = {}
    for cluster_id, name, nodes, largest, gpus, up, gpus_up, to_come, gpus_to_come in rows:
        found.setdefault(cluster_id, []).append(
            GpuType(name, nodes, largest, int(gpus), up, int(gpus_up), to_come, int(gpus_to_come))
        )
    return found


def lock(session: Session, cluster: Cluster) -> None:
    """Wait for the cluster's row: its holder alone counts the GPUs and spends the quotas of the cluster."""
    hold(session, cluster)


def bookable(session: Session, cluster: Cluster, gpu_type: str) -> list[NodeHeld]:
    """The nodes of the type that bookings may be placed on, held only while they are not there (R-8).

    UP ones and announced ones; before ``joins_at`` and from ``leaves_at`` on all their GPUs count as taken.
    """
    there = (NodeState.UP, NodeState.EXPECTED)
    nodes = session.execute(
        select(Node.id, Node.name, Node.gpus, Node.switch, Node.joins_at, Node.leaves_at)
        .where(Node.cluster_id == cluster.id, Node.gpu_type == gpu_type, Node.state.in_(there))
        .order_by(Node.name)
    )
    return [
        NodeHeld(id, name, gpus, tuple(_absences(gpus, joins_at, leaves_at)), switch)
        for id, name, gpus, switch, joins_at, leaves_at in nodes
    ]


def _absences(gpus: int, joins_at: datetime | None, leaves_at: datetime | None) -> Iterator[Held]:
    if joins_at is not None:
        yield Held(0, gpus, BEGINNING, joins_at)
    if leaves_at is not None:
        yield Held(0, gpus, leaves_at, FOREVER)


def held(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    since: datetime,
    until: datetime,
    besides: int | None = None,
) -> list[NodeHeld]:
    """The bookable nodes with what is taken of them at any moment of [since, until). Two queries.

    ``besides`` is a booking whose own GPUs count as free: for changing it.
    """
    nodes = bookable(session, cluster, gpu_type)
    taken: dict[int, list[Held]] = {
        node.id: [one for one in node.held if one.ends_at > since and one.starts_at < until] for node in nodes
    }
    slots = session.execute(
        select(
            NodeSlot.node_id,
            NodeSlot.gpu_from,
            NodeSlot.gpu_to,
            NodeSlot.starts_at,
            NodeSlot.ends_at,
        )
        .join(Node, Node.id == NodeSlot.node_id)
        .where(
            Node.cluster_id == cluster.id,
            Node.gpu_type == gpu_type,
            NodeSlot.ends_at > since,
            NodeSlot.starts_at < until,
            true() if besides is None else NodeSlot.booking_id.is_distinct_from(besides),
        )
    )
    for node_id, gpu_from, gpu_to, starts_at, ends_at in slots:
        if node_id in taken:  # neither a node that is down, nor one that came up between the two queries
            taken[node_id].append(Held(gpu_from, gpu_to, starts_at, ends_at))
    return [replace(node, held=tuple(taken[node.id])) for node in nodes]


def slots() -> Select[int | None, int, int, int, datetime, datetime]:
    """What bookings and outages hold: booking (None: an outage), node, GPUs from, to, start, end."""
    return select(
        NodeSlot.booking_id,
        NodeSlot.node_id,
        NodeSlot.gpu_from,
        NodeSlot.gpu_to,
        NodeSlot.starts_at,
        NodeSlot.ends_at,
    )


def free(session: Session, cluster: Cluster, gpu_type: str, start: datetime, end: datetime) -> list[NodeFree]:
    """Each bookable node of the type with the runs of its GPUs that are free during all of [start, end)."""
    return [free_during(node, start, end) for node in held(session, cluster, gpu_type, start, end)]


def booked_by_window(
    session: Session, clusters: Iterable[Cluster], windows: Sequence[Window]
) -> dict[tuple[int, str], list[int]]:
    """GPU-seconds booked in each window, by (cluster id, GPU type). One query."""
    table = window_table(windows)
    seconds = overlap_seconds(NodeSlot.starts_at, NodeSlot.ends_at, table.c.since, table.c.until)
    rows = session.execute(
        select(
            Node.cluster_id,
            Node.gpu_type,
            table.c.n,
            func.sum((NodeSlot.gpu_to - NodeSlot.gpu_from) * seconds),
        )
        .select_from(NodeSlot)
        .join(Node, Node.id == NodeSlot.node_id)
        .join(table, (NodeSlot.starts_at < table.c.until) & (NodeSlot.ends_at > table.c.since))
        .where(
            Node.cluster_id.in_([cluster.id for cluster in clusters]),
            # the bounds again as plain values, so that the index on the slots can be used
            NodeSlot.ends_at > min(since for since, _ in windows),
            NodeSlot.starts_at < max(until for _, until in windows),
        )
        .group_by(Node.cluster_id, Node.gpu_type, table.c.n)
    )
    booked: dict[tuple[int, str], list[int]] = {}
    for cluster_id, gpu_type, n, gpu_seconds in rows:
        booked.setdefault((cluster_id, gpu_type), [0] * len(windows))[n] = int(gpu_seconds)
    return booked
