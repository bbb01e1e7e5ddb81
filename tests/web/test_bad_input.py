"""Whatever is sent, in whichever field: an answer with a reason, never a fault, and nothing typed is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import factories
from tests.web.test_authorisation import PERSONAS, TABLE, World, world
from web.limits import limiter

__all__ = ["world"]  # the fixture
Sent = Mapping[str, str | bytes | list[str]]

BAD: Mapping[str, str | bytes | list[str] | None] = {
    "missing": None,
    "empty": "",
    "overlong": "ұ" * 100_000,
    "overlong ASCII": "9" * 100_000,
    "control characters": "a\x00b\x07c\x1b[31m\x7f",
    "line breaks": "a\r\nBcc: b\n\n\n",
    "NaN": "NaN",
    "infinity": "inf",
    "overflow": "1e400",
    "negative": "-1",
    "zero": "0",
    "a huge number": "9" * 30,
    "other digits": "٣４²",
    "year 9999": "9999-12-31",
    "year 9999 with time": "9999-12-31T23:59",
    "year 1": "0001-01-01",
    "year 1 with time": "0001-01-01T00:00",
    "an impossible day": "2027-02-30",
    "right to left": "abc\u202edef\u2066",
    "emoji": "👩‍👩‍👧‍👦🇰🇿",
    "zero width": "\u200b\ufeff",
    "combining": "a" + "\u0301" * 500,
    "SQL": "'; DROP TABLE people; --",
    "HTML": "<script>alert(1)</script>\"'><b>",
    "template": "{{ 7 * 7 }} %(hours)s %s {0}",
    "a lone surrogate": "\ud800".encode("utf-8", "surrogatepass"),
    "no UTF-8": b"\xff\xfe\xc3(",
    "twice": ["one", "two"],
}
DAYS = {"valid_from": "2027-01-10", "valid_until": "2027-03-10"}

# Who sends what, filled in well; each field is then spoilt in turn.
FORMS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("visitor", "/account/register"): {
        "name": "Dana Omar",
        "email": "new@example.kz",
        "password": factories.PASSWORD,
        "locale": "kk",
    },
    ("visitor", "/account/confirm-again"): {"email": "new@example.kz"},
    ("visitor", "/account/confirm/nonsense"): {"password": factories.PASSWORD},
    ("visitor", "/account/forgotten"): {"email": "new@example.kz"},
    ("visitor", "/account/reset/nonsense"): {"new_password": factories.PASSWORD},
    ("visitor", "/account/sign-in"): {"email": "new@example.kz", "password": factories.PASSWORD},
    ("owner", "/account"): {
        "name": "Dana Omar",
        "iin": factories.identity_number(5),
        "phone": "+77011234567",
        "locale": "en",
        "version": "1",
    },
    ("owner", "/account/password"): {
        "current_password": "x" * 20,
        "new_password": "five calm grey camels",
    },
    ("owner", "/applications/new"): {
        "category": "citizen",
        "organisation": "",
        "title": "Speech of village schools",
        "purpose": "Train an acoustic model on recorded lessons.",
        "hardware": "alem/h200",
        "nodes": "2",
        "gpus_per_node": "8",
        "gpu_hours": "1500",
        "earliest": "2027-01-10",
        "latest": "2027-03-10",
        "team": "one@example.kz",
        "version": "",
    },
    ("owner", "/applications/{draft}/edit"): {
        "category": "science",
        "organisation": "{organisation}",
        "title": "Speech of village schools",
        "purpose": "Train an acoustic model on recorded lessons.",
        "hardware": "alem/h200",
        "nodes": "2",
        "gpus_per_node": "8",
        "gpu_hours": "1500",
        "earliest": "2027-03-10",
        "latest": "2027-01-10",
        "team": "one@example.kz",
        "version": "1",
    },
    ("owner", "/applications/{draft}/submit"): {"version": "1"},
    ("owner", "/applications/{submitted}/withdraw"): {"version": "1"},
    ("operator", "/review/{submitted}/decide"): {
        "kind": "reduced",
        "gpu_hours": "100",
        "reason": "The purpose does not need this much.",
        "version": "1",
        "login_{owner}": "dana",
        "merit_band": "strong",
        "merit_reason": "A clear plan.",
        **DAYS,
    },
    ("operator", "/periods/open"): {
        "hardware": "shares/h200",
        "first": "2032-01-01",
        "last": "2032-01-31",
        "maintenance": "111",
        "reserve": "222",
    },
    ("operator", "/periods/{proposed}/discard"): {"reason": "Opened by mistake.", "version": "2"},
    ("operator", "/periods/{proposed}/what-if"): {
        "capacity": "9000",
        "science_percent": "21",
        "science_cap": "41",
        "science_weight": "25/16",
        "quota": "{own}",
        "weight": "3/2",
        "request": "333",
        "name": "A smaller one",
    },
    ("operator", "/periods/{period}/reserve/{late}"): {"gpu_hours": "11", "reason": "Approved late."},
    ("operator", "/reclaims/{reclaim}/drop"): {"reason": "The data come a week later."},
    ("operator", "/proposals/{proposal}/shares/{claimed}/adjust"): {
        "hours": "400",
        "reason": "The data come a week later.",
        "confirmed": "yes",
    },
    ("operator", "/proposals/{proposal}/publish"): {"version": "2"},
    ("owner", "/quotas/{own}/periods/{period}/give-back"): {"gpu_hours": "11", "reason": "Done earlier."},
    ("owner", "/quotas/{own}/periods/{plannable}/plan"): {
        "request": "333",
        "minimum": "111",
        "uses_from": "2027-01-05",
        "uses_until": "2027-01-20",
    },
    ("owner", "/quotas/{quota}/members"): {"email": "new@example.kz"},
    ("owner", "/quotas/{quota}/book"): {
        "starts_at": "2027-01-10T10:00",
        "hours": "24",
        "nodes": "1",
        "gpus_per_node": "8",
        "asap": "",
    },
    ("owner", "/bookings/{held}/accept"): {"version": "1"},
    ("owner", "/bookings/{booking}/change/longer"): {"ends_at": "2027-01-10T10:00", "version": "1"},
    ("owner", "/bookings/{booking}/change/shorter"): {"ends_at": "2027-01-10T10:00", "version": "1"},
    ("owner", "/bookings/{booking}/window"): {
        "earliest_at": "2027-01-10T10:00",
        "latest_at": "2027-01-12T10:00",
        "hours": "10",
        "version": "1",
    },
    ("owner", "/bookings/{booking}/change/move"): {"starts_at": "2027-01-10T10:00", "version": "1"},
    ("owner", "/quotas/{quota}/repeat"): {
        "nodes": "1",
        "gpus_per_node": "8",
        "weekdays": "2",
        "start": "22:00",
        "hours": "12",
        "first_day": "2026-12-01",
        "last_day": "2026-12-10",
    },
    ("owner", "/quotas/{quota}/flexible"): {
        "earliest_at": "2026-12-10T10:00",
        "latest_at": "2026-12-20T10:00",
        "hours": "24",
        "nodes": "1",
        "gpus_per_node": "8",
    },
    ("owner", "/quotas/{quota}/waitlist"): {
        "earliest_at": "2026-12-10T10:00",
        "latest_at": "2026-12-20T10:00",
        "hours": "24",
        "nodes": "1",
        "gpus_per_node": "8",
    },
    ("owner", "/waitlist/{entry}/accept"): {"version": "1"},
    ("owner", "/waitlist/{entry}/decline"): {"version": "1"},
    ("owner", "/waitlist/{entry}/withdraw"): {"version": "1"},
    ("owner", "/series/{series}/cancel"): {"since": "2026-12-01", "reason": "Done."},
    ("owner", "/bookings/{held}/release"): {"version": "1"},
    ("owner", "/bookings/{booking}/cancel"): {"reason": "Not needed.", "version": "1"},
    ("owner", "/account/calendars"): {"quota": "{quota}"},
    ("operator", "/clusters/grid/outages/new"): {
        "kind": "maintenance",
        "nodes": "grid001, grid[002-003]",
        "starts_at": "2027-01-10T10:00",
        "ends_at": "2027-01-10T20:00",
        "reason": "New cables.",
    },
    ("operator", "/outages/{outage}/edit"): {
        "kind": "outage",
        "nodes": "grid001, grid[002-003]",
        "starts_at": "2027-01-10T10:00",
        "ends_at": "2027-01-10T20:00",
        "reason": "New cables.",
        "version": "1",
    },
    ("operator", "/outages/{outage}/publish"): {"variant": "fewest_moves", "version": "1"},
    ("operator", "/outages/{outage}/call-off"): {"reason": "Not needed.", "version": "1"},
    ("operator", "/repairs/{repair}/again"): {"until": "2027-01-10T10:00", "version": "1"},
    ("operator", "/repairs/{repair}/apply"): {
        "variant": "fewest_drops",
        "reason": "A power supply failed.",
        "version": "1",
    },
    ("operator", "/repairs/{repair}/discard"): {"reason": "It is up again.", "version": "1"},
    ("operator", "/clusters/grid/capacity/announce"): {
        "names": "more[01-03]",
        "partition": "gpu",
        "gpu_type": "h200",
        "gpus": "8",
        "joins_at": "2027-01-10T10:00",
    },
    ("operator", "/clusters/grid/capacity/leave"): {"nodes": "grid001", "leaves_at": "2027-01-10T10:00"},
    ("operator", "/clusters/grid/capacity/freeze"): {"until": "2027-01-10T10:00", "reason": "A visit."},
    ("operator", "/nodes/{node}/withdraw"): {"reason": "Not bought."},
    ("operator", "/nodes/{node}/join"): {"joins_at": "2027-01-10T10:00"},
    ("owner", "/moves/{move}/choose"): {"starts_at": "2027-01-10T10:00", "version": "2"},
    ("owner", "/moves/{move}/refund"): {"version": "2"},
    ("operator", "/bookings/{moved}/pin"): {"reason": "A visit.", "version": "1"},
    ("operator", "/bookings/{moved}/unpin"): {"version": "1"},
    ("operator", "/bookings/{moved}/place"): {
        "starts_at": "2027-01-10T10:00",
        "nodes": "grid004",
        "reason": "The node is needed whole.",
        "version": "1",
    },
    ("owner", "/organisations/new"): {
        "bin": factories.identity_number(77),
        "name": "Dala Labs LLP",
        "region": "750000000",
        "activity": "72190",
    },
    ("owner", "/organisations/{organisation}/edit"): {
        "name": "Dala Labs LLP",
        "region": "750000000",
        "activity": "72190",
        "version": "1",
    },
    ("owner", "/organisations/{organisation}/members/new"): {"email": "new@example.kz", "role": "member"},
    ("owner", "/organisations/{organisation}/members/{membership}"): {"role": "manager"},
    ("admin", "/people/{member}/roles"): {"role": "operator"},
    ("admin", "/people/{member}/cluster-login"): {"cluster_login": "dana"},
    ("admin", "/people/{member}/disable"): {"reason": "Left."},
}
# Nothing but a button: there is no field to spoil.
BUTTONS = {
    "/account/sign-out",
    "/account/sessions/{session}/end",
    "/account/sessions/end-others",
    "/account/calendars/{feed}/revoke",
    "/quotas/{quota}/members/{member}/remove",
    "/organisations/{organisation}/members/{membership}/remove",
    "/outages/{outage}/prepare",
    "/moves/{move}/accept",
    "/nodes/{node}/stay",
    "/people/{member}/enable",
    "/people/{operator}/roles/operator/revoke",
    "/periods/{plannable}/collect",
    "/periods/{proposed}/propose",
    "/periods/{period}/redivide",
    "/reclaims/{reclaim}/confirm",
}
# What a page does not show again: passwords, and what is the value of a button.
NOT_SHOWN = re.compile("password|confirmed")
QUERIES = (
    "page=-1",
    "page=" + "9" * 30,
    "page=1e9",
    "page=%D9%A3",
    "limit=0",
    "limit=" + "9" * 30,
    "sort=junk",
    "sort=name&dir=junk",
    "sort=%00",
    "q=%00%FF%ED%A0%80",
    "q=" + "%D2%B1" * 20_000,
    "q=%25_%5C'%22--",
    "state=junk&category=%00&cluster=%00&role=%FF&all=2",
    "quota=0",
    "quota=%D9%A3&from=%D9%A3",
    "since=0001-01-01&until=9999-12-31",
    "since=%00&until=2027-02-30&subject_id=1e400&actor_id=-1&kind=%00&subject_type=%FF",
    "nodes=-1&nodes=%00&unknown=1e400&troubled=x&jobs=" + "9" * 30,
    "hours=NaN&nodes=-1&gpus_per_node=1e400&starts_at=9999-12-31T23:59",
    "hours=1&nodes=1&gpus_per_node=8&starts_at=0001-01-01T00:00&asap=1",
    "span=junk&day=%00&gpus=%FF&quota=-1&view=x&start=" + "9" * 30,
    "span=month&day=9989-12-31&start=9999-12-31T23:59&nodes=1e400",
    "span=month&day=0001-01-01&start=0001-01-01T00:00%2B05:00",
    "ends_at=9999-12-31T23:59&starts_at=0001-01-01T00:00",
    "hours=1&nodes=1&gpus_per_node=8&earliest_at=2199-01-01T00:00&latest_at=2199-12-31T23:59",
    "ends_at=%00&starts_at=x&version=-1",
    "hours=1&nodes=1&gpus_per_node=8&weekdays=9&start=25:00&first_day=9999-12-31&last_day=0001-01-01",
    "hours=1&nodes=1&gpus_per_node=8&weekdays=1&start=10:00&first_day=2026-12-01&last_day=2199-12-31",
    "capacity=1e400&quota=-1&weight=0/0&request=NaN&science_percent=%00&science_cap=-1&science_weight=1/0",
    "capacity=0&quota=%D9%A3&weight=-1/2&request=" + "9" * 30,
    "capacity=999999999&science_percent=101&science_cap=0&citizens_weight=0",
    "a=%D9%A3&b=" + "9" * 30 + "&proposal=%FF&hardware=%00&request=",
    "next=//evil.example&lang=xx&check=%00&from=" + "9" * 30,
)


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the limits let through at most is another test's subject."""
    monkeypatch.setattr(limiter, "enabled", False)


@pytest.fixture(autouse=True)
def restored(world: World) -> Iterator[None]:
    yield
    world.restore()


def send(browser: FlaskClient, address: str, sent: Sent) -> TestResponse:
    body = urlencode(dict(sent), doseq=True)
    return browser.post(address, data=body, content_type="application/x-www-form-urlencoded", buffered=True)


def filled(world: World, path: str, data: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    known = dict(world.ids)
    known["owner"] = 1
    return path.format(**known), {name.format(**known): value.format(**known) for name, value in data.items()}


def check(answer: TestResponse, kept: Mapping[str, str], what: str) -> None:
    """A 422 says why, and shows again what was right; nothing is ever a fault."""
    assert answer.status_code in {200, 303, 400, 403, 404, 409, 422, 429}, what
    assert "<script>alert" not in answer.text, what
    if answer.status_code != 422:
        return
    assert 'class="errors"' in answer.text, what
    for name, value in kept.items():
        if value and not NOT_SHOWN.search(name):
            assert escape(value) in answer.text, f"{what}: {name} is lost"


@pytest.mark.parametrize(("who", "path"), FORMS, ids=str)
def test_a_spoilt_field_is_told_and_the_others_are_kept(world: World, who: str, path: str) -> None:
    address, good = filled(world, path, FORMS[who, path])
    for field in good:
        kept = {name: value for name, value in good.items() if name != field}
        for label, value in BAD.items():
            sent = kept if value is None else {**kept, field: value}
            answer = send(world.browsers[who], address, sent)
            check(answer, kept, f"{field}, {label}: {answer.status_code}")
            if answer.status_code < 400 or answer.status_code == 429:
                world.restore()


@pytest.mark.parametrize(("who", "path"), FORMS, ids=str)
def test_files_nothing_and_other_things_than_forms(world: World, who: str, path: str) -> None:
    address, good = filled(world, path, FORMS[who, path])
    browser = world.browsers[who]
    files = {name: (BytesIO(b"\xff\x00"), "x.txt") for name in good}
    answers = [
        browser.post(address, data=files, content_type="multipart/form-data"),
        browser.post(address, data=b"--x\r\n", content_type="multipart/form-data; boundary=x"),
        browser.post(address, data=b"\xff" * 100, content_type="application/x-www-form-urlencoded"),
        browser.post(address, json={name: [None, {}] for name in good}),
        browser.post(address, json=[[1, 2, 3], None]),
        browser.post(address, data=b"{", content_type="application/json"),
        browser.post(address, data=dict.fromkeys("abc", "x")),
        browser.post(address, data={**good, "submission": "\x00" * 22}),
        browser.post(address, data={**good, "submission": "ұ" * 22}),
    ]
    for number, answer in enumerate(answers):
        check(answer, {}, f"{number}: {answer.status_code}")


@pytest.mark.parametrize("path", [path for method, path in TABLE if method == "GET"])
def test_nonsense_in_the_address_is_no_fault(world: World, path: str) -> None:
    who = PERSONAS[max(TABLE["GET", path].rfind("y"), 0)]
    for query in QUERIES:
        answer = world.browsers[who].get(f"{path.format(**world.ids)}?{query}", buffered=True)
        allowed = {200, 302, 303, 308, 400, 404, 409, 422} | ({503} if path == "/healthz" else set())
        assert answer.status_code in allowed, f"{query[:80]}: {answer.status_code}"


@pytest.mark.parametrize(("method", "path"), [key for key in TABLE if "{" in key[1]], ids=str)
@pytest.mark.parametrize("number", ["0", "9223372036854775808", "9" * 30, "-1", "٣", "1.5", "%00", "NaN"])
def test_numbers_that_no_row_can_have_are_not_found(
    world: World,
    method: str,
    path: str,
    number: str,
) -> None:
    address = re.sub(r"\{\w+\}", number, path)
    assert world.browsers["admin"].open(address, method=method).status_code in {404, 405}


def test_every_form_stands_here() -> None:
    posts = {path for method, path in TABLE if method == "POST"}
    assert posts - {path for _, path in FORMS} - BUTTONS - {"/review/{draft}/decide"} == set()
