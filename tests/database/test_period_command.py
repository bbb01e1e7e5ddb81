"""`kezek period` on a real database: a period from opening to the replay of its grants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from allocator.actors import Role
from allocator.db import Database
from allocator.dividing.period_cli import period
from config.settings import load_settings
from tests import factories
from tests.conftest import TEST_SECRET
from tests.dividing import DECEMBER, make_site

NAME = "alem-h200-2026-12-01"


@pytest.fixture
def database(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A site with two claims, and operators first@ and second@example.kz."""
    monkeypatch.setenv("KEZEK_DATABASE_URL", str(sqlite_database.engine.url))
    monkeypatch.setenv("KEZEK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KEZEK_SECRET_KEY", TEST_SECRET)
    load_settings.cache_clear()
    with sqlite_database.transaction() as session:
        site = make_site(session)
        for name in ("first", "second"):
            factories.person(session, email=f"{name}@example.kz", roles=[Role.OPERATOR])
        site.quota("science", 30_000)
        site.quota("startup", 500)
    return sqlite_database


def run(*arguments: str) -> Result:
    return CliRunner().invoke(period, arguments)


def opened() -> Result:
    days = ("--from", "2026-12-01", "--until", "2026-12-31")
    return run("open", "alem", "h200", *days, "--maintenance", "808", "--as", "first@example.kz")


def test_from_opening_to_replay(database: Database) -> None:
    assert f"period 1: {NAME}, 21850 GPU-hours, 2 claims" in opened().output
    proposed = run("propose", "1", "--name", "First", "--as", "first@example.kz").output
    assert "proposal 1 of" in proposed
    assert "science\t1\t30000\t6900\t21350" in proposed
    refused = run("publish", "1", "1", "--as", "first@example.kz")
    assert refused.exit_code != 0
    assert run("publish", "1", "1", "--as", "second@example.kz").output == f"{NAME} is published\n"
    assert run("list").output == f"1\t{NAME}\tpublished\t21850\t2\t1\n"
    replayed = run("replay", "1")
    assert (replayed.exit_code, replayed.output.splitlines()[-1]) == (0, "identical")


def test_replay_exits_1_where_it_differs(database: Database) -> None:
    opened()
    run("propose", "1", "--as", "first@example.kz")
    with database.transaction() as session:
        session.execute(text("DROP TRIGGER proposal_shares_no_update"))
        session.execute(text("UPDATE proposal_shares SET gpu_hours = 499 WHERE gpu_hours = 500"))
    replayed = run("replay", "1")
    assert replayed.exit_code == 1
    assert "recorded 499, computed 500" in replayed.output


def test_exports_under_pseudonyms(database: Database) -> None:
    opened()
    run("propose", "1", "--as", "first@example.kz")
    document = json.loads(run("export", "1").output)
    assert sum(document["shares"].values()) == 21_850
    assert document["about"]["starts_at"] == DECEMBER[0].isoformat()
    lines = run("export", "1", "--format", "csv").output.splitlines()
    assert len(lines) == 3
    whole = json.dumps(document) + "".join(lines)
    assert "Speech recognition" not in whole
    assert "Dala Labs" not in whole


def test_what_is_not_there_is_said_in_one_line(database: Database) -> None:
    for arguments in (("replay", "7"), ("export", "7"), ("open", "none", "h200", "--as", "first@example.kz")):
        result = run(*arguments)
        assert result.exit_code != 0
