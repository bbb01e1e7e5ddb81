"""Pages about periods ask the database as often for sixteen quotas as for four."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from config.clock import utcnow
from config.settings import Settings
from tests.browsing import Site
from tests.conftest import TEST_SECRET
from tests.period_pages import make_scene
from web.app import create_app

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]

BUDGET = 24  # a division is read in parts: period, pools, claims, proposal, shares, and the people in it
PAGES = (
    "/periods?",
    "/periods/{proposed}?",
    "/periods/{proposed}/compare?",
    "/periods/{proposed}/what-if?capacity=9000&",
    "/periods/{proposed}/replay?",
    "/periods/{period}/grants?",
    "/periods/{period}/redivide?",
    "/proposals/{proposal}/shares/{claimed}?",
    "/proposals/{proposal}/publish?",
    "/proposals/{proposal}/division.json?",
    "/proposals/{proposal}/division.csv?",
    "/quotas/{own}?",
    "/quotas/{own}/periods/{period}?request=100&",
    "/fairness?",
    "/fairness/{period}?",
)


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[list[tuple[Site, FlaskClient, dict[str, int]]]]:
    made = []
    for count in (4, 16):
        folder = tmp_path_factory.mktemp("site")
        shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
        site = Site(create_app(Settings(data_dir=folder, secret_key=TEST_SECRET, default_language="en")))
        with site.data() as session:
            scene = make_scene(session, utcnow())
            ids = scene.fill(count)
        made.append((site, site.browser_of(scene.one), ids))
    yield made
    for site, _, _ in made:
        site.database.dispose()


@pytest.mark.parametrize("path", PAGES)
def test_many_cost_no_more_queries_than_few(
    sites: list[tuple[Site, FlaskClient, dict[str, int]]], count_queries: CountQueries, path: str
) -> None:
    asked = []
    for site, browser, ids in sites:
        with count_queries(site.database.engine) as statements:
            answer = browser.get(f"{path.format(**ids)}limit=100", buffered=True)
        assert answer.status_code == 200, answer.text
        asked.append(statements)
    few, many = asked
    assert len(many) <= len(few), "\n".join(many)
    assert len(many) <= BUDGET, "\n".join(many)
