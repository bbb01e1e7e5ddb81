"""A private Slurm 22.05 from Debian 12's own packages; needs no root."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.labs import packages
from config.labs.clients import GUESTS
from config.labs.conf import mariadbd
from config.labs.database import Template, wait_for_database
from config.labs.place import Host
from config.labs.slurm import SlurmLab

# The program that shows that a package is there.
PACKAGES: Mapping[str, str] = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "slurm-client": "scontrol",
    "munge": "munged",
    "mariadb-server": "mariadbd",
}

_LOOPBACK = "127.0.0.1"


def missing_packages() -> list[str]:
    """The Debian packages that a NativeLab still lacks."""
    return packages.missing(PACKAGES)


def install() -> None:
    """Install what is missing, as root or with sudo; otherwise MissingPackages says what to do."""
    packages.install(missing_packages())


class NativeLab(SlurmLab):
    """munged, MariaDB and Slurm 22.05 as ordinary processes of this machine."""

    def start(self) -> None:
        if absent := missing_packages():
            raise packages.missing_error(absent)
        super().start()

    def _state_seen(self) -> Path:
        return self.place.root

    def _etc(self) -> Path:
        return Path("/etc")

    def _daemon(self, argv: Sequence[str]) -> list[str]:
        # The sbin directories are not on everybody's PATH.
        return [*self._with_guests(), packages.program(argv[0]) or argv[0], *argv[1:]]

    def _as_user(self, argv: Sequence[str], user: str) -> list[str]:
        if os.geteuid() != 0:
            return list(argv)
        uid = GUESTS.get(user) or pwd.getpwnam(user).pw_uid
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        return [*self._with_guests(), *become, *argv]

    def _with_guests(self) -> list[str]:
        """Run in a mount namespace where the lab's guests have logins; the machine's files stay."""
        if os.geteuid() != 0:
            return []
        etc = self.slurm_conf.parent
        script = 'mount --bind "$1" /etc/passwd; mount --bind "$2" /etc/group; shift 2; exec "$@"'
        files = [str(etc / "passwd"), str(etc / "group")]
        return ["unshare", "--mount", "--propagation=private", "sh", "-euc", script, "kezek-lab", *files]

    def _auth(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        info = f"socket={self.layout.munge_socket}"
        dbd = {"AuthType": "auth/munge", "AuthInfo": info}
        # Without the last line clients ask the system's munge for slurmdbd's credentials.
        return {**dbd, "CredType": "cred/munge", "AccountingStoragePass": self.layout.munge_socket}, dbd

    def _host(self) -> Host:
        name = socket.gethostname().split(".")[0]
        owner = pwd.getpwuid(os.geteuid()).pw_name
        try:
            local = socket.gethostbyname(name) == _LOOPBACK
        except OSError:
            local = False
        # Debian's installer maps the name to 127.0.1.1. Bound to that, slurmctld would miss what slurmdbd
        # sends to the address it was called from: then, as with a network address, it listens everywhere.
        return Host(name, _LOOPBACK, local, owner)

    def _cgroup_conf(self) -> str:
        return "CgroupAutomount=no\n"

    def _start_database(self) -> None:
        run = self.layout.run
        key = self.place.secret("munge.key", 128)
        files = {"key-file": key, "socket": self.layout.munge_socket, "pid-file": run / "munged.pid"}
        files |= {"log-file": self.layout.logs / "munged.log", "seed-file": self.place.root / "munge.seed"}
        # --force: munged distrusts directories that others can write to, such as the one above ours.
        options = [f"--{name}={file}" for name, file in files.items()]
        self._spawn("munged", ["munged", "--foreground", "--force", "--num-threads=2", *options])
        Template("native", self.plan.owner, self._daemon).fill(self.layout.database, run)
        self._spawn("mariadbd", mariadbd(self.layout, self.plan.owner))
        wait_for_database(self.layout.mysql_socket, lambda: self.daemons.pid("mariadbd") is not None)
