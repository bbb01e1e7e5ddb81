"""`kezek db` and `kezek demo`: the database, and what a demonstration puts into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from allocator.db import Database


@click.group(help="Create, upgrade and look at the database.")
def db() -> None:
    """Subcommands below."""


@db.command(help="Bring the database to the revision that this code needs.")
def upgrade() -> None:
    """Harmless when there is nothing to do."""
    from allocator import migrate

    with _database() as database:
        before = migrate.current(database.engine)
        migrate.upgrade(database.engine)
        after = migrate.current(database.engine)
    click.echo(f"revision {after}" if before == after else f"revision {before or 'none'} -> {after}")


@db.command(help="Show the revision of the database and the one that this code needs; exit 1 if they differ.")
def revision() -> None:
    """Changes nothing."""
    from allocator import migrate

    with _database() as database:
        found = migrate.current(database.engine)
    click.echo(f"database {found or 'none'}, needed {migrate.head()}")
    if found != migrate.head():
        raise SystemExit(1)


@click.group(help="Load the demonstration data and show its people.")
def demo() -> None:
    """Subcommands below."""


@demo.command(name="load", help="Fill an empty site with people, applications, bookings and use; once.")
@click.option("--login", help="What the start-up's head is called on the cluster.")
def load_(login: str | None) -> None:
    """Only with the setting `demo`: everybody knows these passwords."""
    import shlex

    from sqlalchemy import select

    from allocator import demo as demonstration
    from allocator.dividing.period_inputs import pseudonym_key
    from allocator.errors import Conflict
    from allocator.models import Cluster
    from allocator.policy import load_policy
    from config.clock import utcnow
    from config.settings import load_settings

    settings = load_settings()
    if not settings.demo:
        raise Conflict("The demonstration's data belongs in a demonstration: set demo = true.")
    with _database() as database, database.transaction() as session:
        if demonstration.is_loaded(session):
            click.echo("already loaded")
            return
        slug = settings.clusters[0].slug
        cluster = session.scalar(select(Cluster).where(Cluster.slug == slug))
        if cluster is None:
            raise Conflict("The cluster is not known yet: run `kezek slurm inventory` first.")
        failed = demonstration.load(
            session,
            cluster,
            load_policy(settings.policy_file),
            login=login,
            key=pseudonym_key(settings.secret_key.get_secret_value()),
            now=utcnow(),
        )
        # the story goes that a node has failed, and a simulated cluster knows no stories
        words = (
            ["kezek", "slurm", "node", failed.name, "down", "--reason", failed.reason or ""] if failed else []
        )
    click.echo("loaded")
    if words:
        click.echo(f"A node has failed by the story; a simulated cluster learns it by: {shlex.join(words)}")


@demo.command(name="people", help="Show whom to sign in as.")
def people_() -> None:
    """One line a person: address, who they are; the password is the same for all."""
    from allocator.demo import PASSWORD, PEOPLE

    click.echo(f"Everybody's password is {PASSWORD}")
    for person in PEOPLE.values():
        click.echo(f"  {person.email:<18} {person.name}, {person.what}")


@contextmanager
def _database() -> Iterator[Database]:
    """The site's database; what its driver says becomes one line."""
    from sqlalchemy.exc import SQLAlchemyError

    from allocator.db import Database
    from allocator.errors import Conflict
    from config.settings import load_settings

    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url)
    try:
        yield database
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Conflict("The database cannot be used: %(reason)s", {"reason": reason}) from error
    finally:
        database.dispose()
