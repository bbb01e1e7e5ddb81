"""What administrators do with other people's accounts: make them, give roles, close and open them."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.accounts import sign_in_sessions
from allocator.accounts.passwords import hash_password, password_faults
from allocator.accounts.people import NAME_LENGTH, check_locale, find_by_email
from allocator.actors import Actor, Role
from allocator.applying import quotas
from allocator.authorization import Action, require
from allocator.errors import Conflict, Fault
from allocator.inputs import Faults, check_email, check_line
from allocator.models import Person, RoleGrant
from config.i18n import N_
from config.settings import FORBIDDEN_LOGINS

REASON_LENGTH = 500


def create(
    session: Session,
    actor: Actor,
    *,
    email: str,
    name: str,
    password: str,
    locale: str = "kk",
    roles: Collection[Role] = (),
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
    now: datetime,
) -> Person:
    """An account with a confirmed address, made by an administrator or the command line. Raises Invalid."""
    require(actor, Action.PEOPLE_MANAGE)
    faults = Faults()
    email = check_email(faults, "email", email)
    name = check_line(faults, "name", name, most=NAME_LENGTH, least=2)
    faults.add("password", *password_faults(password, email=email, name=name))
    check_locale(faults, locale)
    if find_by_email(session, email):
        faults.add("email", Fault(N_("There is an account with this address already.")))
    faults.raise_if_any()
    person = Person(
        email=email,
        name=name,
        password_hash=hash_password(password),
        locale=locale,
        email_confirmed_at=now,
        created_at=now,
    )
    session.add(person)
    session.flush()
    events.record(session, actor, person, "person.created", now=now, after={"roles": sorted(roles)})
    for role in roles:
        grant_role(session, actor, person, role, now=now)
    quotas.link_team(session, person, now, forbidden_logins)
    return person


def grant_role(session: Session, actor: Actor, person: Person, role: Role, *, now: datetime) -> None:
    """Give a staff role; giving it twice changes nothing."""
    require(actor, Action.PEOPLE_MANAGE)
    if person.disabled_at is not None:
        raise Conflict(N_("This account is closed. Open it again first."))
    if session.get(RoleGrant, (person.id, role)):
        return
    person.role_grants.append(
        RoleGrant(person_id=person.id, role=role, granted_by_id=actor.person_id, granted_at=now)
    )
    events.record(session, actor, person, "person.role_granted", now=now, after={"role": role})


def revoke_role(session: Session, actor: Actor, person: Person, role: Role, *, now: datetime) -> None:
    """Take a staff role away. Raises Conflict for the last administrator."""
    require(actor, Action.PEOPLE_MANAGE)
    grant = session.get(RoleGrant, (person.id, role))
    if grant is None:
        return
    if role is Role.ADMINISTRATOR:
        _keep_an_administrator(session, person)
    person.role_grants.remove(grant)
    session.delete(grant)
    events.record(session, actor, person, "person.role_revoked", now=now, before={"role": role})


def disable(session: Session, actor: Actor, person: Person, reason: str, *, now: datetime) -> None:
    """Close an account and end its sessions. Raises Conflict for oneself and for the last administrator."""
    require(actor, Action.PEOPLE_MANAGE)
    if person.id == actor.person_id:
        raise Conflict(N_("You cannot close your own account. Ask another administrator."))
    if person.disabled_at is not None:
        return
    faults = Faults()
    reason = check_line(faults, "reason", reason, most=REASON_LENGTH)
    faults.raise_if_any()
    if Role.ADMINISTRATOR in person.roles:
        _keep_an_administrator(session, person)
    person.disabled_at = now
    sign_in_sessions.end_all(session, person.id, now=now)
    events.record(session, actor, person, "person.disabled", now=now, reason=reason)


def enable(session: Session, actor: Actor, person: Person, *, now: datetime) -> None:
    """Open a closed account again; its roles and memberships stand as they were."""
    require(actor, Action.PEOPLE_MANAGE)
    if person.disabled_at is None:
        return
    person.disabled_at = None
    events.record(session, actor, person, "person.enabled", now=now)


def _keep_an_administrator(session: Session, leaving: Person) -> None:
    # First lock, then count in a statement of its own: only that sees what a rival has just committed.
    administrators = RoleGrant.role == Role.ADMINISTRATOR
    session.scalars(select(RoleGrant.person_id).where(administrators).with_for_update()).all()
    others = session.scalar(
        select(func.count())
        .select_from(RoleGrant)
        .join(Person, Person.id == RoleGrant.person_id)
        .where(administrators, Person.id != leaving.id, Person.disabled_at.is_(None))
    )
    if not others:
        raise Conflict(N_("This is the last administrator. Give the role to somebody else first."))
