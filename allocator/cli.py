"""`kezek user` and `kezek audit`: accounts without a browser, and the record of events.

What is heavy is imported inside the commands, so that help is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from allocator.actors import Role
from allocator.database_cli import _database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from allocator.models import Event, Person


ROLES = click.Choice([role.value for role in Role])


@click.group(help="Add people and change their roles.")
def user() -> None:
    """Subcommands below."""


@user.command(help="Add a person whose address counts as confirmed. Prints the password if it made one.")
@click.option("--email", required=True, help="Address, with which the person signs in.")
@click.option("--name", required=True, help="First and last name.")
@click.option("--role", "roles", multiple=True, type=ROLES, help="A staff role; may be given several times.")
@click.option("--locale", type=click.Choice(["kk", "ru", "en"]), default="kk", help="Language of letters.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def add(email: str, name: str, roles: tuple[str, ...], locale: str, password_stdin: bool) -> None:
    """Without --password-stdin a password is made and shown once; as an argument everybody could read it."""
    from secrets import token_urlsafe

    from allocator.accounts import administration
    from allocator.actors import SYSTEM
    from config.clock import utcnow
    from config.settings import load_settings

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else token_urlsafe(15)
    with _database() as database, _faults_told(), database.transaction() as session:
        person = administration.create(
            session,
            SYSTEM,
            email=email,
            name=name,
            password=password,
            locale=locale,
            roles=[Role(role) for role in dict.fromkeys(roles)],
            forbidden_logins=load_settings().forbidden_logins,
            now=utcnow(),
        )
        number = person.id
    click.echo(f"person {number} added")
    if not password_stdin:
        click.echo(f"password: {password}")


@user.command(help="Give and take staff roles.")
@click.argument("email")
@click.option("--grant", multiple=True, type=ROLES, help="Give this role.")
@click.option("--revoke", multiple=True, type=ROLES, help="Take this role away.")
def roles(email: str, grant: tuple[str, ...], revoke: tuple[str, ...]) -> None:
    """Prints the roles that the person has afterwards."""
    from allocator.accounts import administration
    from allocator.actors import SYSTEM
    from config.clock import utcnow

    with _database() as database, database.transaction() as session:
        person = _person(session, email)
        for role in grant:
            administration.grant_role(session, SYSTEM, person, Role(role), now=utcnow())
        for role in revoke:
            administration.revoke_role(session, SYSTEM, person, Role(role), now=utcnow())
        click.echo(", ".join(sorted(person.roles)) or "no staff role")


@user.command("list", help="List people, or only those with a role.")
@click.option("--role", type=ROLES, help="Only people with this role.")
@click.option("--find", default="", help="Only people whose name, address or login contains this.")
def list_people(role: str | None, find: str) -> None:
    """One line a person, columns separated by tabs."""
    from allocator.accounts import people
    from allocator.actors import SYSTEM
    from allocator.models import Person

    with _database() as database, database.reader() as session:
        statement = people.search(SYSTEM, find, Role(role) if role else None).order_by(Person.id)
        for person in session.scalars(statement.execution_options(yield_per=500)):
            click.echo("\t".join(_columns(person)))


@user.command(help="Close an account: its person can no longer sign in.")
@click.argument("email")
@click.option("--reason", required=True, help="Stands in the record of events.")
def disable(email: str, reason: str) -> None:
    """The account can be opened again on the pages for administrators."""
    from allocator.accounts import administration
    from allocator.actors import SYSTEM
    from config.clock import utcnow

    with _database() as database, _faults_told(), database.transaction() as session:
        person = _person(session, email)
        administration.disable(session, SYSTEM, person, reason, now=utcnow())
    click.echo("closed")


@user.command("cluster-login", help="Set the login that a person's jobs run under on the clusters.")
@click.argument("email")
@click.argument("login")
def cluster_login(email: str, login: str) -> None:
    """The login must exist on the clusters; Kezek makes none."""
    from allocator.accounts import people
    from allocator.actors import SYSTEM
    from config.clock import utcnow
    from config.settings import load_settings

    forbidden = load_settings().forbidden_logins
    with _database() as database, _faults_told(), database.transaction() as session:
        people.set_cluster_login(
            session, SYSTEM, _person(session, email), login, forbidden=forbidden, now=utcnow()
        )
    click.echo(f"login {login}")


@click.group(help="Verify the chain of events.")
def audit() -> None:
    """Subcommands below."""


@audit.command(help="Walk the chain of events and name the first link that is broken.")
def verify() -> None:
    """Exits 3 when the chain is broken."""
    from allocator import events

    with _database() as database, database.reader() as session:
        count = events.verify(session)
    click.echo(f"{count} events, the chain holds")


@audit.command(help="Show the latest events.")
@click.option("-n", "--number", default=20, type=click.IntRange(1, 10_000), help="How many.")
def tail(number: int) -> None:
    """The oldest of them first, as in a log."""
    from allocator.actors import SYSTEM
    from allocator.audit import EventFilter, search

    with _database() as database, database.reader() as session:
        rows = session.execute(search(SYSTEM, EventFilter()).limit(number)).all()
    for event, name in reversed(rows):
        subject = f"{event.subject_type} {event.subject_id}"
        click.echo(
            "\t".join(
                (str(event.seq), event.at.isoformat(), name or "kezek", event.kind, subject, event.reason)
            )
        )


@audit.command(help="Write every event as a line of JSON, the oldest first, for keeping elsewhere.")
def export() -> None:
    """A copy kept elsewhere shows what somebody with the database in hand could otherwise rewrite."""
    import json

    from allocator.actors import SYSTEM
    from allocator.audit import EventFilter, stream

    with _database() as database, database.reader() as session:
        for event, _ in stream(session, SYSTEM, EventFilter()):
            click.echo(json.dumps(_plain(event), ensure_ascii=False, sort_keys=True))


def _plain(event: Event) -> dict[str, object]:
    return {
        "seq": event.seq,
        "at": event.at.isoformat(),
        "actor_id": event.actor_id,
        "kind": event.kind,
        "subject_type": event.subject_type,
        "subject_id": event.subject_id,
        "reason": event.reason,
        "before": event.before,
        "after": event.after,
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }


def _columns(person: Person) -> tuple[str, ...]:
    state = "closed" if person.disabled_at else "open" if person.email_confirmed_at else "unconfirmed"
    return (str(person.id), person.email, person.name, ",".join(sorted(person.roles)) or "-", state)


def _person(session: Session, email: str) -> Person:
    from allocator.accounts import people
    from allocator.errors import NotFound
    from config.i18n import N_

    person = people.find_by_email(session, email)
    if person is None:
        raise NotFound(N_("There is no account with the address %(email)s."), {"email": email})
    return person


@contextmanager
def _faults_told() -> Iterator[None]:
    """Say which option is wrong and why, instead of "the marked fields"."""
    from allocator.errors import Invalid

    try:
        yield
    except Invalid as error:
        lines = [
            f"{field}: {fault.message % fault.details if fault.details else fault.message}"
            for field, faults in error.fields.items()
            for fault in faults
        ]
        raise click.ClickException("\n".join(lines)) from None
