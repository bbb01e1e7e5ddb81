"""The harness itself: a service that is missing is seen, and both databases start migrated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from allocator import events, migrate
from allocator.actors import SYSTEM
from allocator.db import Database
from tests import factories

ROOT = Path(__file__).parents[2]
CASES = """
import pytest

@pytest.mark.integration
def test_of_a_service():
    pytest.skip("no service here")

def test_of_something_else():
    pytest.skip("not on this machine")
"""


def outcome(tmp_path: Path, case: str, no_skip: bool) -> str:
    """The last line of a pytest of its own, under this project's configuration and hooks."""
    file = tmp_path / "test_case.py"
    file.write_text(case)
    env = {name: value for name, value in os.environ.items() if name not in {"CI", "KEZEK_NO_SKIP"}}
    if no_skip:
        env["KEZEK_NO_SKIP"] = "1"
    options = ["-q", "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), "-p", "tests.conftest"]
    command = [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[-1]


def test_a_skipped_service_is_a_failure_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    assert outcome(tmp_path, CASES, no_skip=False).startswith("2 skipped")
    assert outcome(tmp_path, CASES, no_skip=True).startswith("1 failed, 1 skipped")


def test_a_module_that_skips_itself_is_a_failure_too(tmp_path: Path) -> None:
    case = "import pytest\npytest.importorskip('no_such_module')\n"
    assert outcome(tmp_path, case, no_skip=False).startswith("1 skipped")
    assert "1 error" in outcome(tmp_path, case, no_skip=True)


def test_databases_start_migrated_and_empty(
    database: Database, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    assert migrate.current(database.engine) == migrate.head()
    with count_queries(database.engine) as statements, database.reader() as session:
        assert session.scalar(text("SELECT count(*) FROM people")) == 0
    assert len(statements) == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_one_tests_rows_are_not_another_ones(database: Database, turn: int) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE left_behind (turn integer)"))
        session.execute(text("INSERT INTO left_behind VALUES (:turn)"), {"turn": turn})


@pytest.mark.parametrize(("turn", "disarmed"), [(1, False), (2, True), (3, False)])
def test_a_database_comes_back_as_it_was_made(database: Database, turn: int, disarmed: bool) -> None:
    """Numbers and the chain of events begin anew, and a guard that was switched off is on again."""
    with database.transaction() as session:
        person = factories.person(session)
        events.record(session, SYSTEM, person, "person.registered", after={"turn": turn}, now=factories.NOW)
        assert (person.id, session.scalar(text("SELECT max(seq) FROM events"))) == (1, 1)
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text("UPDATE events SET kind = 'x'"))
    if disarmed:
        with database.transaction() as session:
            sqlite = session.get_bind().dialect.name == "sqlite"
            session.execute(
                text("DROP TRIGGER events_no_update" if sqlite else "ALTER TABLE events DISABLE TRIGGER ALL")
            )
