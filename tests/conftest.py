"""Fixtures that every kind of test shares: settings, both databases, a counter of queries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import argon2
import hypothesis
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from allocator import migrate
from allocator.accounts import passwords
from allocator.db import Database
from config.settings import NOT_SETTINGS, Settings, load_settings
from tests import postgres
from tests.guard import forbid_outside_network, skips_are_failures

# The Slurm labs, for every folder that wants them.
pytest_plugins = ("tests.contract.labs", "tests.browser.chromium")

TEST_SECRET = "only-for-tests-only-for-tests-only-for-tests"


def pytest_configure(config: pytest.Config) -> None:
    """Cut tests off from the outside and from the settings of whoever runs them."""
    forbid_outside_network()
    # Two busy cores: a slow example is no failure, and what failed must be repeatable from the log.
    hypothesis.settings.register_profile("kezek", deadline=None, print_blob=True)
    # HYPOTHESIS_PROFILE=nightly looks twenty times as long for a counter-example.
    hypothesis.settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=10_000)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "kezek"))
    for name in [
        name for name in os.environ if name.startswith("KEZEK_") and not name.startswith(NOT_SETTINGS)
    ]:
        del os.environ[name]
    os.environ.pop("KEZEK_CONFIG", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of an integration test into a failure where skips may not happen."""
    report = yield
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and skips_are_failures() and item.get_closest_marker("integration"):
        report.outcome = "failed"
        report.longrepr = f"An integration test may not be skipped here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module skipped at import has lost its markers, so every such skip counts."""
    report = yield
    if report.skipped and skips_are_failures():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: a module may not skip itself here: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """No test sees settings that another one read from its environment."""
    yield
    load_settings.cache_clear()


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 is slow on purpose; only the tests of passwords themselves are about that."""
    monkeypatch.setattr(
        passwords, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A production-like site in its own folder, on SQLite, with the simulated cluster."""
    return Settings(data_dir=tmp_path, secret_key=TEST_SECRET, log_json=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """One real PostgreSQL a test process, on a private socket."""
    folder = postgres.binaries()
    if folder is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql-15)")
    server = postgres.start(folder)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from."""
    path = tmp_path_factory.mktemp("template") / "kezek.sqlite3"
    _migrate(f"sqlite+pysqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.PostgresServer) -> str:
    """The name of a migrated PostgreSQL database to clone."""
    name = "kezek_template"
    postgres_server.create(name)
    _migrate(postgres_server.url(name))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh migrated SQLite database."""
    path = tmp_path / "kezek.sqlite3"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+pysqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_copies(postgres_server: postgres.PostgresServer, postgres_template: str) -> postgres.Copies:
    """Where the tests of one process get their databases."""
    return postgres.Copies(postgres_server, postgres_template)


@pytest.fixture
def postgres_url(postgres_server: postgres.PostgresServer, postgres_copies: postgres.Copies) -> Iterator[str]:
    """A fresh migrated PostgreSQL database."""
    yield postgres_server.url(postgres_copies.take())
    postgres_copies.give_back()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh migrated database, once on SQLite and once on PostgreSQL."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The program's own way to sessions, on both databases in turn."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """PostgreSQL alone."""
    database = Database(postgres_url)
    yield database
    database.dispose()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """SQLite alone, for tests where the database does not matter."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def engine(database: Database) -> Engine:
    """The engine below `database`."""
    return database.engine


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A writing session that nobody commits unless the test does."""
    with database.writer() as session:
        yield session


@pytest.fixture
def count_queries() -> Callable[[Engine], AbstractContextManager[list[str]]]:
    """`with count_queries(engine) as statements:` collects every SQL statement that is run inside."""
    return _collect_statements


@contextmanager
def _collect_statements(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        # SQLite's BEGIN is sent by hand, PostgreSQL's by the driver: neither counts.
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _migrate(url: str) -> None:
    database = Database(url)
    try:
        migrate.upgrade(database.engine)
    finally:
        # PostgreSQL clones only a template that nobody is connected to.
        database.dispose()
