"""Outages and maintenance: planned as a draft, shown with what they move, published with one way to mend it.

A published outage holds its nodes by slots of its own, so that the database refuses bookings there.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.booking.windows import ceil
from allocator.errors import Stale, WrongState
from allocator.locks import hold
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    NodeSlot,
    Outage,
    OutageKind,
    OutageNode,
    Repair,
    RepairCause,
)
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import OutageState, move
from allocator.upkeep import outage_queries, repair_steps, repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.outage_checks import OVER, STALE, TAKEN, OutagePlan, checked, others
from allocator.upkeep.outage_endings import call_off
from allocator.upkeep.repair_inputs import LIVE, affected, has_begun, is_tied
from allocator.upkeep.repair_steps import Why
from config.i18n import N_

BATCH = 200
NO_DRAFT = N_("This outage is no draft any more.")

__all__ = [
    "OutagePlan",
    "call_off",
    "change",
    "draft",
    "end_due",
    "prepare",
    "publish",
]


def draft(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    plan: OutagePlan,
    *,
    now: datetime,
) -> Outage:
    """Write the plan down and have it worked out whom it would move; binds nobody. Raises Invalid."""
    require(actor, Action.CLUSTER_CHANGE)
    if actor.person_id is None:
        raise ValueError("an outage is planned by a person")
    capacity.lock(session, cluster)  # before the first event: who works repairs out takes them in this order
    nodes = checked(session, cluster, plan, now)
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
    prepare(session, actor, outage, now=now)
    return outage


def change(
    session: Session,
    actor: Actor,
    outage: Outage,
    plan: OutagePlan,
    *,
    expected_version: int,
    now: datetime,
) -> None:
    """Another plan for a draft. Raises Invalid, Stale, WrongState."""
    require(actor, Action.CLUSTER_CHANGE)
    _take(session, outage, expected_version)
    nodes = checked(session, outage.cluster, plan, now, outage)
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
    prepare(session, actor, outage, now=now)


def _facts(outage: Outage) -> dict[str, object]:
    return {
        "kind": outage.kind,
        "starts_at": outage.starts_at,
        "ends_at": outage.ends_at,
        "nodes": sorted(one.node.name for one in outage.nodes),
    }


def prepare(session: Session, actor: Actor, outage: Outage, *, now: datetime) -> list[Repair]:
    """Have it worked out anew whom the draft would move: a repair for each GPU type among its nodes."""
    require(actor, Action.CLUSTER_CHANGE)
    _hold(session, outage)
    if outage.state is not OutageState.DRAFT:
        raise WrongState(NO_DRAFT, {"state": outage.state.value})
    older = outage_queries.proposals(session, outage)
    made = {
        gpu_type: repairs.ask(
            session, actor, outage.cluster, gpu_type, RepairCause.OUTAGE, losses, outage=outage, now=now
        )
        for gpu_type, losses in _losses(outage)
    }
    for repair in older:
        reason = N_("It was worked out again.")
        repairs.give_up(session, actor, repair, reason, made.get(repair.gpu_type), now=now)
    return list(made.values())


def _losses(outage: Outage) -> list[tuple[str, list[Loss]]]:
    """What is lost of each GPU type, in the order of their names."""
    by_type: dict[str, list[Loss]] = {}
    for node in sorted((one.node for one in outage.nodes), key=lambda node: node.id):
        by_type.setdefault(node.gpu_type, []).append(Loss(node.id, outage.starts_at, outage.ends_at))
    return sorted(by_type.items())


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

    Raises WrongState while that is still being worked out, and while something lies there that nobody may
    move: pinned, frozen or begun. A running booking on nodes that failed keeps them: the outage holds them
    from its end on.
    """
    require(actor, Action.CLUSTER_CHANGE)
    _take(session, outage, expected_version)
    if outage.ends_at <= now:
        raise WrongState(OVER)
    nodes = [one.node for one in outage.nodes]
    if rivals := others(session, nodes, outage.starts_at, outage.ends_at, outage):
        raise WrongState(TAKEN, {"number": rivals[0]})
    why = Why(outage.reason, actor, rules, now)
    made: list[BookingMove] = []
    for repair in outage_queries.proposals(session, outage):
        hold(session, repair)
        repairs.refuse_unfinished(repair)
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
    # whoever was moved by hand since is in nobody's way
    there = stuck & affected(session, repairs.losses_of(repair), now).keys()
    rows = session.scalars(select(Booking).where(Booking.id.in_(there), Booking.state.in_(LIVE))).all()
    if outage.kind is OutageKind.OUTAGE:
        rows = [booking for booking in rows if not has_begun(booking, now)]
    if any(not is_tied(booking, outage.cluster, now) for booking in rows):
        raise Stale(repairs.CHANGED)
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
    _hold(session, outage)
    if outage.state is not OutageState.DRAFT:
        raise WrongState(NO_DRAFT, {"state": outage.state.value})
    if outage.version != expected_version:
        raise Stale(STALE)


def _hold(session: Session, outage: Outage) -> None:
    """The cluster, the outage, and then its repairs: always in this order, or two wait for each other."""
    capacity.lock(session, outage.cluster)
    hold(session, outage)
