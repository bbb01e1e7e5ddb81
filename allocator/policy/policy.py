"""One version of the rules, and the questions that the rest of the house asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Protocol, TypeVar

from allocator.policy.errors import PolicyGap
from allocator.policy.rules import (
    ApplicationLimits,
    Body,
    BookingRules,
    Category,
    Clocks,
    CreditRules,
    DecisionPath,
    FundingMode,
    GpuType,
    MeritBand,
    PeriodRules,
    PoolRules,
    Sector,
    SectorList,
    Tariff,
    Tier,
    UseOrLose,
)
from config.i18n import N_

HOUR = 3600
TIYN = Decimal("0.01")
ONE = Fraction(1)


@dataclass(frozen=True)
class Weight:
    """A quota's weight with what it is made of; ``sector`` is None outside of the priority sectors."""

    sector: Sector | None
    merit_band: MeritBand
    credit: Fraction

    @property
    def factors(self) -> Mapping[str, Fraction]:
        """By name: sector, merit, credit."""
        sector = self.sector.weight if self.sector else ONE
        return {"sector": sector, "merit": self.merit_band.factor, "credit": self.credit}

    @property
    def total(self) -> Fraction:
        """sector × merit × credit."""
        product = ONE
        for factor in self.factors.values():
            product *= factor
        return product


@dataclass(frozen=True)
class Price:
    """Tenge: ``gross`` at the tariff, less what is free and the subsidy, is ``net``; ``vat`` comes on top."""

    gross: Decimal
    free: Decimal
    subsidy: Decimal
    net: Decimal
    vat: Decimal

    @property
    def total(self) -> Decimal:
        """What is to be paid."""
        return self.net + self.vat


class _Named(Protocol):
    @property
    def slug(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True)
class Policy:
    """One version; ``version`` is the date and the start of the SHA-256 of ``document``."""

    version: str
    sha256: str
    canonical: str
    effective: date
    periods: PeriodRules
    pools: tuple[PoolRules, ...]
    categories: tuple[Category, ...]
    tiers: tuple[Tier, ...]
    clocks: Clocks
    sector_list: SectorList
    sectors: tuple[Sector, ...]
    default_band: str
    merit_bands: tuple[MeritBand, ...]
    credit: CreditRules
    use_or_lose: UseOrLose
    tariff: Tariff
    bodies: tuple[Body, ...]
    applications: ApplicationLimits
    bookings: BookingRules
    gpu_types: tuple[GpuType, ...] = ()

    def document(self) -> str:
        """The whole policy as canonical JSON: `policy_of()` makes the same policy of it."""
        return self.canonical

    def category(self, slug: str) -> Category | None:
        return _find(self.categories, slug)

    def pool(self, slug: str) -> PoolRules | None:
        return _find(self.pools, slug)

    def sector(self, slug: str) -> Sector | None:
        return _find(self.sectors, slug)

    def merit_band(self, slug: str) -> MeritBand | None:
        return _find(self.merit_bands, slug)

    def body(self, slug: str) -> Body | None:
        return _find(self.bodies, slug)

    def tier(self, slug: str) -> Tier | None:
        return _find(self.tiers, slug)

    def petaflops_hours(self, gpu_type: str, gpu_hours: int) -> Fraction | None:
        """What so many GPU-hours of a type could compute; None for a type whose speed is not set."""
        known = _find(self.gpu_types, gpu_type.lower())
        return Fraction(gpu_hours * known.tflops, 1000) if known else None

    def sector_of(self, activity_code: str | None) -> Sector | None:
        """The priority sector of an OKED code, or None; the longest prefix that fits decides."""
        if not activity_code:
            return None
        fitting = [
            (len(prefix), sector)
            for sector in self.sectors
            for prefix in sector.oked
            if activity_code.startswith(prefix)
        ]
        return max(fitting, key=lambda found: found[0])[1] if fitting else None

    def tier_of(
        self, gpu_hours: int | Decimal | Fraction, gpus: int, days: int, category: str | None = None
    ) -> Tier:
        """The first tier that holds an application of this size and is not below its category's least path.

        ``gpus`` at a time, ``days`` from the first to the last one asked for. The last tier has no limits, so
        there always is one; a category that the policy does not know has no least path.
        """
        rules = self.category(category) if category else None
        paths = list(DecisionPath)
        least = paths.index(rules.least_path) if rules and rules.least_path else 0
        for tier in self.tiers:
            if paths.index(tier.path) >= least and tier.holds(gpu_hours, gpus, days):
                return tier
        return self.tiers[-1]

    def weight_of(
        self, activity_code: str | None, merit_band: str | None = None, credit: Fraction = ONE
    ) -> Weight:
        """A quota's weight by its organisation's OKED code, its merit band and its credit, bounded here.

        Without a band the default one counts. Raises PolicyGap for a band that this version does not have.
        """
        slug = merit_band or self.default_band
        band = self.merit_band(slug)
        if band is None:
            raise PolicyGap(
                N_("The policy %(version)s has no merit band “%(slug)s”."),
                {"version": self.version, "slug": slug},
            )
        return Weight(self.sector_of(activity_code), band, self.credit.bounded(credit))

    def price_of(
        self, category: str, gpu_seconds: int, *, free_seconds_used: int = 0, subsidised: bool = True
    ) -> Price:
        """What so many GPU-seconds cost, rounded to the tiyn.

        ``free_seconds_used`` of the year's free hours are gone already; ``subsidised`` is False once the
        months of the subsidy have passed. Where an order decides, the price is 0 until it says otherwise.
        Raises PolicyGap for an unknown category.
        """
        rules = self.category(category)
        if rules is None:
            raise PolicyGap(
                N_("The policy %(version)s has no category “%(slug)s”."),
                {"version": self.version, "slug": category},
            )
        funding = rules.funding
        gross = self._tenge(gpu_seconds)
        free_left = max(funding.free_hours_a_year * HOUR - free_seconds_used, 0)
        free = self._tenge(min(free_left, gpu_seconds))
        if funding.mode in {FundingMode.FREE, FundingMode.ORDER}:
            free = gross
        percent = funding.subsidy_percent if subsidised else 0
        subsidy = _rounded((gross - free) * percent / 100)
        net = gross - free - subsidy
        return Price(gross, free, subsidy, net, _rounded(net * self.tariff.vat_percent / 100))

    def _tenge(self, gpu_seconds: int) -> Decimal:
        return _rounded(self.tariff.tenge_per_gpu_hour * gpu_seconds / HOUR)


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(TIYN, rounding=ROUND_HALF_UP)


def _find(rows: Sequence[T], slug: str) -> T | None:
    return next((row for row in rows if row.slug == slug), None)
