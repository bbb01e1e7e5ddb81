"""What a booking costs in tenge, by the policy's tariff, free hours and subsidy (R-34)."""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from allocator import ledger
from allocator.booking.booking_checks import ALMATY
from allocator.models import Application, Quota
from allocator.policy import Category, Policy, Price


def price(
    session: Session, quota: Quota, gpu_seconds: int, at: datetime, *, policy: Policy, counted: int = 0
) -> Price | None:
    """What so many GPU-seconds from ``at`` on cost whoever pays for the quota; one query, or three.

    The year's free hours are taken up in the order of booking; ``counted`` of the GPU-seconds are charged
    already, as those of an offer that is held. None when the policy of today does not know the category that
    the quota was approved under.
    """
    return PriceList.read(session, quota, policy).price(gpu_seconds, at, counted)


@dataclass
class PriceList:
    """What a quota's GPU-hours cost today: read once, for as many prices as a page shows."""

    session: Session
    policy: Policy
    category: Category | None
    quota_ids: Sequence[int]
    first: datetime | None  # when the payer's first quota of this category began
    used: dict[int, int] = field(default_factory=dict)  # GPU-seconds charged, by year

    @classmethod
    def read(cls, session: Session, quota: Quota, policy: Policy) -> "PriceList":
        """One query; a category with free hours needs two more for each year that a price is asked for."""
        application = quota.application
        category = policy.category(application.category)
        if category is None:
            return cls(session, policy, None, (), None)
        rows = session.execute(
            select(Quota.id, Quota.valid_from)
            .join(Quota.application)
            .where(Application.category == application.category, _payer(application))
        ).all()
        first = min((row.valid_from for row in rows), default=None)
        return cls(session, policy, category, [row.id for row in rows], first)

    def price(self, gpu_seconds: int, at: datetime, counted: int = 0) -> Price | None:
        """As ``prices.price``."""
        if self.category is None:
            return None
        funding = self.category.funding
        used = max(self._charged(at) - counted, 0) if funding.free_hours_a_year else 0
        months = funding.subsidy_months
        return self.policy.price_of(
            self.category.slug,
            gpu_seconds,
            free_seconds_used=used,
            subsidised=months is None or at < _months_after(self.first or at, months),
        )

    def _charged(self, at: datetime) -> int:
        year = at.astimezone(ALMATY).year
        if year not in self.used:
            self.used[year] = _charged_in_year(self.session, self.quota_ids, year)
        return self.used[year]


def _payer(application: Application) -> ColumnElement[bool]:
    """Applications of the same organisation, or of the same person for themselves."""
    if application.organisation_id is not None:
        return Application.organisation_id == application.organisation_id
    return (Application.applicant_id == application.applicant_id) & Application.organisation_id.is_(None)


def _charged_in_year(session: Session, quota_ids: Sequence[int], year: int) -> int:
    """GPU-seconds charged in a calendar year of the site's clock."""
    window = (datetime(year, 1, 1, tzinfo=ALMATY), datetime(year + 1, 1, 1, tzinfo=ALMATY))
    return sum(ledger.charged_within(session, quota_ids, window).values())


def _months_after(moment: datetime, months: int) -> datetime:
    local = moment.astimezone(ALMATY)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day)
