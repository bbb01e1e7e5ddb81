"""What somebody who means harm would try, beyond what each page's own tests try."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from allocator.actors import Role
from allocator.models import OutboxItem
from config.settings import Settings
from tests import factories
from tests.browsing import Site, hidden_fields
from tests.conftest import TEST_SECRET
from tests.web.conftest import MakeApp
from web.limits import limiter


@pytest.fixture
def postgres_site(make_app: MakeApp, tmp_path: Path, postgres_url: str) -> Site:
    """The same site on PostgreSQL, which refuses some text that SQLite takes."""
    settings = Settings(
        data_dir=tmp_path, database_url=postgres_url, secret_key=TEST_SECRET, default_language="en"
    )
    return Site(make_app(settings))


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/audit/a%00b/1", "/clusters/a%00b", "/audit/%1f/1"])
def test_an_address_that_no_database_takes_is_not_found(postgres_site: Site, path: str) -> None:
    with postgres_site.data() as session:
        auditor = factories.person(session, roles=[Role.AUDITOR])
    assert postgres_site.browser_of(auditor).get(path).status_code == 404


@pytest.mark.integration
def test_forms_that_no_database_takes_are_refused(postgres_site: Site) -> None:
    with postgres_site.data() as session:
        factories.cluster(session)
        person = factories.person(session)
    browser = postgres_site.browser_of(person)
    fields = hidden_fields(browser.get("/applications/new"))
    assert browser.post("/applications/new", data=fields | {"submission": "\0" * 22}).status_code == 400
    filled = {
        "category": "citizen",
        "title": "Speech",
        "hardware": "alem\0/h200",
        "nodes": "1",
        "gpus_per_node": "1",
        "gpu_hours": "10",
        "earliest": "2027-01-10",
        "latest": "2027-02-10",
    }
    assert browser.post("/applications/new", data=fields | filled).status_code == 422


def test_other_spellings_of_an_address_bring_no_more_letters(site: Site) -> None:
    with site.data() as session:
        factories.person(session, email="victim@example.kz")
    limiter.reset()
    browser = site.visitor()
    spellings = [f"vic{chr(0x200B) * n}tim@EXAMPLE.kz" for n in range(8)]
    for spelling in spellings:
        fields = hidden_fields(browser.get("/account/forgotten"))
        browser.post("/account/forgotten", data=fields | {"email": spelling})
    limiter.reset()
    with site.data() as session:
        assert session.scalar(select(func.count()).select_from(OutboxItem)) == 5


def test_metrics_are_not_told_through_a_proxy_that_nobody_declared(site: Site) -> None:
    assert site.visitor().get("/metrics").status_code == 200
    through = site.visitor().get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    assert through.status_code == 404
