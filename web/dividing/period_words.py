"""Divisions in plain words with their numbers: why a share is what it is, and what would have changed it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flask_babel import gettext

from allocator.dividing import period_queries
from allocator.dividing.divisions import Explained
from allocator.dividing.period_queries import Row
from allocator.fairshare import Explanation, Outcome, PoolBound, Reason
from allocator.models import GrantChangeKind, PeriodClaim
from config.i18n import N_
from web.days import last_day as last_day  # templates have these words alone
from web.formats import number
from web.policy import policy
from web.policy_words import factor, text_in

PERCENT = 100
FACTORS: Mapping[str, str] = {
    "sector": N_("Priority sector"),
    "merit": N_("Merit band"),
    "credit": N_("Credit of earlier periods"),
}
BOUNDS: Mapping[str, str] = {
    PoolBound.LEVEL: N_("the common level"),
    PoolBound.GUARANTEE: N_("its guarantee"),
    PoolBound.CAP: N_("its upper limit"),
    PoolBound.DEMAND: N_("all that was asked for"),
    PoolBound.FIXED: N_("what a person fixed"),
    period_queries.SET_ASIDE: N_("least useful amounts that could not be met"),
}
CHANGES: Mapping[GrantChangeKind, str] = {
    GrantChangeKind.RETURNED: N_("Given back"),
    GrantChangeKind.RECLAIMED: N_("Taken back, not used"),
    GrantChangeKind.REDIVIDED: N_("More, from what others gave back"),
    GrantChangeKind.RESERVE: N_("More, from the reserve"),
}
MISMATCHES: Mapping[str, str] = {
    "division": N_("The division"),
    "share": N_("Share"),
    "grant": N_("Grant"),
    "pool": N_("Pool"),
    "weight": N_("Weight"),
    "request": N_("Request"),
    "policy": N_("Policy"),
    "inputs": N_("All inputs together"),
    "event": N_("Record of events"),
    **FACTORS,
}


def pool_title(slug: str) -> str:
    """A pool's name in the reader's language; one that today's policy does not have shows as it is."""
    pool = policy().pool(slug)
    return text_in(pool.titles) if pool else slug


def decimal(value: Fraction | int) -> str:
    """At most two decimals, for eyes; where it matters the exact fraction stands beside it."""
    exact = Fraction(value)
    return number(Decimal(exact.numerator) / exact.denominator)


def percent(value: Fraction | None) -> str:
    """`83,33 %`; a dash where there is nothing to measure."""
    return "—" if value is None else f"{decimal(value * PERCENT)} %"


def petaflops(gpu_type: str, hours: int) -> str:
    """`≈ 12 345 PFLOPS-hours`, to compare GPU types; empty for one whose speed the policy does not say."""
    known = policy().petaflops_hours(gpu_type, hours)
    return "" if known is None else str(gettext("≈ %(amount)s PFLOPS-hours", amount=number(round(known))))


def percent_of(hours: int, whole: int) -> str:
    """`31,58 %` of something; a dash where there is nothing."""
    return percent(Fraction(hours, whole) if whole else None)


def part(hours: int, request: int) -> str:
    """How much of a request was given: `58 %`, a whole number, but never 100 when an hour is missing."""
    if not request:
        return ""
    whole = round(Fraction(hours * PERCENT, request))
    return f"{number(min(whole, PERCENT - 1) if hours < request else whole)} %"


def short_reason(row: Row) -> str:
    """What decided a share, in a few words for a table; the page of the share has the sentences."""
    if row.is_fixed:
        return str(gettext("set by a person"))
    if row.is_set_aside:
        return str(gettext("below its least useful amount"))
    if row.share >= row.request:
        return str(gettext("all that was asked for"))
    return str(gettext("the level of its pool"))


def signed(hours: int) -> str:
    """A change with its sign."""
    return f"+{number(hours)}" if hours > 0 else number(hours)


def bound_text(bound: str) -> str:
    """What decided a pool's amount."""
    known = BOUNDS.get(bound)
    return str(gettext(known)) if known else bound


def change_text(kind: GrantChangeKind) -> str:
    """Why a grant changed after it was published."""
    return str(gettext(CHANGES[kind]))


def mismatch_text(what: str) -> str:
    """Which kind of number did not come out again."""
    known = MISMATCHES.get(what)
    return str(gettext(known)) if known else what


def factor_facts(claim: PeriodClaim) -> list[tuple[str, str]]:
    """Each factor of the weight by name, then their product."""
    facts = [(_factor_name(one["factor"]), _factor_value(one)) for one in claim.factors]
    facts.append((gettext("Weight: the product"), factor(claim.weight)))
    return facts


def factors_line(claim: PeriodClaim | Row) -> str:
    """`1,5 × 1 × 1`: for a table, in the order of the factors' names."""
    return " × ".join(factor(Fraction(one["value"])) for one in claim.factors)


def _factor_name(slug: str) -> str:
    known = FACTORS.get(slug)
    return str(gettext(known)) if known else slug


def _factor_value(one: Mapping[str, Any]) -> str:
    told = f"× {factor(Fraction(one['value']))}"
    if one["factor"] == "credit":
        return f"{told}{_credit(one)}"
    name = one.get("name")
    if one["factor"] == "sector":
        sector = policy().sector(name) if name else None
        title = text_in(sector.titles) if sector else name or gettext("none on the list")
    else:
        band = policy().merit_band(name or "")
        title = text_in(band.titles) if band else name or ""
    return f"{told}: {title}" if title else told


def _credit(one: Mapping[str, Any]) -> str:
    if "entitled" not in one or "served" not in one:
        return str(gettext(": no earlier period counts"))
    return str(
        gettext(
            ": in earlier periods, as far as they still count, %(entitled)s GPU-hours were due "
            "and %(served)s were served",
            entitled=decimal(Fraction(one["entitled"])),
            served=decimal(Fraction(one["served"])),
        )
    )


def reasons(explained: Explained) -> list[str]:
    """Why the share is what it is, sentence by sentence, each with its numbers."""
    told = explained.explanation
    values = {
        "pool": pool_title(told.pool),
        "level": "" if told.level is None else decimal(told.level),
        "weight": factor(Fraction(told.weight)),
        "share": number(told.share),
        "request": number(told.request),
        "minimum": number(told.minimum),
    }
    match told.outcome:
        case Outcome.FIXED:
            return _fixed(explained, values)
        case Outcome.FULL:
            return _full(told, values)
        case Outcome.LEVEL:
            lines = [
                gettext(
                    "The level of the pool “%(pool)s” was %(level)s GPU-hours per weight point; "
                    "your weight is %(weight)s: %(share)s of the %(request)s asked.",
                    **values,
                )
            ]
            return lines + _rounding(told)
        case _:
            return _aside(told, values)


def _fixed(explained: Explained, values: dict[str, str]) -> list[str]:
    one = explained.adjustment
    lines = [gettext("A person set this share to %(share)s GPU-hours of the %(request)s asked.", **values)]
    if one is not None:
        lines.append(gettext("It would have been %(before)s by the rules alone.", before=number(one.before)))
        lines.append(gettext("The reason: %(reason)s", reason=one.reason))
    return lines


def _full(told: Explanation, values: dict[str, str]) -> list[str]:
    if told.level is None:
        return [
            gettext(
                "The pool “%(pool)s” had enough for everybody: all of the %(request)s GPU-hours asked.",
                **values,
            )
        ]
    values["reach"] = decimal(told.level * told.weight)
    return [
        gettext(
            "The level of the pool “%(pool)s” was %(level)s GPU-hours per weight point; with your weight of "
            "%(weight)s that is up to %(reach)s, so you got all of the %(request)s asked.",
            **values,
        )
    ]


def _rounding(told: Explanation) -> list[str]:
    if told.exact.denominator == 1:
        return []
    values = {"exact": decimal(told.exact), "share": number(told.share)}
    if told.rounded_up:
        return [
            gettext(
                "Exactly it is %(exact)s, rounded up to %(share)s: its fraction is one of the largest.",
                **values,
            )
        ]
    return [
        gettext(
            "Exactly it is %(exact)s, rounded down to %(share)s: whole hours went to larger fractions.",
            **values,
        )
    ]


def _aside(told: Explanation, values: dict[str, str]) -> list[str]:
    gone = told.set_aside
    values["reach"] = number(gone.reach) if gone else ""
    if gone is not None and gone.reason is Reason.BEYOND_REACH:
        lines = [
            gettext(
                "You said that less than %(minimum)s GPU-hours would be of no use, and the pool “%(pool)s” "
                "could never have given more than %(reach)s.",
                **values,
            )
        ]
    else:
        values["could"] = "" if told.fallback_minimum is None else number(told.fallback_minimum)
        lines = [
            gettext(
                "You said that less than %(minimum)s GPU-hours would be of no use. When it was your turn, "
                "the pool “%(pool)s” had only %(could)s for your weight of %(weight)s, so the hours went to "
                "others.",
                **values,
            )
        ]
    if told.outcome is Outcome.REMAINDER:
        lines.append(gettext("In the end %(share)s GPU-hours that nobody else wanted came to you.", **values))
    return lines


def would_change(told: Explanation) -> list[str]:
    """What would have changed the share, and what would not."""
    lines: list[str] = []
    if told.outcome is Outcome.FIXED:
        return lines
    if told.asking_more_helps and told.ceiling is not None:
        lines.append(
            gettext(
                "Asking for more would have brought more, at this level up to %(ceiling)s GPU-hours.",
                ceiling=number(told.ceiling),
            )
        )
    elif told.asking_more_helps:
        lines.append(gettext("Asking for more would have brought more: there were hours left."))
    else:
        lines.append(gettext("Asking for more would not have changed this."))
    if told.fallback_minimum is not None:
        lines.append(
            gettext(
                "With a least useful amount of at most %(minimum)s GPU-hours you would have been kept.",
                minimum=number(told.fallback_minimum),
            )
        )
    if told.full_weight is not None:
        lines.append(
            gettext(
                "To get all that was asked at this level, the weight would have to be at least %(weight)s.",
                weight=_enough(told.full_weight),
            )
        )
    return lines


def _enough(weight: Fraction) -> str:
    # rounded to the nearest, the weight told could be a little too small
    return decimal(Fraction(-(-weight * PERCENT // 1), PERCENT))


def check_facts(told: Explanation) -> list[tuple[str, str]]:
    """The exact numbers, for who wants to recompute."""
    facts = [
        (gettext("Level, exactly"), "—" if told.level is None else str(told.level)),
        (gettext("Share before rounding, exactly"), str(told.exact)),
        (gettext("Decides between equal fractions (SHA-256)"), told.digest[:16] + "…"),
    ]
    if told.cut is not None:
        facts.append((gettext("The last fraction that was rounded up"), str(told.cut.fraction)))
    return facts


def period_title(period: Any) -> str:
    """`Alem.cloud, H200`: a period's name for people; its days stand beside it."""
    return f"{period.cluster.title}, {period.gpu_type.upper()}"


def file_name(proposal: Any) -> str:
    """Of a downloaded division, without its ending: two of them in one folder must not be mixed up."""
    return f"division-{proposal.period.name}-{proposal.number}"
