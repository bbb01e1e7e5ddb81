"""`kezek up`: the demonstration in one command: database, data, web and scheduler, watched until Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import click

from config.errors import KezekError
from config.settings import ALEM, ClusterSettings, Settings, read_settings

READY_SECONDS = 20  # what a machine with nothing else to do takes at most
PATIENCE_SECONDS = 180  # a busy one is slow, and that is no fault
STOP_SECONDS = 10
ENVIRONMENT = "kezek.env"
LAB_NODES, LAB_GPUS = 4, 8
# This Python's own kezek, whatever PATH says.
PROGRAM = (sys.executable, "-m", "config.cli")
KEZEK = Path(sys.executable).parent / "kezek"
FIRST_STEPS = """\
What to try first
  1. Sign in as the head of the start-up: the first page shows what is booked and used.
  2. Register as yourself, apply for GPU-hours; sign in as the operator in a private window and approve it.
  3. Book the hours and watch the reservation appear on the cluster; look at the calendar.
  4. As the operator: a node has failed, Outages, Repairs shows how to mend the plan.
  5. Sign in as the second operator: Periods, the next month, publish what the first operator proposed.
     Without signing in, "Fairness" shows how each month was divided, with a script that recomputes it.
  Letters are in {mail}, logs in {logs}.
  Commands on this data, in another terminal: . {environment}; {kezek} doctor
  Ctrl-C stops everything; `make run` goes on with the same data."""
SLURM_STEPS = """\
Slurm runs. Look at it in another terminal: export SLURM_CONF={conf}; sinfo
Jobs run as {user}. To submit the line that a booking's page shows:
  cd /tmp; printf '#!/bin/sh\\nsleep 300\\n' > job.sh
  {kezek} lab run --root {root} -- sbatch …"""


class StartFailed(KezekError):
    """Something that Kezek needs at the start is not there."""

    code: ClassVar[str] = "up.failed"


class ChildDied(KezekError):
    """The web server or the scheduler ended by itself."""

    code: ClassVar[str] = "up.child_died"


@dataclass(frozen=True)
class Child:
    """A part of Kezek running as its own process group, so that Ctrl-C reaches it through us alone."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ChildDied, with the last line it wrote, when it is gone."""
        status = self.process.poll()
        if status is not None:
            details = {"name": self.name, "status": status, "line": last_line(self.log), "log": self.log}
            raise ChildDied("the %(name)s stopped (exit %(status)s): %(line)s (see %(log)s)", details)

    def signal(self, number: int) -> None:
        """Send to the whole group: gunicorn's workers must not outlive it."""
        # The whole group may be gone already.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def last_line(log: Path) -> str:
    """The last thing that was written to a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    return last.removeprefix("kezek: ").removeprefix("Error: ")


def check_port(host: str, port: int) -> None:
    """Raise StartFailed when somebody else listens there: gunicorn itself would retry for five seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            details = {"port": port, "why": error.strerror}
            raise StartFailed("port %(port)s: %(why)s; choose another: make run PORT=9000", details) from None


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: two schedulers on one simulated cluster would correct each other for ever."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "log").mkdir(exist_ok=True)
        lock: IO[str] = (data_dir / "up.lock").open("a")
    except OSError as error:
        raise StartFailed("%(data)s: %(why)s", {"data": data_dir, "why": error.strerror}) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = "Kezek already runs on the data in %(data)s; choose another folder: make run DATA=other"
            raise StartFailed(text, {"data": data_dir}) from None
        yield


class Supervisor:
    """Starts the parts with one environment, watches them, stops them."""

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        stopping: threading.Event,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.settings = settings
        self.env = dict(env)
        self.logs = settings.data_dir / "log"
        self.children: list[Child] = []
        self.stopping = stopping
        self.program = list(program)

    def run_once(self, *command: str) -> str:
        """Run a command to its end and return what it printed; raise StartFailed with its last words."""
        log = self.logs / f"{command[0]}.log"
        with log.open("ab") as errors:
            done = subprocess.run(
                [*self.program, *command], env=self.env, stdout=subprocess.PIPE, stderr=errors, check=False
            )
        if done.returncode != 0:
            details = {"command": " ".join(command), "line": last_line(log), "log": log}
            raise StartFailed("`kezek %(command)s` failed: %(line)s (see %(log)s)", details)
        return done.stdout.decode(errors="replace")

    def start(self, name: str, *command: str) -> None:
        """Start a part that runs until it is stopped."""
        log = self.logs / f"{command[0]}.log"
        # The kernel ends the parts when this process is killed outright and can no longer do it.
        bound = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*bound, *self.program, *command],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.children.append(Child(name, process, log))

    def wait_until_healthy(self) -> None:
        """Return when /healthz answers 200; raise with its reason after PATIENCE_SECONDS."""
        began = time.monotonic()
        reason, told = "no answer", False
        while not self.stopping.is_set():
            for child in self.children:
                child.check()
            healthy, reason = _ask(f"http://{_address(self.settings)}/healthz")
            if healthy:
                return
            waited = time.monotonic() - began
            if waited > READY_SECONDS and not told:
                click.echo(f"This takes longer than usual ({reason}); logs are in {self.logs} …")
                told = True
            if waited > PATIENCE_SECONDS:
                details = {"seconds": PATIENCE_SECONDS, "reason": reason, "logs": self.logs}
                raise StartFailed("not ready after %(seconds)s s: %(reason)s (logs in %(logs)s)", details)
            self.stopping.wait(0.1)

    def watch(self) -> None:
        """Return when asked to stop; raise ChildDied when a part ends by itself."""
        while not self.stopping.wait(0.3):
            for child in self.children:
                child.check()

    def stop(self) -> None:
        """Ask every part to end, then make it."""
        for child in self.children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in self.children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            # Also when it ended in time: what it started may not have.
            child.signal(signal.SIGKILL)
            child.process.wait()


def _address(settings: Settings) -> str:
    return (
        f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    )


def _ask(url: str) -> tuple[bool, str]:
    """Whether it answers 200, and what it says; a machine's proxy settings are not for loopback."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as answer:
            return answer.status == 200, answer.read(2000).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return False, f"{error.code} {error.read(2000).decode(errors='replace').strip()}"
    except OSError as error:
        return False, str(error.reason if isinstance(error, urllib.error.URLError) else error)


def write_environment(path: Path, env: Mapping[str, str]) -> None:
    """Every setting of this run as a file for the shell, so that commands elsewhere mean the same site."""
    values = {name: value for name, value in env.items() if name.startswith("KEZEK_")}
    values["KEZEK_DATA_DIR"] = str(path.parent.resolve())
    path.touch(mode=0o600)
    path.write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))
    )


def _environment(port: int | None, data: Path | None) -> dict[str, str]:
    """This process's environment with what `kezek up` decides: demonstration, port and folder."""
    env = {**os.environ, "KEZEK_DEMO": "1"}
    if port is not None:
        env["KEZEK_PORT"] = str(port)
    if data is not None:
        env["KEZEK_DATA_DIR"] = str(data)
    return env


@contextmanager
def real_slurm(root: Path) -> Iterator[tuple[ClusterSettings, str]]:
    """A private Slurm, installed if missing: the setting that reaches it, and the login that runs jobs."""
    # The labs load only for those who asked for a real Slurm.
    from config.labs.native import NativeLab, install, missing_packages

    absent = missing_packages()
    if absent:
        click.echo(f"Installing {', '.join(absent)} …")
        install()
    click.echo(f"Slurm with {LAB_NODES} nodes × {LAB_GPUS} GPUs is starting …")
    lab = NativeLab(root, nodes=LAB_NODES, gpus=LAB_GPUS)
    try:
        lab.start()
        click.echo(
            SLURM_STEPS.format(conf=lab.slurm_conf, user=lab.job_user, kezek=KEZEK, root=root.resolve())
        )
        reached = ALEM.model_copy(
            update={
                "adapter": "slurm_cli",
                "slurm_conf": lab.slurm_conf,
                "env": dict(lab.env),
                "nodes": LAB_NODES,
                "gpus": LAB_GPUS,
            }
        )
        yield reached, lab.job_user
    finally:
        lab.stop()


@click.command(help="Start web and scheduler together and watch over them.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Where the web server listens (8000).")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The folder for everything (var)."
)
@click.option("--cluster", type=click.Choice(["simulated", "slurm"]), default="simulated", show_default=True)
def up(port: int | None, data: Path | None, cluster: str) -> None:
    """Run the demonstration until Ctrl-C; exit 1 when a part cannot start or dies."""
    env = _environment(port, data)
    settings = read_settings(env)
    stopping, login = threading.Event(), None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        stack.enter_context(sole_owner(settings.data_dir))
        check_port(settings.host, settings.port)
        if cluster == "slurm":
            lab, login = stack.enter_context(real_slurm(settings.data_dir / "slurm"))
            env["KEZEK_CLUSTERS"] = f"[{lab.model_dump_json()}]"
        write_environment(settings.data_dir / ENVIRONMENT, env)
        supervisor = Supervisor(read_settings(env), env, stopping)
        stack.callback(supervisor.stop)
        run(supervisor, login)
        click.echo("\nStopping.")


def tell_story(supervisor: Supervisor, loaded: str) -> None:
    """Run the commands that loading has named: the simulated cluster has to show what the data tell."""
    for line in loaded.splitlines():
        _, named, command = line.partition(": kezek ")
        if named:
            supervisor.run_once(*shlex.split(command))


def run(supervisor: Supervisor, login: str | None = None) -> None:
    """From an empty folder to a running, watched Kezek; ``login`` is who can run jobs on a real Slurm."""
    settings = supervisor.settings
    click.echo("Kezek is starting: a minute at most, the first time with the data of the demonstration …")
    supervisor.run_once("db", "upgrade")
    supervisor.run_once("slurm", "inventory")
    loaded = supervisor.run_once("demo", "load", *(["--login", login] if login else []))
    if settings.clusters[0].adapter == "simulated":
        tell_story(supervisor, loaded)
    supervisor.start("web server", "web")
    supervisor.start("scheduler", "scheduler")
    people = supervisor.run_once("demo", "people")
    supervisor.wait_until_healthy()
    if supervisor.stopping.is_set():
        return
    mail = settings.mail.removeprefix("file:")
    click.echo(f"\nKezek is ready: {settings.base_url}\n\n{people.rstrip()}\n")
    environment = (settings.data_dir / ENVIRONMENT).resolve()
    click.echo(FIRST_STEPS.format(mail=mail, logs=supervisor.logs, environment=environment, kezek=KEZEK))
    sys.stdout.flush()
    supervisor.watch()
