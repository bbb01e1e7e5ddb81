"""Replay: a period recomputed from what was recorded, to say identical or where not (R-15, R-22)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, policies
from allocator.dividing import credits, divisions, fingerprints, period_inputs
from allocator.dividing.period_queries import with_shares
from allocator.errors import KezekError
from allocator.models import Application, Event, Grant, Period, PeriodClaim, Proposal, Quota
from allocator.policy import Policy, PolicyError
from allocator.states import PeriodState, ProposalState

HOUR = 3600
IN_FORCE = (PeriodState.PUBLISHED, PeriodState.CLOSED)
NONE = "-"


@dataclass(frozen=True)
class Mismatch:
    """One thing that does not come out again.

    ``what`` is policy, inputs, pool, weight, one of its factors, request, division, share, grant or event.
    """

    what: str
    reference: str
    recorded: str
    computed: str


@dataclass(frozen=True)
class Replay:
    """``policy_found``: whether that version of the policy is recorded, so that weights were checked too."""

    period: str
    policy_version: str
    policy_found: bool
    proposals: int
    shares: int
    mismatches: tuple[Mismatch, ...]

    @property
    def identical(self) -> bool:
        return not self.mismatches


def replay(session: Session, period: Period) -> Replay:
    """Recompute every proposal of the period, its weights and pools by its policy, and its grants.

    What no recomputation can tell (a request and its plan changed alike) is held against the fingerprints in
    the chain of events.
    """
    mismatches: list[Mismatch] = []
    policy = _policy(session, period.policy_version, mismatches)
    if policy is not None:
        mismatches += _pools(period, policy)
    mismatches += _weights(period, policy, _credits(session, period, policy))
    proposals = with_shares(session, period)
    for proposal in proposals:
        mismatches += _shares(proposal)
    found = list(session.scalars(select(Grant).where(Grant.period_id == period.id).order_by(Grant.id)))
    if period.state in IN_FORCE:
        mismatches += _grants(proposals, found)
    mismatches += _fingerprints(session, period, proposals, found)
    count = sum(len(proposal.shares) for proposal in proposals)
    return Replay(
        period.name, period.policy_version, policy is not None, len(proposals), count, tuple(mismatches)
    )


def _policy(session: Session, version: str, mismatches: list[Mismatch]) -> Policy | None:
    """The recorded policy; None, with a mismatch, where it is missing or cannot be read."""
    try:
        policy = policies.find(session, version)
    except (KezekError, PolicyError) as error:
        mismatches.append(Mismatch("policy", version, version, str(error)))
        return None
    if policy.version != version:  # the version holds a hash of the content
        mismatches.append(Mismatch("policy", version, version, policy.version))
    return policy


def _credits(session: Session, period: Period, policy: Policy | None) -> dict[str, Fraction] | None:
    """Each claim's credit as it was when claims were collected, by reference; None where nobody can say."""
    if policy is None or period.collected_at is None:
        return None
    earned = credits.of_period(session, period, policy, period.collected_at)
    holders = session.execute(
        select(PeriodClaim.reference, PeriodClaim.pool, Application.organisation_id, Application.applicant_id)
        .join(Quota, Quota.id == PeriodClaim.quota_id)
        .join(Application, Application.id == Quota.application_id)
        .where(PeriodClaim.period_id == period.id)
    )
    factors = {}
    for reference, pool, organisation_id, applicant_id in holders:
        one = earned.get((pool, credits.holder(organisation_id, applicant_id, pool).key))
        factors[reference] = policy.credit.bounded(one.factor if one else Fraction(1))
    return factors


def _weights(
    period: Period, policy: Policy | None, earned: Mapping[str, Fraction] | None
) -> Iterator[Mismatch]:
    for claim in period.claims:
        try:
            yield from _factors(claim, policy, earned)
        except (ValueError, ArithmeticError, TypeError, KeyError) as error:
            yield Mismatch("weight", claim.reference, str(claim.factors), repr(error))
        if fault := _amounts(claim):
            yield fault


def _factors(
    claim: PeriodClaim, policy: Policy | None, earned: Mapping[str, Fraction] | None
) -> Iterator[Mismatch]:
    product = Fraction(1)
    for factor in claim.factors:
        value = Fraction(factor["value"])
        product *= value
        if policy is None or earned is None:
            continue
        ruled = earned[claim.reference] if factor["factor"] == "credit" else _ruled(factor, policy)
        if ruled != value:
            yield Mismatch(factor["factor"], claim.reference, str(value), _text(ruled))
    if product != claim.weight:
        yield Mismatch("weight", claim.reference, str(claim.weight), str(product))


def _amounts(claim: PeriodClaim) -> Mismatch | None:
    wanted = min(claim.remaining, claim.pace if claim.planned is None else claim.planned)
    if claim.request == wanted:
        return None
    return Mismatch("request", claim.reference, str(claim.request), str(wanted))


def _ruled(factor: Mapping[str, str], policy: Policy) -> Fraction | None:
    """What the recorded policy says of a sector or merit band; None for one that it does not have."""
    if factor["factor"] == "merit":
        band = policy.merit_band(factor["name"])
        return band.factor if band else None
    if not factor["name"]:
        return Fraction(1)
    sector = policy.sector(factor["name"])
    return sector.weight if sector else None


def _pools(period: Period, policy: Policy) -> Iterator[Mismatch]:
    ruled = {
        pool.slug: (pool.guarantee, pool.cap, pool.weight)
        for pool in period_inputs.pools_of(period.capacity, policy)
    }
    recorded = {pool.slug: (pool.guarantee, pool.cap, pool.weight) for pool in period.pools}
    for slug in sorted(ruled.keys() | recorded.keys()):
        if recorded.get(slug) != ruled.get(slug):
            yield Mismatch("pool", slug, _numbers(recorded.get(slug)), _numbers(ruled.get(slug)))


def _numbers(values: tuple[object, ...] | None) -> str:
    return NONE if values is None else ", ".join(_text(one) for one in values)


def _text(value: object) -> str:
    return NONE if value is None else str(value)


def _shares(proposal: Proposal) -> Iterator[Mismatch]:
    try:
        division = divisions.division_of(proposal)
    except (KezekError, ValueError, ArithmeticError, TypeError, KeyError) as error:
        yield Mismatch("division", str(proposal.number), "", str(error))
        return
    recorded = {
        share.claim.reference: (share.gpu_hours, share.is_fixed, share.is_set_aside)
        for share in proposal.shares
    }
    for reference in sorted(division.shares.keys() | recorded.keys()):
        known = reference in division.shares
        hours = division.shares[reference] if known else None
        again = (hours, reference in division.fixed, reference in division.set_aside)
        before = recorded.get(reference)
        if before != again:
            # the hours alone, unless they are the same and only what is said of them differs
            width = 3 if before and before[0] == hours else 1
            told = [_numbers(one and one[:width]) for one in (before, again if known else None)]
            yield Mismatch("share", f"{proposal.number}/{reference}", *told)
    slugs = [pool.slug for pool in proposal.period.pools]
    ruled = {pool["slug"]: pool for pool in divisions.pools_of(division, slugs)}
    kept = {pool["slug"]: pool for pool in proposal.pools}
    for slug in sorted(ruled.keys() | kept.keys()):
        if kept.get(slug) != ruled.get(slug):
            yield Mismatch("pool", f"{proposal.number}/{slug}", str(kept.get(slug)), str(ruled.get(slug)))


def _grants(proposals: Sequence[Proposal], found: Sequence[Grant]) -> Iterator[Mismatch]:
    """Each share of the published proposal has its grant, and there is none beside them but from later on."""
    published = next((one for one in proposals if one.state is ProposalState.PUBLISHED), None)
    if published is None:
        yield Mismatch("division", NONE, ProposalState.PUBLISHED.value, NONE)
        return
    due: dict[tuple[int | None, int], tuple[str, int]] = {
        (share.claim_id, share.claim.quota_id): (share.claim.reference, share.gpu_hours * HOUR)
        for share in published.shares
    }
    given = {
        (grant.claim_id, grant.quota_id): grant.gpu_seconds
        for grant in found
        # one that was made later, from the reserve, began with nothing
        if grant.claim_id is not None or grant.gpu_seconds
    }
    for key in sorted(due.keys() | given.keys(), key=str):
        reference, wanted = due.get(key) or (f"quota {key[1]}", None)
        if given.get(key) != wanted:
            yield Mismatch("grant", reference, _text(given.get(key)), _text(wanted))


def _fingerprints(
    session: Session, period: Period, proposals: Sequence[Proposal], found: Sequence[Grant]
) -> Iterator[Mismatch]:
    """What the chain of events holds of the inputs, of each proposal's shares and of the grants."""
    due = []
    if period.state not in (PeriodState.DRAFT, PeriodState.DISCARDED):
        due.append(("inputs", period.name, "period.proposed", period.id, fingerprints.of_inputs(period)))
    due += [
        ("share", str(one.number), "proposal.kept", one.id, fingerprints.of_shares(one)) for one in proposals
    ]
    if period.state in IN_FORCE:
        due.append(("grant", period.name, "period.granted", period.id, fingerprints.of_grants(found)))
    told = {
        (event.kind, event.subject_id): event
        for event in session.scalars(
            select(Event).where(
                Event.kind.in_({kind for _, _, kind, _, _ in due}),
                (Event.subject_type == "period") & (Event.subject_id == period.id)
                | (Event.subject_type == "proposal") & Event.subject_id.in_([one.id for one in proposals]),
            )
        )
    }
    for what, reference, kind, subject_id, computed in due:
        event = told.get((kind, subject_id))
        if event is None or events.digest(event) != event.hash:
            yield Mismatch("event", f"{kind} {reference}", event.hash if event else NONE, NONE)
        elif event.after.get("sha256") != computed:
            yield Mismatch(what, reference, str(event.after.get("sha256")), computed)
