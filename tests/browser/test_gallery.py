"""Every piece of the pages in every language, width and mode: accessible, on the screen, by keyboard too."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.harness import LiveSite, check_axe, check_width, shoot, visit

pytestmark = pytest.mark.integration

LANGUAGES = ("kk", "ru", "en")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_piece_is_accessible(
    browser: Browser, demo_site: LiveSite, lang: str, width: int, dark: bool
) -> None:
    with visit(browser, demo_site, width, dark) as page:
        for name, path in (("gallery", "/gallery?flash=1"), ("errors", "/gallery?errors=1")):
            page.goto(f"{path}&lang={lang}")
            expect(page.locator("html")).to_have_attribute("lang", lang)
            shoot(page, f"{name}-{lang}-{width}-{'dark' if dark else 'light'}")
            check_width(page)
            check_axe(page)


@pytest.mark.parametrize("path", ["/gallery/confirm", "/nowhere", "/gallery/fault"])
@pytest.mark.parametrize("width", [360, 1440])
def test_small_pages_are_accessible(browser: Browser, demo_site: LiveSite, path: str, width: int) -> None:
    with visit(browser, demo_site, width) as page:
        page.goto(f"{path}?lang=en")
        shoot(page, f"{path.rpartition('/')[2]}-{width}")
        check_width(page)
        check_axe(page)


def test_the_first_tab_skips_to_the_content(browser: Browser, demo_site: LiveSite) -> None:
    with visit(browser, demo_site) as page:
        page.goto("/gallery?lang=en")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()


def test_a_form_comes_back_with_the_focus_on_its_errors(browser: Browser, demo_site: LiveSite) -> None:
    with visit(browser, demo_site) as page:
        page.goto("/gallery?lang=en")
        page.locator("#title").fill("Kept")
        page.get_by_role("button", name="Send the application").click()
        expect(page.get_by_role("alert")).to_be_focused()
        expect(page.get_by_label("Title")).to_have_value("Kept")
        page.get_by_role("alert").get_by_role("link").first.click()
        expect(page.get_by_label("Purpose")).to_be_focused()


def test_pages_work_without_scripts(browser: Browser, demo_site: LiveSite) -> None:
    with visit(browser, demo_site, javascript=False) as page:
        page.goto("/gallery?lang=en")
        expect(page.get_by_role("button", name="Copy")).to_be_hidden()
        page.get_by_role("link", name="Русский").click()
        expect(page.locator("html")).to_have_attribute("lang", "ru")
        page.locator("#title").fill("Kept")
        page.locator("main form button[type=submit]").click()
        expect(page.get_by_role("alert")).to_be_visible()


def test_the_copy_button_copies_the_line(browser: Browser, demo_site: LiveSite) -> None:
    with visit(browser, demo_site) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto("/gallery?lang=en")
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()").startswith("sbatch --account=kezek-q12")
