"""The `kezek` command: quick, lazy, and honest about what each part is."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from allocator.db import Database
from config.cli import GROUP, HELP, Parts, kezek
from config.errors import KezekError
from config.settings import Settings, SettingsError
from tests.guard import OutsideNetwork, _refuse_outside


def test_help_loads_no_part_of_kezek() -> None:
    code = (
        "import sys, config.cli\n"
        "try:\n    config.cli.kezek(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'sqlalchemy', 'flask', 'pydantic', 'numpy', 'numba'}\n"
        "heavy |= {'allocator', 'web', 'scheduler', 'metrics'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line in done.stdout for line in HELP.values())


def test_help_lists_exactly_the_installed_commands() -> None:
    assert {entry.name for entry in entry_points(group=GROUP)} == set(HELP)


@pytest.mark.parametrize("entry", entry_points(group=GROUP), ids=lambda entry: str(entry.name))
def test_the_help_table_says_what_each_command_says(entry: EntryPoint) -> None:
    command = entry.load()
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(limit=200) == HELP[entry.name]


@click.command()
def fails() -> None:
    """Fail as a use case does."""
    raise KezekError("no room for %(hours)s hours", {"hours": 5})


@click.command()
@click.argument("url")
def look(url: str) -> None:
    """Ask a database for a person who is not there."""
    with Database(url).reader() as session:
        session.execute(text("SELECT 1 FROM nobody"))


class OneCommand(Parts):
    """The real group over commands that are no installed part."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return {"fails": fails, "look": look}.get(cmd_name)


def test_an_error_is_one_line_and_an_exit_code() -> None:
    result = CliRunner().invoke(OneCommand(name="kezek"), ["fails"])
    assert (result.exit_code, result.stderr) == (1, "kezek: no room for 5 hours\n")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite+pysqlite:///{folder}/broken.sqlite3", "file is not a database"),
        ("sqlite+pysqlite:///{folder}/no/such/folder.sqlite3", "unable to open database file"),
        ("postgresql+psycopg://kezek:hush@127.0.0.1:1/kezek", "Connection refused"),
    ],
)
def test_a_database_that_is_away_or_broken_is_one_line(tmp_path: Path, url: str, reason: str) -> None:
    (tmp_path / "broken.sqlite3").write_text("no database " * 100)
    result = CliRunner().invoke(OneCommand(name="kezek"), ["look", url.format(folder=tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("kezek: the database: ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hush" not in result.stderr


def test_wrong_settings_are_listed_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEZEK_PORT", "many")
    result = CliRunner().invoke(kezek, ["doctor"])
    assert result.exit_code == SettingsError.exit_code
    assert "port: " in result.stdout
    assert "secret_key: " in result.stdout
    assert "Traceback" not in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(kezek, ["reticulate"])
    assert result.exit_code == 2
    assert "No such command" in result.stderr


def test_tests_cannot_reach_outside() -> None:
    with pytest.raises(OutsideNetwork):
        _refuse_outside("socket.connect", (None, ("192.0.2.1", 80)))
    _refuse_outside("socket.connect", (None, ("127.0.0.1", 80)))
    _refuse_outside("socket.connect", (None, "/run/some.sock"))


def test_a_message_without_details_keeps_its_per_cent_signs() -> None:
    assert str(KezekError("100 % booked")) == "100 % booked"


def test_settings_of_tests_are_production_like(settings: Settings) -> None:
    assert settings.demo is False
