"""Running tools: they end in time with all they started, in our environment, and no word becomes two."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from config.settings import ClusterSettings
from scheduler.clusters.base import Account, Garbled, Missing, Refused, Unreachable
from scheduler.clusters.names import check_account, plain_text
from scheduler.clusters.slurm_cli import SlurmCliCluster
from scheduler.clusters.slurm_tools import Tools

# Whoever waited for the child instead of ending it would be that late.
CHILD_SECONDS = 60


def tools(*prefix: str, **changes: object) -> Tools:
    values: dict[str, object] = {
        "slug": "alem",
        "adapter": "slurm_cli",
        "command_prefix": prefix,
        "timeout": 2,
    }
    return Tools(ClusterSettings.model_validate(values | changes))


def script(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def test_a_tool_that_hangs_ends_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    # The child holds the pipes open: killing the tool alone would not be enough.
    hangs = script(tmp_path, "hangs", f"sleep {CHILD_SECONDS} & echo $! > {mark}; wait")
    begin = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
        tools().run(str(hangs), timeout=0.5)
    assert time.monotonic() - begin < CHILD_SECONDS / 2
    child = int(mark.read_text())
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the child lives on")


def test_a_tool_that_is_not_there() -> None:
    with pytest.raises(Unreachable, match="No such file"):
        tools().run("kezek-no-such-tool")


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Almaty")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SECRET", "x")
    told = dict(
        line.split("=", 1) for line in tools(env={"A": "b"}, slurm_conf="/s.conf").run("env").splitlines()
    )
    assert (told["TZ"], told["LC_ALL"], told["SLURM_TIME_FORMAT"]) == ("UTC", "C", "%s")
    assert (told["A"], told["SLURM_CONF"]) == ("b", "/s.conf")
    assert "SECRET" not in told


def test_words_stay_words(tmp_path: Path) -> None:
    shows = script(tmp_path, "shows", 'for word; do echo "<$word>"; done')
    assert tools(str(shows)).run("a b", "$(id)", "x|y") == "<a b>\n<$(id)>\n<x|y>\n"


def test_words_stay_words_through_ssh(tmp_path: Path) -> None:
    # What ssh does with its words: one line for the other side's shell, which has another environment.
    ssh = script(tmp_path, "ssh", 'shift; exec env -i PATH="$PATH" sh -c "$*"')
    assert tools(str(ssh), "login1").run("printf", "<%s>", "a b", "$(id)", "x|y") == "<a b><$(id)><x|y>"
    assert "TZ=UTC" in tools(str(ssh), "login1").run("env").splitlines()


def test_nothing_new_is_no_error(tmp_path: Path) -> None:
    already = script(tmp_path, "sacctmgr", 'echo " Nothing new added."; exit 1')
    assert "Nothing" in tools().run(str(already))


def test_a_silent_failure_is_told(tmp_path: Path) -> None:
    silent = script(tmp_path, "silent", "exit 3")
    with pytest.raises(Refused, match="exit status 3"):
        tools().run(str(silent))


def test_what_a_tool_leaves_behind_keeps_nobody_waiting(tmp_path: Path) -> None:
    """As a shared ssh connection does: in a session of its own, out of reach, holding our pipes."""
    mark = tmp_path / "pid"
    leaves = script(tmp_path, "leaves", f"setsid sh -c 'echo $$ > {mark}; exec sleep {CHILD_SECONDS}' & wait")
    begin = time.monotonic()
    with pytest.raises(Unreachable, match="no answer"):
        tools().run(str(leaves), timeout=0.5)
    assert time.monotonic() - begin < CHILD_SECONDS / 2
    os.kill(int(mark.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("ending", ["kill -9 $$", "exit 127", "exit 137", "exit 255"])
def test_a_tool_that_did_not_come_to_an_answer_was_refused_nothing(tmp_path: Path, ending: str) -> None:
    with pytest.raises(Unreachable, match="exit status"):
        tools().run(str(script(tmp_path, "dies", ending)))


def test_words_count_more_than_the_exit_status(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        tools().run(str(script(tmp_path, "says", "echo 'Requested reservation is invalid'; exit 225")))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert tools().run(str(script(tmp_path, "bytes", r"printf '\377|ok\n'"))) == "\ufffd|ok\n"


def test_a_controller_that_tells_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(
        tmp_path,
        "scontrol",
        'case "$1" in ping) echo "Slurmctld(primary) at x is UP";; *) echo nonsense;; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cluster = SlurmCliCluster(ClusterSettings(slug="alem", adapter="slurm_cli"))
    for work in (cluster.health, cluster.nodes, cluster.partitions, cluster.reservations, cluster.accounts):
        with pytest.raises(Garbled):
            work()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Weather model, phase 2 (CFD)", "weather model phase 2 cfd"),
        ("a':Description='b':Organization='root", "a description b organization root"),
        ("Тіл моделі", ""),
        ("x\ny\0z", "x y z"),
        ("w" * 500, "w" * 120),
    ],
)
def test_descriptions_are_plain(given: str, kept: str) -> None:
    assert plain_text(given) == kept


def test_limits_are_bounded() -> None:
    for minutes in (-1, 10**13):
        with pytest.raises(Refused):
            check_account("alem", Account("kezek-q1", "x", minutes))
