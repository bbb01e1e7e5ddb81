"""What if: other capacity, pools, weights or requests, and who would gain or lose. Nothing is stored unless
it is given a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from allocator import locks
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.dividing import divisions
from allocator.dividing.divisions import Inputs
from allocator.dividing.period_comparison import Comparison, between
from allocator.dividing.proposals import read_inputs, store
from allocator.errors import Fault, Invalid, NotFound, WrongState
from allocator.fairshare import Claim, Pool
from allocator.models import Adjustment, Period, Proposal, ProposalKind, Quota
from allocator.states import PeriodState, ProposalState
from config.i18n import N_

PERCENT = 100
MOST = 10**12  # GPU-hours: beyond what will ever be, and what a column holds
WHOLE = N_("Enter a whole number from 0 up.")
PERCENTS = N_("Percentages go from 0 to 100, all pools together to 100.")


@dataclass(frozen=True)
class Scenario:
    """What would be different. Percentages are of the (changed) capacity; claims go by their reference."""

    capacity: int | None = None
    guarantees: Mapping[str, int] = field(default_factory=dict)  # percent by pool
    caps: Mapping[str, int | None] = field(default_factory=dict)  # percent by pool, None: no cap
    pool_weights: Mapping[str, Fraction] = field(default_factory=dict)
    weights: Mapping[str, Fraction] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What an applicant would get by asking for something else; GPU-hours."""

    request_before: int
    share_before: int
    request_after: int
    share_after: int


def what_if(session: Session, actor: Actor, period: Period, scenario: Scenario) -> Comparison:
    """The period as recorded against the scenario. Raises Invalid beside the fields of the scenario."""
    require(actor, Action.PERIOD_PROPOSE, period)
    inputs = divisions.inputs_of(period)
    other = divisions.changed(inputs, recorded(inputs, scenario))
    return between(period.claims, [pool.slug for pool in period.pools], inputs.divide(), other.divide())


def keep(
    session: Session, actor: Actor, period: Period, scenario: Scenario, name: str, *, now: datetime
) -> Proposal:
    """Store a scenario and its result under a name, to be compared with proposals."""
    require(actor, Action.PERIOD_PROPOSE, period)
    if not name.strip():
        raise Invalid({"name": [Fault(N_("Give it a name: without one nothing is stored."))]})
    locks.hold(session, period)
    if period.state in (PeriodState.DRAFT, PeriodState.DISCARDED):
        # what is kept refers to claims, and those of a draft can still go
        raise WrongState(
            N_("A what-if is kept once the period has a proposal: until then its claims can change."),
            {"state": period.state.value},
        )
    read_inputs(session, period)
    inputs = divisions.inputs_of(period)
    document = recorded(inputs, scenario)
    return store(
        session,
        actor,
        period,
        divisions.changed(inputs, document),
        name=name,
        kind=ProposalKind.WHAT_IF,
        scenario=document,
        now=now,
    )


def recorded(inputs: Inputs, scenario: Scenario) -> dict[str, Any]:
    """The scenario as it is stored: hours instead of percentages, fractions as text, only what differs."""
    faults = {name: [fault] for name, fault in _faults(inputs, scenario)}
    if faults:
        raise Invalid(faults)
    document: dict[str, Any] = {}
    capacity = inputs.capacity if scenario.capacity is None else scenario.capacity
    if capacity != inputs.capacity:
        document["capacity"] = capacity
    pools = {pool.name: _pool(pool, capacity, inputs.capacity, scenario) for pool in inputs.pools}
    if changed := {name: values for name, values in pools.items() if values}:
        document["pools"] = changed
    if scenario.weights:
        document["weights"] = {reference: str(weight) for reference, weight in scenario.weights.items()}
    if scenario.requests:
        document["requests"] = dict(scenario.requests)
    return document


def _pool(pool: Pool, capacity: int, before: int, scenario: Scenario) -> dict[str, Any]:
    values: dict[str, Any] = {}
    name = pool.name
    if name in scenario.guarantees:
        values["guarantee"] = capacity * scenario.guarantees[name] // PERCENT
    elif capacity != before:
        # a promise in percent grows and shrinks with what there is
        values["guarantee"] = pool.guarantee * capacity // before if before else 0
    if name in scenario.caps:
        percent = scenario.caps[name]
        values["cap"] = None if percent is None else capacity * percent // PERCENT
    elif capacity != before and pool.cap is not None:
        values["cap"] = pool.cap * capacity // before if before else 0
    if name in scenario.pool_weights:
        values["weight"] = str(scenario.pool_weights[name])
    return values


def _faults(inputs: Inputs, scenario: Scenario) -> list[tuple[str, Fault]]:
    pools, claims = {pool.name for pool in inputs.pools}, {claim.id for claim in inputs.claims}
    named = {*scenario.guarantees, *scenario.caps, *scenario.pool_weights}
    asked = {*scenario.weights, *scenario.requests}
    weights = [*scenario.weights.values(), *scenario.pool_weights.values()]
    percents = [*scenario.guarantees.values(), *(cap for cap in scenario.caps.values() if cap is not None)]
    total = sum(scenario.guarantees.values())
    tests = (
        ("capacity", not 0 <= (scenario.capacity or 0) <= MOST, WHOLE),
        ("pools", not named <= pools, N_("The period has no such pool.")),
        ("pools", any(not 0 <= percent <= PERCENT for percent in (*percents, total)), PERCENTS),
        ("claims", not asked <= claims, N_("The period has no such claim.")),
        ("weights", any(not 0 < weight <= MOST for weight in weights), N_("A weight is above 0.")),
        ("requests", any(not 0 <= one <= MOST for one in scenario.requests.values()), WHOLE),
    )
    return [(name, Fault(message)) for name, wrong, message in tests if wrong]


def if_asked(session: Session, actor: Actor, period: Period, quota: Quota, request: int) -> Answer:
    """What a quota would get had it asked for ``request``, by the recorded inputs of everybody else.

    By the published proposal where there is one, with what persons fixed in it. Also for who wants to see
    that asking for more would not have helped. Raises NotFound for a quota that is not in the period, Invalid
    (``request``).
    """
    require(actor, Action.QUOTA_VIEW, quota)
    inputs = _in_force(session, period)
    claim = next((claim for claim in period.claims if claim.quota_id == quota.id), None)
    if claim is None:
        raise NotFound()
    if not 0 <= request <= quota.gpu_seconds // 3600:
        most = {"most": quota.gpu_seconds // 3600}
        raise Invalid({"request": [Fault(N_("Enter a number of GPU-hours from 0 to %(most)s."), most)]})
    claims = tuple(_asking(one, claim.reference, request) for one in inputs.claims)
    # nobody is given more than what it asks for, not even by a person
    fixed = dict(inputs.fixed)
    if claim.reference in fixed:
        fixed[claim.reference] = min(fixed[claim.reference], request)
    other = replace(inputs, claims=claims, fixed=fixed)
    before, after = inputs.divide().shares, other.divide().shares
    return Answer(claim.request, before[claim.reference], request, after[claim.reference])


def _in_force(session: Session, period: Period) -> Inputs:
    published = session.scalar(
        select(Proposal)
        .where(Proposal.period_id == period.id, Proposal.state == ProposalState.PUBLISHED)
        .options(selectinload(Proposal.adjustments).joinedload(Adjustment.claim))
    )
    return divisions.inputs_of_proposal(published) if published else divisions.inputs_of(period)


def _asking(claim: Claim, reference: str, request: int) -> Claim:
    if claim.id != reference:
        return claim
    return replace(claim, request=request, minimum=min(claim.minimum, request))
