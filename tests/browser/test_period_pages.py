"""The pages about periods and fairness for eyes and for axe, in three languages and two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from allocator.db import Database
from allocator.models import Person
from config.settings import Settings
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from tests.period_pages import POLICY, make_scene
from web.app import create_app
from web.session import DATABASE

pytestmark = pytest.mark.integration

PAGES = {
    "list": "/periods?",
    "open": "/periods/open?hardware=shares/h200&",
    "board": "/periods/{proposed}?limit=5&",
    "published": "/periods/{period}?limit=5&",
    "compare": "/periods/{proposed}/compare?limit=5&",
    "replay": "/periods/{proposed}/replay?",
    "what-if": "/periods/{proposed}/what-if?capacity=9000&limit=5&",
    "discard": "/periods/{proposed}/discard?",
    "grants": "/periods/{period}/grants?limit=5&",
    "reserve": "/periods/{period}/reserve/{late}?",
    "redivide": "/periods/{period}/redivide?limit=5&",
    "confirm": "/reclaims/{reclaim}/confirm?",
    "drop": "/reclaims/{reclaim}/drop?",
    "share": "/proposals/{proposal}/shares/{own}?",
    "adjust": "/proposals/{proposal}/shares/{claimed}/adjust?",
    "publish": "/proposals/{proposal}/publish?",
    "quota": "/quotas/{warned}?",
    "mine": "/quotas/{own}/periods/{period}?request=100&",
    "set-aside": "/quotas/{aside}/periods/{period}?",
    "fairness": "/fairness?",
    "result": "/fairness/{period}?",
    "rules": "/policy?",
    "versions": "/policy/versions?",
    "version": f"/policy/versions/{POLICY.version}?",
}
OF_APPLICANT = {
    "give-back": "/quotas/{own}/periods/{period}/give-back?",
    "plan": "/quotas/{own}/periods/{plannable}/plan?",
    "own-quota": "/quotas/{own}?",
}


@dataclass(frozen=True)
class Shown:
    """A site with the numbers of what is in it and the people's addresses."""

    site: LiveSite
    ids: dict[str, int]
    operator: str
    applicant: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("periods")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    with database.transaction() as session:
        scene = make_scene(session, datetime.now(UTC))
        ids = scene.fill(12) | {"aside": scene.quotas[1].id, "warned": scene.quotas[2].id}
        people = scene.one.email, scene.applicant.email
    with serve(app) as live:
        yield Shown(live, ids, *people)


def enter(page: Page, shown: Shown, email: str) -> None:
    """Give the browser the cookie of somebody who has signed in."""
    client = shown.site.app.test_client()
    database: Database = shown.site.app.extensions[DATABASE]
    with database.reader() as session:
        person = session.scalars(select(Person).where(Person.email == email)).one()
    sign_in(client, person)
    cookie = client.get_cookie("kezek")
    assert cookie is not None
    page.context.add_cookies([{"name": "kezek", "value": cookie.value, "url": shown.site.url}])


@pytest.mark.parametrize(
    ("lang", "width", "dark"), [("kk", 360, True), ("ru", 360, False), ("en", 1440, False)]
)
def test_every_page_is_accessible(browser: Browser, shown: Shown, lang: str, width: int, dark: bool) -> None:
    for email, pages in ((shown.operator, PAGES), (shown.applicant, OF_APPLICANT)):
        with visit(browser, shown.site, width, dark) as page:
            enter(page, shown, email)
            for name, path in pages.items():
                answer = page.goto(f"{path.format(**shown.ids)}lang={lang}")
                assert answer is not None
                assert answer.status == 200, name
                expect(page.locator("html")).to_have_attribute("lang", lang)
                shoot(page, f"period-{name}-{lang}-{width}")
                check_width(page)
                check_axe(page)


def test_adjusting_without_scripts(browser: Browser, shown: Shown) -> None:
    with visit(browser, shown.site, javascript=False) as page:
        enter(page, shown, shown.operator)
        page.goto("/proposals/{proposal}/shares/{own}?lang=en".format(**shown.ids))
        page.get_by_role("link", name="Set this share yourself").click()
        page.get_by_label("GPU-hours in this period").fill("300")
        page.get_by_label("Reason").fill("The nodes come a week later.")
        page.get_by_role("button", name="Show what it costs the others").click()
        expect(page.get_by_role("heading", name="What it costs the others")).to_be_visible()
        page.get_by_role("button", name="Keep it as a new proposal").click()
        expect(page.get_by_text("holds the adjustment")).to_be_visible()
