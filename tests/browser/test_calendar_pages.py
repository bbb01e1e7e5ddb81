"""The calendar, offers, changes and series for eyes, for axe and for the keyboard, in three languages."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.db import Database
from allocator.models import Person
from allocator.states import BookingState, ReservationState
from config.settings import Settings
from tests import calendars, factories
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from web.app import create_app
from web.booking.booking_forms import LOCAL
from web.session import DATABASE

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
SOON = NOW + timedelta(days=3)
ZONE = ZoneInfo("Asia/Almaty")


def local(moment: datetime) -> str:
    return moment.astimezone(ZONE).strftime(LOCAL)


PAGES = {
    "day": "/calendar?span=day",
    "week": "/calendar?span=week",
    "month": "/calendar?span=month",
    "start": f"/calendar?span=week&start={local(NOW + timedelta(days=1))}",
    "table": "/calendar?span=day&view=table",
    "groups": "/calendar?gpus=big/h200&span=month",
    "group": "/calendar?gpus=big/h200&span=month&nodes=1",
    "feeds": "/account/calendars?",
    "offers": f"/quotas/1/book?hours=10&nodes=1&gpus_per_node=8&starts_at={local(SOON)}",
    "why-not": f"/quotas/1/book?hours=100&nodes=6&gpus_per_node=8&starts_at={local(SOON)}",
    "held": "/bookings/3?",
    "mine": "/bookings?",
    "longer": f"/bookings/1/change/longer?ends_at={local(NOW + timedelta(hours=30))}",
    "move": f"/bookings/2/change/move?starts_at={local(SOON)}",
    "repeat": "/quotas/1/repeat?",
    "dates": "/quotas/1/repeat?nodes=1&gpus_per_node=8&weekdays=1&weekdays=5&start=22:00&hours=12"
    f"&first_day={local(SOON)[:10]}&last_day={local(SOON + timedelta(days=20))[:10]}",
    "series": "/series/1?",
    "window": "/quotas/1/flexible?",
    "promise": "/quotas/1/flexible?hours=20&nodes=1&gpus_per_node=8"
    f"&earliest_at={local(SOON)}&latest_at={local(SOON + timedelta(days=6))}",
    "nothing-free": "/quotas/1/flexible?hours=20&nodes=6&gpus_per_node=8"
    f"&earliest_at={local(NOW + timedelta(days=2))}&latest_at={local(NOW + timedelta(days=3))}",
    "waitlist": "/waitlist?",
    "waiting": "/waitlist/1?",
    "offered": "/waitlist/2?",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    folder = tmp_path_factory.mktemp("calendars")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    with database.transaction() as session:
        _fill(session)
    with serve(app) as live:
        yield live


def _fill(session: Session) -> None:
    me = factories.person(session, name="Aigerim Sapar", cluster_login="aigerim")
    other = factories.person(session, name="Daniyar Bek")
    cluster = factories.cluster(session, nodes=6, now=NOW)
    mine, theirs = (
        factories.quota(
            session,
            factories.application(session, who, cluster, now=NOW),
            gpu_hours=10_000,
            valid_from=NOW - timedelta(days=5),
            valid_until=NOW + timedelta(days=60),
            now=NOW,
        )
        for who in (me, other)
    )
    nodes = sorted(cluster.nodes, key=lambda node: node.name)
    running, reserved = BookingState.STARTED, ReservationState.RESERVED
    factories.booking(
        session, mine, on=nodes[:1], starts_at=NOW - timedelta(hours=2), state=running, reservation=reserved
    )
    factories.booking(session, mine, on=nodes[:2], starts_at=NOW + timedelta(days=2), hours=20)
    calendars.held(session, mine, days=5)
    for number, node in enumerate(nodes[2:]):
        start = NOW + timedelta(days=1, hours=6 * number)
        factories.booking(session, theirs, on=[node], starts_at=start, hours=30, gpus_per_node=2 + number)
    calendars.outage(session, cluster, other, on=nodes[3:5], starts_at=NOW + timedelta(days=5))
    calendars.prices(session, cluster, [0.0, 0.3, 0.8, 2.0] * 100, starts_at=NOW)
    calendars.feed(session, me)
    calendars.waiting(session, mine, me, now=NOW)
    calendars.waiting(session, mine, me, offer=calendars.held(session, mine, days=6), now=NOW)
    calendars.series(session, mine, me)
    factories.cluster(session, slug="big", nodes=200, now=NOW)


def enter(page: Page, site: LiveSite) -> None:
    """Give the browser the cookie of the signed-in applicant."""
    client = site.app.test_client()
    database: Database = site.app.extensions[DATABASE]
    with database.reader() as session:
        person = session.scalars(select(Person).where(Person.cluster_login == "aigerim")).one()
    sign_in(client, person)
    cookie = client.get_cookie("kezek")
    assert cookie is not None
    page.context.add_cookies([{"name": "kezek", "value": cookie.value, "url": site.url}])


@pytest.mark.parametrize("lang", ["kk", "ru", "en"])
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1440, False)])
def test_every_page_is_accessible(
    browser: Browser, site: LiveSite, lang: str, width: int, dark: bool
) -> None:
    with visit(browser, site, width, dark) as page:
        enter(page, site)
        for name, path in PAGES.items():
            page.goto(f"{path}&lang={lang}" if not path.endswith("?") else f"{path}lang={lang}")
            expect(page.locator("html")).to_have_attribute("lang", lang)
            shoot(page, f"calendar-{name}-{lang}-{width}")
            check_width(page)
            check_axe(page)


def test_a_window_is_chosen_with_the_keyboard_alone(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site, javascript=False) as page:
        enter(page, site)
        page.goto(f"/calendar?span=day&day={local(NOW + timedelta(days=1))[:10]}&lang=en")
        first = page.locator(".cal-choose").first
        first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("Now point at the time in which it should end.")).to_be_visible()
        page.locator(".cal-choose").nth(5).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Length in hours")).to_have_value("6")


def test_pointing_at_free_time_on_any_row_chooses(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site) as page:
        enter(page, site)
        page.goto(f"/calendar?span=week&day={local(NOW + timedelta(days=1))[:10]}&lang=en")
        box = page.locator(".cal-choose").nth(8).locator(".cal-ground").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 8)
        expect(page.get_by_text("Now point at the time in which it should end.")).to_be_visible()


def test_what_is_held_counts_down(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site) as page:
        enter(page, site)
        page.goto("/bookings/3?lang=en")
        expect(page.get_by_role("timer")).to_have_text(re.compile(r"^\d\d:\d\d$"))
