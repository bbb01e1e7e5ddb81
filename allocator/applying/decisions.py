"""Decisions of an operator: approve, reduce or refuse, once, with a reason, under a version of the policy."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import policies, states
from allocator.accounts import people
from allocator.accounts.cluster_logins import suggest_cluster_logins
from allocator.actors import Actor
from allocator.applying import application_checks as checks
from allocator.applying import application_queries as queries
from allocator.applying import quotas
from allocator.applying.applications import lock, require_fresh, tell_applicant, touch
from allocator.applying.quotas import Terms
from allocator.authorization import Action
from allocator.dividing import late_approvals
from allocator.errors import Fault, Invalid, WrongState
from allocator.models import Application, Decision, DecisionKind, Person
from allocator.policy import Policy
from allocator.states import ApplicationState
from config.i18n import N_
from config.settings import FORBIDDEN_LOGINS

LETTERS = {
    DecisionKind.APPROVED: "application_approved",
    DecisionKind.REDUCED: "application_reduced",
    DecisionKind.REFUSED: "application_refused",
}


@dataclass(frozen=True)
class Verdict:
    """What the operator filled in.

    ``gpu_hours`` counts only when reducing; dates left out are the application's own; ``cluster_logins`` maps
    ids of people of the team who have no login yet to the one they get (missing ones are suggested).
    ``merit_band`` left out is the policy's default; another one needs its ``merit_reason``.
    """

    kind: DecisionKind
    reason: str = ""
    gpu_hours: Decimal | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    cluster_logins: Mapping[int, str] = field(default_factory=dict)
    merit_band: str = ""
    merit_reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a verdict leads to, shown before it is confirmed: a decision cannot be taken back.

    ``gpu_seconds`` is None for a refusal, which makes no quota; ``awaited`` are the team's addresses without
    an account, which join when they confirm one.
    """

    kind: DecisionKind
    reason: str
    gpu_seconds: int | None
    valid_from: datetime
    valid_until: datetime
    members: Sequence[Person]
    awaited: Sequence[str]
    new_logins: Mapping[int, str]
    merit_band: str
    merit_reason: str


def preview(
    session: Session,
    actor: Actor,
    application: Application,
    verdict: Verdict,
    *,
    expected_version: int,
    policy: Policy,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
    now: datetime,
) -> Outcome:
    """What ``decide()`` with the same arguments would do, without doing it; raises what it would raise."""
    application = lock(session, actor, application, Action.APPLICATION_DECIDE)
    require_fresh(session, application, expected_version)
    return _outcome(session, application, verdict, policy, forbidden_logins, now)


def decide(
    session: Session,
    actor: Actor,
    application: Application,
    verdict: Verdict,
    *,
    expected_version: int,
    policy: Policy,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
    now: datetime,
) -> Decision:
    """Decide a submitted application, on record with who, why and the policy's version (R-14, R-17).

    An approval makes its quota. Raises Invalid with every fault; Stale, telling what happened and who did it,
    when the application has changed since the operator's page was made; Forbidden on an own one (R-22).
    """
    application = lock(session, actor, application, Action.APPLICATION_DECIDE)
    require_fresh(session, application, expected_version)
    outcome = _outcome(session, application, verdict, policy, forbidden_logins, now)
    refused = outcome.gpu_seconds is None
    _hold(session, outcome.new_logins)
    policies.record(session, policy, now)
    touch(session, application, now)
    decision = Decision(
        application=application,
        kind=outcome.kind,
        gpu_seconds=outcome.gpu_seconds,
        reason=outcome.reason,
        decided_by_id=actor.person_id,
        decided_at=now,
        policy_version=policy.version,
        merit_band=outcome.merit_band,
        merit_reason=outcome.merit_reason,
    )
    session.add(decision)
    states.move(
        application,
        ApplicationState.REFUSED if refused else ApplicationState.APPROVED,
        actor=actor,
        now=now,
        reason=outcome.reason,
        kind=outcome.kind,
        gpu_seconds=outcome.gpu_seconds,
        policy_version=policy.version,
        merit_band=outcome.merit_band,
        merit_reason=outcome.merit_reason,
        version=application.version,
    )
    tell_applicant(session, application, LETTERS[outcome.kind], now=now, **_told(application, outcome))
    if outcome.gpu_seconds is not None:
        _make_quota(session, actor, application, outcome, forbidden_logins, now)
    return decision


def _make_quota(
    session: Session,
    actor: Actor,
    application: Application,
    outcome: Outcome,
    forbidden_logins: Collection[str],
    now: datetime,
) -> None:
    if outcome.gpu_seconds is None:
        return
    _set_logins(session, actor, outcome, forbidden_logins, now)
    terms = Terms(outcome.gpu_seconds, outcome.valid_from, outcome.valid_until)
    quota = quotas.grant(session, actor, application, terms, outcome.members, now=now)
    late_approvals.tell(session, quota, now=now)


def suggest_logins(
    session: Session, members: Sequence[Person], forbidden: Collection[str] = FORBIDDEN_LOGINS
) -> dict[int, str]:
    """A free login for each of these people who has none, by the person's id; no two are alike."""
    without = [person for person in members if person.cluster_login is None]
    return suggest_cluster_logins(session, without, forbidden=forbidden)


def _outcome(
    session: Session,
    application: Application,
    verdict: Verdict,
    policy: Policy,
    forbidden_logins: Collection[str],
    now: datetime,
) -> Outcome:
    if application.state is not ApplicationState.SUBMITTED:
        raise WrongState(N_("This application does not wait for a decision."))
    faults = _faults(application, verdict, policy, now)
    team = queries.accounts_of_team(session, application)
    refused = verdict.kind is DecisionKind.REFUSED
    members = [] if refused else [application.applicant, *team.values()]
    logins = _logins(session, members, verdict.cluster_logins, forbidden_logins, faults)
    if faults:
        raise Invalid(faults)
    return Outcome(
        kind=verdict.kind,
        reason=verdict.reason.replace("\r\n", "\n").strip(),
        gpu_seconds=None if refused else _gpu_seconds(application, verdict),
        valid_from=verdict.valid_from or application.earliest,
        valid_until=verdict.valid_until or application.latest,
        members=members,
        awaited=[] if refused else sorted(m.email for m in application.team if m.email not in team),
        new_logins=logins,
        merit_band=policy.default_band if refused else _band(verdict, policy),
        merit_reason="" if refused else verdict.merit_reason.replace("\r\n", "\n").strip(),
    )


def _gpu_seconds(application: Application, verdict: Verdict) -> int:
    if verdict.kind is DecisionKind.REDUCED and verdict.gpu_hours is not None:
        return checks.whole_seconds(verdict.gpu_hours) or 0
    return application.gpu_seconds


def _faults(
    application: Application, verdict: Verdict, policy: Policy, now: datetime
) -> dict[str, list[Fault]]:
    found = {
        "reason": _reason_fault(verdict),
        "gpu_hours": _hours_fault(application, verdict),
        "valid_until": _validity_fault(application, verdict, policy, now),
        "merit_band": _band_fault(verdict, policy),
        "merit_reason": _band_reason_fault(verdict, policy),
    }
    faults = {name: [fault] for name, fault in found.items() if fault}
    if not faults and (fault := _fit_fault(application, verdict)):
        faults["valid_until"] = [fault]
    return faults


def _reason_fault(verdict: Verdict) -> Fault | None:
    if verdict.kind is not DecisionKind.APPROVED and not verdict.reason.strip():
        return Fault(N_("Give the reason: the applicant is told it word for word."))
    return checks.text_fault(verdict.reason, checks.MAX_REASON, lines=True)


def _band(verdict: Verdict, policy: Policy) -> str:
    return verdict.merit_band or policy.default_band


def _band_fault(verdict: Verdict, policy: Policy) -> Fault | None:
    if verdict.kind is DecisionKind.REFUSED or policy.merit_band(_band(verdict, policy)):
        return None
    return Fault(N_("Choose one of the bands of the policy."))


def _band_reason_fault(verdict: Verdict, policy: Policy) -> Fault | None:
    """A band other than the usual one takes from others or gives to them: say why (R-15, R-22)."""
    if verdict.kind is DecisionKind.REFUSED:
        return None
    if _band(verdict, policy) != policy.default_band and not verdict.merit_reason.strip():
        return Fault(N_("Give the reason for this band: everybody who may see the decision reads it."))
    return checks.text_fault(verdict.merit_reason, checks.MAX_REASON, lines=True)


def _hours_fault(application: Application, verdict: Verdict) -> Fault | None:
    """Reducing means more than nothing and less than was asked."""
    hours = verdict.gpu_hours
    if verdict.kind is DecisionKind.APPROVED and hours is not None:
        return Fault(N_("You chose to approve all the hours; leave this empty or choose to approve fewer."))
    if verdict.kind is not DecisionKind.REDUCED:
        return None
    if hours is None or not hours.is_finite():
        return Fault(N_("Enter how many GPU-hours are approved."))
    if not 0 < hours * checks.HOUR < application.gpu_seconds:
        return Fault(
            N_("Enter more than 0 and less than the %(asked)s GPU-hours asked for."),
            {"asked": checks.hours_text(application.gpu_seconds)},
        )
    return None if checks.whole_seconds(hours) else Fault(N_("Use at most two decimals."))


def _validity_fault(
    application: Application, verdict: Verdict, policy: Policy, now: datetime
) -> Fault | None:
    if verdict.kind is DecisionKind.REFUSED:
        return None
    start = verdict.valid_from or application.earliest
    end = verdict.valid_until or application.latest
    if start >= end:
        return Fault(N_("The latest date comes before the earliest one."))
    if end <= now:
        return Fault(N_("This day has passed. Choose today or a later day."))
    if end > now + policy.applications.max_ahead + checks.DAY:
        days = policy.applications.max_ahead.days
        return Fault(N_("Choose a day within the next %(days)s days."), {"days": days})
    return None


def _fit_fault(application: Application, verdict: Verdict) -> Fault | None:
    """Hours that the approved window cannot hold would be a promise that nobody can keep."""
    if verdict.kind is DecisionKind.REFUSED:
        return None
    start = verdict.valid_from or application.earliest
    end = verdict.valid_until or application.latest
    nodes, gpus = application.nodes, application.gpus_per_node
    most = checks.most_gpu_seconds(nodes, gpus, start, end)
    if _gpu_seconds(application, verdict) <= most:
        return None
    return Fault(
        N_("%(nodes)s × %(gpus)s GPUs give %(most)s GPU-hours at most between these dates."),
        {"nodes": nodes, "gpus": gpus, "most": checks.hours_text(most)},
    )


def _logins(
    session: Session,
    members: Sequence[Person],
    chosen: Mapping[int, str],
    forbidden: Collection[str],
    faults: dict[str, list[Fault]],
) -> dict[int, str]:
    """The login of everybody who has none yet; faults go beside ``login_<person id>``."""
    logins: dict[int, str] = {}
    without = [person for person in members if person.cluster_login is None]
    typed = {person.id: chosen.get(person.id, "").strip() for person in without}
    silent = [person for person in without if not typed[person.id]]
    proposed = suggest_cluster_logins(session, silent, forbidden={*forbidden, *typed.values()})
    for person in without:
        taken = {*forbidden, *logins.values()}
        login = typed[person.id] or proposed[person.id]
        fault = people.login_fault(session, login, person, taken)
        if fault:
            faults[f"login_{person.id}"] = [fault]
        logins[person.id] = login
    return logins


def _hold(session: Session, person_ids: Collection[int]) -> None:
    """Have in hand whoever is changed below before the first event.

    Later we would wait for people who are themselves waiting for the chain of events that we hold by then.
    """
    session.scalars(
        select(Person.id).where(Person.id.in_(person_ids)).order_by(Person.id).with_for_update()
    ).all()


def _set_logins(
    session: Session, actor: Actor, outcome: Outcome, forbidden: Collection[str], now: datetime
) -> None:
    for person in outcome.members:
        if person.id in outcome.new_logins:
            login = outcome.new_logins[person.id]
            people.set_cluster_login(session, actor, person, login, forbidden=forbidden, now=now)


def _told(application: Application, outcome: Outcome) -> dict[str, str]:
    """What the letter says besides the title."""
    return {
        "hours": checks.hours_text(outcome.gpu_seconds or 0),
        "asked": checks.hours_text(application.gpu_seconds),
        "reason": outcome.reason,
    }
