"""Client commands of a lab: as its owner or as a person who submits jobs."""

from __future__ import annotations

import os
import pwd
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.labs.errors import LabError

# The one writable folder that every login and every root filesystem has; run directories lie in it too.
TMP = "/tmp"  # noqa: S108
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# People who submit jobs: they exist inside a lab only, in a passwd file that its processes see mounted.
GUESTS: Mapping[str, int] = {"guest1": 59001, "guest2": 59002, "guest3": 59003, "guest4": 59004}


class Clients(ABC):
    """How to talk to a cluster from outside."""

    @property
    @abstractmethod
    def slurm_conf(self) -> Path:
        """The file that SLURM_CONF names."""

    @property
    def env(self) -> dict[str, str]:
        """What client commands need in their environment besides PATH."""
        return {"SLURM_CONF": str(self.slurm_conf)}

    @property
    def client_prefix(self) -> list[str]:
        """Stands before `scontrol`, `sacctmgr`, `sacct`, `sinfo`; empty where they are on the PATH."""
        return []

    @abstractmethod
    def _as_user(self, argv: Sequence[str], user: str) -> list[str]:
        """The command line that runs a client command as another login."""

    @property
    def job_users(self) -> list[str]:
        """Logins that can run jobs: the lab's own guests when started by root, otherwise the caller's."""
        return list(GUESTS) if os.geteuid() == 0 else [pwd.getpwuid(os.geteuid()).pw_name]

    @property
    def job_user(self) -> str:
        """The login that sbatch() submits as."""
        return self.job_users[0]

    def run(self, *argv: str, user: str | None = None, stdin: str = "", timeout: float = 30) -> str:
        """A client command's output; raises LabError with what it said when it fails or hangs."""
        command = self._as_user(argv, user) if user else [*self.client_prefix, *argv]
        env = {"PATH": SYSTEM_PATH, "HOME": TMP, "LC_ALL": "C.UTF-8", **self.env}
        shown = " ".join(argv)
        try:
            done = subprocess.run(
                command,
                input=stdin,
                env=env,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError("%(command)s: no answer in %(s)s s", {"command": shown, "s": timeout}) from None
        if done.returncode:
            said = (done.stderr.strip() + "\n" + done.stdout.strip()).strip()
            raise LabError("%(command)s: %(said)s", {"command": shown, "said": said})
        return done.stdout

    def as_job_user(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """A client command as the job user would type it where the caller is: command line, environment."""
        return self._as_user(argv, self.job_user), {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", **self.env}

    def sbatch(self, args: Sequence[str], script: str, *, user: str | None = None) -> int:
        """Submit as `user` (the job user by default); returns the job's id."""
        quiet = ("--parsable", f"--chdir={TMP}", "--output=/dev/null")
        out = self.run("sbatch", *quiet, *args, user=user or self.job_user, stdin=script)
        return int(out.split(";")[0])

    def add_user(self, account: str, user: str | None = None) -> None:
        """Let a login submit under an account; both are made if need be."""
        login = user or self.job_user
        show = ["sacctmgr", "-n", "-P", "show"]
        # Asked first: the releases answer a repeated `add` with rc 1 and different words.
        if not self.run(*show, "account", account, "format=account").strip():
            self.run("sacctmgr", "-i", "add", "account", account)
        if not self.run(*show, "assoc", f"account={account}", f"user={login}", "format=user").strip():
            self.run("sacctmgr", "-i", "add", "user", login, f"account={account}")

    def node_state(self, node: str) -> set[str]:
        """A node's states as scontrol tells them; NOT_RESPONDING stands for the asterisk."""
        words = self.run("scontrol", "-o", "show", "node", node).split()
        state = next(word for word in words if word.startswith("State=")).removeprefix("State=")
        return set(state.replace("*", "+NOT_RESPONDING").split("+"))
