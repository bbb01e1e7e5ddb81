"""Running Slurm's command-line tools: without a shell, with an environment of our own, with an end.

What they say when they fail becomes a typed error here and nowhere else.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from config.settings import ClusterSettings
from scheduler.clusters.base import (
    ClusterError,
    Conflict,
    Exists,
    InUse,
    Missing,
    Refused,
    Unreachable,
)

_DEAD = (
    r"unable to contact|connection (refused|timed out|closed|reset)|unexpected message received"
    r"|socket timed out|zero bytes were transmitted|connect failure|communication|slurmctld\S* .*is DOWN"
    r"|protocol authentication|clock skew|slurmdbd.*(not|down)|could not resolve|no route to host"
    r"|standby mode|temporarily (un)?able|temporarily unavailable"
)
_WRONG = r"invalid account|invalid user id|invalid node|invalid time|already started"
# The first that matches counts. Both versions' words; the numbers are slurm_errno.h's, for pyslurm.
SAID: tuple[tuple[str, frozenset[int], type[ClusterError]], ...] = (
    (r"overlaps with another reservation", frozenset({2058}), Conflict),
    (r"requested nodes are busy", frozenset({2016}), Conflict),
    (r"duplicate reservation name", frozenset({2082}), Exists),
    (r"reservation is in use|job\(s\) active", frozenset({2055}), InUse),
    (r"requested reservation is invalid|reservation \S+ not found", frozenset({2053}), Missing),
    # Before the words of dead connections: a refusal may speak of communication too, not the other way round.
    (_WRONG, frozenset({2018, 2045, 2054}), Refused),
    (_DEAD, frozenset({*range(1000, 1009), *range(1800, 1806), 5004, 5005, 7000}), Unreachable),
)
# sacctmgr's way of saying that everything is already so; with rc 1.
_ALREADY = re.compile(r"nothing (new added|modified|deleted)", re.IGNORECASE)
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# These start a process that does not have our environment, the first through a shell.
_REMOTE = ("ssh",)
_CLEARS_ENVIRONMENT = ("ssh", "sudo", "doas")
# Slurm's tools end with 0 or 1. From 126 on a shell, env or ssh speaks (not found, killed, no connection),
# below 0 a signal: none of these is an answer of the cluster.
_NO_ANSWER = 126
# How long a killed tool's pipes may stay open: what it left behind may hold them for ever.
_LAST_WORDS_SECONDS = 2


def error_for(
    cluster: str, text: str, number: int = 0, unclear: type[ClusterError] = Refused
) -> ClusterError:
    """The typed error for what a tool said or for an errno; ``unclear`` when it said something else."""
    for pattern, numbers, kind in SAID:
        if number in numbers or re.search(pattern, text, re.IGNORECASE):
            return kind.said(cluster, text)
    return unclear.said(cluster, text or f"error {number}")


class Tools:
    """The tools of one cluster. Every run ends within ``timeout`` seconds, with what it started."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.slug = settings.slug
        self._prefix = settings.command_prefix
        self._timeout = settings.timeout
        self._environment = {
            # Numbers and UTC: no tool may show a time in a zone that we would have to guess.
            "LC_ALL": "C",
            "TZ": "UTC",
            "SLURM_TIME_FORMAT": "%s",
            **({"SLURM_CONF": str(settings.slurm_conf)} if settings.slurm_conf else {}),
            **settings.env,
        }

    def _command(self, argv: Sequence[str]) -> list[str]:
        starter = Path(self._prefix[0]).name if self._prefix else ""
        if starter in _CLEARS_ENVIRONMENT:
            argv = ["env", *(f"{name}={text}" for name, text in self._environment.items()), *argv]
        if starter in _REMOTE:
            argv = [shlex.quote(word) for word in argv]
        return [*self._prefix, *argv]

    def run(self, *argv: str, stdin: str = "", timeout: float | None = None) -> str:
        """What the tool printed; raises Unreachable on a timeout, and what the table above says on a
        failure."""
        seconds = timeout or self._timeout
        code, out, err = self._execute(self._command(argv), stdin, seconds)
        if code is None:
            raise Unreachable.said(self.slug, f"{argv[0]}: no answer within {seconds:g} s")
        said = f"{err.strip()}\n{out.strip()}".strip()
        if code == 0 or _ALREADY.search(said):
            return out
        unclear = Refused if 0 < code < _NO_ANSWER else Unreachable
        raise error_for(self.slug, f"{argv[0]}: {said or f'exit status {code}'}", unclear=unclear)

    def _execute(self, command: list[str], stdin: str, seconds: float) -> tuple[int | None, str, str]:
        environment = {
            # An empty part would mean the current directory.
            "PATH": ":".join(filter(None, (os.environ.get("PATH"), _PATH))),
            "HOME": os.environ.get("HOME", "/"),
        }
        try:
            process = subprocess.Popen(
                command,
                env=environment | self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                # A garbled byte must spoil its line, not the reading.
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise Unreachable.said(self.slug, f"{command[0]}: {error.strerror}") from error
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return None, "", ""
        return process.returncode, out, err


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a tool with all it started, but never wait for what cannot be killed."""
    # The whole group: what a prefix (ssh, a wrapper) started would keep the pipes open. Under sudo it is not
    # ours to kill, and a shared ssh connection lives on in a session of its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_LAST_WORDS_SECONDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.poll()
