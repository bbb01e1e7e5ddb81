"""One live demonstration site and one browser for all browser tests of a process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from config.settings import Settings
from tests.browser.harness import CHROMIUM, LiveSite, launch, serve
from web.app import create_app


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; every test opens its own context in it (`harness.visit`)."""
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    """A site in demonstration mode with an empty, migrated database."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    with serve(create_app(Settings(data_dir=folder, demo=True))) as site:
        yield site
