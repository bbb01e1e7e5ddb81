"""Builds what the Slurm 26.05 lab runs in: a small Debian forky, a venv with pyslurm. Cached."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.labs import packages
from config.labs.apt_sources import debian_mirror
from config.labs.database import cache_dir
from config.labs.errors import LabError

RELEASE = "26.05"
PYSLURM = "pyslurm==25.11.2"
# What the contract tests need beside pyslurm in its venv.
EXTRA_PACKAGES = ["pytest", "sqlalchemy", "pydantic-settings", "click", "babel"]
# libmariadb3 is trixie's: with forky's own slurmdbd does not start.
_INCLUDE = (
    "slurmctld,slurmd,slurmdbd,sackd,slurm-client,slurm-wlm-basic-plugins,libslurm-dev,"
    "mariadb-server,libmariadb3/trixie,ca-certificates"
)
_SUITES = ("forky", "trixie")
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_SHIM = Path(__file__).parent / "shim"
# The host name inside (its own UTS namespace), so that Slurm finds 127.0.0.1 whatever the machine is called.
HOST = "kezek-lab"


@dataclass(frozen=True)
class Forky:
    """Where the parts are."""

    base: Path

    @property
    def root(self) -> Path:
        """The Debian forky: never written to once it is built."""
        return self.base / "root"

    @property
    def venv(self) -> Path:
        return self.base / "venv"

    @property
    def python(self) -> Path:
        """A Python that runs on forky's C library, so that pyslurm finds what libslurmfull needs."""
        return self.venv / "bin/python"

    @property
    def client(self) -> Path:
        """Runs one of the root's client commands from outside: `client scontrol show res`."""
        return self.base / "client"

    @property
    def libraries(self) -> Path:
        """The root's library directory, with its dynamic loader."""
        return self.loader.parent

    @property
    def loader(self) -> Path:
        found = sorted(self.root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
        if not found:
            raise LabError("%(root)s has no dynamic loader.", {"root": self.root})
        return found[0]

    @contextmanager
    def lock(self, how: int) -> Iterator[None]:
        """fcntl.LOCK_SH while a lab runs, LOCK_EX while something is built."""
        self.base.mkdir(parents=True, exist_ok=True)
        with (self.base / "lock").open("a") as file:
            fcntl.flock(file, how)
            yield


def forky() -> Forky:
    """The one under the cache folder."""
    return Forky(cache_dir() / "forky")


def _base_python() -> Path:
    """The interpreter that this one's venv was made from: pyslurm's venv outlives a checkout's."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def needed_packages() -> list[str]:
    """The Debian packages that are missing for building and running."""
    include = Path(sysconfig.get_path("include"))
    needed = {"mmdebstrap": "mmdebstrap", "gcc": "gcc", "libc6-dev": "/usr/include/stdio.h"}
    if sys.base_prefix == "/usr":
        # Debian's Python comes in parts; one from elsewhere has its headers and ensurepip with it.
        needed |= {"python3-dev": str(include / "Python.h")}
        needed |= {"python3-venv": f"{sysconfig.get_path('stdlib')}/ensurepip/__init__.py"}
    return packages.missing(needed)


def install() -> None:
    """Install what building needs; MissingPackages says what to do without the right to."""
    packages.install(needed_packages())


def prepare() -> Forky:
    """Build what is not there or no longer matches its recipe; others who ask meanwhile wait.

    Raises MissingPackages, or LabError when the root's Slurm is not 26.05.x (Debian forky moves).
    """
    place = forky()
    if _current(place):
        return place
    with place.lock(fcntl.LOCK_EX):
        if not _is(place.root, "root", _root_recipe()):
            install()
            _build_root(place)
        check_release(place)
        if not _is(place.venv, "venv", _venv_recipe(place)):
            install()
            _build_venv(place)
        _write_client(place)
    return place


def check_release(place: Forky) -> str:
    """The root's Slurm release; raises LabError when the shim is not made for it."""
    header = (place.root / "usr/include/slurm/slurm_version.h").read_text(encoding="utf-8")
    found = re.search(r"SLURM_VERSION_NUMBER\s+0x([0-9a-f]{6})", header)
    number = int(found[1], 16) if found else 0
    release = f"{number >> 16:02d}.{number >> 8 & 255:02d}.{number & 255}"
    if not release.startswith(RELEASE + "."):
        details = {"found": release, "wanted": RELEASE, "root": place.root}
        raise LabError(
            "Debian forky now has Slurm %(found)s, this lab is made for %(wanted)s.x: adapt config/labs "
            "(the header shim above all) and remove %(root)s.",
            details,
        )
    return release


def _current(place: Forky) -> bool:
    if not _is(place.root, "root", _root_recipe()):
        return False
    check_release(place)
    return _is(place.venv, "venv", _venv_recipe(place)) and place.client.exists()


def _stamp(recipe: object) -> str:
    return hashlib.sha256(repr(recipe).encode()).hexdigest()


def _is(path: Path, name: str, recipe: object) -> bool:
    """Whether `path` was built, completely, by this recipe: the stamp is written last."""
    stamp = path.with_name(f"{name}.stamp")
    return path.is_dir() and stamp.exists() and stamp.read_text(encoding="ascii") == _stamp(recipe)


def _finish(path: Path, name: str, recipe: object) -> None:
    path.with_name(f"{name}.stamp").write_text(_stamp(recipe), encoding="ascii")


def _root_recipe() -> object:
    return (_INCLUDE, _SUITES, _EXCLUDED, HOST, "1")


def _venv_recipe(place: Forky) -> object:
    shim = [file.read_text(encoding="utf-8") for file in sorted(_SHIM.rglob("*.h"))]
    python = (str(_base_python()), sys.version)
    return (_root_recipe(), PYSLURM, EXTRA_PACKAGES, shim, python, str(place.base))


def _call(argv: Sequence[str], what: str, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise LabError("%(what)s failed:\n%(words)s", {"what": what, "words": words})


def _build_root(place: Forky) -> None:
    (place.base / "root.stamp").unlink(missing_ok=True)
    new = place.base / "root.new"
    prefix = packages.root_prefix()
    for path in (new, place.root):
        # Mounts are made in a lab's own namespace only, so there is nothing mounted here to fall into.
        if path.exists():
            _call([*(prefix or []), "rm", "-rf", "--one-file-system", str(path)], f"removing {path}")
    mirror = debian_mirror()
    command = [
        *(prefix or []),
        "mmdebstrap",
        "--variant=minbase",
        # Without root or sudo it needs ranges in /etc/subuid and /etc/subgid, and says so.
        f"--mode={'unshare' if prefix is None else 'root'}",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        f"--include={_INCLUDE}",
        f'--customize-hook=echo 127.0.0.1 localhost {HOST} > "$1/etc/hosts"',
        _SUITES[0],
        str(new),
        *(f"deb {mirror} {suite} main" for suite in _SUITES),
    ]
    _call(command, "mmdebstrap")
    new.rename(place.root)
    _finish(place.root, "root", _root_recipe())


def _build_venv(place: Forky) -> None:
    (place.base / "venv.stamp").unlink(missing_ok=True)
    if place.venv.exists():
        shutil.rmtree(place.venv)
    _call([str(_base_python()), "-m", "venv", str(place.venv)], "python -m venv")
    pip = [str(place.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "setuptools", "wheel", "Cython", "packaging"], "pip install of the build tools")
    with tempfile.TemporaryDirectory(dir=place.base) as folder:
        # Only Slurm's headers: the root's others belong to another C library.
        shutil.copytree(place.root / "usr/include/slurm", Path(folder, "include/slurm"))
        parallel = Path(folder, "dist.cfg")
        parallel.write_text(f"[build_ext]\nparallel = {os.cpu_count() or 1}\n", encoding="ascii")
        env = {
            "CPATH": f"{folder}/include",
            "SLURM_INCLUDE_DIR": str(_SHIM),
            "SLURM_LIB_DIR": str(place.libraries),
            "PYSLURM_BUILD_JOBS": str(os.cpu_count() or 1),
            "DIST_EXTRA_CONFIG": str(parallel),
            "CFLAGS": "-O0 -g0",
        }
        # pip would keep the wheel, and serve it after the shim or Slurm has changed.
        options = ["--no-cache-dir", "--no-binary=pyslurm", "--no-build-isolation", "--no-deps"]
        _call([*pip, *options, PYSLURM], "pip install pyslurm", env)
    _call([*pip, *EXTRA_PACKAGES], "pip install of the test tools")
    _wrap_python(place)
    _try_pyslurm(place)
    _finish(place.venv, "venv", _venv_recipe(place))


def _wrap_python(place: Forky) -> None:
    """Replace the venv's interpreters by a script that starts the real one through forky's loader."""
    script = _loader_script(place, '"$0"', str(_base_python()))
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        file = place.venv / "bin" / name
        file.unlink(missing_ok=True)
        _executable(file, script)


def _try_pyslurm(place: Forky) -> None:
    """Import it once, so that a missing symbol shows here; importing reads a slurm.conf."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder, "slurm.conf")
        plugins = place.libraries / "slurm-wlm"
        conf.write_text(f"ClusterName=none\nSlurmctldHost=localhost\nPluginDir={plugins}\n", encoding="utf-8")
        command = [str(place.python), "-c", "import pyslurm"]
        _call(command, "import pyslurm", {"SLURM_CONF": str(conf)})


def _write_client(place: Forky) -> None:
    script = _loader_script(place, '"$name"', f'"{place.root}/usr/bin/$name"')
    _executable(place.client, script.replace("exec", "name=$1\nshift\nexec", 1))


def _loader_script(place: Forky, name: str, program: str) -> str:
    # The second is where the programs' own run path points, which outside is another Slurm's.
    path = f"{place.libraries}:{place.libraries}/slurm-wlm"
    return f'#!/bin/sh\nexec {place.loader} --argv0 {name} --library-path {path} {program} "$@"\n'


def _executable(file: Path, script: str) -> None:
    new = file.with_name(file.name + ".new")
    new.write_text(script, encoding="utf-8")
    new.chmod(0o755)
    new.replace(file)
