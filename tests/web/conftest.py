"""Sites for web tests, closed again when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from allocator.upkeep import working_out
from config.settings import Settings
from tests.browsing import Site
from tests.conftest import TEST_SECRET
from web.app import create_app
from web.session import DATABASE

MakeApp = Callable[[Settings], Flask]


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repairs are searched for long enough to see pages, not for the best one."""
    monkeypatch.setattr(working_out, "SECONDS", 0.05)


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """`make_app(settings)`: the application of that site."""
    apps: list[Flask] = []

    def make(site: Settings) -> Flask:
        app = create_app(site)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions[DATABASE].dispose()


@pytest.fixture
def demo_settings(tmp_path: Path, sqlite_url: str) -> Settings:
    """A demonstration on an empty, migrated SQLite."""
    return Settings(data_dir=tmp_path, demo=True, database_url=sqlite_url, secret_key=TEST_SECRET)


@pytest.fixture
def demo_app(make_app: MakeApp, demo_settings: Settings) -> Flask:
    """The application of the demonstration."""
    return make_app(demo_settings)


@pytest.fixture
def visitor(demo_app: Flask) -> FlaskClient:
    """Somebody who has not signed in."""
    return demo_app.test_client()


@pytest.fixture
def site(make_app: MakeApp, tmp_path: Path, sqlite_url: str) -> Site:
    """A production-like site in English on an empty, migrated SQLite."""
    return Site(
        make_app(
            Settings(
                data_dir=tmp_path,
                database_url=sqlite_url,
                secret_key=TEST_SECRET,
                default_language="en",
                log_json=False,
            )
        )
    )
