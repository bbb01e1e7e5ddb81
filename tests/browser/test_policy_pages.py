"""The rules and the decision with its merit band for eyes and for axe, in three languages and two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from allocator.actors import Role
from allocator.db import Database
from allocator.models import Person
from allocator.states import ApplicationState
from config.settings import Settings
from tests import factories
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from web.app import create_app
from web.session import DATABASE

pytestmark = pytest.mark.integration

OPERATOR = "oraz@example.kz"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    """A site with an operator and one application that waits."""
    folder = tmp_path_factory.mktemp("policy")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    with database.transaction() as session:
        factories.person(session, email=OPERATOR, name="Oraz Operator", roles=[Role.OPERATOR])
        head = factories.person(session, name="Dana Applicant")
        company = factories.organisation(session, head=head)
        company.activity = "01111"
        factories.application(
            session,
            head,
            factories.cluster(session, now=now),
            organisation=company,
            category="startup",
            state=ApplicationState.SUBMITTED,
            earliest=now + timedelta(days=7),
            latest=now + timedelta(days=67),
            now=now,
        )
    with serve(app) as live:
        yield live


def enter(page: Page, site: LiveSite) -> None:
    """Give the browser the cookie of the operator."""
    client = site.app.test_client()
    database: Database = site.app.extensions[DATABASE]
    with database.reader() as session:
        person = session.scalars(select(Person).where(Person.email == OPERATOR)).one()
    sign_in(client, person)
    cookie = client.get_cookie("kezek")
    assert cookie is not None
    page.context.add_cookies([{"name": "kezek", "value": cookie.value, "url": site.url}])


@pytest.mark.parametrize(
    ("lang", "width", "dark"), [("kk", 360, True), ("ru", 360, False), ("en", 1440, False)]
)
def test_the_pages_are_accessible(
    browser: Browser, site: LiveSite, lang: str, width: int, dark: bool
) -> None:
    with visit(browser, site, width, dark) as page:
        enter(page, site)
        for name, path in {"policy": "/policy", "decision": "/review/1"}.items():
            page.goto(f"{path}?lang={lang}")
            expect(page.locator("html")).to_have_attribute("lang", lang)
            shoot(page, f"{name}-{lang}-{width}")
            check_width(page)
            check_axe(page)


def test_a_band_without_a_reason_is_told_beside_its_field(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site) as page:
        enter(page, site)
        page.goto("/review/1?lang=en")
        page.get_by_label("Approve all the hours").check()
        expect(page.get_by_label("Ordinary, × 1")).to_be_checked()
        page.get_by_label("Strong, × 1,25").check()
        page.get_by_role("button", name="See what this will do").click()
        expect(page.get_by_text("Give the reason for this band").first).to_be_visible()
        expect(page.get_by_label("Strong, × 1,25")).to_be_checked()
        page.get_by_label("Reason for the band").fill("Results shown for earlier hours.")
        page.get_by_role("button", name="See what this will do").click()
        expect(page.get_by_text("Results shown for earlier hours.")).to_be_visible()
