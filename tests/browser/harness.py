"""A live site, Debian's Chromium, axe and screenshots: what browser tests are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright
from werkzeug.serving import make_server

CHROMIUM = Path("/usr/bin/chromium")
# No sandbox: tests run as root in containers. The rest keeps Chromium from talking to anybody but the site.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = Path(__file__).parent / ".shots"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
WIDTHS = {360: 780, 1440: 900}


@dataclass(frozen=True)
class LiveSite:
    """A site that answers on this machine."""

    url: str
    app: Flask


@contextmanager
def serve(app: Flask) -> Iterator[LiveSite]:
    """The application on a free port, one thread a request, until the block ends."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield LiveSite(f"http://127.0.0.1:{server.server_port}", app)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def launch(playwright: Playwright) -> Browser:
    """Debian's Chromium, headless."""
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)


@contextmanager
def visit(
    browser: Browser, site: LiveSite, width: int = 1440, dark: bool = False, javascript: bool = True
) -> Iterator[Page]:
    """A page of a new visitor; fails at the end if the console complained (a broken CSP shows there)."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # The status of an error page under test is reported as an error of the console too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    context = browser.new_context(
        base_url=site.url,
        viewport={"width": width, "height": WIDTHS.get(width, 900)},
        color_scheme="dark" if dark else "light",
        java_script_enabled=javascript,
        locale="en-GB",
        timezone_id="UTC",
    )
    page = context.new_page()
    page.on("console", note)
    page.set_default_timeout(15_000)
    try:
        yield page
    finally:
        context.close()
    assert not complaints, complaints


def check_axe(page: Page) -> None:
    """No violation of WCAG 2.2 AA nor of axe's good practice (R-36)."""
    found = Axe().run(page, options={**RULES, "resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def check_width(page: Page) -> None:
    """Nothing makes the page scroll sideways."""
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= page.evaluate("window.innerWidth"), f"the page is {wide} px wide"


def shoot(page: Page, name: str) -> Path:
    """A picture of the whole page for human eyes, in tests/browser/.shots (ignored by git)."""
    SHOTS.mkdir(exist_ok=True)
    path = SHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
