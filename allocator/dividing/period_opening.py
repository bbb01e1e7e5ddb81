"""What keeps periods in time: the next draft opened by itself, kept fresh, and operators reminded.

The machine only prepares. What is divided and what binds stays with people: one proposes, another publishes
(R-14).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM, Actor, Role
from allocator.authorization import Action, require
from allocator.dividing import period_letters, periods
from allocator.dividing.periods import Opening
from allocator.models import Cluster, Node, NodeState, Period, PeriodPlan, Person, Proposal, Quota, RoleGrant
from allocator.models.records import Event
from allocator.policy import Policy
from allocator.states import PeriodState

WAITING = (PeriodState.DRAFT, PeriodState.PROPOSED)


class Due(StrEnum):
    """What somebody has to do about a period."""

    PROPOSAL = "proposal"
    PUBLICATION = "publication"


def open_due(session: Session, *, policy: Policy, key: bytes, now: datetime) -> int:
    """Open the next month's draft wherever it begins within the policy's ``open_days``; returns how many.

    Where a person gave up a period of these days nothing is opened: that was a decision. ``key`` as for
    ``periods.open_period``.
    """
    days = policy.periods.open_days
    opened = 0
    for cluster, gpu_type in _divided(session) if days else ():
        opening = periods.suggestion(session, cluster, gpu_type, now)
        if opening.starts_at - timedelta(days=days) > now or _given_up(session, opening):
            continue
        period = periods.open_period(session, SYSTEM, opening, policy=policy, key=key, now=now)
        _tell(session, "period_opened", period, policy, now)
        opened += 1
    return opened


def _divided(session: Session) -> Iterator[tuple[Cluster, str]]:
    """Every kind of GPU that there is, cluster by cluster."""
    kinds = (
        select(Cluster, Node.gpu_type)
        .join(Node, Node.cluster_id == Cluster.id)
        .where(Node.state != NodeState.GONE, Node.gpus > 0)
        .distinct()
        .order_by(Cluster.id, Node.gpu_type)
    )
    yield from session.execute(kinds).all()


def _given_up(session: Session, opening: Opening) -> bool:
    found = select(Period.id).where(
        Period.cluster_id == opening.cluster_id,
        Period.gpu_type == opening.gpu_type,
        Period.state == PeriodState.DISCARDED,
        Period.starts_at < opening.ends_at,
        Period.ends_at > opening.starts_at,
    )
    return session.scalar(found.limit(1)) is not None


def refresh_due(session: Session, *, policy: Policy, key: bytes, now: datetime) -> int:
    """Collect the claims of drafts anew where plans or quotas came since; returns how many drafts.

    A plan that its holder saved must count even when no operator thinks of collecting again.
    """
    stale = session.scalars(
        select(Period).where(*_stale()).order_by(Period.id).with_for_update(skip_locked=True, key_share=True)
    ).all()
    for period in stale:
        periods.collect(session, SYSTEM, period, policy=policy, key=key, now=now)
    return len(stale)


def propose(
    session: Session,
    actor: Actor,
    period: Period,
    *,
    policy: Policy,
    key: bytes,
    name: str = "",
    now: datetime,
) -> Proposal:
    """``periods.propose()``, with what came into a draft since it was collected last.

    A plan saved a moment before the division counts as one saved an hour before.
    """
    require(actor, Action.PERIOD_PROPOSE)
    if session.scalar(select(Period.id).where(Period.id == period.id, *_stale())):
        periods.collect(session, SYSTEM, period, policy=policy, key=key, now=now)
    return periods.propose(session, actor, period, name=name, now=now)


def _stale() -> Sequence[ColumnElement[bool]]:
    newer_plan = exists().where(PeriodPlan.period_id == Period.id, PeriodPlan.set_at > Period.collected_at)
    newer_quota = exists().where(
        Quota.cluster_id == Period.cluster_id,
        Quota.gpu_type == Period.gpu_type,
        Quota.created_at > Period.collected_at,
        Quota.valid_from < Period.ends_at,
        Quota.valid_until > Period.starts_at,
    )
    return Period.state == PeriodState.DRAFT, or_(newer_plan, newer_quota)


def remind_due(session: Session, *, policy: Policy, now: datetime) -> int:
    """Remind operators, once each, of a proposal or a publication that is due; returns how many reminders."""
    waiting = session.scalars(
        select(Period)
        .where(Period.state.in_(WAITING), Period.ends_at > now)
        .order_by(Period.id)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    reminded = 0
    for period in waiting:
        due = _due(period, policy, now)
        if due is None or due in _reminded(session, period):
            continue
        facts = {"due": due.value, "starts_at": period.starts_at}
        events.record(session, SYSTEM, period, "period.reminded", now=now, after=facts)
        _tell(session, f"period_{due.value}_due", period, policy, now)
        reminded += 1
    return reminded


def _due(period: Period, policy: Policy, now: datetime) -> Due | None:
    """The later step speaks for the earlier one."""
    left = period.starts_at - now
    if left <= timedelta(days=policy.periods.publication_days):
        return Due.PUBLICATION
    if period.state is PeriodState.DRAFT and left <= timedelta(days=policy.periods.proposal_days):
        return Due.PROPOSAL
    return None


def _reminded(session: Session, period: Period) -> set[str]:
    told = select(Event.after).where(
        Event.subject_type == "period", Event.subject_id == period.id, Event.kind == "period.reminded"
    )
    return {after["due"] for after in session.scalars(told)}


def _tell(session: Session, letter: str, period: Period, policy: Policy, now: datetime) -> None:
    """To every operator: who is away today cannot be known."""
    operators = session.scalars(
        select(Person.id)
        .join(RoleGrant, RoleGrant.person_id == Person.id)
        .where(
            RoleGrant.role == Role.OPERATOR,
            Person.disabled_at.is_(None),
            Person.email_confirmed_at.is_not(None),
        )
        .order_by(Person.id)
    ).all()
    for person_id in operators:
        period_letters.to_operator(session, letter, period, person_id, policy.periods, now=now)
