"""Repairs: what to do about bookings that lost their GPUs, proposed by the machine, decided by a person.

A proposal is computed without any lock; applying it (allocator.repair_steps) checks again, under the
cluster's lock, that the world is still the one it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, case, select
from sqlalchemy.orm import Session, joinedload

from allocator import events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking.booking_checks import grid_of
from allocator.capacity import FOREVER
from allocator.errors import Fault, Invalid, NotFound, Stale, WrongState
from allocator.locks import hold
from allocator.models import Booking, Cluster, Outage, Quota, Repair, RepairCause
from allocator.planner.cache import is_warm
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import RepairState, move
from allocator.upkeep.mending import Loss, Variant, mend
from allocator.upkeep.mending_search import search, worth_it
from allocator.upkeep.repair_documents import (
    losses_from_json,
    losses_to_json,
    variants_from_json,
    variants_to_json,
)
from allocator.upkeep.repair_inputs import affected, read_claims, read_nodes
from config.i18n import N_

CHANGED = N_("The bookings have changed since this repair was worked out. Have it worked out again.")
BELONGS = N_("This repair belongs to an outage: change, publish or give up that.")

SECONDS = 3.0  # of search, where one at a time moves or drops much


@dataclass(frozen=True)
class Finding:
    """Both ways to mend one GPU type after ``losses``; ``affected``: who lost GPUs, with their versions."""

    gpu_type: str
    losses: tuple[Loss, ...]
    variants: Mapping[str, Variant]
    affected: Mapping[int, int]


def survey(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    losses: Sequence[Loss],
    *,
    rules: BookingRules,
    now: datetime,
) -> Finding:
    """What ``propose`` keeps. This is the slow part: give it a session that only reads, and no lock."""
    hit = affected(session, losses, now)
    variants = work_out(session, cluster, gpu_type, losses, rules=rules, now=now)
    return Finding(gpu_type, tuple(losses), variants, hit)


def propose(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    gpu_type: str,
    cause: RepairCause,
    losses: Sequence[Loss],
    *,
    found: Sequence[Finding] = (),
    details: Mapping[str, Any] | None = None,
    outage: Outage | None = None,
    rules: BookingRules,
    now: datetime,
) -> Repair:
    """Keep both variants; nobody is moved. ``found``: what was surveyed ahead; what is not there is now."""
    require(actor, Action.CLUSTER_CHANGE)
    known = (one for one in found if (one.gpu_type, one.losses) == (gpu_type, tuple(losses)))
    finding = next(known, None) or survey(session, cluster, gpu_type, losses, rules=rules, now=now)
    variants = finding.variants
    hit = {str(number): version for number, version in finding.affected.items()}
    repair = Repair(
        cluster=cluster,
        gpu_type=gpu_type,
        cause=cause,
        outage=outage,
        details={**(details or {}), "losses": losses_to_json(losses), "affected": hit},
        variants=variants_to_json(variants),
        proposed_at=now,
    )
    session.add(repair)
    facts: dict[str, Any] = {"cause": cause, "gpu_type": gpu_type, "outage": outage.id if outage else None}
    facts |= {name: _counts(one) for name, one in variants.items()}
    events.record(session, actor, repair, "repair.proposed", now=now, after=facts)
    return repair


def work_out(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    losses: Sequence[Loss],
    *,
    rules: BookingRules,
    now: datetime,
) -> dict[str, Variant]:
    """The two ways to mend the plan of one GPU type after the losses; nothing is stored."""
    claims = read_claims(session, cluster, gpu_type, rules=rules, now=now)
    nodes = read_nodes(session, cluster, gpu_type, {claim.id for claim in claims}, now=now)
    whole, grid = not cluster.shares_nodes, grid_of(rules)
    variants = mend(nodes, claims, losses, whole=whole, grid=grid)
    # whoever asks waits for the answer, and compiling the search would take a minute
    if not worth_it(variants) or not is_warm():
        return variants
    return search(nodes, claims, losses, variants, whole=whole, grid=grid, now=now, seconds=SECONDS)


def _counts(variant: Variant) -> dict[str, int]:
    counts: dict[str, int] = {}
    for change in variant.changes:
        counts[change.kind.value] = counts.get(change.kind.value, 0) + 1
    return {**counts, "stuck": len(variant.stuck)}


def again(
    session: Session,
    actor: Actor,
    repair: Repair,
    *,
    expected_version: int,
    until: datetime | None = None,
    found: Sequence[Finding] = (),
    rules: BookingRules,
    now: datetime,
) -> Repair:
    """Give this proposal up for one by what is booked now; ``until``: when failed nodes are expected back."""
    require(actor, Action.CLUSTER_CHANGE)
    losses = losses_again(repair, until, now=now)
    details = {name: value for name, value in repair.details.items() if name not in ("losses", "affected")}
    if until is not None:
        details["until"] = until.isoformat()
    _give_up(session, actor, repair, expected_version, N_("It was worked out again."), now)
    return propose(
        session,
        actor,
        repair.cluster,
        repair.gpu_type,
        repair.cause,
        losses,
        found=found,
        details=details,
        rules=rules,
        now=now,
    )


def losses_again(repair: Repair, until: datetime | None, *, now: datetime) -> list[Loss]:
    """What is lost when the nodes come back only then. Raises Invalid, and WrongState for an outage's."""
    _refuse_outage(repair)
    losses = losses_of(repair)
    if until is None:
        return losses
    # nodes that leave have their own date
    if repair.cause is not RepairCause.NODES_DOWN or until <= now or until >= FOREVER:
        raise Invalid({"until": [Fault(N_("Choose a moment that is still to come."))]})
    return [Loss(loss.node_id, now, until) for loss in losses]


def _refuse_outage(repair: Repair) -> None:
    if repair.cause is RepairCause.OUTAGE:
        raise WrongState(BELONGS)


def discard(
    session: Session, actor: Actor, repair: Repair, *, reason: str, expected_version: int, now: datetime
) -> None:
    """Drop the proposal: the bookings stay as they are. Raises Invalid, Stale, WrongState."""
    require(actor, Action.CLUSTER_CHANGE)
    _refuse_outage(repair)
    _give_up(session, actor, repair, expected_version, given(reason), now)


def _give_up(
    session: Session, actor: Actor, repair: Repair, expected_version: int, reason: str, now: datetime
) -> None:
    take(session, repair, expected_version)
    columns = {"decided_by_id": actor.person_id, "decided_at": now, "version": repair.version + 1}
    move(repair, RepairState.DISCARDED, actor=actor, now=now, reason=reason, columns=columns)


def take(session: Session, repair: Repair, expected_version: int) -> None:
    """Hold the proposal until the commit. Raises Stale when it is not as the person saw it, WrongState."""
    hold(session, repair)
    if repair.state is not RepairState.PROPOSED:
        raise WrongState(N_("This repair has been decided on already."), {"state": repair.state.value})
    if repair.version != expected_version:
        raise Stale(N_("This repair has changed since you opened the page."))


def losses_of(repair: Repair) -> list[Loss]:
    return losses_from_json(repair.details["losses"])


def variants_of(repair: Repair) -> dict[str, Variant]:
    """The proposal by the variants' names."""
    return variants_from_json(repair.variants)


def affected_of(repair: Repair) -> dict[int, int]:
    """The bookings that lost GPUs when it was proposed, with their versions then."""
    return {int(number): version for number, version in repair.details["affected"].items()}


def is_empty(repair: Repair) -> bool:
    """Whether nobody is affected at all."""
    return not any(one.changes or one.stuck for one in variants_of(repair).values())


def find(session: Session, actor: Actor, repair_id: int) -> Repair:
    """One repair for staff. Raises NotFound, Forbidden."""
    require(actor, Action.CLUSTER_OPERATE)
    repair = session.scalar(
        select(Repair)
        .where(Repair.id == repair_id)
        .options(joinedload(Repair.cluster), joinedload(Repair.outage))
    )
    if repair is None:
        raise NotFound()
    return repair


def list_repairs(actor: Actor) -> Select[Repair]:
    """All repairs, those that wait for a decision first, then the latest."""
    require(actor, Action.CLUSTER_OPERATE)
    waits = case((Repair.state == RepairState.PROPOSED, 0), else_=1)
    return (
        select(Repair)
        .options(joinedload(Repair.cluster), joinedload(Repair.outage))
        .order_by(waits, Repair.id.desc())
    )


def bookings_in(session: Session, variants: Sequence[Variant]) -> dict[int, Booking]:
    """The bookings that variants speak of, with what a page shows of them. One query."""
    ids = {change.booking_id for one in variants for change in one.changes}
    ids |= {number for one in variants for number in one.stuck}
    rows = session.scalars(
        select(Booking)
        .where(Booking.id.in_(ids))
        .options(joinedload(Booking.quota).joinedload(Quota.application), joinedload(Booking.booked_by))
    )
    return {booking.id: booking for booking in rows}


def default_until(now: datetime) -> datetime:
    """When nodes that failed are taken to be back, until a person knows better: a day, on the hour."""
    return (now + timedelta(hours=25)).replace(minute=0, second=0, microsecond=0)
