"""Where a lab lives: its root (kept), its run directory (short, readable by all) and its ports."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from config.labs.clients import GUESTS, TMP
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


@dataclass(frozen=True)
class Host:
    """The name that daemons take for their machine's, its address, and the login they run as.

    `local`: that name resolves to `address`.
    """

    name: str
    address: str
    local: bool
    owner: str


class Place:
    """A lab's directories and the lock that keeps a second lab out of them."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        tag = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        # Neither TMPDIR nor XDG_RUNTIME_DIR: a socket's path must be short, and other logins must reach it.
        self.run = Path(TMP) / f"kezek-lab-{os.geteuid()}-{tag}"
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
        for name in (".", "etc", "spool"):
            self.open_folder(name)
        for path in (self.root / "ctld", self.root / "log"):
            path.mkdir(parents=True, exist_ok=True)

    def open_folder(self, name: str) -> Path:
        """A folder of the run directory that others may enter, whatever the umask is."""
        folder = self.run / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return folder

    def clear_run(self) -> None:
        """Drop the run directory of a stopped lab: a start makes it anew, and nobody else would."""
        if self.run.is_dir() and not self.run.is_symlink() and self.run.stat().st_uid == os.geteuid():
            # A killed slurmd's job folder may belong to a mapped login: no reason to fail.
            shutil.rmtree(self.run, ignore_errors=True)

    def remove(self) -> None:
        """Forget everything; only for a lab that is stopped."""
        self.clear_run()
        if self.root.exists():
            shutil.rmtree(self.root)

    def secret(self, name: str, size: int) -> Path:
        """A key of random bytes under the root, made once, readable by the owner alone."""
        file = self.root / name
        if not file.exists():
            self.private(file, secrets.token_bytes(size))
        return file

    def people(self, etc: Path) -> tuple[Path, Path]:
        """passwd and group files with the guests added to those of `etc`."""
        people = "".join(f"{login}:x:{uid}:{uid}::{TMP}:/bin/sh\n" for login, uid in GUESTS.items())
        groups = "".join(f"{login}:x:{uid}:\n" for login, uid in GUESTS.items())
        made = []
        for name, lines in (("passwd", people), ("group", groups)):
            file = self.open_folder("etc") / name
            file.write_text((etc / name).read_text(encoding="utf-8") + lines, encoding="utf-8")
            file.chmod(0o644)
            made.append(file)
        return made[0], made[1]

    def files(self, name: str, count: int) -> list[Path]:
        """Empty files that can stand for devices."""
        folder = self.open_folder(name)
        found = [folder / f"{name}{i}" for i in range(count)]
        for file in found:
            file.touch()
        return found

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
        saved = json.loads(file.read_text(encoding="utf-8"))
        first = saved.pop("first_port")
        return Plan(ports=range(first, first + saved["nodes"] + 2), **saved)

    def new_plan(self, sizes: Sizes, host: Host) -> Plan:
        """Choose ports (the saved ones when still free) and save the plan; nothing of ours may be running."""
        count = sizes.nodes + 2
        saved = self.saved_plan()
        first = sizes.base_port or (saved.ports[0] if saved else None)
        ports = range(first, first + count) if first else free_block(count)
        if not all_free(ports):
            if sizes.base_port:
                details = {"first": ports[0], "last": ports[-1]}
                raise LabError("Ports %(first)s to %(last)s are not free.", details)
            ports = free_block(count)
        plan = Plan(
            ports=ports,
            nodes=sizes.nodes,
            gpus=sizes.gpus,
            host=host.name,
            address=host.address,
            local=host.local,
            owner=host.owner,
            slurmd_timeout=sizes.slurmd_timeout,
        )
        record = {name: value for name, value in asdict(plan).items() if name != "ports"}
        text = json.dumps({"first_port": ports[0], **record}, indent=1)
        (self.root / "lab.json").write_text(text, encoding="utf-8")
        return plan
