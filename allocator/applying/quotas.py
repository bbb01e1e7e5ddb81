"""Quotas: made by a decision, spent by their members, ended by time."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from allocator import events, outbox, states
from allocator.accounts import people
from allocator.accounts.cluster_logins import suggest_cluster_login
from allocator.actors import SYSTEM, Actor
from allocator.applying.application_checks import hours_text
from allocator.authorization import Action, require
from allocator.errors import Conflict, Fault, Invalid, NotFound
from allocator.inputs import email_key
from allocator.locks import hold
from allocator.models import Application, Period, Person, Quota, QuotaMember, TeamMember
from allocator.states import QuotaState
from config.i18n import N_
from config.settings import FORBIDDEN_LOGINS

EXPIRY_BATCH = 500


@dataclass(frozen=True)
class Terms:
    """How much, and for how long: [valid_from, valid_until)."""

    gpu_seconds: int
    valid_from: datetime
    valid_until: datetime


def grant(
    session: Session,
    actor: Actor,
    application: Application,
    terms: Terms,
    members: Iterable[Person],
    *,
    now: datetime,
) -> Quota:
    """The quota of an approved application, led by its applicant. Only ``decisions.decide()`` calls this."""
    quota = Quota(
        application=application,
        cluster_id=application.cluster_id,
        gpu_type=application.gpu_type,
        gpu_seconds=terms.gpu_seconds,
        valid_from=terms.valid_from,
        valid_until=terms.valid_until,
        state=QuotaState.ACTIVE,
        created_at=now,
    )
    quota.members = [QuotaMember(person_id=application.applicant_id, is_lead=True)]
    quota.members += [
        QuotaMember(person_id=person.id, is_lead=False)
        for person in members
        if person.id != application.applicant_id
    ]
    session.add(quota)
    session.flush()
    events.record(
        session,
        actor,
        quota,
        "quota.granted",
        now=now,
        after={
            "state": quota.state,
            "application_id": application.id,
            "gpu_seconds": terms.gpu_seconds,
            "valid_from": terms.valid_from,
            "valid_until": terms.valid_until,
            "members": [member.person_id for member in quota.members],
        },
    )
    return quota


def usable_in(period: Period) -> Select[Quota]:
    """The active quotas that could use a period's capacity: its GPUs, and valid at some time within it."""
    return (
        select(Quota)
        .where(
            Quota.cluster_id == period.cluster_id,
            Quota.gpu_type == period.gpu_type,
            Quota.state == QuotaState.ACTIVE,
            Quota.valid_from < period.ends_at,
            Quota.valid_until > period.starts_at,
        )
        .order_by(Quota.id)
    )


def link_team(
    session: Session,
    person: Person,
    now: datetime,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
) -> list[Quota]:
    """Let somebody whose e-mail is now confirmed into the active quotas whose teams name it; returns them.

    Call it from where the address is confirmed, in the same transaction.
    """
    if person.email_confirmed_at is None or person.disabled_at is not None:
        return []
    joined = session.scalars(
        _active_with_team_mail(person.email).where(
            Quota.id.not_in(select(QuotaMember.quota_id).where(QuotaMember.person_id == person.id))
        )
    ).all()
    for quota in joined:
        _join(session, SYSTEM, quota, person, forbidden_logins, now)
    return list(joined)


def add_member(
    session: Session,
    actor: Actor,
    quota: Quota,
    email: str,
    *,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
    now: datetime,
) -> QuotaMember:
    """Let somebody with a confirmed account spend it. Raises Invalid (``email``), Conflict when ended."""
    _require_managed(session, actor, quota)
    person = session.scalar(select(Person).where(Person.email == email_key(email), *usable_account()))
    if person is None:
        raise Invalid({"email": [Fault(N_("Nobody has a confirmed account with this address yet."))]})
    if any(member.person_id == person.id for member in quota.members):
        raise Invalid({"email": [Fault(N_("This person may use the quota already."))]})
    decision = quota.application.decision
    if decision is not None and decision.decided_by_id == person.id:
        raise Invalid({"email": [Fault(N_("Whoever decided on the application cannot use its quota."))]})
    return _join(session, actor, quota, person, forbidden_logins, now)


def remove_member(session: Session, actor: Actor, quota: Quota, person_id: int, *, now: datetime) -> None:
    """Take a member's right to spend; bookings stay. Raises NotFound, Conflict for the lead."""
    _require_managed(session, actor, quota)
    member = next((member for member in quota.members if member.person_id == person_id), None)
    if member is None:
        raise NotFound()
    if not removable(quota, member):
        raise Conflict(N_("The lead of a quota cannot be removed."))
    quota.members.remove(member)
    events.record(session, actor, quota, "quota.member_removed", now=now, before={"person_id": person_id})


def removable(quota: Quota, member: QuotaMember) -> bool:
    """Everybody but the lead; the lead too, once they have left the organisation whose quota it is."""
    organisation_id = quota.application.organisation_id
    if not member.is_lead or organisation_id is None:
        return not member.is_lead
    return all(other.organisation_id != organisation_id for other in member.person.memberships)


def expire_due(session: Session, now: datetime, limit: int = EXPIRY_BATCH) -> int:
    """End active quotas whose time has passed and tell their leads; returns how many (≤ ``limit``)."""
    due = session.scalars(
        select(Quota)
        .where(Quota.state == QuotaState.ACTIVE, Quota.valid_until <= now)
        .order_by(Quota.valid_until, Quota.id)
        .limit(limit)
        # a quota that somebody is just changing is expired by the next run
        .with_for_update(skip_locked=True, key_share=True, of=Quota)
    ).all()
    for quota in due:
        states.move(quota, QuotaState.EXPIRED, actor=SYSTEM, now=now, valid_until=quota.valid_until)
        application = quota.application
        outbox.post(
            session,
            "quota_expired",
            application.applicant_id,
            {"id": quota.id, "title": application.title, "hours": hours_text(quota.gpu_seconds)},
            now=now,
        )
    return len(due)


def usable_account() -> Sequence[ColumnElement[bool]]:
    """Conditions on Person: somebody who can be let into a quota."""
    return (Person.email_confirmed_at.is_not(None), Person.disabled_at.is_(None))


def _active_with_team_mail(email: str) -> Select[Quota]:
    invited = select(TeamMember.application_id).where(TeamMember.email == email)
    return (
        select(Quota)
        .where(Quota.state == QuotaState.ACTIVE, Quota.application_id.in_(invited))
        .order_by(Quota.id)
    )


def _require_managed(session: Session, actor: Actor, quota: Quota) -> None:
    require(actor, Action.QUOTA_MANAGE, quota)
    hold(session, quota)
    session.expire(quota, ["members"])  # somebody may have joined or gone while we waited
    if quota.state is not QuotaState.ACTIVE:
        raise Conflict(N_("This quota has ended; its members cannot be changed any more."))


def _join(
    session: Session,
    actor: Actor,
    quota: Quota,
    person: Person,
    forbidden_logins: Collection[str],
    now: datetime,
) -> QuotaMember:
    if person.cluster_login is None:
        # without a login no job of theirs could be told apart, so nobody joins without one
        login = suggest_cluster_login(session, person, forbidden=forbidden_logins)
        people.set_cluster_login(session, SYSTEM, person, login, forbidden=forbidden_logins, now=now)
    member = QuotaMember(person_id=person.id, is_lead=False)
    quota.members.append(member)
    events.record(session, actor, quota, "quota.member_added", now=now, after={"person_id": person.id})
    outbox.post(
        session, "quota_joined", person.id, {"id": quota.id, "title": quota.application.title}, now=now
    )
    return member
