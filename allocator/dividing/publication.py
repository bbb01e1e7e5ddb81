"""Publishing a proposal: what was proposed becomes binding, by another person's hand (R-17)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from allocator import locks
from allocator.actors import Actor
from allocator.authorization import Action, may, require
from allocator.dividing import divisions, grants
from allocator.dividing.proposals import require_state
from allocator.errors import Conflict, Forbidden, Stale, WrongState
from allocator.models import Period, PeriodClaim, Proposal, ProposalKind, ProposalShare, Quota
from allocator.states import PeriodState, ProposalState, move
from config.i18n import N_


def may_publish(actor: Actor, proposal: Proposal) -> bool:
    """Whether the button belongs on this person's page."""
    return (
        proposal.period.state is PeriodState.PROPOSED
        and proposal.kind is ProposalKind.PROPOSAL
        and may(actor, Action.PERIOD_PUBLISH, proposal)
    )


def publish(
    session: Session, actor: Actor, proposal: Proposal, *, expected_version: int, now: datetime
) -> Period:
    """Make the proposal binding: grants, credits, letters. From then on the period stays as it is.

    Four eyes: Forbidden for whoever proposed or adjusted any of it. Stale when the period is not as the
    person saw it; Conflict when the recorded shares are not what the recorded inputs give.
    """
    require(actor, Action.PERIOD_VIEW, proposal.period)
    if not may(actor, Action.PERIOD_PUBLISH, proposal):
        raise Forbidden(N_("Somebody else publishes: not who proposed or adjusted it."))
    period = proposal.period
    locks.hold(session, period)
    if period.version != expected_version:
        raise Stale(
            N_("This period has changed since you opened the page."),
            {"state": period.state.value, "version": period.version},
        )
    require_state(period, PeriodState.PROPOSED)
    if proposal.kind is not ProposalKind.PROPOSAL or period.ends_at <= now:
        raise WrongState(N_("This cannot be published: it is a what-if, or its period is over."))
    division = divisions.division_of(proposal)
    # Held until the end: what moves is read anew, and whatever nobody holds would then come row by row.
    shares = _shares(session, proposal)
    if any(share.gpu_hours != division.shares[share.claim.reference] for share in shares):
        raise Conflict(N_("The recorded shares are not what the recorded inputs give; propose again."))
    move(proposal, ProposalState.PUBLISHED, actor=actor, now=now, number=proposal.number)
    step = {"version": period.version + 1, "published_at": now, "published_by_id": actor.person_id}
    granted = sum(share.gpu_hours for share in shares)
    move(
        period,
        PeriodState.PUBLISHED,
        actor=actor,
        now=now,
        columns=step,
        proposal=proposal.number,
        granted=granted,
        policy_version=period.policy_version,
    )
    grants.issue(session, proposal, shares, now=now)
    return period


def _shares(session: Session, proposal: Proposal) -> Sequence[ProposalShare]:
    """With everything that grants, credits and letters are made of, in one query."""
    application = (
        joinedload(ProposalShare.claim, innerjoin=True)
        .joinedload(PeriodClaim.quota, innerjoin=True)
        .joinedload(Quota.application, innerjoin=True)
    )
    statement = select(ProposalShare).where(ProposalShare.proposal_id == proposal.id).options(application)
    return session.scalars(statement.order_by(ProposalShare.claim_id)).all()
