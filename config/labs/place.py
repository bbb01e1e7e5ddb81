"""Where a lab lives: its root (kept), its run directory (short, readable by all) and its ports."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from config.labs.conf import Plan
from config.labs.errors import LabError
from config.labs.ports import all_free, free_block


@dataclass(frozen=True)
class Sizes:
    """What the caller asked for; without `base_port` the saved or a random free block is taken."""

    nodes: int
    gpus: int
    base_port: int | None
    slurmd_timeout: int


class Place:
    """A lab's directories and the lock that keeps a second lab out of them."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        tag = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        # Neither TMPDIR nor XDG_RUNTIME_DIR: a socket's path must be short, and other logins must reach it.
        self.run = Path("/tmp") / f"kezek-lab-{os.geteuid()}-{tag}"
        self._lock: IO[str] | None = None

    def claim(self) -> None:
        """Hold the root for as long as this process lives, so that no second lab starts over it."""
        if self._lock is not None:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / "owner.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise LabError("Another process runs the lab in %(root)s.", {"root": self.root}) from None
        self._lock = lock

    def release(self) -> None:
        """Let others have the root."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def make(self) -> None:
        """Create the directories; refuses a run directory that somebody else put there."""
        self.run.mkdir(mode=0o755, exist_ok=True)
        # In a folder that everybody may write to, a prepared directory or link would give our sockets away.
        if self.run.is_symlink() or self.run.stat().st_uid != os.geteuid():
            raise LabError("%(path)s belongs to another user: remove it.", {"path": self.run})
        for path in (self.run, self.run / "etc", self.run / "spool"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)  # whatever the umask was: the job user reads here
        for path in (self.root / "ctld", self.root / "log"):
            path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Forget everything; only for a lab that is stopped."""
        for directory in (self.run, self.root):
            if directory.exists():
                shutil.rmtree(directory)

    def secret(self, name: str, size: int) -> Path:
        """A key of random bytes under the root, made once, readable by the owner alone."""
        file = self.root / name
        if not file.exists():
            self.private(file, secrets.token_bytes(size))
        return file

    @staticmethod
    def private(file: Path, content: bytes) -> None:
        """Write a file that is mode 600 before there is anything in it."""
        new = file.with_name(file.name + ".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
        new.replace(file)

    def saved_plan(self) -> Plan | None:
        """The plan of the lab that runs or ran here."""
        file = self.root / "lab.json"
        if not file.exists():
            return None
        saved: Mapping[str, object] = json.loads(file.read_text(encoding="utf-8"))
        ports = range(int(str(saved["base_port"])), int(str(saved["base_port"])) + int(str(saved["nodes"])) + 2)
        return Plan(
            ports=ports,
            nodes=int(str(saved["nodes"])),
            gpus=int(str(saved["gpus"])),
            host=str(saved["host"]),
            address=str(saved["address"]),
            owner=str(saved["owner"]),
            slurmd_timeout=int(str(saved["slurmd_timeout"])),
        )

    def new_plan(self, sizes: Sizes, host: str, address: str) -> Plan:
        """Choose ports (the saved ones when still free) and save the plan; nothing of ours may be running."""
        count = sizes.nodes + 2
        saved = self.saved_plan()
        first = sizes.base_port or (saved.ports[0] if saved else None)
        ports = range(first, first + count) if first else free_block(count)
        if not all_free(ports):
            if sizes.base_port:
                raise LabError("Ports %(first)s to %(last)s are not free.", {"first": ports[0], "last": ports[-1]})
            ports = free_block(count)
        owner = pwd.getpwuid(os.geteuid()).pw_name
        plan = Plan(ports, sizes.nodes, sizes.gpus, host, address, owner, sizes.slurmd_timeout)
        record = {
            "base_port": ports[0],
            "nodes": plan.nodes,
            "gpus": plan.gpus,
            "host": host,
            "address": address,
            "owner": owner,
            "slurmd_timeout": plan.slurmd_timeout,
        }
        (self.root / "lab.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        return plan
