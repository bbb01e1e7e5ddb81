"""Who may do what: the one place that decides. Deny by default; what one may not see does not exist (404).

``require()`` guards a use case, ``visible_…()`` narrow a list to what the actor may see by the same rules.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, false, or_, select, true

from allocator.actors import Actor, MembershipRole, Role
from allocator.errors import Forbidden, NotFound, SignInRequired
from allocator.models import (
    Application,
    Booking,
    Membership,
    Organisation,
    Period,
    Person,
    Proposal,
    Quota,
    QuotaMember,
    SignInSession,
)


class Action(StrEnum):
    """Everything that can be asked for; the first half names the subject."""

    APPLICATION_CREATE = "application.create"
    APPLICATION_VIEW = "application.view"
    APPLICATION_EDIT = "application.edit"  # change, submit, withdraw
    APPLICATION_DECIDE = "application.decide"
    APPLICATION_QUEUE = "application.queue"
    QUOTA_VIEW = "quota.view"
    QUOTA_MANAGE = "quota.manage"  # change who may use it
    BOOKING_CREATE = "booking.create"  # subject: the quota
    BOOKING_VIEW = "booking.view"
    BOOKING_CANCEL = "booking.cancel"
    BOOKING_ANSWER = "booking.answer"  # to a move that others made
    BOOKING_PLACE = "booking.place"  # pin, move by hand
    PERIOD_VIEW = "period.view"
    PERIOD_PROPOSE = "period.propose"  # open, collect, propose, ask what if
    PERIOD_ADJUST = "period.adjust"  # subject: the quota whose share a person fixes
    PERIOD_PUBLISH = "period.publish"  # subject: the proposal; never its own author (four eyes)
    PERIOD_OPERATE = "period.operate"  # after publishing: the reserve, re-division, reclaims
    ORGANISATION_CREATE = "organisation.create"
    ORGANISATION_VIEW = "organisation.view"
    ORGANISATION_MANAGE = "organisation.manage"
    ORGANISATION_APPOINT = "organisation.appoint"  # make heads and managers
    MEMBERSHIP_END = "membership.end"
    PERSON_VIEW = "person.view"
    PERSON_EDIT = "person.edit"  # one's own profile
    PERSON_CLUSTER_LOGIN = "person.cluster_login"
    SIGN_IN_SESSION_END = "sign_in_session.end"
    PEOPLE_MANAGE = "people.manage"
    CLUSTER_OPERATE = "cluster.operate"  # health, reservations, jobs nobody can account for
    CLUSTER_CHANGE = "cluster.change"  # outages, repairs, nodes that join and leave, the freeze
    REPAIR_APPLY = "repair.apply"  # subject: the quotas whose bookings it touches
    AUDIT_VIEW = "audit.view"


Rule = Callable[[Actor, Any], bool]


def _signed_in(actor: Actor, _subject: Any) -> bool:
    return actor.is_signed_in


def _has(*roles: Role) -> Rule:
    def rule(actor: Actor, _subject: Any) -> bool:
        return not actor.roles.isdisjoint(roles)

    return rule


def _runs_organisation(actor: Actor, organisation_id: int | None) -> bool:
    role = actor.organisations.get(organisation_id) if organisation_id is not None else None
    return role in (MembershipRole.HEAD, MembershipRole.MANAGER)


def _applied(actor: Actor, application: Application) -> bool:
    return actor.is_signed_in and application.applicant_id == actor.person_id


def _owns_application(actor: Actor, application: Application) -> bool:
    """Who runs the organisation that applies, and the applicant while they belong to it."""
    if _runs_organisation(actor, application.organisation_id):
        return True
    # who leaves an organisation leaves its hours behind, but takes along what was never handed in
    belongs = application.organisation_id is None or application.organisation_id in actor.organisations
    return _applied(actor, application) and (belongs or application.submitted_at is None)


def _sees_application(actor: Actor, application: Application) -> bool:
    if _owns_application(actor, application) or _applied(actor, application):
        return True
    # a draft is its owner's alone until it is handed in
    return application.submitted_at is not None and not actor.roles.isdisjoint(_READERS)


def _decides_application(actor: Actor, application: Application) -> bool:
    """An operator, but never on what is one's own, one's organisation's or one's team's (R-22)."""
    if Role.OPERATOR not in actor.roles or application.submitted_at is None:
        return False
    if application.applicant_id == actor.person_id or application.organisation_id in actor.organisations:
        return False
    return all(member.email != actor.email for member in application.team)


def _belongs_to_quota(actor: Actor, quota: Quota) -> bool:
    return _owns_application(actor, quota.application) or any(
        member.person_id == actor.person_id for member in quota.members
    )


def _spends_quota(actor: Actor, quota: Quota) -> bool:
    """Who belongs to it, except who decided on it: nobody grants hours to themselves (R-22)."""
    if not _belongs_to_quota(actor, quota):
        return False
    decision = quota.application.decision
    return decision is None or decision.decided_by_id != actor.person_id


def _sees_quota(actor: Actor, quota: Quota) -> bool:
    return not actor.roles.isdisjoint(_READERS) or _belongs_to_quota(actor, quota)


def _manages_quota(actor: Actor, quota: Quota) -> bool:
    return _owns_application(actor, quota.application)


def _sees_booking(actor: Actor, booking: Booking) -> bool:
    return _sees_quota(actor, booking.quota)


def _cancels_booking(actor: Actor, booking: Booking) -> bool:
    if Role.OPERATOR in actor.roles:
        return True
    return booking.booked_by_id == actor.person_id or _manages_quota(actor, booking.quota)


def _answers_move(actor: Actor, booking: Booking) -> bool:
    return actor.is_signed_in and (
        booking.booked_by_id == actor.person_id or _manages_quota(actor, booking.quota)
    )


def _places_booking(actor: Actor, booking: Booking) -> bool:
    """An operator, but never what is one's own, one's organisation's or one's team's (R-22)."""
    return _adjusts_share(actor, booking.quota)


def _adjusts_share(actor: Actor, quota: Quota) -> bool:
    """An operator, but never for oneself, one's own organisation or a quota that one may use (R-22)."""
    mine = any(member.person_id == actor.person_id for member in quota.members)
    return _decides_application(actor, quota.application) and not mine


def _applies_repair(actor: Actor, quotas: Iterable[Quota]) -> bool:
    """An operator, but never alone where it is about what is their own, too (R-22)."""
    return Role.OPERATOR in actor.roles and all(_adjusts_share(actor, quota) for quota in quotas)


def _publishes(actor: Actor, proposal: Proposal) -> bool:
    """Four eyes: an operator who neither proposed nor adjusted anything that the proposal holds (R-17).

    Nor one whose own share somebody has fixed in it: that would be the word that makes it binding (R-22).
    """
    if Role.OPERATOR not in actor.roles:
        return False
    if any(not _adjusts_share(actor, adjustment.claim.quota) for adjustment in proposal.adjustments):
        return False
    hands = {adjustment.adjusted_by_id for adjustment in proposal.adjustments}
    step: Proposal | None = proposal
    while step is not None:
        hands.add(step.created_by_id or 0)
        step = step.based_on
    return actor.person_id not in hands


def _sees_organisation(actor: Actor, organisation: Organisation) -> bool:
    return organisation.id in actor.organisations or not actor.roles.isdisjoint(
        _READERS | {Role.ADMINISTRATOR}
    )


def _manages_organisation(actor: Actor, organisation: Organisation) -> bool:
    return _runs_organisation(actor, organisation.id)


def _heads_organisation(actor: Actor, organisation: Organisation) -> bool:
    return actor.organisations.get(organisation.id) is MembershipRole.HEAD


def _sees_membership(actor: Actor, membership: Membership) -> bool:
    return membership.organisation_id in actor.organisations


def _ends_membership(actor: Actor, membership: Membership) -> bool:
    """One's own; a manager also members', a head everybody's."""
    if actor.is_signed_in and membership.person_id == actor.person_id:
        return True
    if membership.role is MembershipRole.MEMBER:
        return _runs_organisation(actor, membership.organisation_id)
    return actor.organisations.get(membership.organisation_id) is MembershipRole.HEAD


def _is_self(actor: Actor, person: Person) -> bool:
    return actor.is_signed_in and person.id == actor.person_id


def _sees_person(actor: Actor, person: Person) -> bool:
    return _is_self(actor, person) or Role.ADMINISTRATOR in actor.roles


def _owns_session(actor: Actor, session: SignInSession) -> bool:
    return actor.is_signed_in and session.person_id == actor.person_id


def _sees_period(actor: Actor, _subject: Any) -> bool:
    return not actor.roles.isdisjoint(_READERS | {Role.ADMINISTRATOR})


_READERS = frozenset({Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR})

RULES: Mapping[Action, Rule] = {
    Action.APPLICATION_CREATE: _signed_in,
    Action.APPLICATION_VIEW: _sees_application,
    Action.APPLICATION_EDIT: _owns_application,
    Action.APPLICATION_DECIDE: _decides_application,
    Action.APPLICATION_QUEUE: _has(Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR),
    Action.QUOTA_VIEW: _sees_quota,
    Action.QUOTA_MANAGE: _manages_quota,
    Action.BOOKING_CREATE: _spends_quota,
    Action.BOOKING_VIEW: _sees_booking,
    Action.BOOKING_CANCEL: _cancels_booking,
    Action.BOOKING_ANSWER: _answers_move,
    Action.BOOKING_PLACE: _places_booking,
    Action.PERIOD_VIEW: _sees_period,
    Action.PERIOD_PROPOSE: _has(Role.OPERATOR),
    Action.PERIOD_ADJUST: _adjusts_share,
    Action.PERIOD_PUBLISH: _publishes,
    Action.PERIOD_OPERATE: _has(Role.OPERATOR),
    Action.ORGANISATION_CREATE: _signed_in,
    Action.ORGANISATION_VIEW: _sees_organisation,
    Action.ORGANISATION_MANAGE: _manages_organisation,
    Action.ORGANISATION_APPOINT: _heads_organisation,
    Action.MEMBERSHIP_END: _ends_membership,
    Action.PERSON_VIEW: _sees_person,
    Action.PERSON_EDIT: _is_self,
    Action.PERSON_CLUSTER_LOGIN: _has(Role.OPERATOR, Role.ADMINISTRATOR),
    Action.SIGN_IN_SESSION_END: _owns_session,
    Action.PEOPLE_MANAGE: _has(Role.ADMINISTRATOR),
    Action.CLUSTER_OPERATE: _has(Role.OPERATOR, Role.ADMINISTRATOR, Role.AUDITOR),
    Action.CLUSTER_CHANGE: _has(Role.OPERATOR),
    Action.REPAIR_APPLY: _applies_repair,
    Action.AUDIT_VIEW: _has(Role.AUDITOR, Role.ADMINISTRATOR),
}

# what a person must be able to see before "you may not do this" may be said
SEEN_BY: Mapping[type, Rule] = {
    Application: _sees_application,
    Quota: _sees_quota,
    Booking: _sees_booking,
    Organisation: _sees_organisation,
    Membership: _sees_membership,
    Person: _sees_person,
    Period: _sees_period,
    Proposal: _sees_period,
}


def may(actor: Actor, action: Action, subject: Any = None) -> bool:
    """Whether ``actor`` may do ``action`` to ``subject`` (None for actions on no one thing)."""
    return actor.is_system or RULES[action](actor, subject)


def require(actor: Actor, action: Action, subject: Any = None) -> None:
    """Raise unless allowed: SignInRequired when anonymous, NotFound when unseen, Forbidden when seen."""
    if may(actor, action, subject):
        return
    if not actor.is_signed_in:
        raise SignInRequired()
    if subject is None:
        raise Forbidden()
    seen = SEEN_BY.get(type(subject))
    if seen is None or not seen(actor, subject):
        raise NotFound()
    raise Forbidden()


def visible_applications(actor: Actor) -> ColumnElement[bool]:
    """``_sees_application`` as SQL."""
    own = or_(Application.applicant_id == actor.person_id, Application.organisation_id.in_(_run_by(actor)))
    if actor.is_system:
        return true()
    if not actor.is_signed_in:
        return false()
    if actor.roles.isdisjoint(_READERS):
        return own
    return or_(own, Application.submitted_at.is_not(None))


def visible_quotas(actor: Actor) -> ColumnElement[bool]:
    """``_sees_quota`` as SQL."""
    if actor.is_system or not actor.roles.isdisjoint(_READERS):
        return true()
    if not actor.is_signed_in:
        return false()
    return own_quotas(actor)


def own_quotas(actor: Actor) -> ColumnElement[bool]:
    """Quotas that the actor may spend, whatever else a staff role lets it see."""
    belongs = or_(
        Application.organisation_id.is_(None), Application.organisation_id.in_(list(actor.organisations))
    )
    applied = select(Application.id).where(
        or_(
            (Application.applicant_id == actor.person_id) & belongs,
            Application.organisation_id.in_(_run_by(actor)),
        )
    )
    member = select(QuotaMember.quota_id).where(QuotaMember.person_id == actor.person_id)
    return or_(Quota.application_id.in_(applied), Quota.id.in_(member))


def visible_bookings(actor: Actor) -> ColumnElement[bool]:
    """``_sees_booking`` as SQL."""
    return Booking.quota_id.in_(select(Quota.id).where(visible_quotas(actor)))


def visible_organisations(actor: Actor) -> ColumnElement[bool]:
    """``_sees_organisation`` as SQL."""
    if actor.is_system or not actor.roles.isdisjoint(_READERS | {Role.ADMINISTRATOR}):
        return true()
    return Organisation.id.in_(
        select(Membership.organisation_id).where(Membership.person_id == actor.person_id)
    )


def _run_by(actor: Actor) -> list[int]:
    return [organisation for organisation in actor.organisations if _runs_organisation(actor, organisation)]
