"""`kezek period`: open, propose, publish, replay and export allocation periods without a browser.

What is heavy is imported inside the commands, so that help is there at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from allocator.cli import _faults_told, _person
from allocator.database_cli import _database

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from allocator.actors import Actor
    from allocator.models import Period, Proposal

DAY = click.DateTime(formats=["%Y-%m-%d"])
PERIOD = click.argument("period_id", type=int, metavar="ID")
AS = click.option("--as", "email", required=True, help="Address of the operator who does it.")


@click.group(help="Divide capacity into periods, and recompute them.")
def period() -> None:
    """Subcommands below."""


@period.command("list", help="Show the periods, the latest first.")
def list_() -> None:
    """Tab-separated: id, name, state, capacity in GPU-hours, claims, proposals."""
    from allocator.actors import SYSTEM
    from allocator.dividing.period_queries import list_periods

    with _database() as database, database.reader() as session:
        for one in session.scalars(list_periods(SYSTEM)):
            counts = (len(one.claims), len(one.proposals))
            click.echo("\t".join(map(str, (one.id, one.name, one.state.value, one.capacity, *counts))))


@period.command("open", help="Open a period: the next month without one, unless days are given.")
@click.argument("cluster")
@click.argument("gpu_type")
@click.option("--from", "since", type=DAY, help="First day.")
@click.option("--until", type=DAY, help="Last day.")
@click.option("--maintenance", type=click.IntRange(0), help="GPU-hours that stand still. [nodes down now]")
@click.option("--reserve", type=click.IntRange(0), help="GPU-hours kept back. [the policy's percentage]")
@AS
def open_(
    cluster: str,
    gpu_type: str,
    since: datetime | None,
    until: datetime | None,
    maintenance: int | None,
    reserve: int | None,
    email: str,
) -> None:
    """Days are those of the country's clock."""
    from dataclasses import replace

    from sqlalchemy import select

    from allocator.dividing import periods
    from allocator.dividing.period_inputs import pseudonym_key
    from allocator.errors import NotFound
    from allocator.models import Cluster
    from allocator.policy import load_policy
    from config.clock import utcnow
    from config.i18n import N_
    from config.settings import load_settings

    if (since is None) != (until is None):
        raise click.UsageError("Give both --from and --until, or neither.")
    settings = load_settings()
    with _database() as database, _faults_told(), database.transaction() as session:
        found = session.scalar(select(Cluster).where(Cluster.slug == cluster))
        if found is None:
            raise NotFound(N_("There is no cluster “%(slug)s”."), {"slug": cluster})
        opening = periods.suggestion(session, found, gpu_type, utcnow())
        if since is not None and until is not None:
            opening = periods.days(opening, since.date(), until.date())
        one = periods.open_period(
            session,
            _actor(session, email),
            replace(opening, maintenance=maintenance, reserve=reserve),
            policy=load_policy(settings.policy_file),
            key=pseudonym_key(settings.secret_key.get_secret_value()),
            now=utcnow(),
        )
        click.echo(f"period {one.id}: {one.name}, {one.capacity} GPU-hours, {len(one.claims)} claims")


@period.command(help="Divide a period: a new proposal, kept beside earlier ones.")
@PERIOD
@click.option("--name", default="", help="What to call the proposal.")
@AS
def propose(period_id: int, name: str, email: str) -> None:
    """Prints the proposal's number and the pools."""
    from allocator.dividing import period_opening
    from allocator.dividing.period_inputs import pseudonym_key
    from allocator.policy import load_policy
    from config.clock import utcnow
    from config.settings import load_settings

    settings = load_settings()
    with _database() as database, _faults_told(), database.transaction() as session:
        proposal = period_opening.propose(
            session,
            _actor(session, email),
            _period(session, period_id),
            policy=load_policy(settings.policy_file),
            key=pseudonym_key(settings.secret_key.get_secret_value()),
            name=name,
            now=utcnow(),
        )
        _show(proposal)


@period.command(help="Publish a proposal: makes the grants. Not by who proposed or adjusted it.")
@PERIOD
@click.argument("number", type=int)
@AS
def publish(period_id: int, number: int, email: str) -> None:
    """NUMBER is the proposal's number in the period."""
    from allocator.dividing import publication
    from config.clock import utcnow

    with _database() as database, _faults_told(), database.transaction() as session:
        one = _period(session, period_id)
        publication.publish(
            session,
            _actor(session, email),
            _proposal(session, one, number),
            expected_version=one.version,
            now=utcnow(),
        )
        click.echo(f"{one.name} is published")


@period.command(help="Recompute a period from what was recorded; exit 1 where it does not come out the same.")
@PERIOD
def replay(period_id: int) -> None:
    """Shares, pools, weights by the recorded policy, and grants."""
    from allocator.dividing.replay import replay as again

    with _database() as database, database.reader() as session:
        found = again(session, _period(session, period_id))
    policy = found.policy_version + ("" if found.policy_found else " (not recorded: weights not checked)")
    click.echo(f"{found.period}: {found.proposals} proposals, {found.shares} shares, policy {policy}")
    for one in found.mismatches:
        click.echo(f"{one.what} {one.reference}: recorded {one.recorded}, computed {one.computed}")
    click.echo("identical" if found.identical else f"{len(found.mismatches)} differences")
    if not found.identical:
        raise SystemExit(1)


@period.command(help="Write a period's inputs and result for the stand-alone checker, under pseudonyms.")
@PERIOD
@click.option("--number", type=int, help="Of the proposal. [the published or latest one]")
@click.option("--format", "kind", type=click.Choice(["json", "csv"]), default="json")
def export(period_id: int, number: int | None, kind: str) -> None:
    """To standard output."""
    import csv
    import json
    import sys

    from allocator.dividing import period_exports

    with _database() as database, database.reader() as session:
        proposal = _proposal(session, _period(session, period_id), number)
        if kind == "json":
            click.echo(json.dumps(period_exports.document(proposal), ensure_ascii=False, indent=1))
        else:
            csv.writer(sys.stdout).writerows(period_exports.csv_rows(proposal))


def _show(proposal: Proposal) -> None:
    from allocator.dividing.period_queries import pool_rows

    click.echo(f"proposal {proposal.number} of {proposal.period.name}")
    for pool in pool_rows(proposal):
        cells = (pool.slug, pool.claims, pool.demand, pool.guarantee, pool.share, pool.lent, pool.borrowed)
        click.echo("\t".join(map(str, cells)))


def _period(session: Session, period_id: int) -> Period:
    from allocator.actors import SYSTEM
    from allocator.dividing.period_queries import find_period

    return find_period(session, SYSTEM, period_id)


def _proposal(session: Session, one: Period, number: int | None) -> Proposal:
    from allocator.actors import SYSTEM
    from allocator.dividing.period_queries import find_proposal, latest_proposal
    from allocator.errors import NotFound
    from config.i18n import N_

    if number is None:
        found = latest_proposal(session, one)
    else:
        ids = [proposal.id for proposal in one.proposals if proposal.number == number]
        found = find_proposal(session, SYSTEM, ids[0]) if ids else None
    if found is None:
        raise NotFound(N_("The period has no such proposal."))
    return found


def _actor(session: Session, email: str) -> Actor:
    from allocator.accounts import people

    return people.load_actor(session, _person(session, email))
