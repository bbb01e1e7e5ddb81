"""A person corrects the machine: one share is fixed with a reason, the rest divided around it (R-14)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor
from allocator.applying.application_checks import MAX_REASON, text_fault
from allocator.authorization import Action, require
from allocator.dividing import divisions
from allocator.dividing.period_comparison import Comparison, compared
from allocator.dividing.proposals import hold, store
from allocator.errors import Fault, Invalid, NotFound, WrongState
from allocator.models import Adjustment, PeriodClaim, Proposal, ProposalKind
from allocator.states import PeriodState
from config.i18n import N_


def preview(session: Session, actor: Actor, proposal: Proposal, quota_id: int, hours: int) -> Comparison:
    """What ``adjust`` would cost the others, without storing anything; raises what it would raise."""
    claim = _adjustable(session, actor, proposal, quota_id)
    inputs = _fixing(proposal, claim, hours)
    return compared(proposal, inputs.divide())


def adjust(
    session: Session,
    actor: Actor,
    proposal: Proposal,
    quota_id: int,
    hours: int,
    reason: str,
    *,
    now: datetime,
) -> Proposal:
    """A new proposal in which the quota has exactly ``hours`` and the rest is divided around that (R-14).

    Earlier adjustments stay. Raises Invalid (``hours``, ``reason``): not above the request, and never out of
    another pool's guarantee; Forbidden for an own quota (R-22).
    """
    claim = _adjustable(session, actor, proposal, quota_id)
    reason = reason.replace("\r\n", "\n").strip()
    fault = text_fault(reason, MAX_REASON, lines=True)
    if not reason:
        fault = Fault(N_("Give the reason: the applicant is told it word for word."))
    if fault:
        raise Invalid({"reason": [fault]})
    if actor.person_id is None:
        raise ValueError("a share is adjusted by a person")
    inputs = _fixing(proposal, claim, hours)
    before = {share.claim_id: share.gpu_hours for share in proposal.shares}
    kept = [_again(one) for one in proposal.adjustments if one.claim_id != claim.id]
    new = Adjustment(
        claim=claim,
        before=before[claim.id],
        after=hours,
        reason=reason,
        adjusted_by_id=actor.person_id,
        adjusted_at=now,
    )
    period = proposal.period
    adjusted = store(session, actor, period, inputs, based_on=proposal, adjustments=[*kept, new], now=now)
    events.record(
        session,
        actor,
        adjusted,
        "proposal.adjusted",
        now=now,
        reason=reason,
        before={"quota_id": quota_id, "gpu_hours": new.before},
        after={"quota_id": quota_id, "gpu_hours": hours, "based_on": proposal.number},
    )
    return adjusted


def _fixing(proposal: Proposal, claim: PeriodClaim, hours: int) -> divisions.Inputs:
    if hours > claim.request:
        # the division would say so too, but of a pseudonym
        most = {"most": claim.request}
        raise Invalid(
            {"hours": [Fault(N_("Enter at most the %(most)s GPU-hours that were asked for."), most)]}
        )
    return divisions.inputs_of_proposal(proposal).fixing({claim.reference: hours})


def _again(one: Adjustment) -> Adjustment:
    return Adjustment(
        claim=one.claim,
        before=one.before,
        after=one.after,
        reason=one.reason,
        adjusted_by_id=one.adjusted_by_id,
        adjusted_at=one.adjusted_at,
    )


def _adjustable(session: Session, actor: Actor, proposal: Proposal, quota_id: int) -> PeriodClaim:
    require(actor, Action.PERIOD_PROPOSE, proposal)
    hold(session, proposal.period, PeriodState.PROPOSED)
    if proposal.kind is not ProposalKind.PROPOSAL:
        raise WrongState(N_("A what-if is only looked at; adjust a proposal instead."))
    claim = next((share.claim for share in proposal.shares if share.claim.quota_id == quota_id), None)
    if claim is None:
        raise NotFound()
    require(actor, Action.PERIOD_ADJUST, claim.quota)
    return claim
