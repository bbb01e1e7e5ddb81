"""Use cases of allocation periods: open, collect, propose; close when their time is over.

The machine proposes, a person corrects with a reason (``adjustments``), another person publishes
(``publication``; R-14, R-17). While a period's row is held, nobody else proposes or publishes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import events, locks, policies
from allocator.actors import SYSTEM, Actor
from allocator.applying.application_checks import MAX_REASON, text_fault
from allocator.authorization import Action, require
from allocator.dividing import divisions, fingerprints, period_inputs
from allocator.dividing.proposals import hold, read_inputs, store
from allocator.errors import Conflict, Fault, Invalid, NotFound, Stale
from allocator.models import Cluster, Period, Proposal
from allocator.policy import Policy
from allocator.states import PeriodState, move
from config.i18n import N_

ALMATY = ZoneInfo("Asia/Almaty")  # a month is one of the people's calendar


@dataclass(frozen=True)
class Opening:
    """What an operator opens: a GPU type for [starts_at, ends_at); GPU-hours left out are worked out."""

    cluster_id: int
    gpu_type: str
    starts_at: datetime
    ends_at: datetime
    maintenance: int | None = None
    reserve: int | None = None


def suggestion(session: Session, cluster: Cluster, gpu_type: str, now: datetime) -> Opening:
    """The next calendar month that has no period yet: what the form is filled with."""
    last = session.scalar(
        select(func.max(Period.ends_at)).where(
            Period.cluster_id == cluster.id,
            Period.gpu_type == gpu_type,
            Period.state != PeriodState.DISCARDED,
        )
    )
    starts_at = month_from(max(last, now) if last else now)
    return Opening(cluster.id, gpu_type, starts_at, month_from(starts_at + timedelta(days=1)))


def month_from(moment: datetime) -> datetime:
    """The first midnight of a month, in the country's time, that is not before ``moment``."""
    local = moment.astimezone(ALMATY)
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if first < local:
        first = (first + timedelta(days=32)).replace(day=1)
    return first.astimezone(moment.tzinfo)


def days(opening: Opening, first: date, last: date) -> Opening:
    """The same cluster and GPU type from the first to the last of these days, both whole."""
    since = datetime.combine(first, time.min, ALMATY).astimezone(UTC)
    until = datetime.combine(last + timedelta(days=1), time.min, ALMATY).astimezone(UTC)
    return replace(opening, starts_at=since, ends_at=until)


def open_period(
    session: Session, actor: Actor, opening: Opening, *, policy: Policy, key: bytes, now: datetime
) -> Period:
    """A draft with its capacity, pools and claims as they are now.

    ``key`` makes the pseudonyms of its public files. Raises Invalid, and Conflict when another period of this
    GPU type has some of that time.
    """
    require(actor, Action.PERIOD_PROPOSE)
    cluster = session.get(Cluster, opening.cluster_id)
    if cluster is None:
        raise NotFound()
    _check_dates(opening, policy, now)
    policies.record(session, policy, now)
    period = Period(
        name=_name(cluster, opening),
        cluster=cluster,
        gpu_type=opening.gpu_type,
        starts_at=opening.starts_at,
        ends_at=opening.ends_at,
        state=PeriodState.DRAFT,
        opened_by_id=actor.person_id,
        opened_at=now,
        policy_version=policy.version,
    )
    # lazy loads and the flush of a half-filled row do not go together
    with session.no_autoflush:
        _measure(session, period, opening, policy)
    _insert(session, period)
    events.record(session, actor, period, "period.opened", now=now, after=_facts(period))
    _collect(session, actor, period, policy, key, now)
    return period


def _check_dates(opening: Opening, policy: Policy, now: datetime) -> None:
    if opening.starts_at >= opening.ends_at:
        raise Invalid({"ends_at": [Fault(N_("A period ends after it begins."))]})
    if opening.ends_at <= now:
        raise Invalid({"ends_at": [Fault(N_("This day has passed. Choose today or a later day."))]})
    if (opening.ends_at - opening.starts_at) % timedelta(hours=1):
        raise Invalid({"ends_at": [Fault(N_("A period lasts whole hours."))]})
    if policy.periods.unit_hours != 1:
        raise Conflict(N_("Periods are divided in whole GPU-hours; the policy asks for another unit."))


def _name(cluster: Cluster, opening: Opening) -> str:
    return f"{cluster.slug}-{opening.gpu_type}-{opening.starts_at.astimezone(ALMATY):%Y-%m-%d}"


def _measure(session: Session, period: Period, opening: Opening, policy: Policy) -> None:
    window = (opening.starts_at, opening.ends_at)
    found = period_inputs.capacity_of(
        session,
        period.cluster,
        opening.gpu_type,
        window,
        policy,
        maintenance=opening.maintenance,
        reserve=opening.reserve,
    )
    if not found.gpus:
        raise Invalid({"gpu_type": [Fault(N_("The cluster has no nodes of this kind at the moment."))]})
    period.calendar, period.maintenance, period.reserve = found.calendar, found.maintenance, found.reserve
    period.capacity, period.details = found.capacity, found.details()
    period.pools = period_inputs.pools_of(period.capacity, policy)


def _insert(session: Session, period: Period) -> None:
    discarded = select(func.count()).select_from(Period).where(Period.name.startswith(period.name))
    before = session.scalar(discarded) or 0
    if before:  # one of the same days was discarded: ties are broken by the name, so it has to be another
        period.name = f"{period.name}.{before + 1}"
    try:
        with session.begin_nested():
            session.add(period)
            session.flush()
    except IntegrityError as error:
        raise Conflict(N_("Another period of this GPU type has some of these days already.")) from error


def collect(
    session: Session, actor: Actor, period: Period, *, policy: Policy, key: bytes, now: datetime
) -> int:
    """Take the claims and pools of a draft anew, under today's policy; returns how many claims there are."""
    require(actor, Action.PERIOD_PROPOSE)
    hold(session, period, PeriodState.DRAFT)
    read_inputs(session, period)
    policies.record(session, policy, now)
    period.policy_version = policy.version
    period.pools.clear()
    session.flush()
    period.pools = period_inputs.pools_of(period.capacity, policy)
    return _collect(session, actor, period, policy, key, now)


def _collect(
    session: Session, actor: Actor, period: Period, policy: Policy, key: bytes, now: datetime
) -> int:
    period.claims.clear()
    session.flush()  # the old rows must be gone before the same quotas come in again
    period.claims = period_inputs.gather(session, period, policy, key, now)
    period.collected_at = now
    session.flush()
    asked = sum(claim.request for claim in period.claims)
    facts = {"claims": len(period.claims), "requested": asked, "policy_version": policy.version}
    events.record(session, actor, period, "period.collected", now=now, after=facts)
    return len(period.claims)


def propose(session: Session, actor: Actor, period: Period, *, name: str = "", now: datetime) -> Proposal:
    """Divide: the machine's proposal. The first one freezes the inputs; later ones are kept beside it."""
    require(actor, Action.PERIOD_PROPOSE)
    hold(session, period, PeriodState.DRAFT, PeriodState.PROPOSED)
    read_inputs(session, period)
    if period.state is PeriodState.DRAFT:
        step = {"version": period.version + 1}
        move(
            period,
            PeriodState.PROPOSED,
            actor=actor,
            now=now,
            columns=step,
            claims=len(period.claims),
            sha256=fingerprints.of_inputs(period),
        )
    return store(session, actor, period, divisions.inputs_of(period), name=name, now=now)


def discard(
    session: Session, actor: Actor, period: Period, reason: str, *, expected_version: int, now: datetime
) -> None:
    """Give up a period that was not published; its days can then be opened again."""
    require(actor, Action.PERIOD_PROPOSE, period)
    locks.hold(session, period)
    if period.version != expected_version:
        raise Stale(N_("This period has changed since you opened the page."), {"state": period.state.value})
    if fault := text_fault(reason, MAX_REASON, lines=True):
        raise Invalid({"reason": [fault]})
    step = {"version": period.version + 1}
    move(period, PeriodState.DISCARDED, actor=actor, now=now, reason=reason.strip(), columns=step)


def close_due(session: Session, now: datetime) -> int:
    """Close published periods that are over; returns how many."""
    due = session.scalars(
        select(Period)
        .where(Period.state == PeriodState.PUBLISHED, Period.ends_at <= now)
        .order_by(Period.id)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for period in due:
        step = {"version": period.version + 1, "closed_at": now}
        move(period, PeriodState.CLOSED, actor=SYSTEM, now=now, columns=step)
    return len(due)


def _facts(period: Period) -> dict[str, Any]:
    return {
        "name": period.name,
        "starts_at": period.starts_at,
        "ends_at": period.ends_at,
        "calendar": period.calendar,
        "maintenance": period.maintenance,
        "reserve": period.reserve,
        "capacity": period.capacity,
        "policy_version": period.policy_version,
    }
