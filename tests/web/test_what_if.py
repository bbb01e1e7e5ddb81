"""What-ifs and long comparisons: limits taken away, faults beside their fields, pages that lose nothing."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from allocator.dividing import adjustments, period_inputs, periods
from allocator.dividing.period_queries import latest_proposal
from allocator.models import Application, Period, PeriodClaim, Proposal
from allocator.policy import load_policy
from config.clock import utcnow
from tests.browsing import Site, hidden_fields, submit, text_of
from tests.conftest import TEST_SECRET
from tests.period_pages import DAY, KEY, POLICY, Scene, actor, make_scene

SHIPPED = (Path(__file__).parents[2] / "config" / "policy.toml").read_text(encoding="utf-8")


@pytest.fixture
def scene(site: Site) -> Scene:
    with site.data() as session:
        scene = make_scene(session, utcnow())
        scene.fill(12)
    return scene


def capped(site: Site, scene: Scene, folder: Path) -> int:
    """A proposed period in which science has at most 30 of 95 percent."""
    path = folder / "capped.toml"
    path.write_text(
        SHIPPED.replace("percent = 30\n", "percent = 30\ncap_percent = 30\n", 1), encoding="utf-8"
    )
    with site.data() as session:
        scene.session = session
        opening = periods.Opening(
            scene.cluster.id, "h200", scene.now + 100 * DAY, scene.now + 102 * DAY, maintenance=0, reserve=0
        )
        quota = scene.quota("science", 40_000, 7)
        quota.valid_until = scene.now + 102 * DAY
        quota.valid_from = scene.now + 100 * DAY
        period = periods.open_period(
            session, actor(scene.one), opening, policy=load_policy(path), key=KEY, now=scene.now
        )
        periods.propose(session, actor(scene.one), period, now=scene.now)
        return period.id


def test_an_empty_limit_means_that_there_is_none(site: Site, scene: Scene, tmp_path: Path) -> None:
    period_id = capped(site, scene, tmp_path)
    browser, path = site.browser_of(scene.one), f"/periods/{period_id}/what-if"
    form = browser.get(path).text
    [shown] = re.findall(r'name="science_cap"[^>]*value="(\d+)"', form)
    assert "Nobody’s share changes" in text_of(browser.get(f"{path}?science_cap={shown}&capacity="))
    assert "Nobody’s share changes" in text_of(browser.get(f"{path}?capacity="))
    freed = browser.get(f"{path}?science_cap=&capacity=")
    assert "1 gains" in text_of(freed)
    kept = browser.post(path, data={**hidden_fields(freed), "name": "No limit"})
    assert kept.status_code == 303, kept.text
    with site.data() as session:
        named = session.query(Proposal).filter_by(name="No limit").one()
        assert named.scenario == {"pools": {"science": {"cap": None}}}


def test_pools_stand_in_the_order_of_the_policy(site: Site, scene: Scene) -> None:
    with site.data() as session:
        period = session.query(Period).order_by(Period.starts_at).all()[1]
    text = text_of(site.browser_of(scene.one).get(f"/periods/{period.id}/what-if?capacity=9000"))
    titles = [pool.titles["en"] for pool in POLICY.pools]
    table = text[text.index("Pool Before After Difference") :]
    assert sorted(titles, key=table.index) == titles


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("capacity=-1", "capacity"),
        ("science_percent=101", "science_percent"),
        ("science_cap=-1", "science_cap"),
        ("science_weight=0", "science_weight"),
        ("weight=0/5&quota=1", "weight"),
        ("request=-4&quota=1", "request"),
        ("weight=2&quota=999", "quota"),
    ],
)
def test_a_fault_stands_beside_its_field(site: Site, scene: Scene, query: str, field: str) -> None:
    with site.data() as session:
        period = session.query(Period).order_by(Period.starts_at).all()[1]
    answer = site.browser_of(scene.one).get(f"/periods/{period.id}/what-if?{query}&name=Mine")
    assert answer.status_code == 422
    assert f'id="{field}-error"' in answer.text
    assert 'name="name" value="Mine"' in answer.text


def test_a_name_that_will_not_do_leaves_the_result_on_the_page(site: Site, scene: Scene) -> None:
    with site.data() as session:
        period = session.query(Period).order_by(Period.starts_at).all()[1]
    browser, path = site.browser_of(scene.one), f"/periods/{period.id}/what-if?capacity=1000&limit=1"
    first = browser.get(path)
    [action] = re.findall(r'<form method="post" action="([^"]*what-if[^"]*)"', first.text)
    answer = browser.post(unescape(action), data={**hidden_fields(first), "name": " "})
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text
    assert "What it would do" in text_of(answer)
    assert "capacity=1000" in unescape(re.findall(r'rel="next" href="([^"]+)"', answer.text)[0])


def test_turning_the_pages_of_a_cost_loses_nothing(site: Site, scene: Scene) -> None:
    with site.data() as session:
        period = session.query(Period).order_by(Period.starts_at).all()[1]
        proposal = latest_proposal(session, period)
        assert proposal is not None
        claim = max((share.claim for share in proposal.shares), key=lambda claim: claim.request)
        path = f"/proposals/{proposal.id}/shares/{claim.quota_id}/adjust"
    browser = site.browser_of(scene.one)
    shown = submit(browser, f"{path}?limit=1", {"hours": "5", "reason": "They come <late>."})
    [following] = re.findall(r'formaction="([^"]+page=2[^"]*)"', shown.text)
    turned = browser.post(unescape(following), data=hidden_fields(shown))
    assert turned.status_code == 200, turned.text
    assert "They come &lt;late&gt;." in turned.text
    kept = browser.post(path, data={**hidden_fields(turned), "confirmed": "yes"})
    assert kept.status_code == 303


def test_pseudonyms_are_those_of_the_command_line(site: Site, scene: Scene) -> None:
    form = {"hardware": "shares/h200", "first": "2026-12-01", "last": "2026-12-31"}
    start = (scene.now + 80 * DAY).date()
    form |= {"first": str(start), "last": str(start + 5 * DAY)}
    answer = submit(site.browser_of(scene.one), "/periods/open", form)
    assert answer.status_code == 303, answer.text
    key = period_inputs.pseudonym_key(TEST_SECRET)
    with site.data() as session:
        period = session.get_one(Period, int(answer.location.rpartition("/")[2]))
        claims = session.query(PeriodClaim).filter_by(period_id=period.id).all()
        assert claims
        for claim in claims:
            assert claim.reference == period_inputs.reference(key, claim.quota_id)


def test_days_that_have_passed_are_told_beside_the_day(site: Site, scene: Scene) -> None:
    form = {"hardware": "shares/h200", "first": "2020-01-01", "last": "2020-01-31", "maintenance": "7"}
    answer = submit(site.browser_of(scene.one), "/periods/open", form)
    assert answer.status_code == 422
    assert 'id="last-error"' in answer.text
    assert 'value="7"' in answer.text
    gone = submit(
        site.browser_of(scene.one), "/periods/open?hardware=shares/h200", form | {"hardware": "x/y"}
    )
    assert gone.status_code == 409


def test_the_lists_of_staff_can_be_downloaded_and_run_nothing(site: Site, scene: Scene) -> None:
    with site.data() as session:
        row = session.get_one(Application, scene.quotas[3].application_id)
        row.title = '=HYPERLINK("http://evil.example")'
        published, proposed = session.query(Period).order_by(Period.starts_at).all()[:2]
        proposal = latest_proposal(session, proposed)
        assert proposal is not None
    browser = site.browser_of(scene.one)
    for path in (f"/proposals/{proposal.id}/shares.csv", f"/periods/{published.id}/grants.csv"):
        answer = browser.get(path, buffered=True)
        assert answer.mimetype == "text/csv"
        assert "'=HYPERLINK" in answer.text
        assert len(answer.text.splitlines()) >= 12
    assert f"/proposals/{proposal.id}/shares.csv" in browser.get(f"/periods/{proposed.id}").text


def test_what_cannot_be_given_up_offers_no_form(site: Site, scene: Scene) -> None:
    with site.data() as session:
        published = session.query(Period).order_by(Period.starts_at).all()[0]
    assert site.browser_of(scene.one).get(f"/periods/{published.id}/discard").status_code == 409


def test_hours_are_divided_again_as_they_were_shown(site: Site, scene: Scene) -> None:
    with site.data() as session:
        published = session.query(Period).order_by(Period.starts_at).all()[0]
    browser, path = site.browser_of(scene.one), f"/periods/{published.id}/redivide"
    shown = hidden_fields(browser.get(path))
    assert browser.post(path, data=shown | {"left": "1"}).status_code == 409
    assert browser.post(path, data=hidden_fields(browser.get(path))).status_code == 303


def test_many_proposals_and_corrections_come_in_pages(site: Site, scene: Scene) -> None:
    with site.data() as session:
        proposed = session.query(Period).order_by(Period.starts_at).all()[1]
        proposal = latest_proposal(session, proposed)
        assert proposal is not None
        for number in range(11):
            claim = proposed.claims[number]
            proposal = adjustments.adjust(
                session, actor(scene.other), proposal, claim.quota_id, 5, "They come late.", now=scene.now
            )
    board = text_of(site.browser_of(scene.one).get(f"/periods/{proposed.id}"))
    assert "1–10 of 14" in board
    assert "1–10 of 11" in board or "1–10 of 12" in board
