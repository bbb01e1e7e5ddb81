"""The pages about quotas, bookings and clusters for eyes and for axe, in three languages and two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.actors import Role
from allocator.db import Database
from allocator.models import JobHealth, JobRecord, Person, Quota
from allocator.states import BookingState, ReservationState
from config.settings import Settings
from tests import factories
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from tests.factories import HOUR
from web.app import create_app
from web.booking.booking_forms import LOCAL
from web.session import DATABASE

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
START = (NOW + timedelta(days=2)).replace(minute=0)
PAGES = {
    "quotas": "/quotas?all=1",
    "quota": "/quotas/1?page=1",
    "book": "/quotas/1/book?",
    "quote": "/quotas/1/book?hours=10&nodes=1&gpus_per_node=8&asap=1",
    "refused": "/quotas/1/book?hours=10&nodes=4&gpus_per_node=8&starts_at="
    + START.astimezone(ZoneInfo("Asia/Almaty")).strftime(LOCAL),
    "wrong": "/quotas/1/book?hours=x&nodes=-4&gpus_per_node=8",
    "bookings": "/bookings?",
    "reserved": "/bookings/1?",
    "blocked": "/bookings/2?",
    "cancel": "/bookings/1/cancel?",
    "clusters": "/clusters?",
    "cluster": "/clusters/alem?",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    """A site with one busy quota; its applicant is an operator too, to see every page at once."""
    folder = tmp_path_factory.mktemp("bookings")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    with database.transaction() as session:
        _fill(session)
    with serve(app) as live:
        yield live


def _fill(session: Session) -> None:
    person = factories.person(session, name="Aigerim Sapar", roles=[Role.OPERATOR], cluster_login="aigerim")
    cluster = factories.cluster(session, now=NOW)
    quota = factories.quota(
        session,
        factories.application(session, person, cluster, now=NOW),
        members=[factories.person(session, name="Daniyar Bek")],
        valid_from=NOW - timedelta(days=20),
        now=NOW,
    )
    nodes = sorted(cluster.nodes, key=lambda node: node.name)
    reserved, blocked = ReservationState.RESERVED, ReservationState.BLOCKED
    factories.booking(session, quota, on=nodes[:1], starts_at=START, reservation=reserved)
    factories.booking(session, quota, on=nodes[1:2], starts_at=START, hours=50, reservation=blocked)
    ended = factories.booking(
        session, quota, starts_at=NOW - timedelta(days=9), hours=40, state=BookingState.ENDED
    )
    factories.booking(session, quota, starts_at=NOW + timedelta(days=12), state=BookingState.CANCELLED)
    for number in range(12):
        _job(session, quota, number, ended.id if number % 3 else None)
    _job(session, quota, 99, None).quota_id = None
    for name in ("reconcile:alem", "outbox"):
        session.add(
            JobHealth(
                name=name, leader="a", interval_seconds=30, started_at=NOW, succeeded_at=NOW, duration_ms=81
            )
        )


def _job(session: Session, quota: Quota, number: int, booking: int | None) -> JobRecord:
    started, length = NOW - timedelta(days=9) + timedelta(hours=number * 14), 2 + number % 5
    job = JobRecord(
        cluster_id=quota.cluster_id,
        job_id=4000 + number,
        submitted_at=started,
        login="aigerim",
        account=quota.account if number < 99 else "physics",
        state="COMPLETED",
        started_at=started,
        ended_at=started + timedelta(hours=length),
        elapsed_seconds=length * HOUR,
        gpus=8,
        gpu_seconds=8 * length * HOUR,
        quota_id=quota.id,
        booking_id=booking,
        read_at=NOW,
    )
    session.add(job)
    return job


def enter(page: Page, site: LiveSite) -> None:
    """Give the browser the cookie of a signed-in applicant."""
    client = site.app.test_client()
    database: Database = site.app.extensions[DATABASE]
    with database.reader() as session:
        person = session.scalars(select(Person).where(Person.cluster_login == "aigerim")).one()
    sign_in(client, person)
    cookie = client.get_cookie("kezek")
    assert cookie is not None
    page.context.add_cookies([{"name": "kezek", "value": cookie.value, "url": site.url}])


@pytest.mark.parametrize(
    ("lang", "width", "dark"), [("kk", 360, True), ("ru", 360, False), ("en", 1440, False)]
)
def test_every_page_is_accessible(
    browser: Browser, site: LiveSite, lang: str, width: int, dark: bool
) -> None:
    with visit(browser, site, width, dark) as page:
        enter(page, site)
        for name, path in PAGES.items():
            page.goto(f"{path}&lang={lang}" if not path.endswith("?") else f"{path}lang={lang}")
            expect(page.locator("html")).to_have_attribute("lang", lang)
            shoot(page, f"booking-{name}-{lang}-{width}")
            check_width(page)
            check_axe(page)


def test_booking_works_with_and_without_scripts(browser: Browser, site: LiveSite) -> None:
    for javascript in (True, False):
        with visit(browser, site, javascript=javascript) as page:
            enter(page, site)
            page.goto("/quotas/1?lang=en")
            page.get_by_role("link", name="Book GPUs").click()
            page.get_by_label("Length in hours").fill("2,0")
            page.get_by_label("Nodes").fill("1")
            page.get_by_role("button", name="As soon as possible").click()
            page.get_by_role("button", name="Hold this time").first.click()
            page.get_by_role("button", name="Book it").click()
            expect(page.get_by_text("Booked: 16 GPU-hours")).to_be_visible()
            page.get_by_role("link", name="Give it back").click()
            page.get_by_label("Reason").fill("Only a try")
            page.get_by_role("button", name="Give it back").click()
            expect(page.get_by_text("This booking was given back")).to_be_visible()


def test_the_page_keeps_itself_fresh(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site) as page:
        enter(page, site)
        page.clock.install()
        page.goto("/bookings/1?lang=en")
        page.evaluate("document.querySelector('[data-live] .notice-title').textContent = 'old news'")
        page.clock.run_for(16_000)
        expect(page.get_by_text("Your GPUs are reserved on the cluster")).to_be_visible()
