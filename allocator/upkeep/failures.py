"""Nodes that fail: as soon as the cluster has shown them down for more than a moment, a repair is proposed.

Nobody is moved by that. Operators are told once for each set of nodes, and the proposal is kept up to date
until one of them decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from allocator import outbox
from allocator.actors import SYSTEM, Role
from allocator.models import Cluster, Event, Node, NodeSlot, NodeState, Person, Repair, RepairCause, RoleGrant
from allocator.policy import BookingRules
from allocator.states import RepairState, move
from allocator.upkeep import repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.repair_inputs import affected
from config.i18n import N_

# A node that only restarts its daemon is back before anybody needs to know.
MOMENT = timedelta(minutes=2)
# So long before the nodes were expected back one must think again.
THINK_AGAIN = timedelta(hours=6)
FAILED = (NodeState.DOWN, NodeState.DRAINED, NodeState.GONE)


def watch(
    session: Session, cluster: Cluster, *, rules: BookingRules, now: datetime, after: timedelta = MOMENT
) -> int:
    """Propose, refresh and withdraw repairs as nodes fail and come back; returns how many are new."""
    failed = _failed(session, cluster, now, after)
    latest = _latest(session, cluster)
    new = 0
    for gpu_type in sorted(failed.keys() | latest.keys()):
        new += _watch_type(
            session, cluster, gpu_type, failed.get(gpu_type, []), latest.get(gpu_type), rules, now
        )
    return new


def _watch_type(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    failed: Sequence[Node],
    latest: Repair | None,
    rules: BookingRules,
    now: datetime,
) -> bool:
    open_ = latest if latest is not None and latest.state is RepairState.PROPOSED else None
    names = [node.name for node in failed]
    until = repairs.default_until(now)
    same = latest is not None and set(names) <= set(latest.details["nodes"])
    known = _until(latest) if latest is not None and same else None
    if known is not None and known > now + THINK_AGAIN:
        if open_ is None:  # a person has decided about exactly this
            return False
        until = known
    losses = [Loss(node.id, now, until) for node in failed]
    hit = affected(session, losses, now)
    if open_ is not None and same and hit == repairs.affected_of(open_):
        return False
    if open_ is not None:
        _withdraw(open_, now)
    if not hit:
        return False
    details = {"nodes": names, "until": until.isoformat()}
    made = repairs.propose(
        session,
        SYSTEM,
        cluster,
        gpu_type,
        RepairCause.NODES_DOWN,
        losses,
        details=details,
        rules=rules,
        now=now,
    )
    if not same:
        _tell_operators(session, made, len(hit), now)
    return True


def _until(repair: Repair) -> datetime | None:
    text = repair.details.get("until")
    return datetime.fromisoformat(text) if text else None


def _withdraw(repair: Repair, now: datetime) -> None:
    columns = {"decided_at": now, "version": repair.version + 1}
    reason = N_("The nodes or the bookings on them have changed.")
    move(repair, RepairState.DISCARDED, actor=SYSTEM, now=now, reason=reason, columns=columns)


def _failed(session: Session, cluster: Cluster, now: datetime, after: timedelta) -> Mapping[str, list[Node]]:
    """Nodes with bookings that have not worked for that long, by GPU type and in the order of their names."""
    booked = select(NodeSlot.node_id).where(NodeSlot.booking_id.is_not(None), NodeSlot.ends_at > now)
    kinds = [f"node.{state.value}" for state in FAILED]
    since = (
        select(Event.subject_id, func.max(Event.at).label("at"))
        .where(Event.subject_type == "node", Event.kind.in_(kinds))
        .group_by(Event.subject_id)
        .subquery()
    )
    rows = session.scalars(
        select(Node)
        .outerjoin(since, since.c.subject_id == Node.id)
        .where(
            Node.cluster_id == cluster.id,
            Node.state.in_(FAILED),
            Node.id.in_(booked),
            # without an event it was never seen working
            or_(since.c.at.is_(None), since.c.at <= now - after),
        )
        .order_by(Node.name)
    )
    found: dict[str, list[Node]] = {}
    for node in rows:
        found.setdefault(node.gpu_type, []).append(node)
    return found


def _latest(session: Session, cluster: Cluster) -> dict[str, Repair]:
    """The last repair of failed nodes for each GPU type."""
    last = (
        select(func.max(Repair.id))
        .where(Repair.cluster_id == cluster.id, Repair.cause == RepairCause.NODES_DOWN)
        .group_by(Repair.gpu_type)
    )
    return {repair.gpu_type: repair for repair in session.scalars(select(Repair).where(Repair.id.in_(last)))}


def _tell_operators(session: Session, repair: Repair, count: int, now: datetime) -> None:
    operators = session.scalars(
        select(Person.id)
        .join(RoleGrant, RoleGrant.person_id == Person.id)
        .where(RoleGrant.role == Role.OPERATOR, Person.disabled_at.is_(None))
        .order_by(Person.id)
    )
    details = {
        "repair": repair.id,
        "cluster": repair.cluster.title,
        "nodes": ", ".join(repair.details["nodes"]),
        "count": count,
    }
    for person_id in operators:
        outbox.post(session, "repair_proposed", person_id, details, now=now)
