"""Writing a plan down: only if the world is still the one that it was made for, and never beyond a promise.

A plan takes seconds to look for, which nobody shall wait for: it is made from a picture, outside of any
transaction, and the picture is taken again under the cluster's lock before anything moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import SYSTEM
from allocator.booking import planning
from allocator.booking.planning import Picture, Worth
from allocator.errors import Stale
from allocator.models import Cluster, Node, NodeState, PlanRun, Repair
from allocator.policy import BookingRules
from allocator.states import BookingState, RepairState
from allocator.upkeep import repair_inputs, repair_steps
from allocator.upkeep.mending import Change, ChangeKind
from allocator.upkeep.repair_steps import Why
from config.i18n import N_

CHANGED = N_("What is booked has changed since this plan was made.")
ANEW = N_("Planned anew, so that more finds room.")
PRICES_LAST = timedelta(minutes=10)
RUNS_KEPT = timedelta(days=7)


def gpu_types(session: Session, cluster: Cluster) -> list[str]:
    """The types of which the cluster has nodes, each a pool of its own."""
    return list(
        session.scalars(
            select(Node.gpu_type)
            .where(Node.cluster_id == cluster.id, Node.state != NodeState.GONE)
            .distinct()
            .order_by(Node.gpu_type)
        )
    )


def is_contested(session: Session, cluster: Cluster, gpu_type: str) -> bool:
    """Whether a repair is worked out or waits for a person: the plan is left alone until then."""
    repair = select(Repair.id).where(
        Repair.cluster_id == cluster.id,
        Repair.gpu_type == gpu_type,
        Repair.state.in_((RepairState.WAITING, RepairState.PROPOSED)),
    )
    return session.scalar(repair.limit(1)) is not None


def check(
    session: Session, cluster: Cluster, gpu_type: str, picture: Picture, *, rules: BookingRules
) -> None:
    """Lock the cluster until the commit. Raises Stale unless all is as the picture has it."""
    capacity.lock(session, cluster)
    now = planning.read(session, cluster, gpu_type, rules=rules, now=picture.now)
    # whoever has joined the waitlist since is no reason to think again: the next round sees them
    if (now.nodes, now.claims) != (picture.nodes, picture.claims) or is_contested(session, cluster, gpu_type):
        raise Stale(CHANGED)


def carry_out(
    session: Session, changes: Sequence[Change], *, rules: BookingRules, now: datetime, reason: str = ANEW
) -> None:
    """Give bookings their other starts and nodes; the caller has the cluster. Raises Stale.

    Nobody is told: all they were promised is a time in their window, and their page shows today's plan.
    """
    bookings = repair_inputs.hold_bookings(session, [change.booking_id for change in changes])
    for change in changes:
        booking = bookings.get(change.booking_id)
        if booking is None or booking.version != change.version or booking.state is not BookingState.PLANNED:
            raise Stale(CHANGED)
    repair_steps.swap_slots(session, changes, bookings)
    why = Why(reason, SYSTEM, rules, now)
    for change in changes:
        if change.to_starts_at is None or change.to_ends_at is None:
            raise ValueError("a plan drops nothing")
        booking = bookings[change.booking_id]
        if change.to_starts_at != booking.starts_at:
            starts_at, ends_at = change.to_starts_at, change.to_ends_at
            repair_steps.set_window(session, booking, starts_at, ends_at, "booking.replanned", why)
    rebound = sorted(change.booking_id for change in changes if change.kind is ChangeKind.REBIND)
    if rebound:
        cluster, after = bookings[rebound[0]].cluster, {"bookings": rebound}
        events.record(session, SYSTEM, cluster, "cluster.rebound", now=now, reason=reason, after=after)
    session.flush()


def prices_are_due(session: Session, cluster: Cluster, gpu_type: str, now: datetime) -> bool:
    """Whether the latest prices are too old to choose by."""
    fresh = select(PlanRun.id).where(
        PlanRun.cluster_id == cluster.id, PlanRun.gpu_type == gpu_type, PlanRun.made_at > now - PRICES_LAST
    )
    return session.scalar(fresh.limit(1)) is None


def record(session: Session, cluster: Cluster, gpu_type: str, worth: Worth, *, now: datetime) -> PlanRun:
    """Keep what the plan is worth and its prices, with the event; old runs go."""
    run = PlanRun(
        cluster_id=cluster.id,
        gpu_type=gpu_type,
        made_at=now,
        starts_at=worth.starts_at,
        prices={"hours": list(worth.prices)},
        bookings=worth.bookings,
        value=worth.value,
        bound=worth.bound,
    )
    session.add(run)
    session.execute(
        delete(PlanRun).where(
            PlanRun.cluster_id == cluster.id,
            PlanRun.gpu_type == gpu_type,
            PlanRun.made_at < now - RUNS_KEPT,
        )
    )
    facts = {
        "gpu_type": gpu_type,
        "bookings": worth.bookings,
        "value": round(worth.value),
        "bound": round(worth.bound),
    }
    events.record(session, SYSTEM, run, "plan_run.made", now=now, after=facts)
    return run
