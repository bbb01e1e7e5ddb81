"""`kezek user` and `kezek audit` on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, text

from allocator.accounts.sign_in import find_account, prove
from allocator.cli import audit, user
from allocator.db import Database
from allocator.models import Person
from config.cli import kezek
from config.settings import load_settings
from tests.conftest import TEST_SECRET

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("KEZEK_DATABASE_URL", database_url)
    monkeypatch.setenv("KEZEK_SECRET_KEY", TEST_SECRET)
    load_settings.cache_clear()

    def run(*arguments: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(kezek, arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    yield run
    load_settings.cache_clear()


def add(run: Run, *more: str, email: str = "dana@example.kz", stdin: str = "") -> Result:
    return run("user", "add", "--email", email, "--name", "Dana Omar", *more, stdin=stdin)


def test_adds_people_who_can_sign_in(run: Run, database_url: str) -> None:
    made = add(run, "--role", "administrator", "--role", "auditor")
    assert made.exit_code == 0
    password = made.output.split("password: ")[1].strip()
    given = add(run, "--password-stdin", email="Asel@example.kz", stdin="four calm grey camels\n")
    assert given.exit_code == 0
    assert "camels" not in given.output
    database = Database(database_url)
    with database.reader() as session:
        assert prove(find_account(session, "dana@example.kz"), password)
        assert prove(find_account(session, "asel@example.kz"), "four calm grey camels")
        assert all(session.scalars(select(Person.email_confirmed_at)))
    database.dispose()
    assert "administrator,auditor" in run("user", "list", "--role", "auditor").output
    assert "asel" not in run("user", "list", "--role", "auditor").output


def test_says_what_is_wrong_in_one_line_each(run: Run) -> None:
    add(run)
    wrong = add(run, "--password-stdin", stdin="short\n")
    assert wrong.exit_code == 1
    assert "password: Use at least 12 characters" in wrong.output
    assert "email: There is an account" in wrong.output
    assert run("user", "roles", "nobody@example.kz").exit_code == 1
    assert run("user", "roles", "dana@example.kz", "--grant", "emperor").exit_code == 2


def test_roles_logins_and_closing(run: Run) -> None:
    add(run, "--role", "administrator")
    last = run("user", "roles", "dana@example.kz", "--revoke", "administrator")
    assert last.exit_code == 1
    assert "last administrator" in last.output
    assert (
        run("user", "roles", "dana@example.kz", "--grant", "operator").output == "administrator, operator\n"
    )
    assert run("user", "cluster-login", "dana@example.kz", "root").exit_code == 1
    assert run("user", "cluster-login", "dana@example.kz", "domar").exit_code == 0
    add(run, email="asel@example.kz")
    assert run("user", "disable", "asel@example.kz", "--reason", "left").exit_code == 0
    assert "closed" in run("user", "list", "--find", "asel").output


def test_the_chain_is_shown_verified_and_exported(run: Run, database_url: str) -> None:
    add(run, "--role", "operator")
    assert "2 events, the chain holds" in run("audit", "verify").output
    assert "person.role_granted" in run("audit", "tail", "-n", "1").output
    lines = [json.loads(line) for line in run("audit", "export").output.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2]
    assert lines[1]["previous_hash"] == lines[0]["hash"]

    database = Database(database_url)
    with database.engine.begin() as link:  # somebody with the database in hand
        if link.dialect.name == "sqlite":
            for (name,) in link.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
                link.execute(text(f'DROP TRIGGER "{name}"'))
        else:
            link.execute(text("ALTER TABLE events DISABLE TRIGGER ALL"))
        link.execute(text("UPDATE events SET reason = 'forged' WHERE seq = 2"))
    database.dispose()
    broken = run("audit", "verify")
    assert broken.exit_code == 3
    assert "broken at link 2" in broken.output


def test_help_names_every_command() -> None:
    assert set(user.commands) == {"add", "roles", "list", "disable", "cluster-login"}
    assert set(audit.commands) == {"verify", "tail", "export"}
