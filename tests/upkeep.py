"""Repairs that are worked out as soon as they are asked for: for tests of what comes after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from allocator.actors import Actor
from allocator.models import Cluster, Node, Outage, Repair, RepairCause
from allocator.policy import BookingRules
from allocator.upkeep import failures, outages, phases, repairs, working_out
from allocator.upkeep.failures import MOMENT
from allocator.upkeep.mending import Loss
from allocator.upkeep.outages import OutagePlan


def draft(
    session: Session, actor: Actor, cluster: Cluster, plan: OutagePlan, *, rules: BookingRules, now: datetime
) -> Outage:
    made = outages.draft(session, actor, cluster, plan, now=now)
    working_out.at_once(session, rules=rules, now=now)
    return made


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
    outages.change(session, actor, outage, plan, expected_version=expected_version, now=now)
    working_out.at_once(session, rules=rules, now=now)


def prepare(
    session: Session, actor: Actor, outage: Outage, *, rules: BookingRules, now: datetime
) -> list[Repair]:
    made = outages.prepare(session, actor, outage, now=now)
    working_out.at_once(session, rules=rules, now=now)
    return made


def propose(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    gpu_type: str,
    cause: RepairCause,
    losses: Sequence[Loss],
    *,
    details: Mapping[str, Any] | None = None,
    rules: BookingRules,
    now: datetime,
) -> Repair:
    made = repairs.ask(session, actor, cluster, gpu_type, cause, losses, details=details, now=now)
    working_out.at_once(session, rules=rules, now=now)
    return made


def again(
    session: Session,
    actor: Actor,
    repair: Repair,
    *,
    expected_version: int,
    until: datetime | None = None,
    rules: BookingRules,
    now: datetime,
) -> Repair:
    made = repairs.again(session, actor, repair, expected_version=expected_version, until=until, now=now)
    working_out.at_once(session, rules=rules, now=now)
    return made


def watch(
    session: Session, cluster: Cluster, *, rules: BookingRules, now: datetime, after: timedelta = MOMENT
) -> int:
    new = failures.watch(session, cluster, now=now, after=after)
    working_out.at_once(session, rules=rules, now=now)
    return new


def leave(
    session: Session,
    actor: Actor,
    cluster: Cluster,
    nodes: Sequence[Node],
    leaves_at: datetime,
    *,
    rules: BookingRules,
    now: datetime,
) -> list[Repair]:
    made = phases.leave(session, actor, cluster, nodes, leaves_at, now=now)
    working_out.at_once(session, rules=rules, now=now)
    return made
