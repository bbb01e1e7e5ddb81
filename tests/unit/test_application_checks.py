"""What an application must satisfy, check by check, and whatever anybody may type in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.applying import application_checks as checks
from allocator.applying.application_checks import Facts, Offer, Proposal
from allocator.policy import load_policy

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = load_policy()
OFFER = Offer(1, "alem", "Alem", "h200", {8: 4, 4: 2})
FACTS = Facts(POLICY, NOW, OFFER, has_iin=True, organisations=frozenset({7}), applicant_email="me@example.kz")
GOOD = Proposal(
    category="science",
    organisation_id=7,
    title="Speech of the villages",
    purpose="Train an acoustic model.",
    cluster="alem",
    gpu_type="h200",
    nodes=2,
    gpus_per_node=8,
    gpu_hours=Decimal("1600"),
    earliest=NOW + 7 * DAY,
    latest=NOW + 67 * DAY,
    team=("dana@example.kz",),
)


def found(facts: Facts = FACTS, **changes: Any) -> set[str]:
    """The fields that something is wrong with when submitting."""
    return set(checks.faults(replace(GOOD, **changes), facts, checks.SUBMIT_CHECKS))


def test_a_complete_application_has_no_fault() -> None:
    assert found() == set()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"category": "nobility"}, "category"),
        ({"organisation_id": 8}, "organisation"),
        ({"organisation_id": None}, "organisation"),
        ({"title": "  "}, "title"),
        ({"title": "Ә" * 201}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"title": "two\nlines"}, "title"),
        ({"title": "a\ud800b"}, "title"),
        ({"title": "invoice \u202egpj.exe"}, "title"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "х" * 5001}, "purpose"),
        ({"purpose": "\x1b[31m"}, "purpose"),
        ({"nodes": 0}, "nodes"),
        ({"nodes": -5}, "nodes"),
        ({"nodes": 10**30}, "nodes"),
        ({"nodes": 5}, "nodes"),
        ({"gpus_per_node": 0}, "gpus_per_node"),
        ({"gpus_per_node": 9}, "gpus_per_node"),
        ({"gpus_per_node": -1}, "gpus_per_node"),
        ({"gpu_hours": Decimal(0)}, "gpu_hours"),
        ({"gpu_hours": Decimal(-5)}, "gpu_hours"),
        ({"gpu_hours": Decimal("NaN")}, "gpu_hours"),
        ({"gpu_hours": Decimal("sNaN")}, "gpu_hours"),
        ({"gpu_hours": Decimal("Infinity")}, "gpu_hours"),
        ({"gpu_hours": Decimal("1e400")}, "gpu_hours"),
        ({"gpu_hours": Decimal("1e-400")}, "gpu_hours"),
        ({"gpu_hours": Decimal("0.0001")}, "gpu_hours"),
        ({"gpu_hours": Decimal("2000001")}, "gpu_hours"),
        ({"gpu_hours": Decimal("23040.01")}, "gpu_hours"),
        ({"earliest": GOOD.latest}, "latest"),
        ({"earliest": NOW - DAY}, "earliest"),
        ({"latest": NOW + 732 * DAY}, "latest"),
        ({"latest": datetime(9999, 12, 31, tzinfo=UTC)}, "latest"),
        ({"latest": NOW + 374 * DAY}, "latest"),
        ({"team": ("dana@example.kz", "dana@example.kz")}, "team"),
        ({"team": ("me@example.kz",)}, "team"),
        ({"team": ("not an address",)}, "team"),
        ({"team": ("a@b.kz\nBcc: all@example.kz",)}, "team"),
        ({"team": tuple(f"p{n}@example.kz" for n in range(51))}, "team"),
    ],
)
def test_each_fault_stands_beside_its_field(changes: dict[str, Any], field: str) -> None:
    assert found(**changes) == {field}


def test_a_citizen_needs_an_iin_and_no_organisation() -> None:
    citizen: dict[str, Any] = {"category": "citizen", "organisation_id": None}
    assert found(**citizen) == set()
    assert found(replace(FACTS, has_iin=False), **citizen) == {"category"}


def test_unknown_hardware_is_told_once() -> None:
    assert found(replace(FACTS, offer=None)) == {"hardware"}


def test_all_faults_come_at_once() -> None:
    wrong = found(title="", nodes=0, gpu_hours=Decimal("NaN"), team=("x",), latest=GOOD.earliest)
    assert wrong == {"title", "nodes", "gpu_hours", "team", "latest"}


def test_large_nodes_count_only_where_there_are_enough() -> None:
    assert found(nodes=6, gpus_per_node=4) == set()
    assert found(nodes=5, gpus_per_node=8) == {"nodes"}


def test_a_part_of_a_node_only_where_nodes_are_shared() -> None:
    whole = replace(FACTS, offer=replace(OFFER, shares_nodes=False))
    assert found(whole, nodes=1, gpus_per_node=2, gpu_hours=Decimal(10)) == {"gpus_per_node"}
    assert found(whole, nodes=1, gpus_per_node=4, gpu_hours=Decimal(10)) == set()
    assert found(nodes=1, gpus_per_node=2, gpu_hours=Decimal(10)) == set()


def test_hours_that_fit_exactly_are_possible_and_the_message_says_what_fits() -> None:
    window = GOOD.latest - GOOD.earliest
    most = Decimal(2 * 8 * int(window.total_seconds())) / 3600
    assert found(gpu_hours=most) == set()
    faults = checks.faults(replace(GOOD, gpu_hours=most + 1), FACTS, checks.SUBMIT_CHECKS)
    assert faults["gpu_hours"][0].details["most"] == "23\N{NO-BREAK SPACE}040"


def test_today_may_be_the_earliest_day() -> None:
    assert found(earliest=NOW.replace(hour=0), latest=NOW + 60 * DAY) == set()


def test_a_draft_may_wait_for_its_purpose_and_organisation() -> None:
    draft = replace(GOOD, purpose="", organisation_id=None, earliest=NOW - 9 * DAY, nodes=64)
    assert checks.faults(draft, FACTS, checks.DRAFT_CHECKS) == {}


@pytest.mark.parametrize(
    ("hours", "seconds"),
    [("1", 3600), ("0.01", 36), ("0.0025", 9), ("0.0001", None), ("NaN", None), ("1e400", None)],
)
def test_hours_become_whole_seconds_or_nothing(hours: str, seconds: int | None) -> None:
    assert checks.whole_seconds(Decimal(hours)) == seconds


@given(st.integers(min_value=1, max_value=10**12))
def test_the_hours_of_a_message_are_never_more_than_there_are(seconds: int) -> None:
    shown = Decimal(checks.hours_text(seconds).replace("\N{NO-BREAK SPACE}", "").replace(",", "."))
    assert 0 <= seconds - shown * 3600 < 36


@given(
    category=st.sampled_from([c.slug for c in POLICY.categories]) | st.text(max_size=50),
    organisation_id=st.none() | st.integers(),
    title=st.text(max_size=300),
    purpose=st.text(max_size=300),
    nodes=st.integers(),
    gpus_per_node=st.integers(),
    gpu_hours=st.decimals(),
    earliest=st.datetimes(timezones=st.just(UTC)),
    latest=st.datetimes(timezones=st.just(UTC)),
    team=st.lists(st.text(max_size=40), max_size=5).map(tuple),
)
def test_whatever_is_typed_gets_an_answer_and_what_passes_can_be_stored(**values: Any) -> None:
    proposal = replace(GOOD, **values)
    if not checks.faults(proposal, FACTS, checks.SUBMIT_CHECKS):
        seconds = checks.whole_seconds(proposal.gpu_hours)
        assert seconds
        assert 0 < seconds < 2**63
        assert proposal.nodes * proposal.gpus_per_node <= OFFER.gpus
        assert proposal.earliest < proposal.latest
        (proposal.title + proposal.purpose).encode()
