"""What a plan of an outage must be before it is written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.capacity import FOREVER
from allocator.errors import Fault, Invalid
from allocator.models import Cluster, Node, NodeSlot, NodeState, Outage, OutageKind
from allocator.reasons import given
from allocator.upkeep.repair_inputs import nodes_named
from config.i18n import N_

STALE = N_("This outage has changed since you opened the page.")
OVER = N_("The time of this outage is over.")
TAKEN = N_("Outage %(number)s has some of these nodes at that time already.")


@dataclass(frozen=True)
class OutagePlan:
    """What an operator fills in; ``reason`` is what people read whose bookings move."""

    kind: OutageKind
    starts_at: datetime
    ends_at: datetime
    reason: str
    node_ids: tuple[int, ...]


def checked(
    session: Session, cluster: Cluster, plan: OutagePlan, now: datetime, but: Outage | None = None
) -> list[Node]:
    """The nodes of the plan. Raises Invalid with all that is wrong with it."""
    faults: dict[str, list[Fault]] = {}
    if plan.ends_at <= plan.starts_at:
        faults["ends_at"] = [Fault(N_("The end must be after the start."))]
    elif plan.ends_at <= now or plan.ends_at >= FOREVER:
        faults["ends_at"] = [Fault(N_("Choose a moment that is still to come."))]
    if plan.kind is OutageKind.MAINTENANCE and plan.starts_at < now:
        faults["starts_at"] = [Fault(N_("Maintenance is planned ahead; this start has passed."))]
    try:
        given(plan.reason)
    except Invalid as error:
        faults |= error.fields
    found = nodes_named(session, plan.node_ids)
    nodes = sorted(
        (node for node in found.values() if node.cluster_id == cluster.id and node.state != NodeState.GONE),
        key=lambda node: node.name,
    )
    if not nodes or len(nodes) < len(set(plan.node_ids)):
        faults["nodes"] = [Fault(N_("Choose at least one node of this cluster."))]
    elif not faults and (rivals := others(session, nodes, plan.starts_at, plan.ends_at, but)):
        faults["nodes"] = [Fault(TAKEN, {"number": rivals[0]})]
    if faults:
        raise Invalid(faults)
    return nodes


def others(
    session: Session, nodes: Iterable[Node], starts_at: datetime, ends_at: datetime, but: Outage | None
) -> Sequence[int]:
    """The numbers of published outages that hold some of the nodes then."""
    statement = (
        select(NodeSlot.outage_id)
        .where(
            NodeSlot.node_id.in_([node.id for node in nodes]),
            NodeSlot.outage_id.is_not(None),
            NodeSlot.starts_at < ends_at,
            NodeSlot.ends_at > starts_at,
        )
        .order_by(NodeSlot.outage_id)
    )
    if but is not None:
        statement = statement.where(NodeSlot.outage_id != but.id)
    return [number for number in session.scalars(statement) if number is not None]
