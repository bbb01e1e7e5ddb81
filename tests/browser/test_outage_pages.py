"""The pages about outages, repairs and moves for eyes and for axe, in three languages and two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from allocator.db import Database
from allocator.models import Person, Repair, RepairStep
from allocator.states import RepairState
from config.settings import Settings
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from tests.outage_pages import make_outage_scene, work_out
from web.app import create_app
from web.session import DATABASE

pytestmark = pytest.mark.integration

PAGES = {
    "list": "/outages?limit=5&",
    "plan": "/clusters/grid/outages/new?",
    "draft": "/outages/{outage}?",
    "unfinished": "/outages/{unfinished}?",
    "asked": "/repairs/{asked}?",
    "edit": "/outages/{outage}/edit?",
    "publish": "/outages/{outage}/publish?variant=fewest_drops&",
    "published": "/outages/{published}?",
    "call-off": "/outages/{outage}/call-off?",
    "repairs": "/repairs?",
    "repair": "/repairs/{repair}?",
    "apply": "/repairs/{repair}/apply?",
    "discard": "/repairs/{repair}/discard?",
    "capacity": "/clusters/grid/capacity?",
    "announce": "/clusters/grid/capacity/announce?",
    "leave": "/clusters/grid/capacity/leave?",
    "freeze": "/clusters/grid/capacity/freeze?",
    "withdraw": "/nodes/{node}/withdraw?",
    "join": "/nodes/{node}/join?",
    "pin": "/bookings/{moved}/pin?",
    "place": "/bookings/{moved}/place?",
}
OF_OWNER = {"answer": "/moves/{move}?", "refund": "/moves/{move}/refund?"}


@dataclass(frozen=True)
class Shown:
    """A site with the numbers of what is in it and the people's addresses."""

    site: LiveSite
    ids: dict[str, int]
    operator: str
    owner: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("outages")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    with database.transaction() as session:
        scene = make_outage_scene(session, datetime.now(UTC))
        ids = scene.fill(4)
        people = scene.operator.email, scene.owner.email
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
    for email, pages in ((shown.operator, PAGES), (shown.owner, OF_OWNER)):
        with visit(browser, shown.site, width, dark) as page:
            enter(page, shown, email)
            for name, path in pages.items():
                answer = page.goto(f"{path.format(**shown.ids)}lang={lang}")
                assert answer is not None
                assert answer.status == 200, name
                shoot(page, f"outage-{name}-{lang}-{width}")
                check_width(page)
                check_axe(page)


def day(clock: str) -> str:
    """A moment in a month, as a field takes it."""
    return f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}T{clock}"


def test_planning_and_publishing_without_scripts(browser: Browser, shown: Shown) -> None:
    with visit(browser, shown.site, javascript=False) as page:
        enter(page, shown, shown.operator)
        page.goto("/outages?lang=en")
        page.get_by_role("link", name="Plan an outage of Grid").click()
        page.get_by_role("textbox", name="Nodes").fill("grid[001-002]")
        page.get_by_label("From", exact=True).fill(day("10:00"))
        page.get_by_label("Until", exact=True).fill(day("18:00"))
        page.get_by_label("Reason").fill("New power supplies.")
        page.get_by_role("button", name="Show whom it moves").click()
        expect(page.get_by_text("It will be worked out in a moment")).to_be_visible()
        work_out(shown.site.app.extensions[DATABASE])
        # it comes again by itself
        expect(page.get_by_text("Nothing is booked there at that time")).to_be_visible(timeout=30_000)
        page.get_by_role("link", name="Continue").click()
        page.get_by_role("button", name="Publish it").click()
        expect(page.get_by_text("The outage is published")).to_be_visible()


def test_the_page_follows_what_is_being_worked_out(browser: Browser, shown: Shown) -> None:
    database: Database = shown.site.app.extensions[DATABASE]
    with visit(browser, shown.site) as page:
        enter(page, shown, shown.operator)
        page.goto("/outages/{outage}?lang=en".format(**shown.ids))
        page.get_by_role("button", name="Work it out again").click()
        status = page.locator("[role=status][data-live]")
        expect(status).to_contain_text("It will be worked out in a moment")
        with database.transaction() as session:
            for repair in session.scalars(select(Repair).where(Repair.state == RepairState.WAITING)):
                repair.step = RepairStep.MENDING
        expect(status).to_contain_text("Step 2 of 3", timeout=30_000)
        work_out(database)
        expect(page.get_by_text("Bookings that move").first).to_be_visible(timeout=30_000)
        expect(status).to_have_count(0)
