"""The calendar and its feeds as people and calendar programs get them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from icalendar import Calendar, Component

from allocator import events
from allocator.actors import SYSTEM
from allocator.models import Booking, CalendarFeed, Cluster, NodeState, Person, Quota, QuotaMember
from allocator.states import BookingState, OutageState, ReservationState
from config.clock import utcnow
from config.logging import without_link_tokens
from tests import calendars, factories
from tests.browsing import Site, submit, text_of

HOUR = timedelta(hours=1)
ZONE = ZoneInfo("Asia/Almaty")
ADDRESS = re.compile(r"/calendar/feed/([A-Za-z0-9_-]{43})\.ics")


@dataclass
class Scene:
    """Two people with a quota each on one cluster of four nodes, and a browser of each."""

    site: Site
    mine: FlaskClient
    theirs: FlaskClient
    me: Person
    cluster: Cluster
    quota: Quota
    own: Booking
    other: Booking
    now: datetime


@pytest.fixture
def scene(site: Site) -> Scene:
    now = utcnow().replace(minute=0, second=0, microsecond=0)
    with site.data() as data:
        me, you = factories.person(data, name="Dana"), factories.person(data, name="Askar Secret")
        cluster = factories.cluster(data, now=now)
        quota, foreign = (
            factories.quota(
                data,
                factories.application(data, who, cluster, title=title),
                valid_from=now - HOUR,
                valid_until=now + timedelta(days=60),
                now=now,
            )
            for who, title in ((me, "Speech"), (you, "Hidden"))
        )
        nodes = sorted(cluster.nodes, key=lambda node: node.name)
        start = now + timedelta(days=2)
        own = factories.booking(data, quota, on=nodes[:2], starts_at=start, now=now)
        other = factories.booking(data, foreign, on=nodes[2:3], starts_at=start, now=now)
        calendars.outage(data, cluster, you, starts_at=now + timedelta(days=4), now=now)
        calendars.prices(data, cluster, [0.0, 0.7, 3.0] * 200, starts_at=now)
    return Scene(site, site.browser_of(me), site.browser_of(you), me, cluster, quota, own, other, now)


def links(page: str) -> list[str]:
    return [unescape(href) for href in re.findall(r'class="cal-choose" href="([^"]+)"', page)]


def test_own_bookings_are_links_and_others_are_nobodys(scene: Scene) -> None:
    page = scene.mine.get("/calendar?span=month")
    assert f'href="/bookings/{scene.own.id}"' in page.text
    assert f"Booking {scene.own.id}: Speech, 2 nodes × 8 GPUs" in unescape(page.text)
    for secret in (f"/bookings/{scene.other.id}", "Hidden", "Askar"):
        assert secret not in page.text
    assert 'class="cal-taken" d="M' in page.text
    assert "Maintenance" in text_of(page)
    assert "The cooling is renewed." in text_of(page)
    assert 'class="demand demand-' in page.text


@pytest.mark.parametrize("span", ["day", "week", "month"])
def test_a_window_is_chosen_by_two_links_without_scripts(scene: Scene, span: str) -> None:
    day = (scene.now + timedelta(days=1)).date()
    page = scene.mine.get(f"/calendar?span={span}&day={day}")
    start = scene.mine.get(links(page.text)[3])
    assert "Start:" in text_of(start)
    end = links(start.text)[-1]
    assert f"/quotas/{scene.quota.id}/book?" in end
    form = scene.mine.get(end)
    assert form.status_code == 200
    assert 'class="errors"' not in form.text


def test_the_tables_say_the_same_and_lead_to_the_same_form(scene: Scene) -> None:
    page = scene.mine.get("/calendar?span=day&view=table&day=" + str((scene.now + timedelta(days=2)).date()))
    told = text_of(page)
    assert "of 32" in told
    assert f"Booking {scene.own.id}" in told
    assert "Hidden" not in told
    start = re.search(r'href="([^"]+start=[^"]+)"', page.text)
    assert start is not None
    assert "Now choose the end in the table" in text_of(scene.mine.get(unescape(start.group(1))))


def test_what_is_past_or_full_or_out_of_service_cannot_be_chosen(scene: Scene) -> None:
    with scene.site.data() as data:
        for node in data.get_one(Cluster, scene.cluster.id).nodes:
            node.state = NodeState.DOWN
    assert links(scene.mine.get("/calendar").text) == []
    earlier = (scene.now - timedelta(days=9)).date()
    assert links(scene.mine.get(f"/calendar?day={earlier}").text) == []


def test_the_form_comes_with_the_nodes_that_are_free_through_the_window(scene: Scene) -> None:
    with scene.site.data() as data:
        application = data.get_one(Quota, scene.quota.id).application
        application.nodes, application.gpus_per_node = 4, 8
    start = (scene.now + timedelta(days=2)).astimezone(ZONE)
    page = scene.mine.get(f"/calendar?span=day&day={start:%Y-%m-%d}&start={start:%Y-%m-%dT%H:%M}")
    # two of the four are one's own then, and one is somebody else's
    ends = [link for link in links(page.text) if "/book?" in link]
    assert all("&nodes=1&" in link for link in ends)
    assert "8 of 32 GPUs free from the start until then" in unescape(page.text)
    form = re.search(r'href="([^"]+/book[^"]+)">Or fill in the form', page.text)
    assert form is not None
    assert "&nodes=1&" in unescape(form.group(1))
    assert 'class="errors"' not in scene.mine.get(ends[0]).text


def test_a_chosen_start_is_the_first_thing_of_a_week(scene: Scene) -> None:
    week = links(scene.mine.get("/calendar").text)
    day = re.search(r"start=(\d{4}-\d\d-\d\d)", week[-1])
    assert day is not None
    assert f"&day={day.group(1)}#choose" in week[-1]
    assert '<div id="choose" tabindex="-1">' in scene.mine.get(week[-1]).text


def test_hours_that_are_free_in_a_full_column_can_be_started_in(scene: Scene) -> None:
    start = (scene.now + timedelta(days=9)).astimezone(ZONE).replace(hour=8, minute=0)
    with scene.site.data() as data:
        cluster = data.get_one(Cluster, scene.cluster.id)
        quota = data.get_one(Quota, scene.quota.id)
        for node in cluster.nodes:
            factories.booking(
                data, quota, on=[node], starts_at=start.astimezone(UTC), hours=10, now=scene.now
            )
    page = scene.mine.get(f"/calendar?day={start:%Y-%m-%d}")
    assert ">≤32<" in page.text
    assert "32 GPUs free from 06:00 to 08:00" in page.text
    assert f"start={start:%Y-%m-%d}T06" in page.text
    table = text_of(scene.mine.get(f"/calendar?view=table&day={start:%Y-%m-%d}"))
    assert "32 GPUs free from 06:00 to 08:00" in table


@pytest.mark.parametrize(
    ("day", "told"),
    [
        ("2099-01-01", "bookings begin 90 days ahead at most"),
        ("2020-01-01", "This time has passed"),
        ("in 70 days", "after the end of the quota"),
    ],
)
def test_where_nothing_can_be_booked_it_says_why(scene: Scene, day: str, told: str) -> None:
    when = str((scene.now + timedelta(days=70)).date()) if day.startswith("in") else day
    page = scene.mine.get(f"/calendar?day={when}")
    assert told in text_of(page)
    assert "Point at the time" not in text_of(page)
    assert links(page.text) == []


def test_without_a_quota_one_may_look(scene: Scene) -> None:
    with scene.site.data() as data:
        stranger = factories.person(data)
    page = scene.site.browser_of(stranger).get("/calendar")
    assert "you need a quota" in text_of(page)
    assert links(page.text) == []


def test_a_thousand_nodes_come_in_groups(site: Site) -> None:
    with site.data() as data:
        person = factories.person(data)
        factories.cluster(data, nodes=1000, now=utcnow())
    browser = site.browser_of(person)
    page = browser.get("/calendar?span=month")
    groups = re.findall(r'<text class="cal-name"[^>]*>([^<]+)</text></a>', page.text)
    assert groups[0] == "alem001–alem032"
    opened = browser.get("/calendar?span=month&nodes=0")
    assert re.findall(r'<text class="cal-name"[^>]*>([^<]+)</text>', opened.text)[-1] == "alem032"


def test_no_page_of_the_calendar_has_inline_styles(scene: Scene) -> None:
    for query in ("", "?span=month&view=table", "?span=day&start=2099-01-01T10:00"):
        page = scene.mine.get(f"/calendar{query}").text
        assert " style=" not in page
        assert "<style" not in page


# Feeds


def make(scene: Scene, quota: str = "") -> str:
    """Make an address as people do; the secret of it."""
    answer = submit(scene.mine, "/account/calendars", {"quota": quota})
    assert answer.status_code == 303
    told = ADDRESS.search(scene.mine.get("/account/calendars").text)
    assert told is not None
    return told.group(1)


def fetch(scene: Scene, token: str) -> Calendar:
    answer = scene.site.visitor().get(f"/calendar/feed/{token}.ics")
    assert answer.status_code == 200
    assert answer.content_type == "text/calendar; charset=utf-8"
    parsed = Calendar.from_ical(answer.data)
    assert isinstance(parsed, Calendar)
    assert parsed["METHOD"] == "PUBLISH"
    return parsed


def by_uid(calendar: Calendar) -> dict[str, Component]:
    return {str(event["UID"]).split("@")[0]: event for event in calendar.walk("VEVENT")}


def test_a_feed_shows_bookings_and_maintenance(scene: Scene) -> None:
    found = by_uid(fetch(scene, make(scene)))
    assert set(found) == {f"booking-{scene.own.id}", "outage-1"}
    event = found[f"booking-{scene.own.id}"]
    assert event.decoded("DTSTART") == scene.own.starts_at.astimezone(UTC)
    assert event.decoded("DTEND") == scene.own.ends_at.astimezone(UTC)
    assert (event["STATUS"], event["SUMMARY"]) == ("CONFIRMED", "2 × 8 H200: Speech")
    assert str(event["URL"]).endswith(f"/bookings/{scene.own.id}")
    assert found["outage-1"]["STATUS"] == "CONFIRMED"


def test_the_page_says_in_which_language_a_feed_speaks(scene: Scene) -> None:
    with scene.site.data() as data:
        data.get_one(Person, scene.me.id).locale = "kk"
    page = text_of(scene.mine.get("/account/calendars?lang=en"))
    assert "in the language of your letters: Қазақша" in page


def test_the_secret_is_shown_once_and_kept_as_a_hash(scene: Scene) -> None:
    token = make(scene)
    assert token not in scene.mine.get("/account/calendars").text
    with scene.site.data() as data:
        feed = data.query(CalendarFeed).one()
        assert token not in feed.token_hash
    assert (
        without_link_tokens(f"GET /calendar/feed/{token}.ics HTTP/1.1")
        == "GET /calendar/feed/[hidden] HTTP/1.1"
    )


def test_an_unchanged_feed_is_not_sent_again(scene: Scene) -> None:
    token, program = make(scene), scene.site.visitor()
    first = program.get(f"/calendar/feed/{token}.ics")
    assert first.last_modified is not None
    again = program.get(f"/calendar/feed/{token}.ics", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    since = program.get(
        f"/calendar/feed/{token}.ics", headers={"If-Modified-Since": first.headers["Last-Modified"]}
    )
    assert since.status_code == 304
    with scene.site.data() as data:
        booking = data.get_one(Booking, scene.own.id)
        booking.reservation.state = ReservationState.RESERVED
        events.record(data, SYSTEM, booking, "booking.confirmed", now=utcnow() + HOUR)
    changed = program.get(f"/calendar/feed/{token}.ics", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert b"sbatch" in changed.data


def test_what_was_cancelled_is_told_as_cancelled(scene: Scene) -> None:
    token = make(scene, str(scene.quota.id))
    before = by_uid(fetch(scene, token))[f"booking-{scene.own.id}"]
    with scene.site.data() as data:
        booking = data.get_one(Booking, scene.own.id)
        booking.state = BookingState.CANCELLED
        calendars.outage(
            data,
            data.get_one(Cluster, scene.cluster.id),
            scene.me,
            state=OutageState.CANCELLED,
            now=scene.now,
        )
        factories.booking(data, booking.quota, state=BookingState.LAPSED, starts_at=scene.now + HOUR)
    found = by_uid(fetch(scene, token))
    assert set(found) == {f"booking-{scene.own.id}", "outage-1", "outage-2"}
    event = found[f"booking-{scene.own.id}"]
    assert event["STATUS"] == found["outage-2"]["STATUS"] == "CANCELLED"
    assert int(str(event["SEQUENCE"])) > int(str(before["SEQUENCE"]))


def test_a_revoked_address_is_not_found_any_more(scene: Scene) -> None:
    token = make(scene)
    assert submit(scene.mine, "/account/calendars/1/revoke", {}).status_code == 303
    assert scene.site.visitor().get(f"/calendar/feed/{token}.ics").status_code == 404
    assert "You have no address yet" in text_of(scene.mine.get("/account/calendars"))


def test_an_address_shows_no_more_than_its_person_may_see(scene: Scene) -> None:
    with scene.site.data() as data:
        foreign = data.get_one(Booking, scene.other.id).quota
        data.add(QuotaMember(quota=foreign, person_id=scene.me.id, is_lead=False))
        quota_id = foreign.id
    of_quota, of_mine = make(scene, str(quota_id)), make(scene)
    assert f"booking-{scene.other.id}" in by_uid(fetch(scene, of_quota))
    assert len(by_uid(fetch(scene, of_mine))) == 3
    with scene.site.data() as data:
        data.query(QuotaMember).filter_by(quota_id=quota_id, person_id=scene.me.id).delete()
    assert scene.site.visitor().get(f"/calendar/feed/{of_quota}.ics").status_code == 404
    assert f"booking-{scene.other.id}" not in by_uid(fetch(scene, of_mine))
    with scene.site.data() as data:
        data.get_one(Person, scene.me.id).disabled_at = utcnow()
    assert scene.site.visitor().get(f"/calendar/feed/{of_mine}.ics").status_code == 404


def test_others_quotas_and_too_many_addresses_are_refused(scene: Scene) -> None:
    with scene.site.data() as data:
        foreign = data.get_one(Booking, scene.other.id).quota_id
    assert submit(scene.mine, "/account/calendars", {"quota": str(foreign)}).status_code == 422
    with scene.site.data() as data:
        for _ in range(20):
            calendars.feed(data, scene.me)
    full = submit(scene.mine, "/account/calendars", {"quota": ""})
    assert full.status_code == 422
    assert "Revoke one first" in text_of(full)


def test_today_begins_with_the_hour_that_runs(scene: Scene) -> None:
    page = scene.mine.get("/calendar?span=day").text
    hour = datetime.now(ZoneInfo("Asia/Almaty")).hour
    shown = [int(text) for text in re.findall(r'class="cal-hour"[^>]*>(\d\d)<', page)]
    assert shown[0] in (hour, (hour - 1) % 24)  # it may have struck since
    assert len(shown) == 24
    whole = scene.mine.get("/calendar?span=day&hour=0").text
    assert [int(text) for text in re.findall(r'class="cal-hour"[^>]*>(\d\d)<', whole)] == list(range(24))
    assert "From midnight on" not in whole
    assert 'hour=0">From midnight on' in page or shown[0] == 0
