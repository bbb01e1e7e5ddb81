"""`kezek scheduler`, `kezek slurm` and `kezek usage`; what they need is imported when they run."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING

import click

from config.errors import KezekError
from config.settings import ClusterSettings, Settings, load_settings

if TYPE_CHECKING:
    from allocator.db import Database
    from scheduler.clusters.base import Cluster
    from scheduler.plan import Plan

# As diff has it: 0 alike, 2 (not 1, which is trouble) different.
DIFFERENT = 2
COLOURS = {"+": "green", "-": "red", "!": "yellow"}


@click.command(help="Run the scheduler.")
@click.option("--once", is_flag=True, help="Run every job once and end; exit 1 if one fails.")
def scheduler(once: bool) -> None:
    """Run until SIGTERM or Ctrl-C; exit 0 after finishing the step at hand."""
    from config.logging import set_up
    from scheduler.jobs import Scheduler

    settings = load_settings()
    set_up(settings)
    stop = threading.Event()

    def finish(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, finish)
    process = Scheduler(settings, stop)
    if once:
        sys.exit(0 if process.run_once() else 1)
    process.run()


@click.group(help="Show and apply what the cluster should hold.")
def slurm() -> None:
    """Subcommands below."""


one_cluster = click.option("--cluster", "slug", help="Only this cluster.")


@slurm.command(help="Show what differs, as a diff; exit 0 nothing to do, 2 differences.")
@one_cluster
def plan(slug: str | None) -> None:
    """Changes nothing."""
    from scheduler.reconcile import look

    settings = load_settings()
    differs = False
    with _database(settings) as database:
        for chosen in _chosen(settings, slug):
            found = look(database, _connect(settings, chosen), _materialise(settings))
            differs |= _show(chosen.slug, found.plan)
    sys.exit(DIFFERENT if differs else 0)


@slurm.command(name="apply", help="Make the cluster hold what it should; exit 1 if a step fails.")
@one_cluster
def apply_(slug: str | None) -> None:
    """One round of what the scheduler does for ever; harmless beside a running scheduler."""
    from config.clock import utcnow
    from scheduler.reconcile import reconcile

    settings = load_settings()
    failed = False
    with _database(settings) as database:
        for chosen in _chosen(settings, slug):
            outcome = reconcile(database, _connect(settings, chosen), _materialise(settings), utcnow())
            _show(chosen.slug, outcome.plan)
            for name, error in sorted(outcome.failures.items()):
                click.secho(f"failed {name}: {error}", fg="red", err=True)
                failed = True
    sys.exit(1 if failed else 0)


@slurm.command(help="Read health and nodes now; the scheduler does it every minute.")
@one_cluster
def inventory(slug: str | None) -> None:
    """What bookings and applications can ask for, before the scheduler has run."""
    from config.clock import utcnow
    from scheduler.inventory import take

    settings = load_settings()
    with _database(settings) as database:
        for chosen in _chosen(settings, slug):
            count = take(database, _connect(settings, chosen), utcnow())
            click.echo(f"cluster {chosen.slug}: {count} nodes with GPUs")


@slurm.command(
    help="Let a node of a simulated cluster fail or come back; the inventory sees it within a minute."
)
@click.argument("name")
@click.argument("state", type=click.Choice(["up", "down", "drained"]))
@click.option("--reason", default="", help="What the operators read.")
@one_cluster
def node(name: str, state: str, reason: str, slug: str | None) -> None:
    """For trying out what follows from it; nodes of a real cluster are its administrators'."""
    from scheduler.clusters.base import NodeState
    from scheduler.clusters.simulated import SimulatedCluster

    settings = load_settings()
    chosen = next(iter(_chosen(settings, slug)))
    cluster = _connect(settings, chosen)
    if not isinstance(cluster, SimulatedCluster):
        raise KezekError("The cluster %(slug)s is real: use its own tools.", {"slug": chosen.slug})
    cluster.set_node(name, NodeState(state), reason)
    click.echo(f"{name} is {state}")


@click.group(help="Read the cluster's accounting.")
def usage() -> None:
    """Subcommands below."""


@usage.command(name="import", help="Read jobs from where the last reading ended, or from an earlier day.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]), help="In the site's time zone.")
@one_cluster
def import_(since: datetime | None, slug: str | None) -> None:
    """Goes day by day; cut short, it continues where it ended."""
    from config.clock import utcnow
    from scheduler.usage import import_usage

    settings = load_settings()
    begin = since.replace(tzinfo=settings.zone) if since else None

    def progress(day: datetime, jobs: int) -> None:
        click.echo(f"  until {day:%Y-%m-%d %H:%M} UTC: {jobs} jobs", err=True)

    with _database(settings) as database:
        for chosen in _chosen(settings, slug):
            cluster = _connect(settings, chosen)
            outcome = import_usage(database, cluster, utcnow(), since=begin, progress=progress)
            numbers = ", ".join(
                f"{name.replace('_', ' ')} {count}" for name, count in outcome.summary.items()
            )
            click.echo(f"{chosen.slug}: {numbers}")
            for account, count in outcome.unknown_accounts.most_common(10):
                click.echo(f"  account {account!r} is no quota's: {count} jobs")
            for sample in outcome.samples:
                click.echo(f"  not understood: {sample!r}")


def _show(slug: str, plan: Plan) -> bool:
    """Print the plan; returns whether there is anything to do."""
    lines = list(plan.lines())
    click.echo(f"cluster {slug}: {len(plan.steps)} to do" if plan.steps else f"cluster {slug}: nothing to do")
    for line in lines:
        click.secho(line, fg=COLOURS.get(line[:1]))
    return bool(plan.steps)


def _chosen(settings: Settings, slug: str | None) -> Iterable[ClusterSettings]:
    if slug is None:
        return settings.clusters
    cluster = settings.cluster(slug)
    if cluster is None:
        known = ", ".join(known.slug for known in settings.clusters)
        raise KezekError(
            "There is no cluster %(slug)s; there are: %(known)s.", {"slug": slug, "known": known}
        )
    return (cluster,)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from allocator.db import Database
    from config.clock import utcnow
    from scheduler.inventory import declare

    database = Database(settings.database_url)
    try:
        declare(database, settings, utcnow())
        yield database
    finally:
        database.dispose()


def _connect(settings: Settings, cluster: ClusterSettings) -> Cluster:
    from scheduler.clusters import connect

    return connect(cluster, autopilot=settings.demo)


def _materialise(settings: Settings) -> timedelta:
    from allocator.policy import load_policy

    return load_policy(settings.policy_file).bookings.materialise
