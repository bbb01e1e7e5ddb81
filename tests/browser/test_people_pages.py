"""The pages about accounts, organisations, people and events for axe, in three languages and two widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from allocator.accounts import administration
from allocator.actors import SYSTEM, MembershipRole, Role
from allocator.db import Database
from allocator.models import Person
from config.clock import utcnow
from config.settings import Settings
from tests import factories
from tests.browser.harness import LiveSite, check_axe, check_width, serve, shoot, visit
from tests.browsing import sign_in
from web.app import create_app
from web.session import DATABASE

pytestmark = pytest.mark.integration

OPEN = {
    "register": "/account/register",
    "sign-in": "/account/sign-in",
    "forgotten": "/account/forgotten",
    "check-mail": "/account/check-mail",
}
CLOSED = {
    "profile": "/account",
    "password": "/account/password",
    "sessions": "/account/sessions",
    "organisations": "/organisations",
    "organisation": "/organisations/1",
    "organisation-new": "/organisations/new",
    "member-new": "/organisations/1/members/new",
    "member-remove": "/organisations/1/members/2/remove",
    "people": "/people",
    "person": "/people/2",
    "cluster-login": "/people/2/cluster-login",
    "disable": "/people/2/disable",
    "events": "/audit",
    "story": "/audit/person/2",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[LiveSite]:
    """A site with an administrator (person 1), a member and some events."""
    folder = tmp_path_factory.mktemp("people")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    app = create_app(Settings(data_dir=folder, demo=True))
    database: Database = app.extensions[DATABASE]
    with database.transaction() as session:
        head = factories.person(session, name="Айгерім Сапарқызы", roles=[Role.ADMINISTRATOR])
        member = factories.person(session, email="daniyar@example.kz", name="Данияр Бек")
        factories.organisation(session, head=head, members={member: MembershipRole.MEMBER})
        administration.grant_role(session, SYSTEM, member, Role.OPERATOR, now=utcnow())
    with serve(app) as live:
        yield live


def enter(page: Page, site: LiveSite) -> None:
    """Give the page's context the cookie of the administrator."""
    client = site.app.test_client()
    with site.app.extensions[DATABASE].reader() as session:
        sign_in(client, session.get_one(Person, 1))
    cookie = client.get_cookie("kezek")
    assert cookie is not None
    page.context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": site.url}])


@pytest.mark.parametrize(("lang", "width"), [("kk", 360), ("ru", 1440), ("en", 360), ("en", 1440)])
def test_pages_are_accessible_and_fit(browser: Browser, site: LiveSite, lang: str, width: int) -> None:
    with visit(browser, site, width) as page:
        for name, path in OPEN.items():
            look(page, f"{path}?lang={lang}", f"people-{name}-{lang}-{width}")
        enter(page, site)
        for name, path in CLOSED.items():
            look(page, f"{path}?lang={lang}", f"people-{name}-{lang}-{width}")


def test_registering_and_signing_in_without_scripts(browser: Browser, site: LiveSite) -> None:
    with visit(browser, site, javascript=False) as page:
        page.goto("/account/register?lang=en")
        page.get_by_label("First and last name").fill("Dana Omar")
        page.get_by_label("E-mail").fill("no address")
        page.get_by_label("Password").fill(factories.PASSWORD)
        page.get_by_role("main").get_by_role("button", name="Register").click()
        expect(page.get_by_role("alert")).to_contain_text("Enter an e-mail address")
        expect(page.get_by_label("First and last name")).to_have_value("Dana Omar")
        page.goto("/account/sign-in?lang=en")
        page.get_by_label("E-mail").fill("daniyar@example.kz")
        page.get_by_label("Password").fill(factories.PASSWORD)
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("banner")).to_contain_text("Данияр Бек")


def look(page: Page, path: str, name: str) -> None:
    """Open a page, hold it to axe and to its width, and keep a picture."""
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 200, path
    check_axe(page)
    check_width(page)
    shoot(page, name)
