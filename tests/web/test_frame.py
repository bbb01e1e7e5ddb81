"""What holds for every page: headers, CSRF, errors, weight, and how long an answer may be kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from allocator.errors import Conflict, Fault, Invalid, NotFound, Throttled
from config.settings import Settings
from web.session import DATABASE

MakeApp = Callable[[Settings], Flask]

FIRST_VISIT_BYTES = 60 * 1024
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def raising(app: Flask, error: Exception) -> FlaskClient:
    """A client of the site with a page that fails in that way."""

    def fail() -> str:
        raise error

    app.add_url_rule("/fails", "fails", fail)
    return app.test_client()


@pytest.mark.parametrize("path", ["/gallery", "/nowhere", "/gallery/fault", "/static/kezek.css"])
def test_every_answer_carries_the_headers(visitor: FlaskClient, path: str) -> None:
    headers = visitor.get(path).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers


def test_https_brings_hsts_and_a_host_bound_cookie(make_app: MakeApp, demo_settings: Settings) -> None:
    app = make_app(demo_settings.model_copy(update={"base_url": "https://kezek.example"}))
    answer = app.test_client().get("/gallery", base_url="https://kezek.example")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-kezek=")
    for part in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


def test_no_page_has_inline_script_or_style(visitor: FlaskClient) -> None:
    text = visitor.get("/gallery?errors=1&flash=1").text
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_the_gallery_is_for_demonstrations_only(make_app: MakeApp, settings: Settings) -> None:
    assert make_app(settings).test_client().get("/gallery").status_code == 404


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_a_first_visit_is_light(visitor: FlaskClient, encoding: str) -> None:
    page = visitor.get("/gallery", headers={"Accept-Encoding": encoding})
    # The gallery is heavier than any page of a real visit: it holds every piece.
    plain = visitor.get("/gallery").text
    parts = re.findall(r'(?:href|src)="(/static/[^"]+)"', plain)
    assert len(parts) == 4
    weight = len(page.data) + sum(
        len(visitor.get(part.replace("&amp;", "&"), headers={"Accept-Encoding": encoding}).data)
        for part in parts
    )
    assert page.headers["Content-Encoding"] == encoding
    assert weight <= FIRST_VISIT_BYTES, f"{weight} bytes"


def test_static_files_are_kept_for_ever_under_the_name_of_their_content(visitor: FlaskClient) -> None:
    address = re.findall(r'href="(/static/kezek.css[^"]+)"', visitor.get("/gallery").text)[0]
    answer = visitor.get(address)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = visitor.get(address, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    for other in ("/static/kezek.css", "/static/kezek.css?v=0123456789"):
        assert visitor.get(other).headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "none.css", "/etc/passwd", "js"])
def test_nothing_outside_the_static_folder_is_served(visitor: FlaskClient, name: str) -> None:
    assert visitor.get(f"/static/{name}").status_code in (308, 404)


def test_a_form_without_its_token_is_refused_with_advice(visitor: FlaskClient) -> None:
    answer = visitor.post("/gallery?lang=en", data={"title": "x"}, headers=HTML)
    assert answer.status_code == 400
    assert "This form has expired" in answer.text


def test_a_form_with_errors_comes_back_422_with_what_was_typed(visitor: FlaskClient) -> None:
    token = re.search(r'name="csrf_token" value="([^"]+)"', visitor.get("/gallery").text)
    assert token
    answer = visitor.post(
        "/gallery?lang=en", data={"csrf_token": token[1], "title": "Tide <b>", "hours": "NaN"}, headers=HTML
    )
    assert answer.status_code == 422
    assert 'value="Tide &lt;b&gt;"' in answer.text
    assert "Enter a number, for example 1 500 or 0,5." in answer.text
    assert 'aria-describedby="hours-hint hours-error"' in answer.text


def test_too_much_at_once_is_413(visitor: FlaskClient) -> None:
    answer = visitor.post("/gallery", data={"title": "x" * (1024 * 1024 + 1)}, headers=HTML)
    assert answer.status_code == 413
    assert "<h1>" in answer.text


def test_a_wrong_method_says_which_is_right(visitor: FlaskClient) -> None:
    token = re.search(r'name="csrf_token" value="([^"]+)"', visitor.get("/gallery").text)
    assert token
    answer = visitor.post("/gallery/confirm", data={"csrf_token": token[1]}, headers=HTML)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert "<h1>" in answer.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound(), 404, "not_found"),
        (Conflict("Taken by %(who)s.", {"who": "<i>them</i>"}), 409, "conflict"),
        (Invalid({"hours": [Fault("At most %(most)s.", {"most": 5})]}), 422, "invalid"),
        (Throttled("Wait.", {"seconds": 40}), 429, "throttled"),
        (RuntimeError("secret"), 500, "fault"),
        (StaleDataError("secret"), 409, "stale"),
        (OperationalError("SELECT secret", {}, Exception("gone")), 503, "unavailable"),
    ],
)
def test_errors_become_pages_and_json(demo_app: Flask, error: Exception, status: int, code: str) -> None:
    client = raising(demo_app, error)
    page = client.get("/fails?lang=en", headers=HTML)
    assert page.status_code == status
    assert page.mimetype == "text/html"
    assert "<i>them</i>" not in page.text
    assert "secret" not in page.text
    answer = client.get("/fails", headers={"Accept": "application/json"})
    assert answer.status_code == status
    assert answer.get_json()["error"]["code"] == code
    assert answer.headers["Cache-Control"] == "no-store"


def test_details_of_an_error_reach_the_reader(demo_app: Flask) -> None:
    client = raising(demo_app, Invalid({"hours": [Fault("At most %(most)s.", {"most": 5})]}))
    answer = client.get("/fails", headers={"Accept": "application/json"})
    assert answer.get_json()["error"]["details"] == {"fields": {"hours": ["At most 5."]}}


def test_being_throttled_says_how_long(demo_app: Flask) -> None:
    answer = raising(demo_app, Throttled("Wait.", {"seconds": 40})).get("/fails")
    assert answer.headers["Retry-After"] == "40"


def test_a_fault_shows_the_reference_that_is_in_the_log(
    visitor: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "kezek.web"):
        text = visitor.get("/gallery/fault?lang=en&key=hidden", headers=HTML).text
    reference = re.search(r'class="reference">([0-9a-f]{8})<', text)
    assert reference
    assert f"fault {reference[1]} at GET /gallery/fault" in caplog.text
    assert "hidden" not in caplog.records[0].getMessage()


def test_the_page_of_a_fault_does_not_ask_the_database(
    demo_app: Flask, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:

    with count_queries(demo_app.extensions[DATABASE].engine) as statements:
        demo_app.test_client().get("/gallery/fault", headers=HTML)
    assert statements == []


def test_a_fault_behind_a_mailed_link_does_not_log_it(
    demo_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(token: str) -> str:
        raise RuntimeError

    demo_app.view_functions["account.reset"] = fail
    demo_app.test_client().get("/account/reset/hush", headers=HTML)
    assert "at GET /account/reset/[hidden]" in caplog.text
    assert "hush" not in caplog.text
