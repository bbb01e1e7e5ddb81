"""Long lists come in pages, in an order that the view allows, with two queries."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from flask import Flask
from sqlalchemy import Engine, select

from allocator.actors import Role
from allocator.db import Database
from allocator.models.records import JobHealth
from config.clock import utcnow
from tests import factories
from tests.browsing import Site
from web.paging import here, order, paginate, paginate_rows, sorting

COLUMNS = {"name": JobHealth.name, "interval": JobHealth.interval_seconds}


@pytest.fixture
def app(demo_app: Flask, sqlite_database: Database) -> Flask:
    with sqlite_database.transaction() as session:
        session.add_all(
            JobHealth(name=f"job-{n:03}", leader="", interval_seconds=n % 7, started_at=utcnow())
            for n in range(53)
        )
    return demo_app


def test_a_page_costs_two_queries(
    app: Flask,
    sqlite_database: Database,
    count_queries: Callable[[Engine], AbstractContextManager[list[str]]],
) -> None:
    statement = select(JobHealth).order_by(JobHealth.name)
    with (
        app.test_request_context("/?page=3"),
        sqlite_database.reader() as session,
        count_queries(sqlite_database.engine) as statements,
    ):
        page = paginate(session, statement)
    assert [item.name for item in page.items] == ["job-050", "job-051", "job-052"]
    assert (page.number, page.pages, page.total, page.first, page.last) == (3, 3, 53, 51, 53)
    assert len(statements) == 2


@pytest.mark.parametrize(
    ("query", "number", "size"),
    [
        ("page=0", 1, 25),
        ("page=-1", 1, 25),
        ("page=99", 3, 3),
        ("page=NaN", 1, 25),
        ("page=9999999999999999999", 1, 25),
        ("limit=1000", 1, 53),
        ("limit=10&page=6", 6, 3),
        ("page=٣", 1, 25),
    ],
)
def test_nonsense_in_the_address_is_harmless(
    app: Flask, sqlite_database: Database, query: str, number: int, size: int
) -> None:
    with app.test_request_context(f"/?{query}"), sqlite_database.reader() as session:
        page = paginate_rows(session, select(JobHealth.name).order_by(JobHealth.name))
    assert (page.number, len(page.items)) == (number, size)


def test_an_empty_list_is_one_empty_page(app: Flask, sqlite_database: Database) -> None:
    with app.test_request_context("/"), sqlite_database.reader() as session:
        page = paginate(session, select(JobHealth).where(JobHealth.name == "none"))
    assert (page.number, page.pages, page.first, page.last) == (1, 1, 0, 0)


def test_only_allowed_columns_sort(app: Flask, sqlite_database: Database) -> None:
    with app.test_request_context("/?sort=interval&dir=desc"), sqlite_database.reader() as session:
        by = sorting(COLUMNS, "name")
        page = paginate(session, order(select(JobHealth), COLUMNS, by, JobHealth.name), limit=3)
    assert [(item.interval_seconds, item.name) for item in page.items] == [
        (6, "job-006"),
        (6, "job-013"),
        (6, "job-020"),
    ]
    with app.test_request_context("/?sort=leader;drop&dir=desc"):
        assert sorting(COLUMNS, "name").key == "name"


def test_links_keep_the_rest_of_the_address(app: Flask) -> None:
    with app.test_request_context("/gallery?sort=hours&state=a&state=b&lang=ru"):
        assert here(page=2, sort=None) == "/gallery?state=a&state=b&page=2"


HOSTILE = "endpoint=x&_scheme=javascript&_external=1&_anchor=x&_method=POST&quota_id=x&page=2"


@pytest.mark.parametrize(
    "path", ["/quotas/{quota}", "/bookings", "/review?state=any&", "/audit?", "/people?"]
)
def test_a_query_cannot_change_where_links_lead(site: Site, path: str) -> None:
    """What `url_for` takes for words of its own may stand in anybody's query."""
    with site.data() as session:
        reader = factories.person(session, roles=list(Role))
        quota = factories.quota(session, factories.application(session, reader, factories.cluster(session)))
    url = path.format(quota=quota.id)
    answer = site.browser_of(reader).get(f"{url}{'' if url.endswith(('?', '&')) else '?'}{HOSTILE}")
    assert answer.status_code == 200
    hrefs = re.findall(r'href="([^"]*)"', answer.text)
    assert hrefs
    assert all(href.startswith(("/", "#")) for href in hrefs)
