"""Every route, asked by everybody: what the table says and nothing else.

A column is a persona, a letter the answer: `y` may (whatever the form then says), `i` is asked to sign in,
`x` may see the thing but not do this (403), `n` must not learn that there is anything (404). A route outside
the table fails.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from allocator import events
from allocator.actors import SYSTEM, MembershipRole, Role
from allocator.models import JobHealth, Membership, Person
from allocator.states import ApplicationState
from config.clock import utcnow
from config.settings import Settings
from tests import calendars, factories
from tests.browsing import Site, sign_in
from tests.conftest import TEST_SECRET
from tests.outage_pages import make_outage_scene
from tests.period_pages import POLICY, make_scene
from web.app import create_app

PERSONAS = ("visitor", "owner", "member", "stranger", "operator", "council", "auditor", "admin")
STAFF = {
    "operator": Role.OPERATOR,
    "council": Role.COUNCIL_MEMBER,
    "auditor": Role.AUDITOR,
    "admin": Role.ADMINISTRATOR,
}

# Columns: visitor owner member stranger operator council auditor admin
TABLE: Mapping[tuple[str, str], str] = {
    ("GET", "/"): "yyyyyyyy",
    ("GET", "/help"): "yyyyyyyy",
    ("GET", "/healthz"): "yyyyyyyy",
    ("GET", "/metrics"): "yyyyyyyy",
    ("GET", "/static/kezek.css"): "yyyyyyyy",
    ("GET", "/language/ru"): "yyyyyyyy",
    ("GET", "/policy"): "yyyyyyyy",
    ("GET", "/policy.json"): "yyyyyyyy",
    ("GET", "/policy/versions"): "yyyyyyyy",
    ("GET", f"/policy/versions/{POLICY.version}"): "yyyyyyyy",
    ("GET", f"/policy/versions/{POLICY.version}/policy.json"): "yyyyyyyy",
    ("GET", "/policy/versions/nonsense"): "nnnnnnnn",
    ("GET", "/clusters"): "yyyyyyyy",
    ("GET", "/clusters/alem"): "ixxxyxyy",
    # accounts
    ("GET", "/account/register"): "yyyyyyyy",
    ("POST", "/account/register"): "yyyyyyyy",
    ("GET", "/account/check-mail"): "yyyyyyyy",
    ("GET", "/account/confirm-again"): "yyyyyyyy",
    ("POST", "/account/confirm-again"): "yyyyyyyy",
    ("GET", "/account/confirm/nonsense"): "nnnnnnnn",
    ("POST", "/account/confirm/nonsense"): "nnnnnnnn",
    ("GET", "/account/forgotten"): "yyyyyyyy",
    ("POST", "/account/forgotten"): "yyyyyyyy",
    ("GET", "/account/link-sent"): "yyyyyyyy",
    ("GET", "/account/reset/nonsense"): "nnnnnnnn",
    ("POST", "/account/reset/nonsense"): "nnnnnnnn",
    ("GET", "/account/sign-in"): "yyyyyyyy",
    ("POST", "/account/sign-in"): "yyyyyyyy",
    ("POST", "/account/sign-out"): "yyyyyyyy",
    ("GET", "/account"): "iyyyyyyy",
    ("POST", "/account"): "iyyyyyyy",
    ("GET", "/account/password"): "iyyyyyyy",
    ("POST", "/account/password"): "iyyyyyyy",
    ("GET", "/account/sessions"): "iyyyyyyy",
    ("POST", "/account/sessions/{session}/end"): "iynnnnnn",
    ("POST", "/account/sessions/end-others"): "iyyyyyyy",
    # applications
    ("GET", "/applications"): "iyyyyyyy",
    ("GET", "/applications/export.csv"): "iyyyyyyy",
    ("GET", "/applications/new"): "iyyyyyyy",
    ("POST", "/applications/new"): "iyyyyyyy",
    ("GET", "/applications/{draft}"): "iynnnnnn",
    ("GET", "/applications/{submitted}"): "iynnyyyn",
    ("GET", "/applications/{draft}/edit"): "iynnnnnn",
    ("POST", "/applications/{draft}/edit"): "iynnnnnn",
    ("GET", "/applications/{submitted}/edit"): "iynnxxxn",
    ("GET", "/applications/{draft}/check"): "iynnnnnn",
    ("GET", "/applications/{draft}/submit"): "iynnnnnn",
    ("POST", "/applications/{draft}/submit"): "iynnnnnn",
    ("GET", "/applications/{submitted}/withdraw"): "iynnxxxn",
    ("POST", "/applications/{submitted}/withdraw"): "iynnxxxn",
    # decisions
    ("GET", "/review"): "ixxxyyyx",
    ("GET", "/review/export.csv"): "ixxxyyyx",
    ("GET", "/review/{submitted}"): "ixnnyyyn",
    ("GET", "/review/{draft}"): "ixnnnnnn",
    ("GET", "/review/{submitted}/decide"): "ixnnyyyn",
    ("POST", "/review/{submitted}/decide"): "ixnnyxxn",
    ("POST", "/review/{draft}/decide"): "ixnnnnnn",
    # quotas and bookings
    ("GET", "/quotas"): "iyyyyyyy",
    ("GET", "/quotas/{quota}"): "iyynyyyn",
    ("GET", "/quotas/{quota}/jobs.csv"): "iyynyyyn",
    ("GET", "/quotas/{quota}/members"): "iyynyyyn",
    ("POST", "/quotas/{quota}/members"): "iyxnxxxn",
    ("GET", "/quotas/{quota}/members/{member}/remove"): "iyxnxxxn",
    ("POST", "/quotas/{quota}/members/{member}/remove"): "iyxnxxxn",
    ("GET", "/quotas/{quota}/book"): "iyynxxxn",
    ("POST", "/quotas/{quota}/book"): "iyynxxxn",
    ("POST", "/bookings/{held}/accept"): "iyynxxxn",
    ("POST", "/bookings/{held}/release"): "iyxnyxxn",
    ("GET", "/bookings/{held}"): "iyynyyyn",
    ("GET", "/bookings"): "iyyyyyyy",
    ("GET", "/bookings/export.csv"): "iyyyyyyy",
    ("GET", "/bookings/{booking}"): "iyynyyyn",
    ("GET", "/bookings/{booking}/cancel"): "iyxnyxxn",
    ("POST", "/bookings/{booking}/cancel"): "iyxnyxxn",
    ("GET", "/bookings/{booking}/change/longer"): "iyxnxxxn",
    ("POST", "/bookings/{booking}/change/longer"): "iyxnxxxn",
    ("GET", "/bookings/{booking}/change/shorter"): "iyxnyxxn",
    ("POST", "/bookings/{booking}/change/shorter"): "iyxnyxxn",
    ("GET", "/bookings/{booking}/change/move"): "iyxnxxxn",
    ("POST", "/bookings/{booking}/change/move"): "iyxnxxxn",
    ("GET", "/bookings/{booking}/window"): "iyxnxxxn",
    ("POST", "/bookings/{booking}/window"): "iyxnxxxn",
    ("GET", "/quotas/{quota}/repeat"): "iyynxxxn",
    ("POST", "/quotas/{quota}/repeat"): "iyynxxxn",
    ("GET", "/series/{series}"): "iyynyyyn",
    ("GET", "/series/{series}/cancel"): "iyxnyxxn",
    ("POST", "/series/{series}/cancel"): "iyxnyxxn",
    ("GET", "/quotas/{quota}/flexible"): "iyynxxxn",
    ("POST", "/quotas/{quota}/flexible"): "iyynxxxn",
    ("POST", "/quotas/{quota}/waitlist"): "iyynxxxn",
    ("GET", "/waitlist"): "iyyyyyyy",
    ("GET", "/waitlist/{entry}"): "iyynyyyn",
    ("GET", "/waitlist/{entry}/withdraw"): "iyynxxxn",
    ("POST", "/waitlist/{entry}/accept"): "iyynxxxn",
    ("POST", "/waitlist/{entry}/decline"): "iyynxxxn",
    ("POST", "/waitlist/{entry}/withdraw"): "iyynxxxn",
    # the calendar and its feeds
    ("GET", "/calendar"): "iyyyyyyy",
    ("GET", "/account/calendars"): "iyyyyyyy",
    ("POST", "/account/calendars"): "iyyyyyyy",
    ("GET", "/account/calendars/{feed}/revoke"): "iynnnnnn",
    ("POST", "/account/calendars/{feed}/revoke"): "iynnnnnn",
    ("GET", "/calendar/feed/nonsense.ics"): "nnnnnnnn",
    # periods and fairness
    ("GET", "/fairness"): "yyyyyyyy",
    ("GET", "/fairness/check_division.py"): "yyyyyyyy",
    ("GET", "/fairness/{period}"): "yyyyyyyy",
    ("GET", "/fairness/{proposed}"): "nnnnnnnn",
    ("GET", "/fairness/{period}/division.json"): "yyyyyyyy",
    ("GET", "/fairness/{period}/division.csv"): "yyyyyyyy",
    ("GET", "/periods"): "ixxxyyyy",
    ("GET", "/periods/open"): "ixxxyxxx",
    ("POST", "/periods/open"): "ixxxyxxx",
    ("GET", "/periods/{period}"): "innnyyyy",
    ("GET", "/periods/{proposed}"): "innnyyyy",
    ("POST", "/periods/{plannable}/collect"): "innnyxxx",
    ("POST", "/periods/{proposed}/propose"): "innnyxxx",
    ("GET", "/periods/{proposed}/discard"): "innnyxxx",
    ("POST", "/periods/{proposed}/discard"): "innnyxxx",
    ("GET", "/periods/{proposed}/compare"): "innnyyyy",
    ("GET", "/periods/{proposed}/replay"): "innnyyyy",
    ("GET", "/periods/{proposed}/what-if"): "innnyxxx",
    ("POST", "/periods/{proposed}/what-if"): "innnyxxx",
    ("GET", "/periods/{period}/grants"): "innnyyyy",
    ("GET", "/periods/{period}/reserve/{late}"): "innnyxxn",
    ("POST", "/periods/{period}/reserve/{late}"): "innnyxxn",
    ("GET", "/periods/{period}/redivide"): "innnyxxx",
    ("POST", "/periods/{period}/redivide"): "innnyxxx",
    ("GET", "/reclaims/{reclaim}/confirm"): "innnyxxx",
    ("POST", "/reclaims/{reclaim}/confirm"): "innnyxxx",
    ("GET", "/reclaims/{reclaim}/drop"): "innnyxxx",
    ("POST", "/reclaims/{reclaim}/drop"): "innnyxxx",
    ("GET", "/proposals/{proposal}/shares/{claimed}"): "innnyyyy",
    ("GET", "/proposals/{proposal}/shares/{claimed}/adjust"): "innnyxxx",
    ("POST", "/proposals/{proposal}/shares/{claimed}/adjust"): "innnyxxx",
    ("GET", "/proposals/{proposal}/publish"): "innnyxxx",
    ("POST", "/proposals/{proposal}/publish"): "innnxxxx",
    ("GET", "/proposals/{proposal}/shares.csv"): "innnyyyy",
    ("GET", "/periods/{period}/grants.csv"): "innnyyyy",
    ("GET", "/proposals/{proposal}/division.json"): "innnyyyy",
    ("GET", "/proposals/{proposal}/division.csv"): "innnyyyy",
    ("GET", "/quotas/{own}/periods/{period}"): "iynnyyyn",
    ("GET", "/quotas/{own}/periods/{period}/give-back"): "iynnxxxn",
    ("POST", "/quotas/{own}/periods/{period}/give-back"): "iynnxxxn",
    ("GET", "/quotas/{own}/periods/{plannable}/plan"): "iynnxxxn",
    ("POST", "/quotas/{own}/periods/{plannable}/plan"): "iynnxxxn",
    # outages, repairs, nodes that come and go, moves
    ("GET", "/outages"): "ixxxyxyy",
    ("GET", "/clusters/grid/outages/new"): "ixxxyxxx",
    ("POST", "/clusters/grid/outages/new"): "ixxxyxxx",
    ("GET", "/outages/{outage}"): "ixxxyxyy",
    ("GET", "/outages/{published}"): "ixxxyxyy",
    ("GET", "/outages/{unfinished}"): "ixxxyxyy",
    ("GET", "/repairs/{asked}"): "ixxxyxyy",
    ("GET", "/outages/{outage}/edit"): "ixxxyxxx",
    ("POST", "/outages/{outage}/edit"): "ixxxyxxx",
    ("POST", "/outages/{outage}/prepare"): "ixxxyxxx",
    ("GET", "/outages/{outage}/publish"): "ixxxyxxx",
    ("POST", "/outages/{outage}/publish"): "ixxxyxxx",
    ("GET", "/outages/{outage}/call-off"): "ixxxyxxx",
    ("POST", "/outages/{outage}/call-off"): "ixxxyxxx",
    ("GET", "/repairs"): "ixxxyxyy",
    ("GET", "/repairs/{repair}"): "ixxxyxyy",
    ("POST", "/repairs/{repair}/again"): "ixxxyxxx",
    ("GET", "/repairs/{repair}/apply"): "ixxxyxxx",
    ("POST", "/repairs/{repair}/apply"): "ixxxyxxx",
    ("GET", "/repairs/{repair}/discard"): "ixxxyxxx",
    ("POST", "/repairs/{repair}/discard"): "ixxxyxxx",
    ("GET", "/clusters/grid/capacity"): "ixxxyxyy",
    ("GET", "/clusters/grid/capacity/announce"): "ixxxyxxx",
    ("POST", "/clusters/grid/capacity/announce"): "ixxxyxxx",
    ("GET", "/clusters/grid/capacity/leave"): "ixxxyxxx",
    ("POST", "/clusters/grid/capacity/leave"): "ixxxyxxx",
    ("GET", "/clusters/grid/capacity/freeze"): "ixxxyxxx",
    ("POST", "/clusters/grid/capacity/freeze"): "ixxxyxxx",
    ("GET", "/nodes/{node}/withdraw"): "ixxxyxxx",
    ("POST", "/nodes/{node}/withdraw"): "ixxxyxxx",
    ("GET", "/nodes/{node}/join"): "ixxxyxxx",
    ("POST", "/nodes/{node}/join"): "ixxxyxxx",
    ("POST", "/nodes/{node}/stay"): "ixxxyxxx",
    ("GET", "/moves/{move}"): "iynnyyyn",
    ("POST", "/moves/{move}/accept"): "iynnxxxn",
    ("POST", "/moves/{move}/choose"): "iynnxxxn",
    ("GET", "/moves/{move}/refund"): "iynnxxxn",
    ("POST", "/moves/{move}/refund"): "iynnxxxn",
    ("GET", "/bookings/{moved}/pin"): "ixnnyxxn",
    ("POST", "/bookings/{moved}/pin"): "ixnnyxxn",
    ("POST", "/bookings/{moved}/unpin"): "ixnnyxxn",
    ("GET", "/bookings/{moved}/place"): "ixnnyxxn",
    ("POST", "/bookings/{moved}/place"): "ixnnyxxn",
    # organisations
    ("GET", "/organisations"): "iyyyyyyy",
    ("GET", "/organisations/new"): "iyyyyyyy",
    ("POST", "/organisations/new"): "iyyyyyyy",
    ("GET", "/organisations/{organisation}"): "iyynyyyy",
    ("GET", "/organisations/{organisation}/edit"): "iyxnxxxx",
    ("POST", "/organisations/{organisation}/edit"): "iyxnxxxx",
    ("GET", "/organisations/{organisation}/members/new"): "iyxnxxxx",
    ("POST", "/organisations/{organisation}/members/new"): "iyxnxxxx",
    ("GET", "/organisations/{organisation}/members/{membership}"): "iyxnxxxx",
    ("POST", "/organisations/{organisation}/members/{membership}"): "iyxnxxxx",
    ("GET", "/organisations/{organisation}/members/{membership}/remove"): "iyynnnnn",
    ("POST", "/organisations/{organisation}/members/{membership}/remove"): "iyynnnnn",
    # people and the record of events
    ("GET", "/people"): "ixxxxxxy",
    ("GET", "/people/{member}"): "inxnnnny",
    ("GET", "/people/{member}/cluster-login"): "inxnynny",
    ("POST", "/people/{member}/cluster-login"): "inxnynny",
    ("GET", "/people/{member}/disable"): "inxnnnny",
    ("POST", "/people/{member}/disable"): "inxnnnny",
    ("POST", "/people/{member}/enable"): "inxnnnny",
    ("POST", "/people/{member}/roles"): "inxnnnny",
    ("GET", "/people/{operator}/roles/operator/revoke"): "innnxnny",
    ("POST", "/people/{operator}/roles/operator/revoke"): "innnxnny",
    ("GET", "/audit"): "ixxxxxyy",
    ("GET", "/audit/events.csv"): "ixxxxxyy",
    ("GET", "/audit/quota/{quota}"): "ixxxxxyy",
}


class World:
    """A site with one of everything and a browser for each persona; `restore()` undoes what they did."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.file, self.kept = site, folder / "kezek.sqlite3", folder / "kept.sqlite3"
        site.app.config["WTF_CSRF_ENABLED"] = False  # another test's subject
        people = self._fill()
        self.browsers = {name: site.visitor() for name in PERSONAS}
        sessions = {name: sign_in(self.browsers[name], row) for name, row in people.items()}
        self.ids["session"] = sessions["owner"]
        self.cookies = {name: browser.get_cookie("kezek") for name, browser in self.browsers.items()}
        site.database.dispose()
        shutil.copyfile(self.file, self.kept)

    def restore(self) -> None:
        self.site.database.dispose()
        shutil.copyfile(self.kept, self.file)
        for name, cookie in self.cookies.items():
            if cookie:
                self.browsers[name].set_cookie("kezek", cookie.value)

    def _fill(self) -> Mapping[str, Person]:
        with self.site.data() as data:
            people = {
                name: factories.person(data, name=f"The {name}", roles=[STAFF[name]] if name in STAFF else [])
                for name in PERSONAS[1:]
            }
            owner, member = people["owner"], people["member"]
            firm = factories.organisation(data, head=owner, members={member: MembershipRole.MEMBER})
            cluster = factories.cluster(data)
            draft, submitted, granted = (
                factories.application(data, owner, cluster, organisation=firm, state=state)
                for state in (ApplicationState.DRAFT, ApplicationState.SUBMITTED, ApplicationState.SUBMITTED)
            )
            quota = factories.quota(data, granted, members=[member])
            booking = factories.booking(data, quota, booked_by=owner, starts_at=utcnow() + timedelta(days=2))
            data.add(JobHealth(name="expiry", leader="-", interval_seconds=30, started_at=utcnow()))
            membership = data.scalars(select(Membership).where(Membership.person_id == member.id)).one()
            events.record(data, SYSTEM, quota, "quota.granted", now=utcnow())
            feed = calendars.feed(data, owner)
            held = calendars.held(data, quota)
            self.ids = {
                "feed": feed.id,
                "held": held.id,
                "entry": calendars.waiting(data, quota, owner).id,
                "series": calendars.series(data, quota, owner).id,
                "draft": draft.id,
                "submitted": submitted.id,
                "quota": quota.id,
                "booking": booking.id,
                "organisation": firm.id,
                "membership": membership.id,
                "member": member.id,
                "operator": people["operator"].id,
            }
            scene = make_scene(data, utcnow(), people["owner"], people["operator"], firm)
            self.ids |= scene.fill(4)
            made = make_outage_scene(data, utcnow(), people["owner"], people["operator"])
            self.ids |= made.fill(2)
        return people


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
    site = Site(create_app(Settings(data_dir=folder, secret_key=TEST_SECRET, default_language="en")))
    yield World(site, folder)
    site.database.dispose()


def verdict(response: TestResponse) -> str:
    """The letter of an answer; a fault (500) has none."""
    if response.status_code == 401 or "/account/sign-in" in response.headers.get("Location", ""):
        return "i"
    if response.status_code < 400 or response.status_code in {409, 422, 429}:
        return "y"
    return {403: "x", 404: "n"}.get(response.status_code, str(response.status_code))


@pytest.mark.parametrize(("method", "path"), TABLE, ids=str)
def test_everybody_gets_what_the_table_says(world: World, method: str, path: str) -> None:
    address = path.format(**world.ids)
    told = ""
    for name in PERSONAS:
        answer = world.browsers[name].open(address, method=method, buffered=True)
        told += "y" if path == "/account/sign-in" and answer.status_code < 500 else verdict(answer)
        if method == "POST":
            world.restore()
    assert told == TABLE[method, path]


# what a stranger may see anyway needs no hiding
HIDDEN = [key for key, letters in TABLE.items() if "{" in key[1] and letters[3] != "y"]


@pytest.mark.parametrize(("method", "path"), HIDDEN, ids=str)
def test_what_does_not_exist_looks_like_what_one_may_not_see(world: World, method: str, path: str) -> None:
    nowhere = path.format(**dict.fromkeys(world.ids, 999_999))
    foreign = world.browsers["stranger"].open(path.format(**world.ids), method=method)
    missing = world.browsers["stranger"].open(nowhere, method=method)
    assert missing.status_code == foreign.status_code


def test_the_table_knows_every_route(site: Site) -> None:
    assert set(routes(site.app)) - covered(site.app) == set()


def routes(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, rule.endpoint)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def covered(app: Flask) -> set[tuple[str, str]]:
    names = {name for _, path in TABLE for name in re.findall(r"{(\w+)}", path)}
    numbers = dict.fromkeys(names, 1)
    adapter = app.url_map.bind("localhost")
    return {(method, str(adapter.match(path.format(**numbers), method=method)[0])) for method, path in TABLE}
