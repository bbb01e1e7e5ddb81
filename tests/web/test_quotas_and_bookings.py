"""Quotas and bookings in the browser: see the balance, ask, book, follow, give back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select
from werkzeug.test import TestResponse

from allocator.actors import Role
from allocator.models import (
    Booking,
    Cluster,
    JobHealth,
    JobRecord,
    NodeSlot,
    NodeState,
    Person,
    Quota,
    QuotaMember,
)
from allocator.states import BookingState, ReservationState
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of
from tests.factories import HOUR
from web.booking.booking_forms import LOCAL

ZONE = ZoneInfo("Asia/Almaty")
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
TOMORROW = NOW + timedelta(days=1)
UNKNOWN = 987654321


@dataclass(frozen=True)
class Project:
    """A quota of 1,600 GPU-hours on four nodes of eight GPUs, and who stands around it."""

    quota: int
    cluster: str
    lead: Person
    member: Person
    stranger: Person
    operator: Person

    @property
    def path(self) -> str:
        return f"/quotas/{self.quota}"


@pytest.fixture
def project(site: Site) -> Project:
    with site.data() as session:
        lead, member, stranger = (
            factories.person(session, name=name, cluster_login=name.lower())
            for name in ("Lead", "Member", "Stranger")
        )
        operator = factories.person(session, name="Operator", roles=[Role.OPERATOR])
        cluster = factories.cluster(session, now=NOW)
        quota = factories.quota(
            session,
            factories.application(session, lead, cluster, gpu_hours=1600, now=NOW),
            members=[member],
            valid_from=NOW - timedelta(days=10),
            valid_until=NOW + timedelta(days=60),
            now=NOW,
        )
        return Project(quota.id, cluster.slug, lead, member, stranger, operator)


def ask(**changes: str) -> dict[str, str]:
    """What the form sends for eight GPUs for ten hours from tomorrow."""
    start = TOMORROW.astimezone(ZONE).strftime(LOCAL)
    return {"starts_at": start, "hours": "10", "nodes": "1", "gpus_per_node": "8"} | changes


def add_booking(site: Site, project: Project, **given: object) -> int:
    with site.data() as session:
        quota = session.get_one(Quota, project.quota)
        return factories.booking(session, quota, **{"starts_at": TOMORROW, **given}).id  # type: ignore[arg-type]


def bookings_of(site: Site) -> list[Booking]:
    with site.data() as session:
        return list(session.scalars(select(Booking).order_by(Booking.id)))


def held(page: TestResponse) -> dict[str, str]:
    """The fields of the first time that a page offers to hold."""
    forms = re.findall(r'<form method="post" action="[^"]*/book">.*?</form>', page.text, flags=re.DOTALL)
    return dict(re.findall(r'name="([^"]+)" value="([^"]*)"', forms[0]))


def test_from_the_form_through_an_offer_to_the_booking(site: Site, project: Project) -> None:
    browser = site.browser_of(project.member)
    form = browser.get(f"{project.path}/book")
    assert "1 600 GPU-hours are available" in text_of(form)
    offered = browser.get(f"{project.path}/book", query_string=ask(hours="7"))
    assert offered.status_code == 200
    assert "56 GPU-hours" in text_of(offered)
    assert "Nearest to your wish" in text_of(offered)
    asked = held(offered) | {"starts_at": ask()["starts_at"]}
    done = browser.post(f"{project.path}/book", data=asked)
    assert done.status_code == 303
    (booking,) = bookings_of(site)
    assert booking.state is BookingState.HELD
    assert "Held for you until" in browser.get("/bookings").get_data(as_text=True)
    assert (booking.starts_at, booking.ends_at) == (TOMORROW, TOMORROW + timedelta(hours=7))
    assert booking.booked_by_id == project.member.id
    page = browser.get(done.location)
    assert "Held for you until" in text_of(page)
    assert "9 minutes" in text_of(page)
    yes = browser.post(f"{done.location}/accept", data=hidden_fields(page))
    shown = text_of(browser.get(yes.location))
    assert "Being reserved on the cluster" in shown
    assert "Booked: 56 GPU-hours" in shown
    again = browser.get(f"{project.path}/book", query_string=ask(hours="7"))
    assert f"exactly this already: Booking {booking.id}" in text_of(again)
    assert "exactly this already" not in text_of(offered)


def test_the_same_form_sent_twice_holds_once(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    fields = held(browser.get(f"{project.path}/book", query_string=ask()))
    first, second = (browser.post(f"{project.path}/book", data=fields) for _ in range(2))
    assert first.location == second.location
    assert len(bookings_of(site)) == 1


def test_what_is_let_go_is_free_again(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    page = submit(browser, f"{project.path}/book", ask())
    gone = browser.post(f"{page.location}/release", data=hidden_fields(browser.get(page.location)))
    assert "edit=1" in gone.location
    assert f'value="{ask()["starts_at"]}"' in browser.get(gone.location).text
    assert bookings_of(site)[0].state is BookingState.LAPSED


def test_a_late_yes_is_told_that_it_is_late(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    page = submit(browser, f"{project.path}/book", ask())
    fields = hidden_fields(browser.get(page.location))
    with site.data() as session:
        session.get_one(Booking, 1).held_until = NOW - timedelta(hours=1)
    fields["version"] = str(int(fields["version"]) + 1)
    late = browser.post(f"{page.location}/accept", data=fields, follow_redirects=True)
    assert "The time of this offer is over" in text_of(late)
    assert "The time is over. Ask again" in text_of(late)
    assert bookings_of(site)[0].state is BookingState.HELD


def test_when_it_does_not_fit_the_page_says_why_and_what_would(site: Site, project: Project) -> None:
    with site.data() as session:
        cluster = session.get_one(Quota, project.quota).cluster
        theirs = factories.quota(
            session, factories.application(session, factories.person(session), cluster), gpu_hours=10**6
        )
        start = NOW - timedelta(hours=1)
        factories.booking(session, theirs, on=cluster.nodes, starts_at=start, hours=24 * 61)
        first = min(cluster.nodes, key=lambda node: node.name)
        session.query(NodeSlot).filter_by(node_id=first.id).update({"gpu_to": 6})
    browser = site.browser_of(project.lead)
    answer = browser.get(f"{project.path}/book", query_string=ask(hours="4"))
    told = text_of(answer)
    assert answer.status_code == 409
    assert "At no time of the window are 1 × 8 GPUs free for so long" in told
    assert "With fewer GPUs" in told
    fewer = held(answer)
    assert fewer["gpus_per_node"] == "2"
    assert browser.post(f"{project.path}/book", data=fewer).status_code == 303


def test_capacity_that_goes_between_offer_and_holding_is_said(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    fields = held(browser.get(f"{project.path}/book", query_string=ask(nodes="4")))
    add_booking(site, project, starts_at=NOW, hours=72)
    answer = browser.post(f"{project.path}/book", data=fields)
    assert answer.status_code == 409
    assert "Somebody was quicker" in text_of(answer)
    assert len(bookings_of(site)) == 1


def test_as_soon_as_possible_is_taken_at_its_word(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    # the form comes with a start filled in; the button means what it says all the same
    offered = browser.get(f"{project.path}/book", query_string=ask(asap="1"))
    fields = held(offered)
    assert fields["starts_at"] < (datetime.now(UTC) + timedelta(minutes=62)).astimezone(ZONE).strftime(LOCAL)
    change = unescape(re.findall(r'href="([^"]+edit=1[^"]*)"', offered.text)[0])
    assert f'value="{fields["starts_at"]}"' in browser.get(change).text
    # the reader hesitated until the start had gone by
    late = fields | {"starts_at": (NOW - timedelta(hours=1)).astimezone(ZONE).strftime(LOCAL)}
    answer = browser.post(f"{project.path}/book", data=late)
    assert answer.status_code == 422
    assert "This start has passed" in text_of(answer)
    assert held(answer)["starts_at"] == fields["starts_at"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hours": "NaN"}, "Enter a number"),
        ({"hours": "-5"}, "at least 60 minutes"),
        ({"hours": ""}, "Fill this in"),
        ({"hours": "0,001"}, "on the hour"),
        ({"hours": "1,5"}, "on the hour"),
        ({"hours": "9999"}, "at most 28 days"),
        ({"hours": "99999999999999999999"}, "Enter a number"),
        ({"nodes": "-1"}, "between 1 and 4 nodes"),
        ({"nodes": "9" * 30}, "between 1 and 4 nodes"),
        ({"nodes": "5"}, "between 1 and 4 nodes"),
        ({"nodes": "1e3"}, "Not a valid integer"),
        ({"gpus_per_node": "9"}, "between 1 and 8 GPUs"),
        ({"nodes": "2", "gpus_per_node": "4"}, "only be booked whole"),
        ({"starts_at": "9999-12-31T23:59"}, "date of this century"),
        ({"starts_at": "0001-01-01T00:00"}, "date of this century"),
        ({"starts_at": "soon"}, "Not a valid datetime"),
        ({"starts_at": ""}, "Choose when it should start"),
        ({"starts_at": "2026-01-01T10:00"}, "This start has passed"),
        ({"nodes": "4", "hours": "60"}, "only 1 600 are left"),
    ],
)
def test_bad_input_is_said_and_nothing_typed_is_lost(
    site: Site, project: Project, changes: dict[str, str], said: str
) -> None:
    browser = site.browser_of(project.lead)
    sent = ask(**changes)
    answer = browser.get(f"{project.path}/book", query_string=sent)
    assert answer.status_code == 422
    assert said in text_of(answer)
    for value in sent.values():
        assert f'value="{value}"' in answer.text
    posted = submit(browser, f"{project.path}/book", sent)
    assert posted.status_code == 422
    assert bookings_of(site) == []


def test_a_reserved_booking_shows_the_exact_line(site: Site, project: Project) -> None:
    number = add_booking(site, project, reservation=ReservationState.RESERVED, hours=30, gpus_per_node=4)
    page = site.browser_of(project.member).get(f"/bookings/{number}")
    account = f"kezek-q{project.quota}"
    assert (
        f"sbatch --account={account} --qos={account} --reservation=kezek-{number} --nodes=1"
        " --gres=gpu:h200:4 --time=1-06:00:00 job.sh"
    ) in text_of(page)
    assert "On the cluster you are “member”" in text_of(page)


def test_each_state_says_what_it_is_and_what_comes_next(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    cases: dict[str, dict[str, object]] = {
        "Kezek hands the reservation to the cluster on": {"starts_at": NOW + timedelta(days=20)},
        "usually within a minute": {},
        "Kezek keeps trying": {"starts_at": NOW + timedelta(days=3), "reservation": ReservationState.BLOCKED},
        "are left": {
            "starts_at": NOW - timedelta(hours=1),
            "state": BookingState.STARTED,
            "reservation": ReservationState.RESERVED,
        },
        "Jobs used 0 of the 192 booked": {
            "starts_at": NOW - timedelta(days=9),
            "state": BookingState.ENDED,
            "reservation": ReservationState.RELEASED,
        },
        "Nothing is charged for it": {
            "starts_at": NOW + timedelta(days=40),
            "state": BookingState.CANCELLED,
        },
    }
    for said, given in cases.items():
        number = add_booking(site, project, **given)
        assert said in text_of(browser.get(f"/bookings/{number}"))


def test_a_booking_that_waits_for_nodes_to_come_says_so(site: Site, project: Project) -> None:
    number = add_booking(site, project)
    with site.data() as data:
        node = data.get_one(Booking, number).slots[0].node
        node.state, node.joins_at = NodeState.EXPECTED, NOW + timedelta(hours=1)
    said = text_of(site.browser_of(project.lead).get(f"/bookings/{number}"))
    assert "Nodes of it join the cluster until" in said
    assert "usually within a minute" not in said


def test_giving_back_says_what_returns_and_asks_first(site: Site, project: Project) -> None:
    number = add_booking(site, project)
    browser = site.browser_of(project.lead)
    page = browser.get(f"/bookings/{number}/cancel")
    assert "Will be given back 192 GPU-hours" in text_of(page)
    answer = submit(browser, f"/bookings/{number}/cancel", {"reason": "The data is late"})
    assert answer.status_code == 303
    shown = text_of(browser.get(answer.location))
    assert "This booking was given back" in shown
    assert "The data is late" in shown
    with site.data() as session:
        assert session.scalar(select(func.count()).select_from(NodeSlot)) == 0
    # a second try, as after the browser's way back, shows what became of the first
    again = browser.get(f"/bookings/{number}/cancel")
    assert (again.status_code, again.location) == (303, f"/bookings/{number}")
    assert "Charged 0 GPU-hours of the 192" in shown
    assert f"kezek-{number}" not in shown
    link = unescape(re.findall(r'href="([^"]+/book\?[^"]+)"', browser.get(answer.location).text)[0])
    assert f'value="{ask()["starts_at"]}"' in browser.get(link).text


def test_a_stale_page_gives_nothing_back_and_asks_again(site: Site, project: Project) -> None:
    number = add_booking(site, project, starts_at=NOW - timedelta(hours=1))
    browser = site.browser_of(project.lead)
    fields = hidden_fields(browser.get(f"/bookings/{number}/cancel"))
    with site.data() as session:
        booking = session.get_one(Booking, number)
        booking.state = BookingState.STARTED
    answer = browser.post(f"/bookings/{number}/cancel", data=fields)
    assert answer.status_code == 409
    assert "It has changed since you opened the page" in text_of(answer)
    again = browser.post(f"/bookings/{number}/cancel", data=hidden_fields(answer))
    assert again.status_code == 303


def test_strangers_learn_nothing_and_visitors_sign_in(site: Site, project: Project) -> None:
    number = add_booking(site, project)
    pages = [
        project.path,
        f"{project.path}/book",
        f"{project.path}/jobs.csv",
        f"/bookings?quota={project.quota}",
        f"/bookings/{number}",
        f"/bookings/{number}/cancel",
        f"{project.path}/members/{project.member.id}/remove",
    ]
    stranger, visitor = site.browser_of(project.stranger), site.visitor()
    tokens = hidden_fields(stranger.get("/quotas"))
    for page in pages:
        assert stranger.get(page).status_code == 404, page
        assert visitor.get(page).status_code == 303, page
    for page in (f"{project.path}/book", f"{project.path}/members", f"/bookings/{number}/cancel"):
        assert stranger.post(page, data=tokens | ask() | {"email": "a@b.kz"}).status_code == 404, page
    for page in (
        f"/quotas/{UNKNOWN}",
        f"/bookings/{UNKNOWN}",
        "/quotas/" + "9" * 30,
        "/bookings/" + "9" * 30,
    ):
        assert stranger.get(page).status_code == 404, page
    for page in ("/quotas", "/bookings"):
        assert "Speech recognition" not in stranger.get(f"{page}?all=1").text


def test_staff_see_everybodys_but_spend_nothing(site: Site, project: Project) -> None:
    number = add_booking(site, project)
    browser = site.browser_of(project.operator)
    assert "Speech recognition" not in browser.get("/quotas").text
    assert "Speech recognition" in browser.get("/quotas?all=1&state=active").text
    assert "Speech recognition" not in browser.get("/quotas?all=1&state=closed").text
    assert "Speech recognition" in browser.get("/bookings?all=1").text
    assert browser.get(f"{project.path}/book").status_code == 403
    assert browser.get(f"/bookings/{number}/cancel").status_code == 200
    assert browser.get(project.path).status_code == 200


def test_the_lead_adds_and_removes_members(site: Site, project: Project) -> None:
    lead, member = site.browser_of(project.lead), site.browser_of(project.member)
    add = {"email": project.stranger.email.upper()}
    assert submit(lead, project.path, add, action=f"{project.path}/members").status_code == 303
    again = submit(lead, project.path, add, action=f"{project.path}/members")
    assert again.status_code == 422
    assert "may use the quota already" in text_of(again)
    assert "Stranger" in text_of(member.get(project.path))
    page = f"{project.path}/members/{project.stranger.id}/remove"
    assert member.get(page).status_code == 403
    assert submit(lead, page, {}).status_code == 303
    assert lead.get(f"{project.path}/members/{project.lead.id}/remove").status_code == 404
    with site.data() as session:
        members = session.scalars(select(QuotaMember.person_id).order_by(QuotaMember.person_id)).all()
    assert members == sorted([project.lead.id, project.member.id])


def add_jobs(site: Site, project: Project, booking: int | None, count: int = 3) -> None:
    with site.data() as session:
        quota = session.get_one(Quota, project.quota)
        for number in range(count):
            session.add(
                JobRecord(
                    cluster_id=quota.cluster_id,
                    job_id=100 + number,
                    submitted_at=NOW - timedelta(hours=9),
                    login="=cmd()",
                    account=quota.account,
                    state="COMPLETED",
                    started_at=NOW - timedelta(hours=8),
                    ended_at=NOW - timedelta(hours=7),
                    elapsed_seconds=HOUR,
                    gpus=8,
                    gpu_seconds=8 * HOUR,
                    quota_id=quota.id if number else None,
                    booking_id=booking if number == 1 else None,
                    read_at=NOW,
                )
            )


def test_the_quota_page_explains_its_numbers(site: Site, project: Project) -> None:
    ended = add_booking(site, project, starts_at=NOW - timedelta(days=2), hours=10, state=BookingState.ENDED)
    add_booking(site, project, hours=20)
    add_jobs(site, project, ended)
    browser = site.browser_of(project.member)
    page = text_of(browser.get(project.path))
    assert "Available 1 352 GPU-hours the quota less all that is charged: 1 600 − 160 − 80 − 8" in page
    assert f"kezek-q{project.quota}" in page
    assert "outside" in page
    csv = browser.get(f"{project.path}/jobs.csv")
    assert csv.mimetype == "text/csv"
    assert csv.text.count("\n") == 3
    assert "'=cmd()" in csv.text


def test_clusters_are_public_and_their_health_is_for_staff(site: Site, project: Project) -> None:
    add_booking(site, project)
    add_jobs(site, project, None)
    with site.data() as session:
        session.get_one(Cluster, 1).problem_code = "cluster_unreachable"
        session.get_one(Cluster, 1).problem = "Connection refused"
        session.add(JobHealth(name="reconcile:alem", leader="x", interval_seconds=30, started_at=NOW))
        session.add(JobHealth(name="reconcile:other", leader="x", interval_seconds=30, started_at=NOW))
    page = text_of(site.visitor().get("/clusters"))
    assert "Alem: H200" in page
    assert "%" in page
    assert "Nodes and health" not in page
    path = f"/clusters/{project.cluster}"
    assert site.visitor().get(path).status_code == 303
    assert site.browser_of(project.lead).get(path).status_code == 403
    operator = site.browser_of(project.operator)
    shown = text_of(operator.get(path))
    for said in ("Connection refused", "reconcile:alem", "alem001", f"kezek-q{project.quota}"):
        assert said in shown
    assert "reconcile:other" not in shown
    assert operator.get("/clusters/nowhere").status_code == 404


def test_the_file_of_jobs_is_never_cut(site: Site, project: Project) -> None:
    add_jobs(site, project, None, 10_501)  # the first belongs to no quota
    lines = site.browser_of(project.lead).get(f"{project.path}/jobs.csv").text.splitlines()
    assert len(lines) == 1 + 10_500
    assert lines[0].startswith("\ufeffjob_id,login,account")


def test_bookings_come_as_a_file_for_spreadsheets(site: Site, project: Project) -> None:
    with site.data() as session:
        quota = session.get_one(Quota, project.quota)
        factories.booking(session, quota, starts_at=TOMORROW, hours=3, gpus_per_node=4)
    browser = site.browser_of(project.lead)
    assert "/bookings/export.csv" in browser.get("/bookings").text
    answer = browser.get("/bookings/export.csv")
    header, row = answer.text.removeprefix("\ufeff").splitlines()
    told = dict(zip(header.split(","), row.split(","), strict=True))
    assert (told["state"], told["gpus_per_node"], told["gpu_hours"]) == ("confirmed", "4", "12.00")
    assert told["starts_at"] == TOMORROW.isoformat()
    assert site.browser_of(project.stranger).get("/bookings/export.csv").text.count("\n") == 1


def test_what_the_cluster_is_told_later_is_simply_booked(site: Site, project: Project) -> None:
    with site.data() as session:
        quota = session.get_one(Quota, project.quota)
        for days in (1, 30):
            factories.booking(session, quota, starts_at=NOW + timedelta(days=days), hours=2)
    page = text_of(site.browser_of(project.lead).get("/bookings"))
    assert page.count("Being reserved on the cluster") == 2  # as a card and in the list
    assert page.count(" Booked ") == 2


def test_the_wish_goes_along_to_the_window(site: Site, project: Project) -> None:
    browser = site.browser_of(project.lead)
    start = TOMORROW.astimezone(ZONE).strftime(LOCAL)
    wish = {"hours": "5", "nodes": "2", "gpus_per_node": "8", "starts_at": start}
    page = browser.get(f"{project.path}/book", query_string=wish).text
    link = next(part for part in re.findall(r'href="([^"]+)"', page) if "/flexible?" in part)
    form = browser.get(unescape(link)).text
    assert f'value="{start}"' in form
    assert re.search(r'name="hours"[^>]*value="5"', form)
    assert re.search(r'name="nodes"[^>]*value="2"', form)
    assert browser.get(f"{project.path}/flexible?edit=1&hours=x&nodes=y").status_code == 200


def test_what_cannot_be_read_is_said_once(site: Site, project: Project) -> None:
    told = site.browser_of(project.lead).get(f"{project.path}/book", query_string=ask(hours="abc", nodes="x"))
    assert text_of(told).count("Enter a number of hours") == 2  # in the summary, and beside the field
    assert "Number must be" not in told.text


def test_a_start_that_a_rule_forbids_is_told_with_its_reason(site: Site, project: Project) -> None:
    far = (NOW + timedelta(days=300)).astimezone(ZONE).strftime(LOCAL)
    told = text_of(site.browser_of(project.lead).get(f"{project.path}/book", query_string=ask(starts_at=far)))
    assert "A booking starts at most 90 days from now. The quota is valid from" in told
    assert "is not free for this" not in told


def test_less_is_offered_at_the_wished_time_with_its_cost(site: Site, project: Project) -> None:
    add_booking(site, project)
    browser = site.browser_of(project.lead)
    page = browser.get(f"{project.path}/book", query_string=ask(nodes="4"))
    told = text_of(page)
    assert "Less, but at the time that you wished" in told
    assert "10 hours, 3 × 8 H200: 240 GPU-hours" in told
    forms = re.findall(r'<form method="post" action="[^"]*/book">.*?</form>', page.text, flags=re.DOTALL)
    assert f'name="starts_at" value="{ask()["starts_at"]}"' in forms[-2]  # the last one is for a shorter time
    # what the balance does not carry: the reason comes before what is possible
    refused = text_of(browser.get(f"{project.path}/book", query_string=ask(nodes="4", hours="60")))
    assert refused.index("are left in the quota") < refused.index("This is possible")


def test_held_offers_are_answered_where_a_person_looks_first(site: Site, project: Project) -> None:
    browser = site.browser_of(project.member)
    browser.post(f"{project.path}/book", data=held(browser.get(f"{project.path}/book", query_string=ask())))
    for page in ("/", "/bookings"):
        shown = browser.get(page)
        assert "Held for you until" in text_of(shown)
        assert 'action="/bookings/1/accept"' in shown.text
    assert "/bookings/1/accept" not in site.browser_of(project.lead).get("/").text
    accept = hidden_fields(browser.get("/")) | {"version": "1"}
    assert browser.post("/bookings/1/release", data=accept).status_code == 303
    assert "Charged 0 GPU-hours" in text_of(browser.get("/bookings/1"))
    assert "Booking 1" not in text_of(browser.get(project.path))


def test_who_may_not_use_a_booking_is_not_told_to(site: Site, project: Project) -> None:
    number = add_booking(site, project, reservation=ReservationState.RESERVED)
    told = text_of(site.browser_of(project.operator).get(f"/bookings/{number}"))
    assert "Reserved on the cluster It begins in" in told
    assert "Submit jobs" not in told
    assert "Your GPUs" not in told


def test_forms_suggest_what_was_booked_last(site: Site, project: Project) -> None:
    with site.data() as session:
        quota = session.get_one(Quota, project.quota)
        quota.application.nodes = 4
        quota.cluster.nodes[0].state = NodeState.DOWN
    browser = site.browser_of(project.lead)
    for form in ("book", "repeat", "flexible"):
        assert re.search(r'name="nodes"[^>]*value="3"', browser.get(f"{project.path}/{form}").text), form
    assert "work on Alem: 3" in text_of(browser.get(f"{project.path}/book")).replace(".cloud", "").replace(
        " now", ""
    )
    add_booking(site, project)
    assert re.search(r'name="nodes"[^>]*value="1"', browser.get(f"{project.path}/book").text)
