"""Repairs: what to do about bookings that lost their GPUs, proposed by the machine, decided by a person.

Whoever needs one asks for it: a row that waits until the scheduler has worked it out
(allocator.upkeep.working_out). Applying it (allocator.upkeep.repair_steps) checks under the cluster's lock
that the world is still the one it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, case, select
from sqlalchemy.orm import Session, joinedload

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.capacity import FOREVER
from allocator.errors import Fault, Invalid, NotFound, Stale, WrongState
from allocator.locks import hold
from allocator.models import Booking, Cluster, Outage, Quota, Repair, RepairCause
from allocator.reasons import given
from allocator.states import OPEN_REPAIRS, RepairState, move
from allocator.upkeep import own_interest
from allocator.upkeep.mending import Loss, Variant
from allocator.upkeep.repair_documents import (
    affected_from_json,
    affected_to_json,
    losses_from_json,
    losses_to_json,
    variants_from_json,
)
from allocator.upkeep.repair_inputs import affected
from config.i18n import N_

CHANGED = N_("The bookings have changed since this repair was worked out. Have it worked out again.")
BELONGS = N_("This repair belongs to an outage: change, publish or give up that.")
NOT_YET = N_("Whom it moves is still being worked out. It takes a moment; decide when it is there.")
# Of the details, what was said when it was asked for; the rest was found since.
KEPT = ("nodes", "until", "until_is_guess", "leaves_at")
NOT_AT_ALL = N_("Whom it moves could not be worked out. Have it worked out again first.")


def ask(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    gpu_type: str,
    cause: RepairCause,
    losses: Sequence[Loss],
    *,
    details: Mapping[str, Any] | None = None,
    outage: Outage | None = None,
    now: datetime,
) -> Repair:
    """Have it worked out how one GPU type is mended after ``losses``; nobody is moved."""
    require(actor, Action.CLUSTER_CHANGE)
    hit = affected_to_json(affected(session, losses, now))
    repair = Repair(
        cluster=cluster,
        gpu_type=gpu_type,
        cause=cause,
        outage=outage,
        details={**(details or {}), "losses": losses_to_json(losses), "affected": hit},
        state=RepairState.WAITING,
        asked_at=now,
    )
    session.add(repair)
    facts = {"cause": cause, "gpu_type": gpu_type, "outage": outage.id if outage else None}
    events.record(session, actor, repair, "repair.waiting", now=now, after=facts)
    return repair


def again(
    session: Session,
    actor: Actor,
    repair: Repair,
    *,
    expected_version: int,
    until: datetime | None = None,
    now: datetime,
) -> Repair:
    """Replace this one by one for what is booked now; ``until``: when failed nodes come back.

    Another date may take a booking out of the loss: raises Forbidden where one's own is at stake.
    """
    require(actor, Action.CLUSTER_CHANGE)
    losses = _losses_again(repair, until, now)
    details = {name: value for name, value in repair.details.items() if name in KEPT}
    if until is not None:
        details.update(until=until.isoformat(), until_is_guess=False)
    take(session, repair, expected_version)
    if until is not None:
        own_interest.refuse(session, actor, repair)
    cluster, gpu_type = repair.cluster, repair.gpu_type
    made = ask(session, actor, cluster, gpu_type, repair.cause, losses, details=details, now=now)
    give_up(session, actor, repair, N_("It was worked out again."), made, now=now)
    return made


def _losses_again(repair: Repair, until: datetime | None, now: datetime) -> list[Loss]:
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
    """Give it up, worked out or not: the bookings stay as they are. Raises Invalid, Stale, WrongState.

    Or Forbidden: to leave a booking of one's own where it is would be a decision in one's own interest.
    """
    require(actor, Action.CLUSTER_CHANGE)
    _refuse_outage(repair)
    take(session, repair, expected_version)
    own_interest.refuse(session, actor, repair)
    give_up(session, actor, repair, given(reason), now=now)


def give_up(
    session: Session,
    actor: Actor,
    repair: Repair,
    reason: str,
    successor: Repair | None = None,
    *,
    now: datetime,
) -> None:
    """For whoever holds it; ``successor`` is asked for already, and takes its place."""
    columns: dict[str, object] = {
        "decided_by_id": actor.person_id,
        "decided_at": now,
        "version": repair.version + 1,
    }
    after = {}
    if successor is not None:
        after["replaced_by"] = successor.id
        columns["details"] = {**repair.details, **after}
    move(repair, RepairState.DISCARDED, actor=actor, now=now, reason=reason, columns=columns, **after)


def take(session: Session, repair: Repair, expected_version: int) -> None:
    """Hold an open repair until the commit. Raises Stale when it is not as the person saw it, WrongState.

    The cluster first: whoever watches the nodes gives repairs up with the chain of events in hand.
    """
    capacity.lock(session, repair.cluster)
    hold(session, repair)
    if repair.state not in OPEN_REPAIRS:
        raise WrongState(N_("This repair has been decided on already."), {"state": repair.state.value})
    if repair.version != expected_version:
        raise Stale(N_("This repair has changed since you opened the page."))


def refuse_unfinished(repair: Repair) -> None:
    """Raises WrongState while there is nothing that could be carried out."""
    if repair.state is RepairState.WAITING:
        raise WrongState(NOT_YET)
    if repair.state is RepairState.FAILED:
        raise WrongState(NOT_AT_ALL)


def losses_of(repair: Repair) -> list[Loss]:
    return losses_from_json(repair.details["losses"])


def variants_of(repair: Repair) -> dict[str, Variant]:
    """The proposal by the variants' names; nothing before it is worked out."""
    return variants_from_json(repair.variants)


def affected_of(repair: Repair) -> dict[int, int]:
    """The bookings that lost GPUs when it was asked for or worked out, with their versions then."""
    return affected_from_json(repair.details["affected"])


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
    """All repairs, those that are not decided on first, then the latest."""
    require(actor, Action.CLUSTER_OPERATE)
    waits = case((Repair.state.in_(OPEN_REPAIRS), 0), else_=1)
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
