"""`kezek policy`: what an operator reads before a policy counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from allocator import policies
from allocator.db import Database
from allocator.policy import load_policy
from allocator.policy_cli import policy
from config.cli import Parts
from tests.factories import NOW

SHIPPED = Path(__file__).parents[2] / "config" / "policy.toml"


class PolicyAlone(Parts):
    """The real group over this one command."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return {"policy": policy}.get(cmd_name)


def run(*args: object) -> Result:
    return CliRunner().invoke(PolicyAlone(name="kezek"), ["policy", *map(str, args)])


@pytest.fixture(autouse=True)
def _a_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEZEK_DEMO", "true")
    monkeypatch.setenv("KEZEK_DATA_DIR", str(tmp_path))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.toml"
    text = SHIPPED.read_text(encoding="utf-8")
    path.write_text(text.replace("percent = 30\n", "percent = 29\n"), encoding="utf-8")
    return path


def test_a_good_policy_is_said_to_be_one() -> None:
    result = run("check", SHIPPED)
    assert result.exit_code == 0
    assert load_policy().version in result.stdout
    assert "nothing is wrong" in run("check").stdout


def test_each_fault_is_one_line_and_the_exit_code_is_2(other: Path) -> None:
    other.write_text(other.read_text(encoding="utf-8").replace("max_team = 50", "max_team = ''"), "utf-8")
    result = run("check", other)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0] == "other.toml:8: applications.max_team: must be a whole number"
    assert "make 99 %, not 100 %" in lines[1]


@pytest.mark.parametrize("command", ["show", "diff"])
def test_other_commands_refuse_a_faulty_file_too(command: str, other: Path) -> None:
    files = [other] if command == "show" else [SHIPPED, other]
    result = run(command, *files)
    assert result.exit_code == 2
    assert "make 99 %, not 100 %" in result.stderr
    assert "Traceback" not in result.output


def test_the_sites_own_policy_is_meant_when_no_file_is_named(
    other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEZEK_POLICY_FILE", str(other))
    assert run("check").exit_code == 2


def test_showing_in_short_and_whole() -> None:
    short = run("show").stdout
    for told in ("science         30 %", "70 %, 24 months", "OKED 01, 03", "below  20 % used", "placeholder"):
        assert told in short
    whole = run("show", "--json").stdout.removesuffix("\n")
    assert hashlib.sha256(whole.encode()).hexdigest() == load_policy().sha256


def test_what_changes_from_one_to_another(other: Path) -> None:
    other.write_text(
        other.read_text(encoding="utf-8").replace("reserve_percent = 5 ", "reserve_percent = 6 "), "utf-8"
    )
    lines = run("diff", SHIPPED, other).stdout.splitlines()
    assert lines[0] == f"{load_policy().version} -> {load_policy(other).version}"
    assert set(lines[1:]) == {"~ periods.reserve_percent: 5 -> 6", "~ pools.science.percent: 30 -> 29"}
    assert run("diff", SHIPPED, SHIPPED).stdout.startswith("the same policy")


def test_a_recorded_version_can_be_compared_with_a_file(
    other: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.write_text(
        other.read_text("utf-8").replace("reserve_percent = 5 ", "reserve_percent = 6 "), "utf-8"
    )
    monkeypatch.setenv("KEZEK_DATABASE_URL", sqlite_database.engine.url.render_as_string(hide_password=False))
    with sqlite_database.transaction() as session:
        version = policies.record(session, load_policy(), NOW).version
    assert "~ pools.science.percent: 30 -> 29" in run("diff", version, other).stdout
    never = run("diff", "2020-01-01-none", other)
    assert never.exit_code == 1
    assert "was never used here" in never.stderr
