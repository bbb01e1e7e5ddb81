"""Proposals: what a division gave, kept as it was computed. A correction makes the next one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import divisions, events
from allocator.actors import Actor
from allocator.application_checks import text_fault
from allocator.divisions import Inputs
from allocator.errors import Invalid, WrongState
from allocator.models import Adjustment, Period, Proposal, ProposalKind
from allocator.states import PeriodState, ProposalState
from config.i18n import N_

MAX_NAME = 120


def hold(session: Session, period: Period, *states: PeriodState) -> None:
    """Wait for the period's row; raises WrongState when it is in none of these states."""
    session.refresh(period, with_for_update=True)
    require_state(period, *states)


def require_state(period: Period, *states: PeriodState) -> None:
    if period.state not in states:
        raise WrongState(N_("This period is past that step."), {"state": period.state.value})


def store(
    session: Session,
    actor: Actor,
    period: Period,
    inputs: Inputs,
    *,
    name: str = "",
    kind: ProposalKind = ProposalKind.PROPOSAL,
    scenario: Mapping[str, Any] | None = None,
    based_on: Proposal | None = None,
    adjustments: list[Adjustment] | None = None,
    now: datetime,
) -> Proposal:
    """Divide ``inputs`` and keep the result under the next number. Raises Invalid for a name too long."""
    if fault := text_fault(name, MAX_NAME):
        raise Invalid({"name": [fault]})
    division = inputs.divide()
    last = session.scalar(select(func.max(Proposal.number)).where(Proposal.period_id == period.id))
    proposal = Proposal(
        period=period,
        number=(last or 0) + 1,
        kind=kind,
        name=name.strip(),
        state=ProposalState.KEPT,
        based_on=based_on,
        capacity=inputs.capacity,
        scenario=dict(scenario or {}),
        pools=divisions.pools_of(division, [pool.slug for pool in period.pools]),
        created_by_id=actor.person_id,
        created_at=now,
        shares=divisions.shares_of(division, period.claims),
        adjustments=adjustments or [],
    )
    session.add(proposal)
    session.flush()
    facts = {
        "period": period.name,
        "number": proposal.number,
        "kind": kind,
        "name": proposal.name,
        "capacity": inputs.capacity,
        "divided": sum(share.gpu_hours for share in proposal.shares),
        "policy_version": period.policy_version,
    }
    events.record(session, actor, proposal, "proposal.kept", now=now, after=facts)
    return proposal
