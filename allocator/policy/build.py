"""From parsed TOML to typed rules, section by section; then what must hold between sections."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

from allocator.policy import rules
from allocator.policy.policy import Policy
from allocator.policy.reading import Table
from allocator.policy.rules import DecisionPath, FundingMode, Identity, PeriodLength


def build(root: Table, version: str, sha256: str, canonical: str) -> Policy:
    """The policy; it is only worth something when ``root.faults`` has none afterwards."""
    merit = root.table("merit")
    policy = Policy(
        version=version,
        sha256=sha256,
        canonical=canonical,
        effective=root.day("effective"),
        periods=_periods(root.table("periods")),
        pools=tuple(_pool(slug, table) for slug, table in root.named("pools")),
        categories=tuple(_category(slug, table) for slug, table in root.named("categories")),
        tiers=tuple(_tier(slug, table) for slug, table in root.named("tiers")),
        clocks=_clocks(root.table("clocks")),
        sector_list=_sector_list(root.table("sector_list")),
        sectors=tuple(_sector(slug, table) for slug, table in root.named("sectors")),
        default_band=merit.slug("default"),
        merit_bands=tuple(_band(slug, table) for slug, table in merit.named("bands")),
        credit=_credit(root.table("credit")),
        use_or_lose=_use_or_lose(root.table("use_or_lose")),
        tariff=_tariff(root.table("tariff")),
        bodies=tuple(_body(slug, table) for slug, table in root.named("bodies")),
        applications=_applications(root.table("applications")),
        bookings=_bookings(root.table("bookings")),
        # versions that were recorded before this section existed must stay readable
        gpu_types=tuple(
            sorted(
                (_gpu_type(slug, table) for slug, table in root.optional_named("gpu_types")),
                key=lambda found: found.slug,
            )
        ),
    )
    merit.done()
    root.done()
    return policy


def _periods(table: Table) -> rules.PeriodRules:
    found = rules.PeriodRules(
        length=table.choice("length", PeriodLength),
        unit_hours=table.whole("unit_hours", 1, 1000),
        reserve_percent=table.percent("reserve_percent"),
        proposal_days=table.whole("proposal_days", 0, 90),
        publication_days=table.whole("publication_days", 0, 90),
        # Versions recorded before this key was known still have to be read.
        open_days=table.optional_whole("open_days", 0, 90) or 0,
    )
    table.done()
    return found


def _pool(slug: str, table: Table) -> rules.PoolRules:
    pool = rules.PoolRules(
        slug=slug,
        percent=table.percent("percent"),
        cap_percent=table.optional_whole("cap_percent", 0, 100),
        weight=table.positive("weight"),
        titles=table.texts("title"),
    )
    table.done()
    return pool


def _category(slug: str, table: Table) -> rules.Category:
    category = rules.Category(
        slug=slug,
        pool=table.slug("pool"),
        identity=table.choice("identity", Identity),
        titles=table.texts("title"),
        hints=table.texts("hint"),
        evidence=table.texts("evidence"),
        funding=_funding(table.table("funding")),
        least_path=table.optional_choice("least_path", DecisionPath),
    )
    table.done()
    return category


def _funding(table: Table) -> rules.Funding:
    mode = table.choice("mode", FundingMode)
    subsidy = mode is FundingMode.SUBSIDY
    found = rules.Funding(
        mode=mode,
        free_hours_a_year=table.optional_whole("free_hours_a_year", 1) or 0,
        # anywhere but under a subsidy these keys would promise something that nobody pays
        subsidy_percent=table.percent("subsidy_percent", 1) if subsidy else 0,
        subsidy_months=table.optional_whole("subsidy_months", 1, 600) if subsidy else None,
    )
    table.done()
    return found


def _tier(slug: str, table: Table) -> rules.Tier:
    tier = rules.Tier(
        slug=slug,
        path=table.choice("path", DecisionPath),
        titles=table.texts("title"),
        max_gpu_hours=table.optional_whole("max_gpu_hours", 1),
        max_gpus=table.optional_whole("max_gpus", 1),
        max_days=table.optional_whole("max_days", 1),
        working_days=table.optional_whole("working_days", 1, 366),
        calendar_days=table.optional_whole("calendar_days", 1, 366),
    )
    table.done()
    return tier


def _clocks(table: Table) -> rules.Clocks:
    clocks = rules.Clocks(
        completeness_days=table.whole("completeness_days", 1, 366),
        clarification_days=table.whole("clarification_days", 1, 366),
    )
    table.done()
    return clocks


def _sector_list(table: Table) -> rules.SectorList:
    found = rules.SectorList(year=table.whole("year", 2024, 2100), decision=table.texts("decision"))
    table.done()
    return found


def _sector(slug: str, table: Table) -> rules.Sector:
    sector = rules.Sector(
        slug=slug, weight=table.positive("weight"), oked=table.codes("oked"), titles=table.texts("title")
    )
    table.done()
    return sector


def _band(slug: str, table: Table) -> rules.MeritBand:
    band = rules.MeritBand(
        slug=slug,
        factor=table.positive("factor"),
        titles=table.texts("title"),
        meanings=table.texts("meaning"),
    )
    table.done()
    return band


def _credit(table: Table) -> rules.CreditRules:
    one = Fraction(1)
    found = rules.CreditRules(
        minimum=table.positive("minimum"),
        maximum=table.positive("maximum"),
        decay=table.positive("decay", most=one),
        strength=table.fraction("strength"),
        returned=table.fraction("returned", most=one),
    )
    table.done()
    return found


def _use_or_lose(table: Table) -> rules.UseOrLose:
    steps = []
    for row in table.rows("steps"):
        steps.append(rules.UseStep(row.percent("below_percent", 1), row.percent("take_percent", 1)))
        row.done()
    found = rules.UseOrLose(
        steps=tuple(steps),
        check_percent=table.percent("check_percent", 1),
        warning_days=table.whole("warning_days", 1, 90),
    )
    table.done()
    return found


def _tariff(table: Table) -> rules.Tariff:
    tariff = rules.Tariff(
        tenge_per_gpu_hour=table.money("tenge_per_gpu_hour"),
        vat_percent=table.percent("vat_percent"),
        placeholder=table.yes("placeholder"),
    )
    table.done()
    return tariff


def _body(slug: str, table: Table) -> rules.Body:
    body = rules.Body(slug, table.texts("title"))
    table.done()
    return body


def _gpu_type(slug: str, table: Table) -> rules.GpuType:
    found = rules.GpuType(slug, tflops=table.whole("tflops", 1, 1_000_000))
    table.done()
    return found


def _applications(table: Table) -> rules.ApplicationLimits:
    limits = rules.ApplicationLimits(
        max_gpu_hours=table.whole("max_gpu_hours", 1),
        max_team=table.whole("max_team", 0, 1000),
        max_ahead=timedelta(days=table.whole("max_ahead_days", 1, 36_500)),
        max_window=timedelta(days=table.whole("max_window_days", 1, 36_500)),
    )
    table.done()
    return limits


def _length(table: Table, key: str, least: int, most: int) -> timedelta:
    """A length of time in the unit that its key ends with."""
    unit = {"minutes": "minutes", "hours": "hours", "days": "days"}[key.rsplit("_", 1)[1]]
    return timedelta(**{unit: table.whole(key, least, most)})


def _notice(table: Table) -> timedelta:
    """A day in versions from before the key."""
    hours = table.optional_whole("move_notice_hours", 1, 24 * 90)
    return timedelta(days=1) if hours is None else timedelta(hours=hours)


def _bookings(table: Table) -> rules.BookingRules:
    found = rules.BookingRules(
        boundary=_length(table, "boundary_minutes", 1, 24 * 60),
        day_starts_at=table.clock("day_starts_at"),
        min_length=_length(table, "min_minutes", 1, 1_000_000),
        max_length=_length(table, "max_days", 1, 366),
        max_ahead=_length(table, "max_ahead_days", 1, 36_500),
        lead_time=_length(table, "lead_minutes", 0, 1_000_000),
        cleaning=_length(table, "cleaning_minutes", 0, 24 * 60),
        hold=_length(table, "hold_minutes", 1, 24 * 60),
        max_open=table.whole("max_open", 1, 100_000),
        max_open_percent=table.percent("max_open_percent", 1),
        fix_ahead=_length(table, "fix_ahead_hours", 1, 24 * 90),
        extend_within=_length(table, "extend_within_hours", 1, 24 * 90),
        no_show=_length(table, "no_show_hours", 1, 24 * 90),
        no_show_grace=_length(table, "no_show_grace_hours", 0, 24 * 90),
        waitlist_answer=_length(table, "waitlist_answer_hours", 1, 24 * 90),
        move_answer=_length(table, "move_answer_hours", 1, 24 * 90),
        move_notice=_notice(table),
        materialise=_length(table, "materialise_days", 1, 366),
        repair=table.choice("repair", rules.RepairGoal),
    )
    table.done()
    return found
