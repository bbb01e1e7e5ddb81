"""People's accounts: registration, profile, logins on the clusters (see `administration` for the rest)."""

import re
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import events, outbox
from allocator.accounts import identity_numbers, tokens
from allocator.accounts.passwords import hash_password, password_faults
from allocator.accounts.sign_in import Proof
from allocator.actors import Actor, Role
from allocator.authorization import Action, require
from allocator.errors import Fault, Invalid, NotFound
from allocator.inputs import Faults, check_email, check_line, check_phone, one_line
from allocator.locks import AGAINST_CHANGE
from allocator.models import Person, RoleGrant, TokenPurpose
from allocator.revisions import require_unchanged
from config.i18n import LANGUAGES, N_
from config.settings import FORBIDDEN_LOGINS

NAME_LENGTH = 120
CLUSTER_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
PROFILE_FIELDS = ("name", "iin", "phone", "locale")


def register(
    session: Session,
    *,
    email: str,
    name: str,
    password: str,
    locale: str,
    confirm_within: timedelta,
    now: datetime,
) -> None:
    """Open an account that waits for its address to be confirmed by a letter.

    What happens looks the same whether the address is known or not: only the letter differs. An account that
    waits already stays as it is and gets its letter again. Raises Invalid.
    """
    faults = Faults()
    email = check_email(faults, "email", email)
    name = check_line(faults, "name", name, most=NAME_LENGTH, least=2)
    faults.add("password", *password_faults(password, email=email, name=name))
    check_locale(faults, locale)
    faults.raise_if_any()
    # Hashed for a known address too, or the time it takes would tell.
    password_hash = hash_password(password)
    person = session.scalar(select(Person).where(Person.email == email).with_for_update(key_share=True))
    if person is None:
        person = Person(email=email, name=name, password_hash=password_hash, locale=locale, created_at=now)
        try:
            with session.begin_nested():
                session.add(person)
        except IntegrityError:
            return  # somebody registered the address at the same moment: that letter is on its way
        _record_own(session, person, "person.registered", now)
    elif person.disabled_at is not None:
        return
    elif person.email_confirmed_at is not None:
        outbox.post(session, "already_registered", person.id, {}, now=now)
        return
    # Whoever registers an address again has not proved to own it: what the first one wrote stays. If that was
    # a stranger, the owner does not know the password that `confirm` asks for and sets a new one by letter.
    _send_confirmation(session, person, confirm_within, now)


def send_confirmation_again(
    session: Session, email: str, *, confirm_within: timedelta, now: datetime
) -> None:
    """Another letter, if the address belongs to an account that waits for it; otherwise nothing, silently."""
    person = find_by_email(session, email)
    if person and person.email_confirmed_at is None and person.disabled_at is None:
        _send_confirmation(session, person, confirm_within, now)


def confirm(
    session: Session,
    token: str,
    proof: Proof | None,
    *,
    now: datetime,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
) -> Person:
    """The address belongs to the person, who also knows the password chosen at registration: ``proof``.

    Raises Invalid, which leaves the link usable, and NotFound for a link that is unknown, used or too old.
    """
    person = tokens.holder(session, token, TokenPurpose.CONFIRM_EMAIL, now=now)
    if person is not None:
        # The link alone shows who reads the mail, not who chose the password: without both, somebody who
        # registered another's address would share the account with its owner.
        if proof is None or proof.account.person_id != person.id:
            raise Invalid({"password": [Fault(N_("This is not the password chosen at registration."))]})
        person = tokens.redeem(session, token, TokenPurpose.CONFIRM_EMAIL, now=now)
    if person is None:
        raise NotFound(N_("This link does not work any more. Ask for a new one."))
    mark_confirmed(session, person, now=now, forbidden_logins=forbidden_logins)
    return person


def mark_confirmed(
    session: Session,
    person: Person,
    *,
    now: datetime,
    forbidden_logins: Collection[str] = FORBIDDEN_LOGINS,
) -> None:
    """Note that a letter to the address has reached the person, who joins the quotas that wait for it."""
    from allocator.applying import quotas  # which imports this module for logins

    if person.email_confirmed_at is None:
        person.email_confirmed_at = now
        _record_own(session, person, "person.confirmed", now)
        quotas.link_team(session, person, now, forbidden_logins)


def find_by_email(session: Session, email: str) -> Person | None:
    """The account with this address, in whatever letter case it was typed."""
    return session.scalar(select(Person).where(Person.email == check_email(Faults(), "email", email)))


def load_actor(_session: Session, person: Person) -> Actor:
    """The actor that a person is: roles and memberships as they stand now."""
    organisations = {membership.organisation_id: membership.role for membership in person.memberships}
    return Actor(person.id, person.roles, organisations, email=person.email)


def get(
    session: Session,
    actor: Actor,
    person_id: int,
    action: Action = Action.PERSON_VIEW,
    *,
    lock: bool = False,
) -> Person:
    """A person whom the actor may do ``action`` to; NotFound for whom it may not even see.

    ``lock`` makes whoever else changes the person wait for this transaction.
    """
    held = AGAINST_CHANGE if lock else None
    person = session.get(Person, person_id, with_for_update=held, populate_existing=lock)
    if person is None:
        require(actor, Action.APPLICATION_CREATE)  # a visitor is asked to sign in, whatever the number
        raise NotFound()
    require(actor, action, person)
    return person


def search(actor: Actor, text: str = "", role: Role | None = None) -> Select[Person]:
    """Everybody whose name, address or login contains ``text``; for administrators."""
    require(actor, Action.PEOPLE_MANAGE)
    statement = select(Person)
    text = one_line(text[:NAME_LENGTH])
    if text:
        # lower() knows ASCII only in SQLite: a name in Cyrillic is found there as it is written.
        needle = text.lower()
        statement = statement.where(
            or_(
                Person.email.contains(needle, autoescape=True),
                Person.cluster_login.contains(needle, autoescape=True),
                func.lower(Person.name).contains(needle, autoescape=True),
                Person.name.contains(text, autoescape=True),
            )
        )
    if role:
        statement = statement.where(Person.role_grants.any(RoleGrant.role == role))
    return statement


def edit_profile(
    session: Session,
    actor: Actor,
    *,
    name: str,
    iin: str,
    phone: str,
    locale: str,
    expected_version: int | None = None,
    now: datetime,
) -> Person:
    """Change one's own profile; empty ``iin`` and ``phone`` clear them. Raises Invalid and Stale."""
    person = get(session, actor, actor.person_id or 0, Action.PERSON_EDIT, lock=True)
    require_unchanged(session, person, expected_version)
    faults = Faults()
    name = check_line(faults, "name", name, most=NAME_LENGTH, least=2)
    number = _check_iin(session, faults, person, iin)
    new_phone = check_phone(faults, "phone", phone)
    check_locale(faults, locale)
    faults.raise_if_any()
    values = {"name": name, "iin": number, "phone": new_phone, "locale": locale}
    changed = [field for field in PROFILE_FIELDS if getattr(person, field) != values[field]]
    if not changed:
        return person
    try:
        with session.begin_nested():
            for field in changed:
                setattr(person, field, values[field])
    except IntegrityError:
        # Two people saved the same IIN at the same moment.
        raise Invalid({"iin": [_taken_iin()]}) from None
    # Only which fields: personal data may have to be deleted one day, events never are.
    events.record(session, actor, person, "person.edited", now=now, after={"fields": changed})
    return person


def set_cluster_login(
    session: Session,
    actor: Actor,
    person: Person,
    login: str,
    *,
    forbidden: Collection[str],
    now: datetime,
) -> None:
    """The account name that the person's jobs run under on every cluster. Raises Invalid."""
    require(actor, Action.PERSON_CLUSTER_LOGIN, person)
    login = one_line(login[:100])
    if login == person.cluster_login:
        return
    fault = login_fault(session, login, person, forbidden)
    if fault:
        raise Invalid({"cluster_login": [fault]})
    before = person.cluster_login
    try:
        with session.begin_nested():
            person.cluster_login = login
    except IntegrityError:
        raise Invalid({"cluster_login": [_taken_login()]}) from None
    events.record(
        session,
        actor,
        person,
        "person.cluster_login_set",
        now=now,
        before={"cluster_login": before},
        after={"cluster_login": login},
    )


def _send_confirmation(session: Session, person: Person, lifetime: timedelta, now: datetime) -> None:
    token = tokens.issue(session, person, TokenPurpose.CONFIRM_EMAIL, lifetime, now=now)
    hours = int(lifetime.total_seconds() // 3600)
    outbox.post(session, "confirm_email", person.id, {"token": token, "hours": hours}, now=now)


def _record_own(session: Session, person: Person, kind: str, now: datetime) -> None:
    """An event of somebody who acts on their own account before they can sign in."""
    session.flush()
    events.record(session, Actor(person.id), person, kind, now=now)


def check_locale(faults: Faults, locale: str) -> None:
    if locale not in LANGUAGES:
        faults.add("locale", Fault(N_("Choose one of the languages.")))


def _check_iin(session: Session, faults: Faults, person: Person, text: str) -> str | None:
    number = identity_numbers.normalise(text[:50])
    if not number:
        return None
    if not identity_numbers.is_valid(number):
        faults.add("iin", Fault(N_("This is not an IIN: check its 12 digits.")))
    elif session.scalar(select(Person.id).where(Person.iin == number, Person.id != person.id)):
        faults.add("iin", _taken_iin())
    return number


def _taken_iin() -> Fault:
    return Fault(N_("Another account has this IIN. If it is yours, write to the operator."))


def _taken_login() -> Fault:
    return Fault(N_("Somebody has this login already."))


def login_fault(session: Session, login: str, person: Person, forbidden: Collection[str]) -> Fault | None:
    if not CLUSTER_LOGIN.fullmatch(login):
        return Fault(
            N_("A login begins with a small letter and has small letters, digits, “-” and “_”, at most 32.")
        )
    if login in forbidden:
        return Fault(N_("This login belongs to the system."))
    if session.scalar(select(Person.id).where(Person.cluster_login == login, Person.id != person.id)):
        return _taken_login()
    return None
