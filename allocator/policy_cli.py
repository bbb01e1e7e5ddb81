"""`kezek policy`: look at a policy file before it counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from allocator.database_cli import _database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.policy import Category, Policy, Tier

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(help="Check, show and compare policy files.")
def policy() -> None:
    """Subcommands below."""


@policy.command(
    help="Say everything that is wrong with FILE, or with the site's policy; exit 2 if there is any."
)
@click.argument("file", type=FILE, required=False)
def check(file: Path | None) -> None:
    """One line a fault, with the line of the file and the key."""
    from allocator.policy import PolicyError

    try:
        found = _read(file)
    except PolicyError as error:
        for line in error.lines:
            click.echo(line, err=True)
        raise SystemExit(error.exit_code) from None
    click.echo(f"{file or 'the policy'}: nothing is wrong, version {found.version}")


@policy.command(help="Show FILE, or the site's policy, in short.")
@click.argument("file", type=FILE, required=False)
@click.option("--json", "as_json", is_flag=True, help="The whole of it, as it is recorded and hashed.")
def show(file: Path | None, as_json: bool) -> None:
    """With --json exactly the bytes whose SHA-256 the version begins with, and a line's end."""
    found = _read(file)
    if as_json:
        click.echo(found.document())
        return
    for line in _summary(found):
        click.echo(line)


@policy.command(help="Show what changes from OLD to NEW: files, or versions that this site has used.")
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """One line a key: + is new, - has gone, ~ is another value."""
    from allocator.policy import differences

    before, after = _file_or_version(old), _file_or_version(new)
    changes = differences(before, after)
    if not changes:
        click.echo(f"the same policy, version {after.version}")
        return
    click.echo(f"{before.version} -> {after.version}")
    for change in changes:
        click.echo(str(change))


def _read(file: Path | None) -> Policy:
    """The policy of that file, or the one that the site goes by."""
    from allocator.policy import load_policy

    return load_policy(file or _of_the_site())


def _of_the_site() -> Path | None:
    from config.settings import load_settings

    return load_settings().policy_file


def _file_or_version(name: str) -> Policy:
    from allocator.policy import load_policy

    if Path(name).is_file():
        return load_policy(Path(name))
    from allocator import policies

    with _database() as database, database.reader() as session:
        return policies.find(session, name)


def _summary(found: Policy) -> Iterator[str]:
    yield f"version    {found.version}"
    yield f"sha256     {found.sha256}"
    yield f"effective  {found.effective}"
    yield ""
    yield f"pools (reserve {found.periods.reserve_percent} %)"
    for pool in found.pools:
        cap = "" if pool.cap_percent is None else f", at most {pool.cap_percent} %"
        yield f"  {pool.slug:<14} {pool.percent:>3} %  weight {pool.weight}{cap}"
    yield "categories"
    yield from (_category(category) for category in found.categories)
    yield "tiers"
    yield from (_tier(tier) for tier in found.tiers)
    yield f"sectors of {found.sector_list.year}"
    for sector in found.sectors:
        yield f"  {sector.slug:<14} × {sector.weight!s:<5} OKED {', '.join(sector.oked)}"
    yield "merit bands"
    for band in found.merit_bands:
        yield f"  {band.slug:<14} × {band.factor}{' (default)' if band.slug == found.default_band else ''}"
    credit, tariff = found.credit, found.tariff
    yield f"credit       {credit.minimum} to {credit.maximum}, keeps {credit.decay} a period"
    yield "use or lose"
    for step in found.use_or_lose.steps:
        yield f"  below {step.below_percent:>3} % used, {step.take_percent:>3} % of the rest is taken back"
    note = " (placeholder)" if tariff.placeholder else ""
    yield f"tariff       {tariff.tenge_per_gpu_hour} ₸ a GPU-hour, VAT {tariff.vat_percent} %{note}"


def _category(category: Category) -> str:
    funding = category.funding
    parts = [funding.mode.value]
    if funding.subsidy_percent:
        parts.append(f"{funding.subsidy_percent} %")
    if funding.subsidy_months:
        parts.append(f"{funding.subsidy_months} months")
    if funding.free_hours_a_year:
        parts.append(f"{funding.free_hours_a_year} GPU-hours a year free")
    return f"  {category.slug:<14} {category.pool:<12} {category.identity.value}  {', '.join(parts)}"


def _tier(tier: Tier) -> str:
    limits = [
        f"{most} {unit}"
        for most, unit in (
            (tier.max_gpu_hours, "GPU-hours"),
            (tier.max_gpus, "GPUs"),
            (tier.max_days, "days"),
        )
        if most is not None
    ]
    due = f"{tier.working_days} working" if tier.working_days else f"{tier.calendar_days} calendar"
    return f"  {tier.slug:<14} {tier.path.value}, {due} days; up to {', '.join(limits) or 'any size'}"
