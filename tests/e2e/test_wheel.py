"""The wheel installs from the lock into a clean environment and carries all that is read at run time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One of each kind: packaging forgets whole kinds, not single files.
CARRIED = [
    "allocator/migrations/env.py",
    "allocator/migrations/script.py.mako",
    "config/policy.toml",
    "config/locale/kk/LC_MESSAGES/messages.mo",
    "config/locale/ru/LC_MESSAGES/messages.mo",
    "web/templates/base.html",
    "web/static/vendor/bootstrap/bootstrap.min.css",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    _checkout(source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("kezek-*.whl"))


def test_the_wheel_carries_what_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert [name for name in CARRIED if name not in names] == []
    # Whatever git keeps below the packages is in the wheel, except what only a checkout needs.
    kept = {name for name in _tracked() if name.partition("/")[0] in _packages()}
    assert sorted(kept - names) == []
    assert not any(name.startswith("tests/") for name in names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_from_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet"]
    lock = ROOT / "config/locks/run.txt"
    subprocess.run(
        [*pip, "--require-hashes", "--no-deps", "--no-compile", "-r", str(lock)],
        check=True,
        capture_output=True,
    )
    # Not --no-deps: a dependency that setup.cfg declares and the lock lacks must show.
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, capture_output=True)
    env = {"PATH": "/usr/bin:/bin", "KEZEK_DEMO": "1", "KEZEK_DATA_DIR": str(tmp_path / "data")}

    def kezek(*command: str) -> str:
        done = subprocess.run(
            [str(venv / "bin/kezek"), *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "doctor" in kezek("--help")
    kezek("db", "upgrade")
    kezek("slurm", "inventory")
    kezek("demo", "load")
    assert "FAIL" not in kezek("doctor")
    everything = "import allocator.cli, web.app, scheduler.cli, metrics, config.labs.cli"
    subprocess.run([str(venv / "bin/python"), "-c", everything], cwd=tmp_path, env=env, check=True)


def _packages() -> set[str]:
    return {"allocator", "config", "metrics", "scheduler", "web"}


def _tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listing.stdout.split("\0") if name and not name.startswith("config/locks/")]


def _checkout(target: Path) -> None:
    """A copy of what git tracks: build leftovers of the working folder must not help."""
    for name in _tracked():
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
