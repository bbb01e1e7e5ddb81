"""Every version of the rules that was used stays readable, with what it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from allocator import policies
from allocator.models import PolicyVersion
from allocator.policy import Policy, load_policy
from config.clock import utcnow
from tests.browsing import Site, text_of
from tests.period_pages import make_scene

SHIPPED = (Path(__file__).parents[2] / "config" / "policy.toml").read_text(encoding="utf-8")
TODAY = load_policy()


@pytest.fixture
def earlier(site: Site, tmp_path: Path) -> Policy:
    """A version with another tariff, used before the one of today."""
    path = tmp_path / "earlier.toml"
    text = SHIPPED.replace("tenge_per_gpu_hour = 1_400", "tenge_per_gpu_hour = 900")
    path.write_text(text.replace("effective = 2026-11-01", "effective = 2026-01-01"), encoding="utf-8")
    policy = load_policy(path)
    with site.data() as session:
        policies.record(session, policy, utcnow())
    return policy


def page(browser: FlaskClient, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return text_of(answer)


def test_before_anything_was_decided(site: Site) -> None:
    visitor = site.visitor()
    listed = page(visitor, "/policy/versions")
    assert "No version has been used yet" in listed
    assert TODAY.version in listed
    assert "No earlier version has been used." in page(visitor, "/policy")
    assert "This is not the version of today" not in page(visitor, f"/policy/versions/{TODAY.version}")


def test_an_earlier_version_says_what_it_was(site: Site, earlier: Policy) -> None:
    visitor = site.visitor()
    assert earlier.version in page(visitor, "/policy/versions")
    old = page(visitor, f"/policy/versions/{earlier.version}")
    assert "This is not the version of today" in old
    assert "900,00" in old
    assert "No earlier version has been used." in old
    body = visitor.get(f"/policy/versions/{earlier.version}/policy.json").data
    assert hashlib.sha256(body).hexdigest() == earlier.sha256


def test_today_says_what_changed(site: Site, earlier: Policy) -> None:
    today = page(site.visitor(), "/policy")
    assert "What changed from the version before" in today
    assert "tariff.tenge_per_gpu_hour 900 1400" in today


def test_a_period_leads_to_the_rules_that_it_was_divided_by(site: Site) -> None:
    with site.data() as session:
        scene = make_scene(session, utcnow())
        ids = scene.fill(4)
    link = f'href="/policy/versions/{TODAY.version}"'
    operator = site.browser_of(scene.one)
    for path in ("/periods/{period}", "/periods/{proposed}/replay", "/fairness/{period}"):
        assert link in operator.get(path.format(**ids)).text, path
    assert "PFLOPS-hours" in page(operator, "/periods")
    assert "PFLOPS-hours" in page(site.visitor(), "/fairness")


def test_what_nobody_can_read_any_more_is_still_on_record(site: Site) -> None:
    document = '{"effective":"2025-01-01","pools":{},"note":"<script>alert(1)</script>"}'
    with site.data() as session:
        session.add(
            PolicyVersion(
                version="2025-01-01-000000000000",
                effective=TODAY.effective,
                sha256=hashlib.sha256(document.encode()).hexdigest(),
                document=document,
                recorded_at=utcnow(),
            )
        )
    visitor = site.visitor()
    answer = visitor.get("/policy/versions/2025-01-01-000000000000")
    assert "too old to be shown" in text_of(answer)
    assert visitor.get("/policy/versions/2025-01-01-000000000000/policy.json").text == document
    changes = visitor.get("/policy?limit=100")
    assert "<script>alert" not in changes.text
    assert "What changed from the version before" in text_of(changes)
    assert visitor.get("/policy/versions/unknown").status_code == 404
    assert visitor.get("/policy/versions/unknown/policy.json").status_code == 404
