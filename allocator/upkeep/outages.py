"""Outages and maintenance: planned as a draft, shown with what they move, published with one way to mend it.

A published outage holds its nodes by slots of its own, so that the database refuses bookings there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.booking.windows import ceil
from allocator.capacity import FOREVER
from allocator.errors import Fault, Invalid, Stale, WrongState
from allocator.locks import hold
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    Node,
    NodeSlot,
    NodeState,
    Outage,
    OutageKind,
    OutageNode,
    Repair,
    RepairCause,
)
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import OutageState, RepairState, move
from allocator.upkeep import outage_queries, repair_steps, repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.repair_inputs import LIVE, has_begun, nodes_named
from allocator.upkeep.repair_steps import Why
from config.i18n import N_

BATCH = 200
STALE = N_("This outage has changed since you opened the page.")


@dataclass(frozen=True)
class OutagePlan:
    """What an operator fills in; ``reason`` is what people read whose bookings move."""

    kind: OutageKind
    starts_at: datetime
    ends_at: datetime
    reason: str
    node_ids: tuple[int, ...]


def draft(
    session: Session, actor: Actor, cluster: Cluster, plan: OutagePlan, *, rules: BookingRules, now: datetime
) -> Outage:
    """Write the plan down and work out whom it would move; binds nobody. Raises Invalid."""
    require(actor, Action.CLUSTER_CHANGE)
    if actor.person_id is None:
        raise ValueError("an outage is planned by a person")
    nodes = _checked(session, cluster, plan, now)
    outage = Outage(
        cluster=cluster,
        kind=plan.kind,
        starts_at=plan.starts_at,
        ends_at=plan.ends_at,
        reason=given(plan.reason),
        created_by_id=actor.person_id,
        created_at=now,
    )
    outage.nodes = [OutageNode(node=node) for node in nodes]
    session.add(outage)
    events.record(
        session, actor, outage, "outage.drafted", now=now, reason=outage.reason, after=_facts(outage)
    )
    prepare(session, actor, outage, rules=rules, now=now)
    return outage


def change(
    session: Session,
    actor: Actor,
    outage: Outage,
    plan: OutagePlan,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> None:
    """Another plan for a draft. Raises Invalid, Stale, WrongState."""
    require(actor, Action.CLUSTER_CHANGE)
    _take(session, outage, expected_version)
    nodes = _checked(session, outage.cluster, plan, now, outage)
    before = _facts(outage)
    outage.kind, outage.reason = plan.kind, given(plan.reason)
    outage.starts_at, outage.ends_at = plan.starts_at, plan.ends_at
    outage.nodes.clear()
    session.flush()
    outage.nodes = [OutageNode(node=node) for node in nodes]
    events.record(
        session,
        actor,
        outage,
        "outage.changed",
        now=now,
        reason=outage.reason,
        before=before,
        after=_facts(outage),
    )
    prepare(session, actor, outage, rules=rules, now=now)


def _facts(outage: Outage) -> dict[str, object]:
    return {
        "kind": outage.kind,
        "starts_at": outage.starts_at,
        "ends_at": outage.ends_at,
        "nodes": sorted(one.node.name for one in outage.nodes),
    }


def _checked(
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
    elif not faults and (others := _others(session, nodes, plan.starts_at, plan.ends_at, but)):
        faults["nodes"] = [
            Fault(
                N_("Outage %(number)s has some of these nodes at that time already."), {"number": others[0]}
            )
        ]
    if faults:
        raise Invalid(faults)
    return nodes


def _others(
    session: Session, nodes: Iterable[Node], starts_at: datetime, ends_at: datetime, but: Outage | None
) -> Sequence[int]:
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


def prepare(
    session: Session, actor: Actor, outage: Outage, *, rules: BookingRules, now: datetime
) -> list[Repair]:
    """Work out anew whom the draft would move: a proposal for each GPU type among its nodes."""
    require(actor, Action.CLUSTER_CHANGE)
    _forget_proposals(session, actor, outage, now)
    by_type: dict[str, list[Loss]] = {}
    for one in outage.nodes:
        loss = Loss(one.node_id, outage.starts_at, outage.ends_at)
        by_type.setdefault(one.node.gpu_type, []).append(loss)
    return [
        repairs.propose(
            session,
            actor,
            outage.cluster,
            gpu_type,
            RepairCause.OUTAGE,
            losses,
            outage=outage,
            rules=rules,
            now=now,
        )
        for gpu_type, losses in sorted(by_type.items())
    ]


def _forget_proposals(session: Session, actor: Actor, outage: Outage, now: datetime) -> None:
    for repair in outage_queries.proposals(session, outage):
        columns = {"decided_by_id": actor.person_id, "decided_at": now, "version": repair.version + 1}
        reason = N_("It was worked out again.")
        move(repair, RepairState.DISCARDED, actor=actor, now=now, reason=reason, columns=columns)


def publish(
    session: Session,
    actor: Actor,
    outage: Outage,
    variant: str,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> list[BookingMove]:
    """Move whom the variant moves and hold the nodes. Raises Stale when the bookings changed meanwhile.

    Raises WrongState while something lies there that nobody may move: pinned, frozen or begun. A running
    booking on nodes that failed keeps them: the outage holds them from its end on.
    """
    require(actor, Action.CLUSTER_CHANGE)
    capacity.lock(session, outage.cluster)
    _take(session, outage, expected_version)
    if outage.ends_at <= now:
        raise WrongState(N_("The time of this outage is over."))
    why = Why(outage.reason, actor, rules, now)
    made: list[BookingMove] = []
    for repair in outage_queries.proposals(session, outage):
        hold(session, repair)
        _refuse_stuck(session, outage, repair, now)
        made += repair_steps.carry_out(session, repair, variant, Why(why.reason, actor, rules, now, repair))
    _hold_nodes(session, outage, now)
    columns = {"published_by_id": actor.person_id, "published_at": now, "version": outage.version + 1}
    moved = sum(one.to_starts_at is not None for one in made)
    move(
        outage,
        OutageState.PUBLISHED,
        actor=actor,
        now=now,
        reason=outage.reason,
        columns=columns,
        variant=variant,
        moved=moved,
        dropped=len(made) - moved,
    )
    return made


def _refuse_stuck(session: Session, outage: Outage, repair: Repair, now: datetime) -> None:
    stuck = {number for one in repairs.variants_of(repair).values() for number in one.stuck}
    rows = session.scalars(select(Booking).where(Booking.id.in_(stuck), Booking.state.in_(LIVE))).all()
    if outage.kind is OutageKind.OUTAGE:
        rows = [booking for booking in rows if not has_begun(booking, now)]
    if rows:
        raise WrongState(
            N_(
                "Bookings lie there that nothing may move by itself: %(names)s. Choose another time or other "
                "nodes, or take the pin or the freeze off, or move them by hand."
            ),
            {"names": ", ".join(str(booking.id) for booking in rows)},
        )


def _hold_nodes(session: Session, outage: Outage, now: datetime) -> None:
    """The outage's own slots; behind what still runs there."""
    since = max(outage.starts_at, ceil(now)) if outage.starts_at < now else outage.starts_at
    busy = _busy_until(session, outage, since)
    slots = [
        NodeSlot(
            outage_id=outage.id,
            node_id=one.node_id,
            gpu_from=0,
            gpu_to=one.node.gpus,
            starts_at=max(since, busy.get(one.node_id, since)),
            ends_at=outage.ends_at,
        )
        for one in outage.nodes
    ]
    try:
        with session.begin_nested():
            session.add_all([slot for slot in slots if slot.starts_at < slot.ends_at])
    except IntegrityError as error:
        raise Stale(repairs.CHANGED) from error
    session.expire(outage, ["slots"])


def _busy_until(session: Session, outage: Outage, since: datetime) -> dict[int, datetime]:
    rows = session.execute(
        select(NodeSlot.node_id, NodeSlot.ends_at)
        .join(Booking, Booking.id == NodeSlot.booking_id)
        .where(
            NodeSlot.node_id.in_([one.node_id for one in outage.nodes]),
            NodeSlot.ends_at > since,
            NodeSlot.starts_at <= since,
            Booking.state.in_(LIVE),
        )
    )
    busy: dict[int, datetime] = {}
    for node_id, ends_at in rows:
        busy[node_id] = max(busy.get(node_id, ends_at), ends_at)
    return busy


def call_off(
    session: Session, actor: Actor, outage: Outage, *, reason: str, expected_version: int, now: datetime
) -> None:
    """Give a draft up, call a published outage off, or end one early. Raises Invalid, Stale, WrongState.

    What was moved for it stays where it is: people have planned by that.
    """
    require(actor, Action.CLUSTER_CHANGE)
    why = given(reason)
    capacity.lock(session, outage.cluster)
    hold(session, outage)
    if outage.version != expected_version:
        raise Stale(STALE)
    columns: dict[str, object] = {"version": outage.version + 1}
    target = OutageState.CANCELLED
    if outage.state is OutageState.DRAFT:
        _forget_proposals(session, actor, outage, now)
    elif outage.starts_at < now < outage.ends_at:
        target, columns["ends_at"] = OutageState.ENDED, _free(session, outage, now)
    else:
        session.execute(delete(NodeSlot).where(NodeSlot.outage_id == outage.id))
    move(outage, target, actor=actor, now=now, reason=why, columns=columns)
    session.expire(outage, ["slots"])


def _free(session: Session, outage: Outage, now: datetime) -> datetime:
    """Cut its slots off now; returns the moment."""
    moment = max(now.replace(microsecond=0), outage.starts_at + timedelta(seconds=1))
    mine = NodeSlot.outage_id == outage.id
    session.execute(delete(NodeSlot).where(mine, NodeSlot.starts_at >= moment))
    session.execute(update(NodeSlot).where(mine, NodeSlot.ends_at > moment).values(ends_at=moment))
    return moment


def end_due(session: Session, now: datetime) -> int:
    """Let published outages end whose time is over; returns how many, ``BATCH`` at most."""
    due = session.scalars(
        select(Outage)
        .where(Outage.state == OutageState.PUBLISHED, Outage.ends_at <= now)
        .order_by(Outage.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for outage in due:
        columns = {"version": outage.version + 1}
        move(outage, OutageState.ENDED, actor=SYSTEM, now=now, columns=columns)
    return len(due)


def _take(session: Session, outage: Outage, expected_version: int) -> None:
    hold(session, outage)
    if outage.state is not OutageState.DRAFT:
        raise WrongState(N_("This outage is no draft any more."), {"state": outage.state.value})
    if outage.version != expected_version:
        raise Stale(STALE)
