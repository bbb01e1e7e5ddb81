"""The policy's rules in the reader's words: what a page says of a factor, a band, who pays, who decides."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flask_babel import gettext, ngettext

from allocator.models import Decision, Organisation
from allocator.policy import Category, DecisionPath, FundingMode, MeritBand, PoolRules, Sector, Texts, Tier
from config.i18n import N_
from web.formats import number
from web.i18n import language
from web.policy import policy

PATHS: Mapping[DecisionPath, str] = {
    DecisionPath.OPERATOR: N_("one operator"),
    DecisionPath.OPERATOR_TECHNICAL: N_("an operator, after a technical check"),
    DecisionPath.TWO_OPERATORS_EXPERT: N_("two operators, after an expert’s opinion"),
    DecisionPath.COUNCIL: N_("the council"),
}
MODES: Mapping[FundingMode, str] = {
    FundingMode.FREE: N_("free"),
    FundingMode.TARIFF: N_("at the tariff"),
    FundingMode.ORDER: N_("free, or as the order says"),
}
HUNDREDTHS = 100


def text_in(texts: Texts) -> str:
    """The text in the reader's language."""
    return texts.get(language()) or texts["en"]


def factor(value: Fraction) -> str:
    """`1,25` where two decimals say it exactly, else `25/16`: with a rounded one nobody could recompute."""
    hundredths = value * HUNDREDTHS
    if hundredths.denominator == 1:
        return number(Decimal(hundredths.numerator) / HUNDREDTHS)
    return f"{value.numerator}/{value.denominator}"


def band_text(band: MeritBand) -> str:
    """`Strong, × 1,25: a clear plan`."""
    return f"{text_in(band.titles)}, × {factor(band.factor)}: {text_in(band.meanings)}"


def band_of(slug: str) -> str:
    """A band by its name in the database; one that today's policy does not have shows as it is."""
    band = policy().merit_band(slug)
    return band_text(band) if band else slug


def sector_text(sector: Sector | None) -> str:
    """The priority sector with its factor, or that there is none."""
    if sector is None:
        return str(gettext("none on the list of %(year)s", year=policy().sector_list.year))
    return f"{text_in(sector.titles)}, × {factor(sector.weight)}"


def pool_text(pool: PoolRules | None) -> str:
    """`Start-ups, 20 %`; a dash for a category that today's policy does not have."""
    return f"{text_in(pool.titles)}, {pool.percent} %" if pool else "—"


def weight_facts(
    decision: Decision | None, category: str, organisation: Organisation | None
) -> list[tuple[str, Any]]:
    """What an approved application weighs beside others, and why, by the policy of today.

    The credit of a period comes on top; each period's own page tells it.
    """
    if decision is None or decision.gpu_seconds is None:
        return []
    rules, chosen = policy(), policy().category(category)
    pool = rules.pool(chosen.pool) if chosen else None
    sector = rules.sector_of(organisation.activity if organisation else None)
    facts: list[tuple[str, Any]] = [
        (gettext("Pool"), pool_text(pool)),
        (gettext("Priority sector"), sector_text(sector)),
        (gettext("Merit band"), band_of(decision.merit_band)),
    ]
    if decision.merit_reason:
        facts.append((gettext("Reason for the band"), decision.merit_reason))
    if rules.merit_band(decision.merit_band):
        weight = rules.weight_of(organisation.activity if organisation else None, decision.merit_band)
        told = gettext("%(weight)s, before a period’s credit", weight=factor(weight.total))
        facts.append((gettext("Weight"), told))
    return facts


def funding_text(category: Category) -> str:
    """Who pays for a category's hours."""
    funding = category.funding
    if funding.mode is FundingMode.SUBSIDY:
        return _subsidy(funding.subsidy_percent, funding.subsidy_months)
    told = str(gettext(MODES[funding.mode]))
    if not funding.free_hours_a_year:
        return told
    hours = number(funding.free_hours_a_year)
    return str(gettext("%(hours)s GPU-hours a year free, then %(mode)s", hours=hours, mode=told))


def _subsidy(percent: int, months: int | None) -> str:
    if months is None:
        return str(gettext("the state pays %(percent)s %%", percent=percent))
    return str(
        ngettext(
            "the state pays %(percent)s %% for at most %(num)s month",
            "the state pays %(percent)s %% for at most %(num)s months",
            months,
            percent=percent,
        )
    )


def limits_text(tier: Tier) -> str:
    """How large an application of this tier may be."""
    parts = [
        gettext(told, most=number(most))
        for told, most in (
            (N_("up to %(most)s GPU-hours"), tier.max_gpu_hours),
            (N_("up to %(most)s GPUs at a time"), tier.max_gpus),
            (N_("up to %(most)s days"), tier.max_days),
        )
        if most is not None
    ]
    return ", ".join(parts) or str(gettext("everything larger or longer"))


def path_text(tier: Tier) -> str:
    """Who decides."""
    return str(gettext(PATHS[tier.path]))


def deadline_text(tier: Tier) -> str:
    """By when."""
    if tier.working_days is not None:
        return str(ngettext("%(num)s working day", "%(num)s working days", tier.working_days))
    days = tier.calendar_days or 0
    return str(ngettext("%(num)s calendar day", "%(num)s calendar days", days))
