"""The policy file: every fault at once with its line, the same policy from its document, and its answers."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import FrozenInstanceError
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.policy import (
    DecisionPath,
    FundingMode,
    PolicyError,
    PolicyGap,
    differences,
    document_differences,
    load_policy,
    policy_of,
)
from allocator.policy.lines import KeyPath, line_of, lines_of

SHIPPED = resources.files("config").joinpath("policy.toml").read_text(encoding="utf-8")
POLICY = load_policy()


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The shipped policy with some text replaced, once each."""
    text = SHIPPED
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    return list(caught.value.lines)


def line_with(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


# what is replaced, by what; on which line (a piece of it) the fault is told; the key; a piece of the message
WRONG = [
    ("tflops = 312", "tflops = 0", "tflops = 0", "gpu_types.a100.tflops", "between 1 and"),
    ("tflops = 312", "flops = 312", "[gpu_types.a100]", "gpu_types.a100.tflops", "is missing"),
    (
        'title.en = "Energy"',
        'title.en = "En\\u0000ergy"',
        "En",
        "sectors.energy.title.en",
        "control characters",
    ),
    ("max_team = 50", "max_team = '50'", "max_team", "applications.max_team", "whole number"),
    ("max_team = 50", "max_team = true", "max_team", "applications.max_team", "whole number"),
    ("max_team = 50", "max_team = -1", "max_team", "applications.max_team", "between 0 and 1000"),
    ("max_team = 50", "max_tean = 50", "max_tean", "applications.max_tean", "did you mean max_team?"),
    ("max_team = 50", "", "[applications]", "applications.max_team", "is missing"),
    ("effective = 2026-11-01", "effective = 'soon'", "effective =", "effective", "must be a date"),
    ("effective = 2026-11-01", "", "", "effective", "is missing"),
    ("[clocks]\n", "[clock]\n", "[clock]", "clock", "is not a known key; did you mean clocks?"),
    ("percent = 30\n", "percent = 31\n", "[pools.science]", "pools", "make 101 %, not 100 %"),
    ("percent = 30\n", "percent = 30.0\n", "percent = 30.0", "pools.science.percent", "whole number"),
    ("percent = 30\n", "percent = 130\n", "percent = 130", "pools.science.percent", "between 0 and 100"),
    ("weight = 30\n", "weight = 0\n", "weight = 0", "pools.science.weight", "more than 0"),
    ("weight = 30\n", "weight = 1.5\n", "weight = 1.5", "pools.science.weight", "exact fraction"),
    ("weight = 30\n", 'weight = "3/0"\n', '"3/0"', "pools.science.weight", "exact fraction"),
    (
        "weight = 30\n",
        "weight = 30\ncap_percent = 10\n",
        "cap_percent = 10",
        "pools.science.cap_percent",
        "30 % that the pool is guaranteed",
    ),
    ("[pools.science]", "[pools.Science]", "[pools.Science]", "pools.Science", "must be a short name"),
    (
        'pool = "science"',
        'pool = "sience"',
        'pool = "sience"',
        "categories.science.pool",
        "there is no pool sience; there are science, startups",
    ),
    (
        'pool = "citizens"',
        'pool = "state"',
        "[pools.citizens]",
        "pools.citizens",
        "no category has this pool",
    ),
    ('identity = "iin"', 'identity = "nin"', '"nin"', "categories.citizen.identity", "one of iin, bin"),
    (
        'title.kk = "Азамат"',
        'title.kk = " "',
        'title.kk = " "',
        "categories.citizen.title.kk",
        "not empty",
    ),
    ('title.kk = "Азамат"\n', "", 'title.ru = "Гражданин"', "categories.citizen.title.kk", "is missing"),
    (
        'title.kk = "Азамат"\n',
        'title.kk = "Азамат"\ntitle.de = "Bürger"\n',
        "title.de",
        "categories.citizen.title.de",
        "is not a known key",
    ),
    (
        'mode = "subsidy", subsidy_percent = 40',
        'mode = "subsidy"',
        'funding = { mode = "subsidy" }',
        "categories.priority.funding.subsidy_percent",
        "is missing",
    ),
    (
        'funding = { mode = "free" }',
        'funding = { mode = "free", subsidy_percent = 40 }',
        "subsidy_percent = 40 }",
        "categories.science.funding.subsidy_percent",
        "is not a known key",
    ),
    (
        'funding = { mode = "free" }',
        'funding = { mode = "free", free_hours_a_year = 40 }',
        "free_hours_a_year = 40 }",
        "categories.science.funding.free_hours_a_year",
        "means nothing where nobody pays",
    ),
    ("max_gpus = 16", "max_gpus = 7", "max_gpus = 7", "tiers.medium.max_gpus", "less than that of small"),
    (
        'path = "two_operators_expert"',
        'path = "operator"',
        "",
        "tiers.large.path",
        "shorter than that of medium",
    ),
    (
        "calendar_days = 30",
        "calendar_days = 30\nmax_days = 400",
        "max_days = 400",
        "tiers.council.max_days",
        "must be left out",
    ),
    (
        "calendar_days = 30",
        "calendar_days = 30\nworking_days = 9",
        "[tiers.council]",
        "tiers.council",
        "either working_days or calendar_days",
    ),
    ('oked = ["84"]', 'oked = ["84", "8"]', '"8"]', "sectors.administration.oked[1]", "2 to 5 digits"),
    ('oked = ["84"]', "oked = []", "oked = []", "sectors.administration.oked", "must be a list"),
    ('oked = ["36"]', 'oked = ["36", "35"]', '"36", "35"', "sectors.water.oked[1]", "belongs to energy"),
    ("year = 2026", "year = 1926", "year = 1926", "sector_list.year", "between 2024 and 2100"),
    ('default = "ordinary"', 'default = "usual"', '"usual"', "merit.default", "there is no band usual"),
    ("maximum = 2\n", 'maximum = "3/4"\n', "[credit]", "credit", "have 1 between them"),
    ("decay = 1 ", 'decay = "5/4"', '"5/4" ', "credit.decay", "between 0 and 1"),
    ("decay = 1 ", "decay = 0", "decay = 0 ", "credit.decay", "must be more than 0"),
    (
        "below_percent = 40, take_percent = 60",
        "below_percent = 40, take_percent = 90",
        "take_percent = 90",
        "use_or_lose.steps[1]",
        "a lower take_percent",
    ),
    ("tenge_per_gpu_hour = 1_400", "tenge_per_gpu_hour = 0.1", "= 0.1", "tariff.tenge_per_gpu_hour", "tenge"),
    ("placeholder = true", "placeholder = 1", "placeholder = 1", "tariff.placeholder", "true or false"),
    (
        "proposal_days = 10",
        "proposal_days = 4",
        "proposal_days = 4",
        "periods.proposal_days",
        "less than publication_days",
    ),
    ("open_days = 20", "open_days = 9", "open_days = 9", "periods.open_days", "less than proposal_days"),
    ("open_days = 20", "open_days = 91", "open_days", "periods.open_days", "between 0 and 90"),
    ('length = "month"', 'length = "year"', '"year"', "periods.length", "must be one of month"),
    ("max_days = 28", "max_days = 400", "max_days = 400", "bookings.max_days", "between 1 and 366"),
    ("min_minutes = 60", "min_minutes = 90", "min_minutes = 90", "bookings.min_minutes", "a multiple of"),
    (
        "boundary_minutes = 60",
        "boundary_minutes = 50",
        "boundary_minutes = 50",
        "bookings.boundary_minutes",
        "divide a day",
    ),
    ('"10:00"', '"ten"', '"ten"', "bookings.day_starts_at", "a time of day"),
    (
        "move_notice_hours = 24",
        "move_notice_hours = 2161",
        "move_notice_hours",
        "bookings.move_notice_hours",
        "between 1 and 2160",
    ),
    ('repair = "fewest_drops"', 'repair = "none"', '"none"', "bookings.repair", "must be one of"),
]


@pytest.mark.parametrize(("old", "new", "place", "key", "message"), WRONG, ids=[row[3] for row in WRONG])
def test_a_fault_names_its_line_and_key(
    tmp_path: Path, old: str, new: str, place: str, key: str, message: str
) -> None:
    path = edited(tmp_path, (old, new))
    found = [line for line in faults(path) if f" {key}: " in line]
    assert found, faults(path)
    assert message in found[0]
    if place:
        assert found[0].startswith(f"rules.toml:{line_with(path, place)}: ")


def test_whatever_key_is_broken_its_line_is_told(tmp_path: Path) -> None:
    """Each key of the shipped policy in turn gets a value that nothing may have."""
    lines = SHIPPED.splitlines()
    keys = [
        (place, line.split(" = ")[0]) for place, line in enumerate(lines) if re.match(r"[a-z][\w.]* = ", line)
    ]
    # a list over several lines would break off
    keys = [(place, key) for place, key in keys if not lines[place].endswith("[")]
    assert len(keys) > 200
    path = tmp_path / "rules.toml"
    for place, key in keys:
        path.write_text("\n".join([*lines[:place], f"{key} = [[]]", *lines[place + 1 :]]), encoding="utf-8")
        assert any(f":{place + 1}: " in fault and key in fault for fault in faults(path)), key


def test_every_fault_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = edited(
        tmp_path,
        ("max_team = 50", "max_team = 'many'"),
        ("percent = 30\n", "percent = 29\n"),
        ('oked = ["36"]', 'oked = ["3"]'),
        ('pool = "commercial"', 'pool = "trade"'),
    )
    assert [line.split(": ")[1] for line in faults(path)] == [
        "applications.max_team",
        "pools",
        "sectors.water.oked[0]",
        "categories.business.pool",
    ]


def test_a_faulty_section_causes_no_faults_that_only_follow_from_it(tmp_path: Path) -> None:
    path = edited(tmp_path, ("percent = 30\n", "percent = 'thirty'\n"))
    [line] = faults(path)
    assert "pools.science.percent: must be a whole number" in line


def test_a_missing_section_is_one_fault(tmp_path: Path) -> None:
    start, end = SHIPPED.index("[credit]"), SHIPPED.index("# Against the applicant")
    assert [line.split(": ", 1)[1] for line in faults(edited(tmp_path, (SHIPPED[start:end], "")))] == [
        "credit: is missing"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"effective = 2026-11-01\n[pools\n", "bad.toml:2: is not TOML"),
        (b'title = "open', "bad.toml:1: is not TOML"),
        (b"a = 1\na = 2\n", "bad.toml:2: is not TOML"),
        (b"# \xff\n", "bad.toml:1: is not UTF-8"),
        (b"", "bad.toml: applications: is missing"),
        (b"pools = 5\n", "bad.toml:1: pools: must be a table"),
        (b"[pools]\n", "bad.toml:1: pools: must have at least one entry"),
        (b"use_or_lose.steps = [1]\n", "bad.toml:1: use_or_lose.steps: must be a list of tables"),
    ],
)
def test_what_is_no_policy_at_all(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert any(line.startswith(told) for line in faults(path)), faults(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == [f"{tmp_path / 'none.toml'}: No such file or directory"]


# --- versions and documents


def test_hours_of_several_gpu_types_can_be_seen_side_by_side() -> None:
    assert POLICY.petaflops_hours("H200", 1_000) == 989
    assert POLICY.petaflops_hours("a100", 1) == Fraction(312, 1000)
    assert POLICY.petaflops_hours("unknown", 1_000) is None


def test_versions_from_before_a_section_stay_readable() -> None:
    document = json.loads(POLICY.document())
    del document["gpu_types"]
    old = policy_of(json.dumps(document))
    assert old.gpu_types == ()
    [gone, *_] = document_differences(old.document(), POLICY.document())
    assert (gone.before, gone.key.startswith("gpu_types.")) == (None, True)


def test_versions_from_before_the_notice_of_moves_keep_to_a_day() -> None:
    document = json.loads(POLICY.document())
    del document["bookings"]["move_notice_hours"]
    assert policy_of(json.dumps(document)).bookings.move_notice == timedelta(days=1)


def test_the_document_makes_the_same_policy_again() -> None:
    assert policy_of(POLICY.document()) == POLICY
    assert json.loads(POLICY.document())["effective"] == "2026-11-01"


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    same = load_policy(edited(tmp_path, ("max_team = 50", "# more later\nmax_team =    50")))
    other = load_policy(edited(tmp_path, ("max_team = 50", "max_team = 51")))
    assert same.version == POLICY.version
    assert other.version != POLICY.version
    assert POLICY.version == f"2026-11-01-{POLICY.sha256[:12]}"


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"effective": 5}', "nonsense"])
def test_a_document_that_never_was_a_policy(document: str) -> None:
    with pytest.raises(PolicyError):
        policy_of(document)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        POLICY.pools[0].percent = 50  # type: ignore[misc]


# --- differences


def test_a_difference_is_told_by_key(tmp_path: Path) -> None:
    new = load_policy(
        edited(
            tmp_path,
            ("percent = 30\n", "percent = 25\ncap_percent = 60\n"),
            ("reserve_percent = 5 ", "reserve_percent = 10 "),
            ("below_percent = 70, take_percent = 20", "below_percent = 75, take_percent = 20"),
            ("least_path = ", "# least_path = "),
        )
    )
    assert {str(change) for change in differences(POLICY, new)} == {
        "~ periods.reserve_percent: 5 -> 10",
        "+ pools.science.cap_percent = 60",
        "~ pools.science.percent: 30 -> 25",
        "~ use_or_lose.steps[3].below_percent: 70 -> 75",
        '- categories.export.least_path = "council"',
    }
    assert differences(POLICY, POLICY) == []


def test_another_order_of_the_form_is_a_difference(tmp_path: Path) -> None:
    document = json.loads(POLICY.document())
    first = next(iter(document["categories"]))
    document["categories"][first] = document["categories"].pop(first)
    moved = policy_of(json.dumps(document))
    [change] = differences(POLICY, moved)
    assert change.key == "categories (order)"
    assert change.before is not None
    assert change.before.startswith("citizen, ")
    assert moved.version != POLICY.version


# --- answers


def test_the_shipped_policy_holds_what_the_requirements_say() -> None:
    assert {pool.slug: pool.percent for pool in POLICY.pools} == {
        "science": 30,
        "startups": 20,
        "state": 20,
        "priority": 15,
        "citizens": 5,
        "commercial": 5,
    }
    assert POLICY.periods.reserve_percent == 5
    assert [sector.slug for sector in POLICY.sectors] == [
        "administration",
        "oil_gas",
        "mining",
        "energy",
        "transport",
        "logistics",
        "water",
        "agriculture",
    ]
    startup = POLICY.category("startup")
    assert startup is not None
    assert (startup.pool, startup.funding.mode) == ("startups", FundingMode.SUBSIDY)
    assert (startup.funding.subsidy_percent, startup.funding.subsidy_months) == (70, 24)


@pytest.mark.parametrize(
    ("code", "sector"),
    [
        ("01111", "agriculture"),
        ("35110", "energy"),
        ("35220", "oil_gas"),
        ("49500", "oil_gas"),
        ("49410", "transport"),
        ("62011", None),
        ("", None),
        (None, None),
    ],
)
def test_the_sector_is_that_of_the_longest_beginning(code: str | None, sector: str | None) -> None:
    found = POLICY.sector_of(code)
    assert (found.slug if found else None) == sector


@pytest.mark.parametrize(
    ("hours", "gpus", "days", "category", "path"),
    [
        (500, 8, 90, "citizen", DecisionPath.OPERATOR),
        (Decimal("500.01"), 8, 90, "citizen", DecisionPath.OPERATOR_TECHNICAL),
        (2_400, 8, 42, "startup", DecisionPath.OPERATOR_TECHNICAL),
        (100, 9, 1, "startup", DecisionPath.OPERATOR_TECHNICAL),
        (50_000, 64, 90, "science", DecisionPath.TWO_OPERATORS_EXPERT),
        (100, 1, 91, "science", DecisionPath.COUNCIL),
        (64_512, 96, 28, "strategic", DecisionPath.COUNCIL),
        (1, 1, 1, "export", DecisionPath.COUNCIL),
        (1, 1, 1, "gone", DecisionPath.OPERATOR),
        (1, 1, 1, None, DecisionPath.OPERATOR),
    ],
)
def test_the_tier_follows_from_size_and_category(
    hours: int | Decimal, gpus: int, days: int, category: str | None, path: DecisionPath
) -> None:
    assert POLICY.tier_of(hours, gpus, days, category).path is path


def test_a_weight_names_its_factors() -> None:
    weight = POLICY.weight_of("01111", "strong", Fraction(3, 2))
    assert weight.factors == {"sector": Fraction(5, 4), "merit": Fraction(5, 4), "credit": Fraction(3, 2)}
    assert weight.total == Fraction(75, 32)
    assert POLICY.weight_of(None).total == 1


@pytest.mark.parametrize(("credit", "counts"), [(0, "1/2"), (5, "2"), ("7/8", "7/8")])
def test_a_credit_is_bounded(credit: Any, counts: str) -> None:
    assert POLICY.weight_of(None, None, Fraction(credit)).credit == Fraction(counts)


def test_a_band_or_category_that_the_version_does_not_have_is_no_guess() -> None:
    with pytest.raises(PolicyGap, match="no merit band “golden”"):
        POLICY.weight_of(None, "golden")
    with pytest.raises(PolicyGap, match="no category “pirate”"):
        POLICY.price_of("pirate", 3600)


@pytest.mark.parametrize(
    ("used", "planned", "taken"),
    [
        (700, 1000, "0"),
        (699, 1000, "1/5"),
        (549, 1000, "2/5"),
        (399, 1000, "3/5"),
        (199, 1000, "4/5"),
        (0, 1000, "4/5"),
        (0, 0, "0"),
        (2000, 1000, "0"),
    ],
)
def test_use_or_lose_by_the_table(used: int, planned: int, taken: str) -> None:
    assert POLICY.use_or_lose.taken_back(used, planned) == Fraction(taken)


@given(planned=st.integers(0, 10**9), less=st.integers(0, 10**9), more=st.integers(0, 10**9))
def test_using_more_never_loses_more(planned: int, less: int, more: int) -> None:
    low, high = sorted((less, more))
    rules = POLICY.use_or_lose
    assert rules.taken_back(low, planned) >= rules.taken_back(high, planned)


def test_prices_of_the_demonstrations_applications() -> None:
    startup = POLICY.price_of("startup", 2_400 * 3600)
    assert (startup.gross, startup.subsidy) == (Decimal(3_360_000), Decimal(2_352_000))
    assert (startup.net, startup.vat) == (Decimal(1_008_000), Decimal(161_280))
    assert POLICY.price_of("startup", 2_400 * 3600, subsidised=False).net == Decimal(3_360_000)
    assert POLICY.price_of("science", 1_500 * 3600).total == 0
    assert POLICY.price_of("government", 3600).total == 0


@pytest.mark.parametrize(("used", "net"), [(0, 140_000), (150, 350_000), (200, 420_000), (900, 420_000)])
def test_a_citizens_free_hours_come_first(used: int, net: int) -> None:
    price = POLICY.price_of("citizen", 300 * 3600, free_seconds_used=used * 3600)
    assert price.net == net
    assert price.gross == 420_000


@given(seconds=st.integers(0, 10**12), used=st.integers(0, 10**7))
def test_a_price_adds_up_to_the_tiyn(seconds: int, used: int) -> None:
    for category in POLICY.categories:
        price = POLICY.price_of(category.slug, seconds, free_seconds_used=used)
        assert price.gross == price.free + price.subsidy + price.net
        assert min(price.free, price.subsidy, price.net, price.vat) >= 0


# --- lines


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Every key path of parsed TOML, entries of lists included."""
    if isinstance(value, dict):
        return [found for key in value for found in [(*path, key), *paths(value[key], (*path, key))]]
    if isinstance(value, list):
        return [found for n, entry in enumerate(value) for found in [(*path, n), *paths(entry, (*path, n))]]
    return []


TRICKY = '''
a = "x # no comment [b]" # comment = 1
"quoted.key" = 'lit \\'
[ tab . "le" ] # c
multi = """
[not.a.table]
key = "no" \\""" """
list = [ # first
  "1,2", [3,
  4], { x = 5, y = [6] },

  """7
  8""",
]
[[rows]]
z = 1
[rows.below]
w = 1
[[rows]]
z = 2
[rows.below]
w = 2
'''


def test_lines_survive_whatever_toml_allows() -> None:
    lines = lines_of(TRICKY)
    expected: dict[KeyPath, int] = {
        ("a",): 2,
        ("quoted.key",): 3,
        ("tab", "le"): 4,
        ("tab", "le", "multi"): 5,
        ("tab", "le", "list"): 8,
        ("tab", "le", "list", 0): 9,
        ("tab", "le", "list", 1): 9,
        ("tab", "le", "list", 2): 10,
        ("tab", "le", "list", 3): 12,
        ("rows", 0): 15,
        ("rows", 0, "z"): 16,
        ("rows", 0, "below"): 17,
        ("rows", 0, "below", "w"): 18,
        ("rows", 1, "z"): 20,
        ("rows", 1, "below", "w"): 22,
    }
    assert {path: lines.get(path) for path in expected} == expected


def test_every_key_of_the_shipped_policy_has_a_line() -> None:
    lines = lines_of(SHIPPED)
    text = SHIPPED.splitlines()
    for path in paths(tomllib.loads(SHIPPED)):
        number = line_of(lines, path)
        assert number is not None
        last = next(part for part in reversed(path) if isinstance(part, str))
        assert last in text[number - 1] or isinstance(path[-1], int) or path in lines, (path, number)
