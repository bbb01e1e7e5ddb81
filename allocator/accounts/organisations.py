"""Organisations by BIN (R-32) and who belongs to them: heads appoint, managers look after members."""

import re
from datetime import datetime

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, contains_eager

from allocator import events, outbox
from allocator.accounts import identity_numbers, people
from allocator.actors import Actor, MembershipRole
from allocator.authorization import Action, require, visible_organisations
from allocator.errors import Conflict, Fault, Invalid, NotFound
from allocator.inputs import Faults, check_line, one_line
from allocator.locks import AGAINST_CHANGE
from allocator.models import Membership, Organisation, Person
from allocator.revisions import require_unchanged
from config.i18n import N_

NAME_LENGTH = 200
_REGION = re.compile(r"[0-9]{9}")
_ACTIVITY = re.compile(r"[0-9]{5}")


def create(
    session: Session,
    actor: Actor,
    *,
    bin: str,
    name: str,
    region: str = "",
    activity: str = "",
    now: datetime,
) -> Organisation:
    """Register an organisation; whoever does it becomes its head. Raises Invalid."""
    require(actor, Action.ORGANISATION_CREATE)
    faults = Faults()
    number = identity_numbers.normalise(bin[:50])
    if not identity_numbers.is_valid(number):
        faults.add("bin", Fault(N_("This is not a BIN: check its 12 digits.")))
    elif session.scalar(select(Organisation.id).where(Organisation.bin == number)):
        faults.add("bin", _taken())
    values = _check_values(faults, name, region, activity)
    faults.raise_if_any()
    organisation = Organisation(bin=number, created_at=now, **values)
    try:
        with session.begin_nested():
            session.add(organisation)
    except IntegrityError:
        raise Invalid({"bin": [_taken()]}) from None
    session.add(
        Membership(
            organisation_id=organisation.id,
            person_id=actor.person_id,
            role=MembershipRole.HEAD,
            created_at=now,
        )
    )
    events.record(
        session, actor, organisation, "organisation.created", now=now, after={"bin": number, **values}
    )
    return organisation


def get(
    session: Session,
    actor: Actor,
    organisation_id: int,
    action: Action = Action.ORGANISATION_VIEW,
    *,
    lock: bool = False,
) -> Organisation:
    """An organisation that the actor may do ``action`` to; NotFound for what it may not even see.

    ``lock`` makes whoever else changes it or its memberships wait for this transaction.
    """
    held = AGAINST_CHANGE if lock else None
    organisation = session.get(Organisation, organisation_id, with_for_update=held, populate_existing=lock)
    if organisation is None:
        require(actor, Action.ORGANISATION_CREATE)  # a visitor is asked to sign in, whatever the number
        raise NotFound()
    require(actor, action, organisation)
    return organisation


def edit(
    session: Session,
    actor: Actor,
    organisation_id: int,
    *,
    name: str,
    region: str,
    activity: str,
    expected_version: int | None = None,
    now: datetime,
) -> Organisation:
    """Change what is known of an organisation; its BIN stays. Raises Invalid and Stale."""
    organisation = get(session, actor, organisation_id, Action.ORGANISATION_MANAGE, lock=True)
    require_unchanged(session, organisation, expected_version)
    faults = Faults()
    values = _check_values(faults, name, region, activity)
    faults.raise_if_any()
    changed = {field: value for field, value in values.items() if getattr(organisation, field) != value}
    if not changed:
        return organisation
    before = {field: getattr(organisation, field) for field in changed}
    for field, value in changed.items():
        setattr(organisation, field, value)
    events.record(session, actor, organisation, "organisation.edited", now=now, before=before, after=changed)
    return organisation


def members(organisation: Organisation) -> Select[Membership]:
    """Who belongs to an organisation, with the people loaded; to be ordered and paginated by the caller."""
    return (
        select(Membership)
        .join(Membership.person)
        .options(contains_eager(Membership.person).lazyload("*"))
        .where(Membership.organisation_id == organisation.id)
    )


def search(actor: Actor, text: str = "") -> Select[Organisation]:
    """The organisations that the actor may see, by part of the name or by BIN."""
    require(actor, Action.ORGANISATION_CREATE)
    statement = select(Organisation).where(visible_organisations(actor))
    text = one_line(text[:NAME_LENGTH])
    if text:
        statement = statement.where(
            or_(
                Organisation.bin == identity_numbers.normalise(text),
                func.lower(Organisation.name).contains(text.lower(), autoescape=True),
                Organisation.name.contains(text, autoescape=True),
            )
        )
    return statement


def add_member(
    session: Session, actor: Actor, organisation_id: int, *, email: str, role: MembershipRole, now: datetime
) -> Membership:
    """Add somebody who has an account here, by address. Raises Invalid."""
    organisation = get(session, actor, organisation_id, Action.ORGANISATION_MANAGE, lock=True)
    _require_appointing(actor, organisation, role)
    person = people.find_by_email(session, email)
    if person is None or person.email_confirmed_at is None or person.disabled_at is not None:
        message = N_("Nobody has an account with this address. Ask them to register first.")
        raise Invalid({"email": [Fault(message)]})
    if _membership(session, organisation, person):
        raise Invalid({"email": [Fault(N_("This person belongs to the organisation already."))]})
    membership = Membership(organisation_id=organisation.id, person_id=person.id, role=role, created_at=now)
    session.add(membership)
    outbox.post(session, "membership_added", person.id, {"organisation": organisation.name}, now=now)
    _record(session, actor, organisation, "organisation.member_added", person.id, now, after=role)
    return membership


def change_member(
    session: Session,
    actor: Actor,
    organisation_id: int,
    membership_id: int,
    *,
    role: MembershipRole,
    now: datetime,
) -> Membership:
    """Give a member another role; only a head may. Raises Conflict for the last head."""
    organisation = get(session, actor, organisation_id, Action.ORGANISATION_APPOINT, lock=True)
    membership = get_membership(session, organisation, membership_id)
    if membership.role is role:
        return membership
    before = membership.role
    if before is MembershipRole.HEAD:
        _keep_a_head(session, membership)
    membership.role = role
    _record(
        session, actor, organisation, "organisation.member_changed", membership.person_id, now, before, role
    )
    return membership


def remove_member(
    session: Session, actor: Actor, organisation_id: int, membership_id: int, *, now: datetime
) -> None:
    """Let somebody go, or leave oneself. Raises Conflict for the last head."""
    organisation = get(session, actor, organisation_id, lock=True)
    membership = get_membership(session, organisation, membership_id)
    require(actor, Action.MEMBERSHIP_END, membership)
    if membership.role is MembershipRole.HEAD:
        _keep_a_head(session, membership)
    before, person_id = membership.role, membership.person_id
    session.delete(membership)
    _record(session, actor, organisation, "organisation.member_removed", person_id, now, before)


def get_membership(session: Session, organisation: Organisation, membership_id: int) -> Membership:
    """A membership of this organisation; another organisation's does not exist here."""
    membership = session.get(Membership, membership_id)
    if membership is None or membership.organisation_id != organisation.id:
        raise NotFound()
    return membership


def _require_appointing(actor: Actor, organisation: Organisation, role: MembershipRole) -> None:
    if role is not MembershipRole.MEMBER:
        require(actor, Action.ORGANISATION_APPOINT, organisation)


def _keep_a_head(session: Session, leaving: Membership) -> None:
    # The organisation's row is locked, so nobody else is taking a head away just now.
    others = session.scalar(
        select(func.count())
        .select_from(Membership)
        .where(
            Membership.organisation_id == leaving.organisation_id,
            Membership.role == MembershipRole.HEAD,
            Membership.id != leaving.id,
        )
    )
    if not others:
        raise Conflict(N_("An organisation needs a head. Make somebody else head first."))


def _membership(session: Session, organisation: Organisation, person: Person) -> Membership | None:
    return session.scalar(
        select(Membership).where(
            Membership.organisation_id == organisation.id, Membership.person_id == person.id
        )
    )


def _record(
    session: Session,
    actor: Actor,
    organisation: Organisation,
    kind: str,
    person_id: int,
    now: datetime,
    before: MembershipRole | None = None,
    after: MembershipRole | None = None,
) -> None:
    events.record(
        session,
        actor,
        organisation,
        kind,
        now=now,
        before={"person_id": person_id, "role": before} if before else {},
        after={"person_id": person_id, "role": after} if after else {"person_id": person_id},
    )


def _check_values(faults: Faults, name: str, region: str, activity: str) -> dict[str, str | None]:
    return {
        "name": check_line(faults, "name", name, most=NAME_LENGTH, least=2),
        "region": _check_code(faults, "region", region, _REGION, N_("A KATO code has 9 digits.")),
        "activity": _check_code(faults, "activity", activity, _ACTIVITY, N_("An OKED code has 5 digits.")),
    }


def _check_code(faults: Faults, field: str, text: str, form: re.Pattern[str], message: str) -> str | None:
    code = identity_numbers.normalise(text[:50]).replace(".", "")
    if not code:
        return None
    if not form.fullmatch(code):
        faults.add(field, Fault(message))
    return code


def _taken() -> Fault:
    return Fault(
        N_(
            "This organisation is registered already. Ask its head to add you by your e-mail address; "
            "if nobody knows who that is, write to the operator."
        )
    )
