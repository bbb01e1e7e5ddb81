"""Debian packages: which are missing, and installing them by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from config.labs.clients import SYSTEM_PATH
from config.labs.errors import LabError, MissingPackages

_POLICY = Path("/usr/sbin/policy-rc.d")


def program(name: str) -> str | None:
    """Where a program is; daemons live in sbin, which is not on everybody's PATH."""
    return shutil.which(name, path=SYSTEM_PATH)


def missing(needed: Mapping[str, str]) -> list[str]:
    """The packages (keys) whose program or file (value) is absent."""
    return [package for package, name in needed.items() if program(name) is None and not Path(name).is_file()]


def missing_error(names: Sequence[str]) -> MissingPackages:
    """The sentence that tells a person what to do."""
    return MissingPackages(
        "Debian packages are missing. As root: apt-get install --no-install-recommends %(names)s",
        {"names": " ".join(names)},
    )


def root_prefix() -> list[str] | None:
    """[] as root, sudo where it works without a password, None where a person is needed."""
    if os.geteuid() == 0:
        return []
    sudo = program("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n", "env"]
    return None


def install(names: Sequence[str]) -> None:
    """apt-get install by name; raises MissingPackages without the right to, or LabError."""
    if not names:
        return
    prefix = root_prefix()
    if prefix is None or program("apt-get") is None:
        raise missing_error(names)
    with _no_services(prefix):
        # A machine that never updated its lists knows no package; a stale list names files that are gone.
        _apt(prefix, ["update"])
        _apt(prefix, ["install", "-y", "--no-install-recommends", *names])


def _apt(prefix: Sequence[str], arguments: Sequence[str]) -> None:
    settings = ["DEBIAN_FRONTEND=noninteractive", f"PATH={SYSTEM_PATH}"]
    # Somebody else may be installing: wait for the lock instead of failing.
    command = [*(prefix or ["env"]), *settings, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise LabError("apt-get %(what)s failed:\n%(words)s", {"what": " ".join(arguments), "words": words})


@contextmanager
def _no_services(prefix: Sequence[str]) -> Iterator[None]:
    """Keep package scripts from starting daemons: a lab starts its own, and nobody asked for the system's."""
    if _POLICY.exists():
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="kezek-policy-") as script:
        script.write("#!/bin/sh\nexit 101\n")
        script.flush()
        subprocess.run([*prefix, "install", "-m", "755", script.name, str(_POLICY)], check=True)
    try:
        yield
    finally:
        subprocess.run([*prefix, "rm", "-f", str(_POLICY)], check=True)
