"""Any time in a window, and the waitlist, as people ask for them and answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient

from allocator.actors import Role
from allocator.models import Booking, Quota, WaitlistEntry
from allocator.states import BookingState, WaitlistState
from tests import calendars, factories
from tests.browsing import Site, hidden_fields, text_of
from web.booking.booking_forms import LOCAL

ZONE = ZoneInfo("Asia/Almaty")
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
FIRST, LAST = NOW + timedelta(days=2), NOW + timedelta(days=4)


@dataclass
class Scene:
    """A quota on one node that somebody else may have taken for a week."""

    site: Site
    browser: FlaskClient
    stranger: FlaskClient
    quota: int
    theirs: int

    def take(self) -> None:
        with self.site.data() as data:
            quota = data.get_one(Quota, self.theirs)
            factories.booking(data, quota, starts_at=NOW, hours=24 * 7)


@pytest.fixture
def scene(site: Site) -> Scene:
    with site.data() as data:
        owner, other = factories.person(data), factories.person(data)
        cluster = factories.cluster(data, nodes=1, now=NOW)
        mine, theirs = (
            factories.quota(
                data,
                factories.application(data, who, cluster, now=NOW),
                gpu_hours=10_000,
                valid_from=NOW - timedelta(days=1),
                valid_until=NOW + timedelta(days=60),
                now=NOW,
            )
            for who in (owner, other)
        )
    return Scene(site, site.browser_of(owner), site.browser_of(other), mine.id, theirs.id)


def window(**changes: str) -> dict[str, str]:
    return {
        "earliest_at": FIRST.astimezone(ZONE).strftime(LOCAL),
        "latest_at": LAST.astimezone(ZONE).strftime(LOCAL),
        "hours": "10",
        "nodes": "1",
        "gpus_per_node": "8",
    } | changes


def test_a_window_is_promised(scene: Scene) -> None:
    path = f"/quotas/{scene.quota}/flexible"
    assert "See whether it fits" in text_of(scene.browser.get(path))
    quote = scene.browser.get(path, query_string=window())
    assert quote.status_code == 200
    assert "By today’s plan it starts on" in text_of(quote)
    done = scene.browser.post(path, data=hidden_fields(quote))
    page = text_of(scene.browser.get(done.location))
    assert "Yours, the start may still change" in page
    with scene.site.data() as data:
        booking = data.query(Booking).one()
        assert booking.state is BookingState.PLANNED
        assert (booking.earliest_at, booking.latest_at) == (FIRST, LAST)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latest_at": FIRST.astimezone(ZONE).strftime(LOCAL)}, "The window ends before it begins"),
        ({"hours": "2000"}, "The window is shorter than the booking"),
        ({"hours": "x"}, "Enter a number"),
        ({"hours": "0,001"}, "on the hour"),
        ({"nodes": "9"}, "between 1 and 1 nodes"),
        ({"earliest_at": ""}, "Fill this in"),
    ],
)
def test_a_wrong_window_is_told_and_kept(scene: Scene, changes: dict[str, str], said: str) -> None:
    sent = window(**changes)
    answer = scene.browser.get(f"/quotas/{scene.quota}/flexible", query_string=sent)
    assert answer.status_code == 422
    assert said in text_of(answer)
    assert all(f'value="{value}"' in answer.text for value in sent.values())


def test_when_nothing_is_free_one_waits_and_sees_the_rank(scene: Scene) -> None:
    scene.take()
    page = scene.browser.get(f"/quotas/{scene.quota}/flexible", query_string=window())
    assert page.status_code == 409
    assert "Nothing is free in this window" in text_of(page)
    done = scene.browser.post(f"/quotas/{scene.quota}/waitlist", data=hidden_fields(page))
    told = text_of(scene.browser.get(done.location))
    assert "Your rank 1 of 1" in told
    assert "Expected not known" in told
    assert "Waiting" in text_of(scene.browser.get("/waitlist"))
    assert scene.stranger.get(done.location).status_code == 404
    gone = scene.browser.post(
        f"{done.location}/withdraw", data=hidden_fields(scene.browser.get(f"{done.location}/withdraw"))
    )
    assert "You have left the waitlist" in text_of(scene.browser.get(gone.location))


def test_auditors_see_everybodys_places(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        calendars.waiting(data, quota, quota.application.applicant, now=NOW)
        auditor = factories.person(data, roles=[Role.AUDITOR])
    browser = scene.site.browser_of(auditor)
    assert "Place 1" not in text_of(browser.get("/waitlist"))
    assert "Place 1" in text_of(browser.get("/waitlist?all=1"))
    assert "Place 1" not in text_of(scene.stranger.get("/waitlist?all=1"))


def test_who_could_book_now_need_not_wait(scene: Scene) -> None:
    page = scene.browser.get(f"/quotas/{scene.quota}/flexible", query_string=window())
    answer = scene.browser.post(f"/quotas/{scene.quota}/waitlist", data=hidden_fields(page))
    assert answer.status_code == 422
    assert "you can book it now" in text_of(answer)


def offered(scene: Scene) -> str:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        entry = calendars.waiting(data, quota, quota.application.applicant, offer=calendars.held(data, quota))
        return f"/waitlist/{entry.id}"


def test_an_offer_is_taken_where_it_stands(scene: Scene) -> None:
    path = offered(scene)
    assert scene.browser.get("/bookings/1").location == path
    page = scene.browser.get(path)
    assert "An offer for you" in text_of(page)
    assert page.text.count('class="facts"') == 1
    done = scene.browser.post(f"{path}/accept", data=hidden_fields(page))
    assert done.location == "/bookings/1"
    with scene.site.data() as data:
        assert data.get_one(Booking, 1).state is BookingState.CONFIRMED
        assert data.query(WaitlistEntry).one().state is WaitlistState.ACCEPTED
    fields = hidden_fields(page)
    del fields["submission"]  # its form was sent already; this is another one, as old
    late = scene.browser.post(f"{path}/decline", data=fields, follow_redirects=True)
    assert "has changed since" in text_of(late)


def test_an_offer_is_let_pass_and_one_waits_on(scene: Scene) -> None:
    path = offered(scene)
    done = scene.browser.post(f"{path}/decline", data=hidden_fields(scene.browser.get(path)))
    told = text_of(scene.browser.get(done.location))
    assert "You wait on" in told
    assert "Offers declined or missed 1" in told


def test_a_window_is_changed_until_its_time_is_fixed(scene: Scene) -> None:
    asked = {**window(), "latest_at": (LAST + timedelta(days=9)).astimezone(ZONE).strftime(LOCAL)}
    asked["earliest_at"] = (FIRST + timedelta(days=5)).astimezone(ZONE).strftime(LOCAL)
    quote = scene.browser.get(f"/quotas/{scene.quota}/flexible", query_string=asked)
    shown = scene.browser.post(f"/quotas/{scene.quota}/flexible", data=hidden_fields(quote)).location
    assert "Change the window" in text_of(scene.browser.get(shown))
    path = f"{shown}/window"
    form = scene.browser.get(path)
    assert f'value="{asked["latest_at"]}"' in form.text
    sent = {name: asked[name] for name in ("earliest_at", "latest_at")} | {"hours": "20"}
    found = scene.browser.get(path, query_string=sent)
    assert "By today’s plan it starts on" in text_of(found)
    older = scene.browser.get(path, query_string=sent)
    assert scene.browser.post(path, data=hidden_fields(found)).status_code == 303
    with scene.site.data() as data:
        booking = data.query(Booking).one()
        assert booking.ends_at - booking.starts_at == timedelta(hours=20)
    stale = scene.browser.post(path, data=hidden_fields(older))
    assert stale.status_code == 409
    assert "changed since you opened the page" in text_of(stale)
    wrong = scene.browser.get(path, query_string=sent | {"hours": "9999"})
    assert wrong.status_code == 422
    assert 'value="9999"' in wrong.text
    assert scene.stranger.get(path).status_code == 404
    with scene.site.data() as data:
        data.query(Booking).one().state = BookingState.CONFIRMED
    assert "is fixed" in text_of(scene.browser.get(path))
