"""`kezek up`: starts, watches and stops real child processes; every trouble is one line."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from config import supervisor
from config.cli import kezek
from config.errors import KezekError
from config.settings import Settings
from config.supervisor import ChildDied, StartFailed, Supervisor, check_port, run, sole_owner

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def supervise(tmp_path: Path, free_port: int) -> Iterator[Callable[[str], Supervisor]]:
    made: list[Supervisor] = []
    (tmp_path / "log").mkdir()

    def make(trouble: str) -> Supervisor:
        settings = Settings(demo=True, data_dir=tmp_path, port=free_port)
        env = {**os.environ, "KEZEK_PORT": str(free_port), "STAND_IN": trouble}
        made.append(Supervisor(settings, env, threading.Event(), STAND_IN))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def alive(one: Supervisor) -> list[str]:
    return [child.name for child in one.children if child.process.poll() is None]


def stop_when_ready(one: Supervisor) -> None:
    """As Ctrl-C would, a moment after the web answers; on a busy machine that takes its time."""
    address = one.settings.host, one.settings.port
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                break
        time.sleep(0.1)
    time.sleep(1.5)
    one.stopping.set()


def test_it_greets_when_healthy_and_stops_everything(
    supervise: Callable[[str], Supervisor], capsys: pytest.CaptureFixture[str]
) -> None:
    one = supervise("")
    threading.Thread(target=stop_when_ready, args=(one,)).start()
    run(one)
    assert alive(one) == ["web server", "scheduler"]
    one.stop()
    assert alive(one) == []
    said = capsys.readouterr().out
    assert f"Kezek is ready: {one.settings.base_url}" in said
    assert "operator@example.kz  a-password" in said


@pytest.mark.parametrize("command", ["db upgrade", "demo load", "demo people"])
def test_a_command_that_fails_is_one_line(supervise: Callable[[str], Supervisor], command: str) -> None:
    one = supervise(f"{command} fails")
    with pytest.raises(StartFailed) as caught:
        run(one)
    assert f"`kezek {command}` failed: {command}: the disk is full" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_simulated_cluster_is_told_the_story(supervise: Callable[[str], Supervisor]) -> None:
    told = "slurm node gpu0001 down --reason XID 79"
    with pytest.raises(StartFailed) as caught:
        run(supervise(f"{told} fails"))
    assert f"`kezek {told}` failed" in str(caught.value)


def test_a_part_that_dies_is_named(supervise: Callable[[str], Supervisor]) -> None:
    one = supervise("scheduler dies")
    with pytest.raises(ChildDied) as caught:
        run(one)
    assert str(caught.value).startswith("the scheduler stopped (exit 1): scheduler: lost its database")
    one.stop()
    assert alive(one) == []


def test_what_never_gets_healthy_tells_why(
    supervise: Callable[[str], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 1)
    with pytest.raises(StartFailed) as caught:
        run(supervise("unhealthy"))
    assert "503 the scheduler is silent" in str(caught.value)


def test_a_part_that_will_not_end_is_made_to(
    supervise: Callable[[str], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 1)
    one = supervise("scheduler stubborn")
    one.start("scheduler", "scheduler")
    time.sleep(0.5)
    one.stop()
    assert alive(one) == []


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(kezek, ["up", "--port", str(port), "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"kezek: port {port}: Address already in use; choose another: make run PORT=9000\n"
    )


def test_a_free_port_passes(free_port: int) -> None:
    check_port("127.0.0.1", free_port)


def test_one_data_folder_has_one_owner(tmp_path: Path) -> None:
    with sole_owner(tmp_path), pytest.raises(StartFailed, match="already runs"), sole_owner(tmp_path):
        pytest.fail("two owners")
    with sole_owner(tmp_path):
        pass  # the first one let go


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KezekError, match="Not a directory"), sole_owner(tmp_path / "file" / "data"):
        pytest.fail("no folder")
