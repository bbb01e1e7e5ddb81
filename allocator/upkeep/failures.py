"""Nodes that fail: once the cluster has shown them down for more than a moment, a repair is asked for.

Nobody is moved by that. Operators are told once for each set of nodes, and the proposal is kept up to date
until one of them decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from allocator import capacity, outbox
from allocator.actors import SYSTEM, Role
from allocator.models import (
    Cluster,
    Event,
    Node,
    NodeSlot,
    NodeState,
    Outage,
    OutageNode,
    Person,
    Repair,
    RepairCause,
    RoleGrant,
)
from allocator.states import OPEN_REPAIRS, OutageState, RepairState
from allocator.upkeep import repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.repair_inputs import affected
from config.i18n import N_

# A node that only restarts its daemon is back before anybody needs to know.
MOMENT = timedelta(minutes=2)
# So long before the nodes were expected back one must think again.
THINK_AGAIN = timedelta(hours=6)
# So long after it was asked for, one that could not be worked out is asked for once more: what was wrong may
# be over (no memory, a restart), and what is not does not fill the record of events.
TRY_AGAIN = timedelta(minutes=15)
FAILED = (NodeState.DOWN, NodeState.DRAINED, NodeState.GONE)


def watch(session: Session, cluster: Cluster, *, now: datetime, after: timedelta = MOMENT) -> int:
    """Ask for, renew and withdraw repairs as nodes fail and come back; returns how many are new."""
    capacity.lock(session, cluster)
    failed = _failed(session, cluster, now, after)
    latest = _latest(session, cluster)
    return sum(
        _mend(session, cluster, gpu_type, failed.get(gpu_type, []), latest.get(gpu_type), now)
        for gpu_type in sorted(failed.keys() | latest.keys())
    )


def _mend(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    failed: Sequence[Node],
    latest: Repair | None,
    now: datetime,
) -> bool:
    """Whether a new repair of one GPU type was asked for; an open one that no longer holds is withdrawn."""
    names = [node.name for node in failed]
    open_ = latest is not None and latest.state in OPEN_REPAIRS
    same = latest is not None and set(names) <= set(latest.details["nodes"])
    known = _until(latest) if latest is not None and same else None
    until = known if known is not None and known > now + THINK_AGAIN else repairs.default_until(now)
    guess = until != known or latest is None or latest.details.get("until_is_guess", True)
    losses = [Loss(node.id, now, until) for node in failed]
    hit = affected(session, losses, now)
    if latest is not None and same and hit and _still_holds(latest, hit, until == known, now):
        return False
    old = latest if open_ else None
    if not hit:
        _withdraw(session, old, None, now)
        return False
    details = {"nodes": names, "until": until.isoformat(), "until_is_guess": guess}
    made = repairs.ask(
        session, SYSTEM, cluster, gpu_type, RepairCause.NODES_DOWN, losses, details=details, now=now
    )
    _withdraw(session, old, made, now)
    # told once of nodes that stay away, or come and go: until somebody decides, or they should be back
    waits = latest is not None and latest.decided_by_id is None
    if not (same and waits and (open_ or (known is not None and known > now))):
        _tell_operators(session, made, len(hit), now)
    return True


def _still_holds(latest: Repair, hit: Mapping[int, int], in_time: bool, now: datetime) -> bool:
    """Whether nothing needs to be thought over that the last repair of these nodes does not say."""
    if latest.state is RepairState.WAITING:  # it is going to be worked out by what is booked then
        return True
    if latest.state is RepairState.FAILED and now >= latest.asked_at + TRY_AGAIN:
        return False
    if latest.state in OPEN_REPAIRS:
        return hit == repairs.affected_of(latest)
    return in_time and hit.keys() <= _settled(latest)


def _settled(repair: Repair) -> set[int]:
    """The bookings about which a person has decided that they stay on the nodes."""
    if repair.decided_by_id is None:
        return set()
    if repair.state is RepairState.APPLIED:
        return set(repairs.variants_of(repair)[repair.chosen or ""].stuck)
    return set(repairs.affected_of(repair))


def _until(repair: Repair) -> datetime | None:
    text = repair.details.get("until")
    return datetime.fromisoformat(text) if text else None


def _withdraw(session: Session, old: Repair | None, successor: Repair | None, now: datetime) -> None:
    if old is not None:
        reason = N_("The nodes or the bookings on them have changed.")
        repairs.give_up(session, SYSTEM, old, reason, successor, now=now)


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
    # in its maintenance a node may well be down; it counts from the end of that on
    away = (
        select(OutageNode.node_id)
        .join(OutageNode.outage)
        .where(Outage.state == OutageState.PUBLISHED, Outage.starts_at <= now, Outage.ends_at > now)
    )
    rows = session.scalars(
        select(Node)
        .outerjoin(since, since.c.subject_id == Node.id)
        .where(
            Node.cluster_id == cluster.id,
            Node.id.in_(booked),
            Node.id.not_in(away),
            or_(
                # without an event it was never seen working
                and_(Node.state.in_(FAILED), or_(since.c.at.is_(None), since.c.at <= now - after)),
                # announced, due in a few hours or late already, and the cluster has not shown it yet
                and_(
                    Node.state.in_((NodeState.EXPECTED, NodeState.DOWN)),
                    Node.joins_at <= now + THINK_AGAIN,
                    Node.seen_at < Node.joins_at,
                    or_(Node.state == NodeState.EXPECTED, Node.joins_at <= now),
                ),
            ),
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
