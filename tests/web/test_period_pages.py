"""Periods from opening to giving back, as an operator, a second one and an applicant go through the pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from allocator.models import Grant, GrantChange, Period, Proposal
from allocator.states import PeriodState
from config.clock import utcnow
from tests.browsing import Site, hidden_fields, submit, text_of
from tests.period_pages import Scene, make_scene


class Told:
    """A filled site and a browser for each person of it."""

    def __init__(self, site: Site, count: int = 12) -> None:
        self.site = site
        with site.data() as session:
            self.scene: Scene = make_scene(session, utcnow())
            self.ids = self.scene.fill(count)
        self.one = site.browser_of(self.scene.one)
        self.other = site.browser_of(self.scene.other)
        self.applicant = site.browser_of(self.scene.applicant)

    def path(self, pattern: str) -> str:
        return pattern.format(**self.ids)


@pytest.fixture
def told(site: Site) -> Told:
    return Told(site)


def page(browser: FlaskClient, path: str, status: int = 200) -> str:
    answer = browser.get(path)
    assert answer.status_code == status, answer.text
    return text_of(answer)


def test_the_board_shows_what_the_division_gave(told: Told) -> None:
    board = page(told.one, told.path("/periods/{proposed}"))
    for words in (
        "Asked for",
        "Capacity",
        "What each pool got",
        "Jain’s index",
        "Shares",
        "What if “Half of it”",
    ):
        assert words in board
    assert "Somebody else publishes: not who proposed or adjusted it." in board
    assert "set by a person" in page(told.one, told.path("/periods/{proposed}?limit=100"))
    for by in ("title", "asked", "weight", "share"):
        page(told.one, told.path(f"/periods/{{proposed}}?sort={by}&dir=asc&page=2&limit=5"))


def test_from_opening_to_publishing(told: Told) -> None:
    page(told.one, "/periods")
    form = {"hardware": "shares/h200", "first": "2032-01-01", "last": "2032-01-31"}
    answer = submit(told.one, "/periods/open", form)
    assert answer.status_code == 303, answer.text
    path = answer.location
    with told.site.data() as data:
        period = data.scalars(select(Period).order_by(Period.id.desc())).first()
        assert period is not None
        assert (period.calendar, period.state) == (32 * 24 * 31, PeriodState.DRAFT)
    assert told.one.post(f"{path}/collect", data=hidden_fields(told.one.get(path))).status_code == 303
    assert told.one.post(f"{path}/propose", data=hidden_fields(told.one.get(path))).status_code == 303
    with told.site.data() as data:
        proposal = data.scalars(select(Proposal).order_by(Proposal.id.desc())).first()
        assert proposal is not None
    publish = f"/proposals/{proposal.id}/publish"
    assert "Somebody else publishes" in page(told.one, publish)
    assert told.one.post(publish, data=hidden_fields(told.other.get(publish))).status_code in (400, 403)
    sent = hidden_fields(told.other.get(publish))
    assert told.other.post(publish, data={**sent, "version": "1"}).status_code == 409
    assert told.other.post(publish, data=sent).status_code == 303
    assert "Published" in page(told.one, path)


def test_an_adjustment_shows_its_cost_before_it_is_kept(told: Told) -> None:
    path = told.path("/proposals/{proposal}/shares/{own}/adjust")
    wrong = submit(told.one, path, {"hours": "999999", "reason": "x"})
    assert wrong.status_code == 422
    assert "999999" in wrong.text
    shown = submit(told.one, path, {"hours": "400", "reason": "The nodes come <late>."})
    assert shown.status_code == 200, shown.text
    assert "What it costs the others" in text_of(shown)
    kept = told.one.post(path, data={**hidden_fields(shown), "confirmed": "yes"})
    assert kept.status_code == 303, kept.text
    assert "400" in page(told.one, kept.location)


def test_what_if_stores_nothing_without_a_name(told: Told) -> None:
    path = told.path("/periods/{proposed}/what-if")
    assert "What is different" in page(told.one, path)
    asked = page(told.one, f"{path}?capacity=9000&science_percent=20&quota={told.ids['own']}&weight=25/16")
    assert "What it would do" in asked
    page(told.one, f"{path}?capacity=-4", 422)
    page(told.one, f"{path}?quota=999999&weight=2", 422)
    page(told.one, f"{path}?science_percent=160", 422)
    first = told.one.get(f"{path}?capacity=9000")
    assert told.one.post(path, data={**hidden_fields(first), "name": ""}).status_code == 422
    kept = told.one.post(path, data={**hidden_fields(first), "name": "A smaller one"})
    assert kept.status_code == 303, kept.text
    assert "What if “A smaller one”" in page(told.one, kept.location)
    assert "Who gains and who loses" in page(told.one, told.path("/periods/{proposed}/compare"))


def test_an_applicant_reads_why(told: Told) -> None:
    quota = page(told.applicant, told.path("/quotas/{own}"))
    assert "This period" in quota
    assert "Give hours back" in quota
    assert "Say what you plan" in quota
    mine = page(told.applicant, told.path("/quotas/{own}/periods/{period}?request=10"))
    assert "Had you asked for 10 GPU-hours" in mine
    assert "Why it is so much" in mine
    assert "What the weight is made of" in mine
    page(told.applicant, told.path("/quotas/{own}/periods/{period}?request=x"), 422)
    page(told.applicant, told.path("/quotas/{claimed}/periods/{period}"), 404)
    page(told.applicant, told.path("/quotas/{own}/periods/{proposed}"), 404)
    page(told.applicant, told.path("/proposals/{proposal}/shares/{own}"), 404)


def test_every_share_can_be_explained(told: Told) -> None:
    with told.site.data() as data:
        grants = data.scalars(select(Grant).where(Grant.period_id == told.ids["period"])).all()
        paths = [f"/quotas/{grant.quota_id}/periods/{grant.period_id}" for grant in grants]
    pages = [page(told.one, path) for path in paths]
    assert any("of no use" in text for text in pages)
    assert any("your weight is" in text for text in pages)


def test_giving_back_and_planning(told: Told) -> None:
    path = told.path("/quotas/{own}/periods/{period}/give-back")
    assert submit(told.applicant, path, {"gpu_hours": "99999999"}).status_code == 422
    assert submit(told.applicant, path, {"gpu_hours": "10"}).status_code == 303
    with told.site.data() as data:
        assert data.scalars(select(GrantChange.gpu_seconds).order_by(GrantChange.id)).all()[-1] == -36_000
    plan = told.path("/quotas/{own}/periods/{plannable}/plan")
    assert submit(told.applicant, plan, {"request": "300", "minimum": "301"}).status_code == 422
    assert submit(told.applicant, plan, {"request": "300", "minimum": ""}).status_code == 303
    outside = {"request": "300", "minimum": "", "uses_from": "2020-01-01", "uses_until": ""}
    answer = submit(told.applicant, plan, outside)
    assert (answer.status_code, "This day is not in the period." in answer.text) == (422, True)
    assert 'value="300"' in told.applicant.get(plan).text


def test_after_publication(told: Told) -> None:
    path = told.path("/periods/{period}/grants")
    shown = page(told.one, path)
    for words in ("Approved too late", "Forecast", "To be confirmed", "Divide what came back"):
        assert words in shown
    reserve = told.path("/periods/{period}/reserve/{late}")
    assert submit(told.one, reserve, {"gpu_hours": "0", "reason": "Late"}).status_code == 422
    assert submit(told.one, reserve, {"gpu_hours": "100", "reason": "Late"}).status_code == 303
    late = page(told.one, told.path("/quotas/{late}/periods/{period}"))
    assert "served from the reserve" in late
    redivide = told.path("/periods/{period}/redivide")
    assert submit(told.one, redivide, {}).status_code == 303
    drop = told.path("/reclaims/{reclaim}/drop")
    assert submit(told.one, drop, {"reason": ""}).status_code == 422
    confirm = told.path("/reclaims/{reclaim}/confirm")
    assert submit(told.one, confirm, {}).status_code == 303
    assert "Taken back" in page(told.one, path)
    assert told.one.post(drop, data={**hidden_fields(told.one.get(drop)), "reason": "x"}).status_code == 409


def test_anybody_can_check_a_published_period(told: Told, tmp_path: Path) -> None:
    visitor = told.site.visitor()
    assert "shares-h200" in page(visitor, "/fairness")
    assert "Check it yourself" in page(visitor, told.path("/fairness/{period}"))
    page(visitor, told.path("/fairness/{proposed}"), 404)
    script, data = tmp_path / "check_division.py", tmp_path / "division.json"
    script.write_bytes(visitor.get("/fairness/check_division.py").data)
    body = visitor.get(told.path("/fairness/{period}/division.json")).data
    data.write_bytes(body)
    done = subprocess.run(
        [sys.executable, str(script), str(data)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "identical" in done.stdout) == (0, True), done.stdout + done.stderr
    table = visitor.get(told.path("/fairness/{period}/division.csv"), buffered=True).text
    assert len(table.splitlines()) == len(json.loads(body)["claims"]) + 1
    for secret in ("Dana Omar", "Institute", "village schools"):
        assert secret not in table + body.decode()


def test_a_replay_says_identical(told: Told) -> None:
    for which in ("period", "proposed", "plannable"):
        assert "Identical" in page(told.one, told.path(f"/periods/{{{which}}}/replay"))


def test_giving_a_period_up(told: Told) -> None:
    path = told.path("/periods/{plannable}/discard")
    assert submit(told.one, path, {"reason": ""}).status_code == 422
    assert submit(told.one, path, {"reason": "Opened by mistake"}).status_code == 303
    assert "Given up" in page(told.one, told.path("/periods/{plannable}"))


def test_empty_pages_say_what_to_do(site: Site) -> None:
    with site.data() as session:
        scene = make_scene(session, utcnow())
    browser = site.browser_of(scene.one)
    assert "No period has been opened yet" in page(browser, "/periods")
    assert "No period has been published yet" in page(site.visitor(), "/fairness")
    assert "To be divided" in page(browser, "/periods/open")
