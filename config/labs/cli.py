"""`kezek lab`: private Slurm clusters for trying things out."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from config.labs import native
from config.labs.errors import LabError
from config.labs.forky import prepare
from config.labs.forky_build import check_release
from config.labs.native import NativeLab

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/slurm"),
    show_default=True,
    help="The lab's directory; its state persists there.",
)


@click.group(help="Private Slurm clusters for development and tests.")
def lab() -> None:
    """The group that `kezek` finds through its entry point."""


@lab.command(help="Start Slurm 22.05 and leave it running.")
@_ROOT
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option(
    "--gpus", type=click.IntRange(1, 64), default=8, show_default=True, help="Pretended H200 per node."
)
@click.option(
    "--base-port", type=click.IntRange(1024, 65000), help="First of nodes + 2 ports; free ones by default."
)
def start(root: Path, nodes: int, gpus: int, base_port: int | None) -> None:
    cluster = NativeLab(root, nodes=nodes, gpus=gpus, base_port=base_port)
    if any(pid for _, pid in cluster.status()):
        click.echo("The lab is already running.")
    else:
        native.install()
        cluster.start()
    _print_env(cluster)


@lab.command(help="End every process of the lab; its state stays.")
@_ROOT
def stop(root: Path) -> None:
    NativeLab(root).stop()


@lab.command(help="Show the lab's daemons and nodes; exit 1 when one is dead or none was started.")
@_ROOT
def status(root: Path) -> None:
    cluster = NativeLab(root)
    daemons = cluster.status()
    for name, pid in daemons:
        click.echo(f"{name:<16} {pid or 'dead'}")
    if not daemons or not all(pid for _, pid in daemons):
        raise SystemExit(1)
    click.echo(cluster.run("sinfo", "-N", "-o", "%N %T %G"), nl=False)


@lab.command(help='Print the environment of client commands: eval "$(kezek lab env)".')
@_ROOT
def env(root: Path) -> None:
    cluster = NativeLab(root)
    if not any(pid for _, pid in cluster.status()):
        raise LabError("No lab runs in %(root)s: kezek lab start", {"root": root})
    _print_env(cluster)


@lab.command(help="Run a client command as the lab's job user: kezek lab run -- sbatch …")
@_ROOT
@click.argument("command", nargs=-1, required=True)
def run(root: Path, command: tuple[str, ...]) -> None:
    """Takes this process's place, in the folder where it was called."""
    argv, environment = NativeLab(root).as_job_user(command)
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - the point of the command


@lab.command("prepare-forky", help="Build the Slurm 26.05 root and the pyslurm venv unless they are there.")
def prepare_forky() -> None:
    place = prepare()
    click.echo(f"Slurm {check_release(place)} in {place.root}, pyslurm for {place.python}")


def _print_env(cluster: NativeLab) -> None:
    for name, value in cluster.env.items():
        click.echo(f"export {name}={shlex.quote(value)}")
