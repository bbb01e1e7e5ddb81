"""Bookings made longer or shorter, moved and repeated, as people do it in the browser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from allocator.models import Booking, Person, Quota
from allocator.states import BookingState, ReservationState
from tests import factories
from tests.browsing import Site, hidden_fields, text_of
from web.booking.booking_forms import LOCAL

ZONE = ZoneInfo("Asia/Almaty")
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    """A quota on two nodes with a booking of one of them that has run for two hours of ten."""

    site: Site
    browser: FlaskClient
    member: FlaskClient
    quota: int
    booking: int

    @property
    def path(self) -> str:
        return f"/bookings/{self.booking}"

    def row(self) -> Booking:
        with self.site.data() as data:
            return data.get_one(Booking, self.booking)


@pytest.fixture
def scene(site: Site) -> Scene:
    with site.data() as data:
        owner, member = factories.person(data, cluster_login="dana"), factories.person(data)
        cluster = factories.cluster(data, nodes=2, now=NOW)
        quota = factories.quota(
            data,
            factories.application(data, owner, cluster, now=NOW),
            members=[member],
            valid_from=NOW - timedelta(days=5),
            valid_until=NOW + timedelta(days=60),
            now=NOW,
        )
        booking = factories.booking(
            data,
            quota,
            starts_at=NOW - 2 * HOUR,
            hours=10,
            state=BookingState.STARTED,
            reservation=ReservationState.RESERVED,
        )
    return Scene(site, site.browser_of(owner), site.browser_of(member), quota.id, booking.id)


def local(moment: datetime) -> str:
    return moment.astimezone(ZONE).strftime(LOCAL)


def test_longer_is_quoted_first_and_keeps_the_number(scene: Scene) -> None:
    form = scene.browser.get(f"{scene.path}/change/longer")
    assert "See what it means" in text_of(form)
    wanted = NOW + 10 * HOUR
    quote = scene.browser.get(f"{scene.path}/change/longer?ends_at={local(wanted)}")
    assert "Extra cost 16 GPU-hours" in text_of(quote)
    assert scene.row().ends_at == NOW + 8 * HOUR
    done = scene.browser.post(f"{scene.path}/change/longer", data=hidden_fields(quote))
    assert done.location == scene.path
    assert scene.row().ends_at == wanted
    assert "Made longer" in text_of(scene.browser.get(scene.path))


def test_longer_than_is_free_says_until_when(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        factories.booking(data, quota, starts_at=NOW + 12 * HOUR)
    answer = scene.browser.get(f"{scene.path}/change/longer?ends_at={local(NOW + 20 * HOUR)}")
    assert answer.status_code == 422
    assert f'value="{local(NOW + 20 * HOUR)}"' in answer.text
    fits = scene.browser.get(f"{scene.path}/change/longer?ends_at={local(NOW + 12 * HOUR)}")
    assert fits.status_code == 200


def test_too_early_to_make_it_longer_says_from_when(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        later = factories.booking(data, quota, starts_at=NOW + timedelta(days=9)).id
    page = scene.browser.get(f"/bookings/{later}/change/longer")
    assert "Not possible now It can be made longer from" in text_of(page)


def test_shorter_gives_the_rest_back(scene: Scene) -> None:
    quote = scene.browser.get(f"{scene.path}/change/shorter?ends_at={local(NOW + 3 * HOUR)}")
    assert "Will be given back 40 GPU-hours" in text_of(quote)
    done = scene.browser.post(f"{scene.path}/change/shorter", data=hidden_fields(quote))
    assert "40 GPU-hours were given back" in text_of(scene.browser.get(done.location))
    assert scene.row().ends_at == NOW + 3 * HOUR
    late = scene.browser.get(f"{scene.path}/change/shorter?ends_at={local(NOW - HOUR)}")
    assert late.status_code == 422


def test_a_stale_page_changes_nothing(scene: Scene) -> None:
    quote = scene.browser.get(f"{scene.path}/change/shorter?ends_at={local(NOW + 3 * HOUR)}")
    with scene.site.data() as data:
        data.get_one(Booking, scene.booking).pin = "A reason"
    answer = scene.browser.post(f"{scene.path}/change/shorter", data=hidden_fields(quote))
    assert answer.status_code == 409
    assert "Nothing was changed" in text_of(answer)


def test_a_move_goes_where_it_fits_and_offers_the_nearest(scene: Scene) -> None:
    start = NOW + timedelta(days=3)
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        cluster = quota.cluster
        mine = factories.booking(data, quota, starts_at=start, hours=10, gpus_per_node=8).id
        factories.booking(data, quota, on=cluster.nodes, starts_at=start + timedelta(days=1), hours=24)
    taken = scene.browser.get(f"/bookings/{mine}/change/move?starts_at={local(start + timedelta(days=1))}")
    assert taken.status_code == 409
    nearest = [unescape(href) for href in re.findall(r'href="(/bookings/[^"]+starts_at=[^"]+)"', taken.text)]
    quote = scene.browser.get(nearest[0])
    assert "The cost stays the same" in text_of(quote)
    scene.browser.post(f"/bookings/{mine}/change/move", data=hidden_fields(quote))
    with scene.site.data() as data:
        assert data.get_one(Booking, mine).starts_at == start + timedelta(hours=14)


def test_a_member_may_not_change_what_another_booked(scene: Scene) -> None:
    for kind in ("longer", "shorter", "move"):
        assert scene.member.get(f"{scene.path}/change/{kind}").status_code == 403
    assert scene.member.get(f"{scene.path}/change/colour").status_code == 404


# Series


def pattern(**changes: object) -> dict[str, object]:
    today = NOW.astimezone(ZONE).date()
    return {
        "nodes": "1",
        "gpus_per_node": "8",
        "weekdays": [str(day) for day in range(7)],
        "start": "22:00",
        "hours": "12",
        "first_day": (today + timedelta(days=1)).isoformat(),
        "last_day": (today + timedelta(days=4)).isoformat(),
    } | changes


def evening(days: int) -> datetime:
    day: date = NOW.astimezone(ZONE).date() + timedelta(days=days)
    return datetime(day.year, day.month, day.day, 22, tzinfo=ZONE).astimezone(UTC)


def series_of(scene: Scene) -> list[Booking]:
    with scene.site.data() as data:
        rows = select(Booking).where(Booking.series_id.is_not(None)).order_by(Booking.starts_at)
        return list(data.scalars(rows))


def test_nights_are_previewed_and_those_that_fit_are_booked(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        factories.booking(data, quota, on=quota.cluster.nodes, starts_at=evening(2), hours=2)
    preview = scene.browser.get(f"/quotas/{scene.quota}/repeat", query_string=pattern())
    told = text_of(preview)
    assert "3 of 4 dates fit" in told
    assert "Left out These GPUs are not free then" in told
    assert series_of(scene) == []
    done = scene.browser.post(f"/quotas/{scene.quota}/repeat", data=hidden_fields(preview) | pattern())
    assert done.status_code == 303
    assert [one.starts_at for one in series_of(scene)] == [evening(1), evening(3), evening(4)]
    page = scene.browser.get(done.location)
    assert "3 dates are booked" in text_of(page)
    assert "Monday, Tuesday" in text_of(page)


def test_the_rest_of_a_series_is_given_back_from_a_day_on(scene: Scene) -> None:
    page = scene.browser.get(f"/quotas/{scene.quota}/repeat", query_string=pattern())
    made = scene.browser.post(f"/quotas/{scene.quota}/repeat", data=hidden_fields(page) | pattern())
    form = scene.browser.get(f"{made.location}/cancel")
    since = (NOW.astimezone(ZONE).date() + timedelta(days=3)).isoformat()
    done = scene.browser.post(f"{made.location}/cancel", data=hidden_fields(form) | {"since": since})
    assert "192 GPU-hours were given back" in text_of(scene.browser.get(done.location))
    states = [one.state for one in series_of(scene)]
    assert states == [BookingState.CONFIRMED] * 2 + [BookingState.CANCELLED] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weekdays": []}, "Weekdays"),
        ({"start": "25:00"}, "Start"),
        ({"hours": "x"}, "Enter a number"),
        ({"first_day": "2027-02-30"}, "Enter a day"),
        ({"first_day": "2027-03-01", "last_day": "2027-02-01"}, "Last day"),
        ({"hours": "30"}, "Length in hours"),
    ],
)
def test_a_wrong_pattern_is_told(scene: Scene, changes: dict[str, object], said: str) -> None:
    answer = scene.browser.get(f"/quotas/{scene.quota}/repeat", query_string=pattern(**changes))
    assert answer.status_code == 422
    assert 'class="errors"' in answer.text
    assert said in text_of(answer)


def test_coming_bookings_stand_first_with_a_countdown_and_the_line(scene: Scene) -> None:
    told = text_of(scene.browser.get("/bookings"))
    assert re.search(r"\d hours( \d+ minutes)? left", told)
    assert f"--reservation=kezek-{scene.booking} " in told


def test_node_names_are_told_once_they_are_settled(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        far = factories.booking(data, quota, starts_at=NOW + timedelta(days=20)).id
        person = data.scalars(select(Person)).first()
        assert person is not None
    assert "alem001" in scene.browser.get(scene.path).text
    page = scene.browser.get(f"/bookings/{far}")
    assert "alem001" not in page.text
    assert "Nodes settled on" in text_of(page)


def test_who_runs_nothing_is_told_until_when(scene: Scene) -> None:
    with scene.site.data() as data:
        data.get_one(Booking, scene.booking).no_show_warned_at = NOW
    told = text_of(scene.browser.get(scene.path))
    assert "No job has run in your booking" in told
    assert "the rest of the booking is released" in told


def test_an_end_before_the_end_is_no_longer_booking(scene: Scene) -> None:
    told = text_of(scene.browser.get(f"{scene.path}/change/longer?ends_at={local(NOW + 7 * HOUR)}"))
    assert "to end it earlier, make it shorter" in told
    told = text_of(scene.browser.get(f"{scene.path}/change/shorter?ends_at={local(NOW + 9 * HOUR)}"))
    assert "to end it later, make it longer" in told


def test_changes_are_priced(scene: Scene) -> None:
    quote = text_of(scene.browser.get(f"{scene.path}/change/longer?ends_at={local(NOW + 10 * HOUR)}"))
    assert re.search(r"To be paid [\d ,]+ ₸", quote)
    quote = text_of(scene.browser.get(f"{scene.path}/change/shorter?ends_at={local(NOW + 3 * HOUR)}"))
    assert re.search(r"Less to be paid [\d ,]+ ₸", quote)


def test_longer_is_offered_once_it_is_possible(scene: Scene) -> None:
    with scene.site.data() as data:
        quota = data.get_one(Quota, scene.quota)
        later = factories.booking(data, quota, starts_at=NOW + timedelta(days=9)).id
    assert f"{scene.path}/change/longer" in scene.browser.get(scene.path).text
    page = scene.browser.get(f"/bookings/{later}")
    assert "/change/longer" not in page.text
    assert "It can be made longer from" in text_of(page)


def test_nights_that_one_has_booked_already_are_told(scene: Scene) -> None:
    nights = pattern(last_day=pattern()["first_day"])
    page = scene.browser.get(f"/quotas/{scene.quota}/repeat", query_string=nights)
    assert re.search(r"To be paid [\d ,]+ ₸", text_of(page))
    scene.browser.post(f"/quotas/{scene.quota}/repeat", data=hidden_fields(page) | nights)
    again = text_of(scene.browser.get(f"/quotas/{scene.quota}/repeat", query_string=nights))
    assert "You have booked exactly this already: Booking" in again
