"""Proposals: what a division gave, kept as it was computed. A correction makes the next one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from allocator import events, locks
from allocator.actors import Actor
from allocator.applying.application_checks import text_fault
from allocator.dividing import divisions, fingerprints
from allocator.dividing.divisions import Inputs
from allocator.errors import Invalid, WrongState
from allocator.models import Adjustment, Period, PeriodClaim, PeriodPool, Proposal, ProposalKind
from allocator.states import PeriodState, ProposalState
from config.i18n import N_

MAX_NAME = 120


def hold(session: Session, period: Period, *states: PeriodState) -> None:
    """Wait for the period's row; raises WrongState when it is in none of these states."""
    locks.hold(session, period)
    require_state(period, *states)


def read_inputs(session: Session, period: Period) -> None:
    """Pools and claims of a held period as they are now: collected anew while we waited, perhaps.

    Row by row over what is loaded: SQLite gives the number of a deleted claim to another one.
    """
    for name, model, order in (
        ("pools", PeriodPool, PeriodPool.position),
        ("claims", PeriodClaim, PeriodClaim.id),
    ):
        rows = select(model).where(model.period_id == period.id).order_by(order)
        found = session.scalars(rows.execution_options(populate_existing=True)).all()
        set_committed_value(period, name, list(found))


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
        "sha256": fingerprints.of_shares(proposal),
    }
    events.record(session, actor, proposal, "proposal.kept", now=now, after=facts)
    return proposal
