"""One live demonstration site for all browser tests of a process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from tests.browser.harness import LiveSite, serve
from web.app import create_app


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    """A site in demonstration mode with an empty, migrated database."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    with serve(create_app(Settings(data_dir=folder, demo=True))) as site:
        yield site
