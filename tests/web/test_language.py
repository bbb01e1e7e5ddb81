"""The reader's language, and amounts, money and moments as they are written here."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from web.formats import duration, gpu_hours, moment, money, number, when
from web.i18n import safe_path


def read_in(visitor: FlaskClient, path: str = "/gallery", accept: str = "") -> str:
    """The language in which a page came."""
    text = visitor.get(path, headers={"Accept-Language": accept} if accept else {}).text
    return text.partition('<html lang="')[2][:2]


def test_the_language_is_the_first_wish_that_is_known(visitor: FlaskClient) -> None:
    assert read_in(visitor) == "kk"
    assert read_in(visitor, accept="de, fr;q=0.5") == "kk"
    assert read_in(visitor, accept="de, ru-RU;q=0.8, en;q=0.5") == "ru"
    visitor.set_cookie("kezek_language", "en")
    assert read_in(visitor, accept="ru") == "en"
    assert read_in(visitor, "/gallery?lang=kk", "ru") == "kk"
    assert read_in(visitor, "/gallery?lang=xx", "ru") == "en"


def test_the_switch_remembers_and_leads_back(visitor: FlaskClient) -> None:
    answer = visitor.get("/language/ru?next=/gallery?errors=1")
    assert (answer.status_code, answer.location) == (303, "/gallery?errors=1")
    assert "SameSite=Lax" in answer.headers["Set-Cookie"]
    assert read_in(visitor) == "ru"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/%0a//evil\n",
        "http:evil.example",
        "javascript:alert(1)",
        "evil",
        "",
    ],
)
def test_the_switch_leads_nowhere_else(visitor: FlaskClient, target: str) -> None:
    assert safe_path(target) is None or target == ""
    answer = visitor.get("/language/ru", query_string={"next": target})
    assert answer.location == "/"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (3600, "1"),
        (4_444_200, "1\u00a0234,5"),
        (64_512 * 3600, "64\u00a0512"),
        (1, "<\u00a00,01"),
        (-1, ">\u00a0−0,01"),
        (-5400, "−1,5"),
        (9_007_199_254_740_993 * 3600, "9\u00a0007\u00a0199\u00a0254\u00a0740\u00a0993"),
    ],
)
def test_gpu_hours_are_exact(seconds: int, text: str) -> None:
    assert gpu_hours(seconds) == text


def test_money_is_written_as_the_country_writes_it() -> None:
    assert money(Decimal("1234567.5")) == "1\u00a0234\u00a0567,50\u00a0₸"
    assert money(Decimal("-0.004")) == "0,00\u00a0₸"


def test_no_float_is_ever_shown() -> None:
    for shown in (number, gpu_hours, money):
        with pytest.raises(TypeError):
            shown(1.5)  # type: ignore[arg-type]


def test_moments_are_told_in_the_site_zone(demo_app: Flask) -> None:
    at = datetime(2026, 11, 21, 23, 14, tzinfo=UTC)
    with demo_app.test_request_context("/?lang=en"):
        assert moment(at) == "22 November 2026, 04:14"
        assert 'datetime="2026-11-21T23:14:00Z"' in when(at)
        assert ">22 November 2026<" in when(at, "date")
        assert ">22 November 2026<" in when(date(2026, 11, 22))
        assert "—" in when(None)
        with pytest.raises(ValueError, match="time zone"):
            when(at.replace(tzinfo=None), "date")
    with demo_app.test_request_context("/?lang=ru"):
        assert moment(at).startswith("22 ноября 2026")


def test_lengths_of_time_have_two_units_at_most(demo_app: Flask) -> None:
    with demo_app.test_request_context("/?lang=en"):
        assert duration(timedelta(days=3, hours=4, minutes=5)) == "3 days 4 hours"
        assert duration(2 * 86400 + 7) == "2 days"
        assert duration(0) == "0 seconds"
    with demo_app.test_request_context("/?lang=kk"):
        assert duration(86400 + 7200) == "1 күн 2 сағат"


def test_literals_in_templates_follow_the_reader(visitor: FlaskClient) -> None:
    # Jinja works filters of literals out while compiling, which would freeze the first reader's language.
    assert "1 күн 6 сағат" in visitor.get("/gallery?lang=kk").text
    assert "1 day 6 hours" in visitor.get("/gallery?lang=en").text


def test_the_switch_never_leads_to_what_cannot_be_asked_for(visitor: FlaskClient) -> None:
    refused = visitor.post("/account/sign-out", headers={"Referer": "http://localhost/help?x=1"})
    assert "next=/help" in refused.text
    elsewhere = visitor.post("/account/sign-out", headers={"Referer": "http://evil.example/help"})
    assert "next=/help" not in elsewhere.text
    assert "next=/account/sign-out" not in elsewhere.text
