"""Capacity over time: nodes that join at a date, nodes that leave, and the freeze (R-8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.capacity import FOREVER
from allocator.errors import Conflict, Fault, Invalid, NotFound, WrongState
from allocator.models import Cluster, Node, NodeState, Repair, RepairCause
from allocator.reasons import given
from allocator.upkeep import repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.node_names import MOST_NODES, NAME, expand
from allocator.upkeep.repair_inputs import affected
from config.i18n import N_

MOST_GPUS = 64


@dataclass(frozen=True)
class Announcement:
    """Nodes that are to come: ``names`` as Slurm lists them, ``gpu07, gpu[08-12]``."""

    names: str
    partition: str
    gpu_type: str
    gpus: int
    joins_at: datetime


def announce(
    session: Session, actor: Actor, cluster: Cluster, coming: Announcement, *, now: datetime
) -> list[Node]:
    """Let people book nodes that are not there yet, from the day they join. Raises Invalid.

    The inventory takes over when it sees them; one that is late counts as down, like any other.
    """
    require(actor, Action.CLUSTER_CHANGE)
    capacity.lock(session, cluster)
    names = expand(coming.names)
    faults = _faults(coming, names, now)
    known = session.scalars(
        select(Node).where(Node.cluster_id == cluster.id, Node.name.in_(names[: MOST_NODES + 1]))
    ).all()
    present = sorted(node.name for node in known if node.state is not NodeState.GONE)
    if present:
        faults["names"] = [Fault(N_("These nodes are known already: %(names)s."), {"names": _list(present)})]
    if faults:
        raise Invalid(faults)
    gone = {node.name: node for node in known}
    nodes = [_announced(gone.get(name), cluster, name, coming, now) for name in names]
    session.add_all(nodes)
    facts = {"nodes": names, "gpu_type": coming.gpu_type, "gpus": coming.gpus, "joins_at": coming.joins_at}
    events.record(session, actor, cluster, "cluster.nodes_announced", now=now, after=facts)
    return nodes


def _faults(coming: Announcement, names: Sequence[str], now: datetime) -> dict[str, list[Fault]]:
    faults: dict[str, list[Fault]] = {}
    if not names or len(names) > MOST_NODES or not all(NAME.fullmatch(name) for name in names):
        faults["names"] = [Fault(N_("Give names of nodes, for example gpu07, gpu[08-12]."))]
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,39}", coming.gpu_type):
        faults["gpu_type"] = [Fault(N_("Give the GPU type as the cluster names it, for example h200."))]
    if not NAME.fullmatch(coming.partition):
        faults["partition"] = [Fault(N_("Give the partition as the cluster names it."))]
    if not 1 <= coming.gpus <= MOST_GPUS:
        faults["gpus"] = [Fault(N_("Choose between 1 and %(most)s GPUs per node."), {"most": MOST_GPUS})]
    if not now < coming.joins_at < FOREVER:
        faults["joins_at"] = [Fault(N_("Choose a day that is still to come."))]
    return faults


def _announced(gone: Node | None, cluster: Cluster, name: str, coming: Announcement, now: datetime) -> Node:
    node = gone or Node(cluster=cluster, name=name)
    node.partition, node.gpu_type, node.gpus = coming.partition, coming.gpu_type, coming.gpus
    node.state, node.reason = NodeState.EXPECTED, None
    node.joins_at, node.leaves_at, node.seen_at = coming.joins_at, None, now
    return node


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


def withdraw(session: Session, actor: Actor, node: Node, *, reason: str, now: datetime) -> None:
    """Take an announcement back, also of a node that is late. Raises Conflict while it has bookings."""
    require(actor, Action.CLUSTER_CHANGE)
    why = given(reason)
    capacity.lock(session, node.cluster)
    session.refresh(node)
    if not capacity.is_awaited(node):
        raise WrongState(N_("This node is not announced, it is there."))
    _refuse_booked(session, node, now, FOREVER)
    before, node.state, node.joins_at = node.state, NodeState.GONE, None
    events.record(
        session,
        actor,
        node,
        "node.gone",
        now=now,
        reason=why,
        before={"state": before},
        after={"state": NodeState.GONE, "cluster": node.cluster.slug, "name": node.name},
    )


def postpone(session: Session, actor: Actor, node: Node, joins_at: datetime, *, now: datetime) -> None:
    """Another day on which the node joins. Raises Conflict when something is booked before that."""
    require(actor, Action.CLUSTER_CHANGE)
    if not now < joins_at < FOREVER:
        raise Invalid({"joins_at": [Fault(N_("Choose a day that is still to come."))]})
    capacity.lock(session, node.cluster)
    session.refresh(node)
    if not capacity.is_awaited(node):
        raise WrongState(N_("This node is not announced, it is there."))
    if node.leaves_at is not None and joins_at >= node.leaves_at:
        raise Invalid({"joins_at": [Fault(N_("The node leaves before that."))]})
    _refuse_booked(session, node, now, joins_at)
    # one that was late is only announced again
    node.state = NodeState.EXPECTED
    _set_date(session, actor, node, "joins_at", joins_at, "node.joins", now)


def _refuse_booked(session: Session, node: Node, since: datetime, until: datetime) -> None:
    booked = affected(session, [Loss(node.id, since, until)], since)
    if booked:
        raise Conflict(
            N_(
                "Bookings lie on this node then: %(count)s. Publish an outage of the node for that time "
                "first: it shows what becomes of them."
            ),
            {"count": len(booked)},
        )


def leave(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    nodes: Sequence[Node],
    leaves_at: datetime,
    *,
    now: datetime,
) -> list[Repair]:
    """Plan that nodes leave for good: repairs to decide on, one for each GPU type. Raises Invalid.

    No node is marked before its repair is applied, even if nothing is booked on it.
    """
    require(actor, Action.CLUSTER_CHANGE)
    _check_leaving(nodes, leaves_at, now)
    made = []
    for gpu_type, some in _by_type(nodes):
        details = {"leaves_at": leaves_at.isoformat(), "nodes": [node.name for node in some]}
        losses, cause = _gone(some, leaves_at), RepairCause.NODES_LEAVE
        made.append(repairs.ask(session, actor, cluster, gpu_type, cause, losses, details=details, now=now))
    return made


def _gone(nodes: Iterable[Node], leaves_at: datetime) -> list[Loss]:
    return [Loss(node.id, leaves_at, FOREVER) for node in nodes]


def _check_leaving(nodes: Sequence[Node], leaves_at: datetime, now: datetime) -> None:
    faults: dict[str, list[Fault]] = {}
    if not nodes:
        faults["nodes"] = [Fault(N_("Choose at least one node."))]
    if not now < leaves_at < FOREVER:
        faults["leaves_at"] = [Fault(N_("Choose a day that is still to come."))]
    if any(node.joins_at is not None and node.joins_at >= leaves_at for node in nodes):
        faults["leaves_at"] = [Fault(N_("A node cannot leave before it has joined."))]
    if faults:
        raise Invalid(faults)


def _by_type(nodes: Iterable[Node]) -> Iterator[tuple[str, list[Node]]]:
    by_type: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        by_type.setdefault(node.gpu_type, []).append(node)
    yield from sorted(by_type.items())


def set_leaving(session: Session, actor: Actor, repair: Repair, *, now: datetime) -> None:
    """Mark the nodes of a repair as leaving; for whoever has just applied it and holds the cluster."""
    for loss in repairs.losses_of(repair):
        node = session.get_one(Node, loss.node_id)
        if node.leaves_at != loss.starts_at:
            _set_date(session, actor, node, "leaves_at", loss.starts_at, "node.leaves", now)


def stay(session: Session, actor: Actor, node: Node, *, now: datetime) -> None:
    """The node does not leave after all. Raises WrongState when it was not going to."""
    require(actor, Action.CLUSTER_CHANGE)
    capacity.lock(session, node.cluster)
    session.refresh(node)
    if node.leaves_at is None:
        raise WrongState(N_("This node is not leaving."))
    _set_date(session, actor, node, "leaves_at", None, "node.stays", now)


def _set_date(
    session: Session,
    actor: Actor,
    node: Node,
    column: str,
    moment: datetime | None,
    kind: str,
    now: datetime,
) -> None:
    before = {column: getattr(node, column)}
    setattr(node, column, moment)
    events.record(
        session,
        actor,
        node,
        kind,
        now=now,
        before=before,
        after={column: moment, "cluster": node.cluster.slug, "name": node.name},
    )


def freeze(
    session: Session, actor: Actor, cluster: Cluster, until: datetime | None, *, reason: str, now: datetime
) -> None:
    """No machine moves a booking that begins before ``until``; None: the freeze is over. Raises Invalid."""
    require(actor, Action.CLUSTER_CHANGE)
    why = given(reason)
    if until is not None and not now < until < FOREVER:
        raise Invalid({"until": [Fault(N_("Choose a moment that is still to come."))]})
    capacity.lock(session, cluster)
    before, cluster.frozen_until = cluster.frozen_until, until
    kind = "cluster.frozen" if until else "cluster.unfrozen"
    events.record(
        session,
        actor,
        cluster,
        kind,
        now=now,
        reason=why,
        before={"frozen_until": before},
        after={"frozen_until": until},
    )


def changing(cluster: Cluster) -> Select[Node]:
    """Nodes that are announced or going to leave, in the order of their dates."""
    date = func.coalesce(Node.leaves_at, Node.joins_at)
    return (
        select(Node)
        .where(
            Node.cluster_id == cluster.id,
            Node.state != NodeState.GONE,
            or_(Node.state == NodeState.EXPECTED, Node.leaves_at.is_not(None)),
        )
        .order_by(date, Node.name)
    )


def find_node(session: Session, actor: Actor, node_id: int) -> Node:
    """One node for who may change it. Raises NotFound, Forbidden."""
    require(actor, Action.CLUSTER_OPERATE)
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound()
    require(actor, Action.CLUSTER_CHANGE)
    return node
