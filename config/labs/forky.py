"""A private Slurm 26.05 inside a Debian forky, and a Python in which pyslurm works."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from config.labs import packages
from config.labs.clients import GUESTS
from config.labs.conf import mariadbd
from config.labs.database import Template, wait_for_database
from config.labs.errors import LabError
from config.labs.forky_build import HOST, Forky, check_release, forky, prepare
from config.labs.place import Host
from config.labs.slurm import SlurmLab

__all__ = ["Forky", "ForkyLab", "forky", "prepare"]

# Every process gets its own mounts over the shared, unwritten root; they vanish with it, so nothing has to be
# undone and nothing can be deleted through them.
_ENTER = """
root=$1 state=$2 run=$3 etc=$4 user=$5; shift 5
hostname {host}
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind /tmp "$root/tmp"
mount --bind "$run" "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
mount --bind "$etc/passwd" "$root/etc/passwd"
mount --bind "$etc/group" "$root/etc/group"
mkdir "$root/mnt/state"
mount --bind "$state" "$root/mnt/state"
exec chroot ${{user:+"--userspec=$user"}} "$root" "$@"
"""
_STATE = Path("/mnt/state")


class ForkyLab(SlurmLab):
    """Slurm 26.05 with auth/slurm; without root in a user namespace, which needs ranges in /etc/subuid.

    `python` imports pyslurm, in the environment `pyslurm_env`; clients run from outside with `client_prefix`.
    """

    _held: ExitStack | None = None

    @property
    def forky(self) -> Forky:
        return forky()

    @property
    def python(self) -> Path:
        """The interpreter of the venv that has pyslurm and EXTRA_PACKAGES."""
        return self.forky.python

    @property
    def pyslurm_env(self) -> dict[str, str]:
        """What `python` needs in its environment for pyslurm to reach this lab."""
        return self.env

    @property
    def env(self) -> dict[str, str]:
        return {
            "SLURM_CONF": str(self.slurm_conf),
            "SLURM_SACK_SOCKET": str(self._login / "slurm/sack.socket"),
        }

    @property
    def client_prefix(self) -> list[str]:
        return [str(self.forky.client)]

    @property
    def job_users(self) -> list[str]:
        # Also without root: the user namespace maps a whole range.
        return list(GUESTS)

    def start(self) -> None:
        """Build what is missing, then start; the root stays locked against rebuilding until stop()."""
        _check_namespaces()
        place = prepare()
        if self._held is None:
            self._held = ExitStack()
            self._held.enter_context(place.lock(fcntl.LOCK_SH))
        check_release(place)
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._held is not None:
            self._held.close()
            self._held = None

    @property
    def _login(self) -> Path:
        """/run of a login node: its sackd signs for clients, whichever of the cluster's daemons is dead."""
        return self.place.run / "login"

    def _state_seen(self) -> Path:
        return _STATE

    def _enter(self, argv: Sequence[str], *, run: str = "run", user: str = "") -> list[str]:
        namespaces = ["--mount", "--uts", "--propagation=private"]
        if os.geteuid() != 0:
            namespaces += ["--user", "--map-root-user", "--map-auto"]
        paths = [
            str(self.forky.root),
            str(self.place.root),
            str(self.place.run / run),
            str(self.place.run / "etc"),
            user,
        ]
        return ["unshare", *namespaces, "sh", "-euc", _ENTER.format(host=HOST), "kezek-lab", *paths, *argv]

    def _etc(self) -> Path:
        return self.forky.root / "etc"

    def _daemon(self, argv: Sequence[str]) -> list[str]:
        # Every node its own /run: they all bind /run/slurm/sack.socket, and who comes second dies.
        own = {"sackd": "login", "slurmd": f"run-{argv[-1]}"}.get(argv[0], "run")
        self.place.open_folder(own)
        return self._enter(argv, run=own)

    def _as_user(self, argv: Sequence[str], user: str) -> list[str]:
        # The cache may lie in a home that others cannot enter, so a job user comes in through the root.
        uid = GUESTS.get(user)
        server = f"SLURM_CONF={self.slurm_conf.with_name('server.conf')}"
        return self._enter(["env", server, *argv], user=f"{uid}:{uid}" if uid else "")

    def _auth(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        key = self.slurm_conf.with_name("slurm.key")
        self.place.private(key, self.place.secret("slurm.key", 64).read_bytes())
        return {"AuthType": "auth/slurm", "CredType": "cred/slurm"}, {"AuthType": "auth/slurm"}

    def _host(self) -> Host:
        return Host(HOST, "127.0.0.1", local=True, owner="root")

    def _cgroup_conf(self) -> str:
        return "CgroupPlugin=disabled\n"

    def _client_conf(self) -> str:
        return f"PluginDir={self.forky.libraries / 'slurm-wlm'}\n"

    def _start_database(self) -> None:
        self._spawn("sackd", ["sackd", "-D"])
        Template("forky", self.plan.owner, self._daemon).fill(self.place.root / "db", self.layout.run)
        # Since MariaDB 11.8 the default refuses slurmdbd's updates after concurrent reads.
        command = mariadbd(self.layout, self.plan.owner, ["--innodb-snapshot-isolation=OFF"])
        self._spawn("mariadbd", command)
        wait_for_database(self.layout.mysql_socket, lambda: self.daemons.pid("mariadbd") is not None)


def _check_namespaces() -> None:
    """Say what is missing before anything is built; root needs nothing."""
    if os.geteuid() == 0:
        return
    if packages.program("newuidmap") is None:
        raise packages.missing_error(["uidmap"])
    probe = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(
            "Slurm 26.05 runs as root, or where user namespaces are allowed and /etc/subuid and "
            "/etc/subgid give this login 65536 ids: %(said)s",
            {"said": done.stderr.strip()},
        )
