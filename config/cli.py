"""The `kezek` command: every part's commands, found through entry points and loaded only when called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from config.errors import KezekError

GROUP = "kezek.commands"

# Kept here so that `kezek --help` loads no part at all; a test holds it to the commands' own help.
HELP: Mapping[str, str] = {
    "audit": "Verify the chain of events.",
    "db": "Create, upgrade and look at the database.",
    "demo": "Load the demonstration data and show its people.",
    "doctor": "Check settings, database, cluster, clock and mail.",
    "lab": "Private Slurm clusters for development and tests.",
    "period": "Divide capacity into periods, and recompute them.",
    "policy": "Check, show and compare policy files.",
    "scheduler": "Run the scheduler.",
    "slurm": "Show and apply what the cluster should hold.",
    "up": "Start web and scheduler together and watch over them.",
    "usage": "Read the cluster's accounting.",
    "user": "Add people and change their roles.",
    "web": "Run the web server.",
}


class Parts(click.Group):
    """A group whose commands are other packages' entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the installed commands."""
        return sorted(_installed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; an unknown name is None, a part that cannot be loaded one clear line."""
        entry = _installed().get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = entry.load()
        except (ImportError, AttributeError) as error:
            raise click.ClickException(f"{cmd_name} is not available: {error}") from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading one."""
        rows = [(name, HELP.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run, and make an exit code of a KezekError: the only place that does."""
        try:
            return super().invoke(ctx)
        except KezekError as error:
            click.echo(f"kezek: {error}", err=True)
            ctx.exit(error.exit_code)
        except _database_errors() as error:
            # Its subclasses, such as a broken constraint, are our fault and want their traceback.
            if type(error).__name__ not in {"DatabaseError", "OperationalError"}:
                raise
            # The driver's own first line; SQLAlchemy's text goes on with the statement and its values.
            reason = str(error.orig).strip().partition("\n")[0]
            click.echo(f"kezek: the database: {reason} (`kezek doctor` says more)", err=True)
            ctx.exit(1)


def _database_errors() -> tuple[type[Any], ...]:
    """What SQLAlchemy raises for a database that is away, broken or empty; nothing while nobody loaded it."""
    errors = sys.modules.get("sqlalchemy.exc")
    return (errors.DatabaseError,) if errors else ()


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


@click.group(cls=Parts, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kezek", message="Kezek %(version)s")
def kezek() -> None:
    """Kezek takes applications for GPU-hours, books the time and makes Slurm keep the promise.

    Settings come from KEZEK_… in the environment and from the TOML file that KEZEK_CONFIG names.
    """


def main() -> None:
    """The console script."""
    # A message in Kazakh must not die on a terminal that claims to know ASCII only.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    kezek(prog_name="kezek")


if __name__ == "__main__":
    main()
