"""Every page asks the database as often for sixty of everything as for two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM, MembershipRole, Role
from allocator.models import Booking, Cluster, JobHealth, JobRecord, Membership, Person, Quota
from allocator.states import ApplicationState
from config.clock import utcnow
from config.settings import Settings
from tests import calendars, factories
from tests.browsing import Site, sign_in
from tests.conftest import TEST_SECRET
from tests.outage_pages import make_outage_scene
from tests.period_pages import make_scene
from tests.web.test_authorisation import PERSONAS, STAFF, TABLE
from web.app import create_app

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]

FEW, MANY = 2, 60
BUDGET = 16
# The whole file of a decision on one page; and a family of metrics a query.
MORE = {"/review/{submitted}": 22, "/metrics": 34, "/waitlist/{entry}": 20} | {
    path: 24 for _, path in TABLE if path.startswith(("/periods", "/proposals", "/fairness", "/quotas/"))
}
# What the table of routes cannot say: other forms of the same pages.
VARIANTS = [
    ("operator", "/quotas?all=1"),
    ("operator", "/bookings?all=1"),
    ("owner", "/bookings?quota={quota}"),
    ("operator", "/review?state=any&q=speech"),
    ("owner", "/quotas/{quota}/book?hours=2&nodes=1&gpus_per_node=8&asap=1"),
    ("auditor", "/audit?subject_type=quota"),
    ("owner", "/calendar?span=month"),
    ("owner", "/calendar?span=month&view=table"),
    (
        "owner",
        "/quotas/{quota}/repeat?nodes=1&gpus_per_node=8&weekdays=1&start=10:00&hours=2"
        "&first_day=2027-03-01&last_day=2027-04-01",
    ),
    ("visitor", "/calendar/feed/a-secret.ics"),
]


class Crowd:
    """A site with `count` of everything that a list can show, and a browser for each persona."""

    def __init__(self, folder: Path, count: int) -> None:
        # no limit on open bookings: with many as with few it is the same page that is counted
        policy = (Path(__file__).parents[2] / "config" / "policy.toml").read_text(encoding="utf-8")
        own = folder / "policy.toml"
        own.write_text(policy.replace("max_open = 40", "max_open = 1000"), encoding="utf-8")
        settings = Settings(data_dir=folder, secret_key=TEST_SECRET, default_language="en", policy_file=own)
        self.site = Site(create_app(settings))
        self.count, self.now = count, utcnow()
        with self.site.data() as data:
            people = self._people(data)
            self._fill(data, people)
        self.browsers: dict[str, FlaskClient] = {"visitor": self.site.visitor()}
        for name, person in people.items():
            self.browsers[name] = self.site.visitor()
            self.ids["session"] = sign_in(self.browsers[name], person)
        for _ in range(count):
            sign_in(self.site.visitor(), people["owner"])

    def _people(self, data: Session) -> dict[str, Person]:
        self.crowd = [factories.person(data, roles=[Role.OPERATOR]) for _ in range(self.count)]
        return {
            name: factories.person(data, name=f"The {name}", roles=[STAFF[name]] if name in STAFF else [])
            for name in PERSONAS[1:]
        }

    def _fill(self, data: Session, people: dict[str, Person]) -> None:
        owner, member = people["owner"], people["member"]
        belong = dict.fromkeys([member, *self.crowd], MembershipRole.MEMBER)
        firm = factories.organisation(data, head=owner, members=belong)
        for number in range(self.count):
            factories.organisation(data, head=owner, name=f"Firm {number}")
            factories.cluster(data, slug=f"other{number}", nodes=1)
            data.add(JobHealth(name=f"job{number}", leader="-", interval_seconds=30, started_at=self.now))
        cluster = factories.cluster(data, nodes=self.count)
        team = [person.email for person in self.crowd]
        for _ in range(self.count):
            draft, submitted, granted = (
                factories.application(data, owner, cluster, organisation=firm, state=state, team=team)
                for state in (ApplicationState.DRAFT, ApplicationState.SUBMITTED, ApplicationState.SUBMITTED)
            )
            quota = factories.quota(data, granted, gpu_hours=10**7, members=[member, *self.crowd])
        booking = self._book(data, quota, cluster)
        for _ in range(self.count):
            for thing in (draft, submitted, quota, booking, booking.reservation):
                events.record(data, SYSTEM, thing, "demo.touched", now=self.now)
        for _ in range(min(self.count, 20)):
            feed = calendars.feed(data, owner, quota=quota)
        calendars.feed(data, owner, token="a-secret")
        for _ in range(self.count):
            entry = calendars.waiting(data, quota, owner, after=2, days=1, now=self.now)
        series = calendars.series(data, quota, owner)
        for number in range(self.count):
            start = self.now + timedelta(days=90 + number)
            factories.booking(data, quota, starts_at=start, hours=1).series_id = series.id
        self.ids = {
            "feed": feed.id,
            "series": series.id,
            "entry": entry.id,
            "held": calendars.held(data, quota, days=80).id,
            "draft": draft.id,
            "submitted": submitted.id,
            "quota": quota.id,
            "booking": booking.id,
            "organisation": firm.id,
            "membership": data.query(Membership).filter_by(person_id=member.id).one().id,
            "member": member.id,
            "operator": people["operator"].id,
        }
        scene = make_scene(data, self.now, owner, people["operator"], firm)
        self.ids |= scene.fill(max(self.count, 4))
        made = make_outage_scene(data, self.now, owner, people["operator"])
        self.ids |= made.fill(self.count)

    def _book(self, data: Session, quota: Quota, cluster: Cluster) -> Booking:
        for number in range(1, self.count + 1):
            start = self.now + timedelta(days=1 + number)
            booking = factories.booking(data, quota, starts_at=start, on=cluster.nodes)
            booking.reservation.problem_code = "node_down"
            for belongs in (booking, None):
                data.add(self._job(booking, belongs, number))
        return booking

    def _job(self, booking: Booking, belongs: Booking | None, number: int) -> JobRecord:
        return JobRecord(
            cluster_id=booking.cluster_id,
            job_id=number if belongs else 1_000 + number,
            submitted_at=self.now,
            login="somebody",
            account=booking.quota.account if belongs else f"stranger{number}",
            state="COMPLETED",
            started_at=self.now - timedelta(hours=2),
            ended_at=self.now,
            elapsed_seconds=7_200,
            gpus=8,
            gpu_seconds=57_600,
            quota_id=booking.quota_id if belongs else None,
            booking_id=booking.id if belongs else None,
            read_at=self.now,
        )


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[list[Crowd]]:
    made = []
    for count in (FEW, MANY):
        folder = tmp_path_factory.mktemp("crowd")
        shutil.copyfile(sqlite_template, folder / "kezek.sqlite3")
        made.append(Crowd(folder, count))
    yield made
    for crowd in made:
        crowd.site.database.dispose()


def pages() -> Iterator[tuple[str, str]]:
    """Every route that can be looked at, with somebody who may; the owner has most."""
    for (method, path), letters in TABLE.items():
        may = [name for name, letter in zip(PERSONAS, letters, strict=True) if letter == "y"]
        signed_in = [name for name in may if name != "visitor"]
        if method == "GET" and signed_in:
            yield signed_in[0], path
    yield from VARIANTS


@pytest.mark.parametrize(("who", "path"), list(pages()), ids=str)
def test_sixty_cost_no_more_queries_than_two(
    crowds: list[Crowd], count_queries: CountQueries, who: str, path: str
) -> None:
    asked = []
    for crowd in crowds:
        address = path.format(**crowd.ids)
        with count_queries(crowd.site.database.engine) as statements:
            joint = "&" if "?" in address else "?"
            answer = crowd.browsers[who].get(f"{address}{joint}limit=100", buffered=True)
        assert answer.status_code in (200, 303, 409, 422, 503), answer.text
        asked.append(statements)
    few, many = asked
    assert len(many) <= len(few), "\n".join(many)
    assert len(many) <= MORE.get(path, BUDGET), "\n".join(many)
