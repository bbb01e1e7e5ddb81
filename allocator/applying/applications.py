"""Applications from draft to the operator's queue; decisions stand in ``decisions``."""

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from allocator import events, outbox, states
from allocator.actors import Actor
from allocator.applying import application_checks as checks
from allocator.applying import application_queries as queries
from allocator.applying.application_checks import Checks, Facts, Offer, Proposal
from allocator.authorization import Action, require
from allocator.errors import Fault, Invalid, Stale, WrongState
from allocator.locks import hold
from allocator.models import Application, Person, TeamMember
from allocator.policy import Policy
from allocator.states import ApplicationState
from config.i18n import N_


def save_draft(
    session: Session, actor: Actor, proposal: Proposal, *, policy: Policy, now: datetime
) -> Application:
    """A new draft of the actor's own. Raises Invalid with every fault, SignInRequired."""
    require(actor, Action.APPLICATION_CREATE)
    applicant = session.get_one(Person, actor.person_id)
    proposal = _tidied(proposal, policy)
    offer = _checked(session, actor, applicant, proposal, checks.DRAFT_CHECKS, policy, now)
    application = Application(applicant=applicant, created_at=now, state=ApplicationState.DRAFT)
    _fill(application, proposal, offer, now)
    session.add(application)
    session.flush()
    events.record(
        session,
        actor,
        application,
        "application.draft",
        now=now,
        after=_facts_of(application) | _version(application),
    )
    return application


def revise(
    session: Session,
    actor: Actor,
    application: Application,
    proposal: Proposal,
    *,
    expected_version: int,
    policy: Policy,
    now: datetime,
) -> Application:
    """Change a draft. Raises Invalid, WrongState once it is submitted, Stale."""
    application = lock(session, actor, application, Action.APPLICATION_EDIT)
    require_fresh(session, application, expected_version)
    _require_draft(application)
    proposal = _tidied(proposal, policy)
    offer = _checked(session, actor, application.applicant, proposal, checks.DRAFT_CHECKS, policy, now)
    before = _facts_of(application)
    _fill(application, proposal, offer, now)
    touch(session, application, now)
    after = _facts_of(application)
    changed = [name for name in after if before[name] != after[name]]
    events.record(
        session,
        actor,
        application,
        "application.revised",
        now=now,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed} | _version(application),
    )
    return application


def submit(
    session: Session,
    actor: Actor,
    application: Application,
    *,
    expected_version: int,
    policy: Policy,
    now: datetime,
) -> Application:
    """Hand a draft in; its place in the queue is ``submitted_at`` from now on (R-23).

    Raises Invalid with every fault, Stale, WrongState.
    """
    application = lock(session, actor, application, Action.APPLICATION_EDIT)
    require_fresh(session, application, expected_version)
    _require_draft(application)
    _checked(
        session, actor, application.applicant, proposal_of(application), checks.SUBMIT_CHECKS, policy, now
    )
    touch(session, application, now)
    states.move(
        application,
        ApplicationState.SUBMITTED,
        actor=actor,
        now=now,
        columns={"submitted_at": now},
        policy_version=policy.version,
        **_facts_of(application),
        version=application.version,
    )
    tell_applicant(
        session,
        application,
        "application_submitted",
        now=now,
        hours=checks.hours_text(application.gpu_seconds),
    )
    return application


def withdraw(
    session: Session, actor: Actor, application: Application, *, expected_version: int, now: datetime
) -> Application:
    """Take an undecided application back for good. Raises Stale, WrongState after a decision."""
    application = lock(session, actor, application, Action.APPLICATION_EDIT)
    require_fresh(session, application, expected_version)
    touch(session, application, now)
    states.move(application, ApplicationState.WITHDRAWN, actor=actor, now=now, version=application.version)
    return application


def readiness(
    session: Session, actor: Actor, application: Application, *, policy: Policy, now: datetime
) -> Mapping[str, list[Fault]]:
    """What still keeps a draft from being submitted, by field; empty when nothing does."""
    proposal = proposal_of(application)
    facts = _facts(session, actor, application.applicant, proposal, policy, now)
    return checks.faults(proposal, facts, checks.SUBMIT_CHECKS)


def all_faults(
    session: Session,
    actor: Actor,
    applicant: Person,
    proposal: Proposal,
    *,
    unread: Collection[str] = (),
    policy: Policy,
    now: datetime,
) -> Mapping[str, list[Fault]]:
    """Everything that keeps these answers from being submitted, by field, stored or not.

    ``unread`` are the fields whose text could not be read: neither they nor what depends on them is judged.
    """
    proposal = _tidied(proposal, policy)
    facts = _facts(session, actor, applicant, proposal, policy, now)
    return checks.faults(proposal, facts, checks.SUBMIT_CHECKS, unread)


def proposal_of(application: Application) -> Proposal:
    """The stored application as it was filled in."""
    return Proposal(
        category=application.category,
        organisation_id=application.organisation_id,
        title=application.title,
        purpose=application.purpose,
        cluster=application.cluster.slug,
        gpu_type=application.gpu_type,
        nodes=application.nodes,
        gpus_per_node=application.gpus_per_node,
        gpu_hours=Decimal(application.gpu_seconds) / checks.HOUR,
        earliest=application.earliest,
        latest=application.latest,
        team=tuple(sorted(member.email for member in application.team)),
    )


def lock(session: Session, actor: Actor, application: Application, action: Action) -> Application:
    """The row as it stands now, held until the commit, after asking whether the actor may do this to it."""
    # not get(): with a lock it refuses a row whose version has moved on before anybody is told what happened
    row = hold(session, application)
    require(actor, action, row)
    return row


def require_fresh(session: Session, application: Application, expected_version: int) -> None:
    """Raise Stale, telling who did what, when the page was made from an older version."""
    if application.version == expected_version:
        return
    changes = queries.changes_since(session, application, expected_version)
    raise Stale(
        N_("This application was changed after you opened the page. Look at what changed, then go on."),
        {"changes": [change.as_details() for change in changes]},
    )


def touch(session: Session, application: Application, now: datetime) -> None:
    """Count one change: pages made before it are stale from here on."""
    application.updated_at = now
    # two changes in one instant, or of the team alone, must count as well
    flag_modified(application, "updated_at")
    session.flush()


def tell_applicant(
    session: Session, application: Application, letter: str, *, now: datetime, **details: Any
) -> None:
    """Queue a letter about this application."""
    outbox.post(
        session,
        letter,
        application.applicant_id,
        {"id": application.id, "title": application.title, **details},
        now=now,
    )


def _require_draft(application: Application) -> None:
    if application.state is not ApplicationState.DRAFT:
        raise WrongState(N_("Only a draft can be changed or submitted; this application is past that."))


def _tidied(proposal: Proposal, policy: Policy) -> Proposal:
    """The same in the form that is stored."""
    return replace(
        proposal,
        title=unicodedata.normalize("NFC", proposal.title).strip(),
        purpose=unicodedata.normalize("NFC", proposal.purpose).replace("\r\n", "\n").strip(),
        team=checks.normal_team(proposal.team, policy.applications.max_team),
    )


def _facts(
    session: Session, actor: Actor, applicant: Person, proposal: Proposal, policy: Policy, now: datetime
) -> Facts:
    of_applicant = {membership.organisation_id for membership in applicant.memberships}
    return Facts(
        policy=policy,
        now=now,
        offer=queries.offer(session, proposal.cluster, proposal.gpu_type),
        has_iin=applicant.iin is not None,
        # a head who edits a member's draft may not move it to where the head has no say
        organisations=frozenset(of_applicant & set(actor.organisations)),
        applicant_email=applicant.email,
    )


def _checked(
    session: Session,
    actor: Actor,
    applicant: Person,
    proposal: Proposal,
    rules: Checks,
    policy: Policy,
    now: datetime,
) -> Offer:
    facts = _facts(session, actor, applicant, proposal, policy, now)
    checks.require(proposal, facts, rules)
    if facts.offer is None:  # every tuple of checks asks for it
        raise Invalid({"hardware": [Fault(N_("Choose a cluster and a GPU type from the list."))]})
    return facts.offer


def _fill(application: Application, proposal: Proposal, offer: Offer, now: datetime) -> None:
    application.category = proposal.category
    application.organisation_id = proposal.organisation_id
    application.title = proposal.title
    application.purpose = proposal.purpose
    application.cluster_id = offer.cluster_id
    application.gpu_type = proposal.gpu_type
    application.nodes = proposal.nodes
    application.gpus_per_node = proposal.gpus_per_node
    application.gpu_seconds = checks.whole_seconds(proposal.gpu_hours) or 0
    application.earliest = proposal.earliest
    application.latest = proposal.latest
    application.updated_at = now
    kept = {member.email: member for member in application.team}
    application.team = [kept.get(email) or TeamMember(email=email) for email in proposal.team]


def _version(application: Application) -> dict[str, int]:
    """Events carry the version that they made: a stale page is told what came after its own."""
    return {"version": application.version}


def _facts_of(application: Application) -> dict[str, Any]:
    """What events tell of an application; of the team only its size: events are kept for ever (R-35)."""
    return {
        "category": application.category,
        "organisation_id": application.organisation_id,
        "title": application.title,
        "purpose": application.purpose,
        "cluster_id": application.cluster_id,
        "gpu_type": application.gpu_type,
        "nodes": application.nodes,
        "gpus_per_node": application.gpus_per_node,
        "gpu_seconds": application.gpu_seconds,
        "earliest": application.earliest,
        "latest": application.latest,
        "team_size": len(application.team),
    }
