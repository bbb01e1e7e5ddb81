"""The pages of applications and of the queue as people see them, with and without scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from flask.sessions import SecureCookieSessionInterface
from playwright.sync_api import Browser, Page

from allocator.actors import Role
from allocator.models import DecisionKind, Person
from allocator.states import ApplicationState
from config.clock import utcnow
from config.settings import Settings
from tests import factories
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import Site, sign_in
from web.app import create_app

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Desk:
    """A live site with two people and what they look at."""

    live: LiveSite
    applicant: Person
    operator: Person
    draft: int
    waiting: int
    refused: int


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    with serve(app) as live:
        yield _filled(live)


def _filled(live: LiveSite) -> Desk:
    now = utcnow()
    earliest, latest = now + timedelta(days=7), now + timedelta(days=67)
    with Site(live.app).data() as session:
        applicant = factories.person(session, name="Айгерім Сапар", iin="900101300017")
        operator = factories.person(session, name="Ораз Құралбай", roles=[Role.OPERATOR])
        cluster = factories.cluster(session, nodes=64)
        lab = factories.organisation(session, name="Солтүстік өңірлік университеті", head=applicant)
        rows = [
            factories.application(
                session,
                applicant,
                cluster,
                organisation=lab,
                state=state,
                team=["dana@example.kz", "a-rather-long-address@students.northern-university.example.kz"],
                now=now - timedelta(hours=30),
                earliest=earliest,
                latest=latest,
            )
            for state in (ApplicationState.DRAFT, ApplicationState.SUBMITTED, ApplicationState.SUBMITTED)
        ]
        factories.decision(session, rows[2], operator, kind=DecisionKind.REFUSED)
        factories.quota(
            session, factories.application(session, applicant, cluster, earliest=earliest, latest=latest)
        )
        return Desk(live, applicant, operator, *(row.id for row in rows))


def enter(page: Page, desk: Desk, person: Person) -> None:
    """Sign in without the page and its slow hash: the session's cookie of a test client."""
    client = desk.live.app.test_client()
    sign_in(client, person)
    name = desk.live.app.config["SESSION_COOKIE_NAME"]
    cookie = client.get_cookie(name)
    assert isinstance(desk.live.app.session_interface, SecureCookieSessionInterface)
    assert cookie is not None
    page.context.add_cookies([{"name": name, "value": cookie.value, "url": desk.live.url}])


def look(page: Page, path: str, lang: str, name: str, width: int) -> None:
    page.goto(f"{path}{'&' if '?' in path else '?'}lang={lang}")
    assert page.locator("h1").count() == 1
    check_axe(page)
    check_width(page)
    shoot(page, f"{name}-{lang}-{width}")


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("lang", ["kk", "ru", "en"])
def test_every_page_is_accessible_and_fits(browser: Browser, desk: Desk, lang: str, width: int) -> None:
    pages = {
        "applications": "/applications",
        "application-new": "/applications/new",
        "application-faults": f"/applications/{desk.draft}/edit?check=1",
        "application-check": f"/applications/{desk.draft}/check",
        "application-waits": f"/applications/{desk.waiting}",
        "application-refused": f"/applications/{desk.refused}",
        "application-withdraw": f"/applications/{desk.waiting}/withdraw",
    }
    with visit(browser, desk.live, width=width) as page:
        enter(page, desk, desk.applicant)
        for name, path in pages.items():
            look(page, path, lang, name, width)
    with visit(browser, desk.live, width=width) as page:
        enter(page, desk, desk.operator)
        look(page, "/review", lang, "queue", width)
        look(page, f"/review/{desk.waiting}", lang, "review", width)


@pytest.mark.parametrize("javascript", [True, False])
def test_applying_and_deciding_by_hand(browser: Browser, desk: Desk, javascript: bool) -> None:
    title = f"Soil moisture maps, scripts {'on' if javascript else 'off'}"
    today = utcnow().date()
    with visit(browser, desk.live, javascript=javascript) as page:
        enter(page, desk, desk.applicant)
        page.goto("/applications/new?lang=en")
        page.get_by_label("University, college or institute").check()
        page.get_by_label("Organisation").select_option(index=1)
        page.get_by_label("Title").fill(title)
        page.get_by_label("What the hours are for").fill("Train a model on satellite images.")
        page.get_by_label("GPUs per node").fill("8")
        page.get_by_label("GPU-hours in all").fill("2400")
        page.get_by_label("Earliest day").fill((today + timedelta(days=9)).isoformat())
        page.get_by_label("Latest day").fill((today + timedelta(days=10)).isoformat())
        assert page.locator("#application-sum").is_visible() == javascript
        page.get_by_role("button", name="Save and continue").click()
        # 8 GPUs × 2 days are fewer than 2400 hours: told beside the field, the draft is safe
        page.get_by_text("1 × 8 GPUs give 384 GPU-hours at most").first.wait_for()
        page.get_by_label("Latest day").fill((today + timedelta(days=40)).isoformat())
        page.get_by_role("button", name="Save and continue").click()
        page.get_by_role("button", name="Submit the application").click()
        page.get_by_text("Your application was submitted.").wait_for()
    with visit(browser, desk.live, javascript=javascript) as page:
        enter(page, desk, desk.operator)
        page.goto(f"/review?lang=en&q={title}")
        page.get_by_role("link", name=title).click()
        page.get_by_label("Approve fewer hours").check()
        page.get_by_role("button", name="See what this will do").click()
        page.get_by_text("Give the reason").first.wait_for()
        page.get_by_label("GPU-hours approved").fill("2 000,5")
        page.get_by_label("Reason", exact=True).fill("Nights are enough.")
        page.get_by_role("button", name="See what this will do").click()
        page.get_by_role("heading", name="Approve fewer hours?").wait_for()
        if javascript:
            check_axe(page)  # axe is a script itself
        shoot(page, f"review-confirm-en-{'script' if javascript else 'plain'}")
        page.get_by_role("button", name="Record the decision").click()
        page.get_by_text("The decision is recorded").wait_for()
