"""What a booking costs in tenge, by the policy's tariff, free hours and subsidy (R-34)."""

from calendar import monthrange
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from allocator import ledger
from allocator.booking.booking_checks import ALMATY
from allocator.models import Application, Quota
from allocator.policy import Policy, Price


def price(
    session: Session, quota: Quota, gpu_seconds: int, at: datetime, *, policy: Policy, counted: int = 0
) -> Price | None:
    """What so many GPU-seconds from ``at`` on cost whoever pays for the quota; one query, or three.

    The year's free hours are taken up in the order of booking; ``counted`` of the GPU-seconds are charged
    already, as those of an offer that is held. None when the policy of today does not know the category that
    the quota was approved under.
    """
    application = quota.application
    category = policy.category(application.category)
    if category is None:
        return None
    funding = category.funding
    rows = session.execute(
        select(Quota.id, Quota.valid_from)
        .join(Quota.application)
        .where(Application.category == application.category, _payer(application))
    ).all()
    used = 0
    if funding.free_hours_a_year:
        used = max(_charged_in_year(session, [row.id for row in rows], at) - counted, 0)
    months = funding.subsidy_months
    first = min((row.valid_from for row in rows), default=at)
    return policy.price_of(
        category.slug,
        gpu_seconds,
        free_seconds_used=used,
        subsidised=months is None or at < _months_after(first, months),
    )


def _payer(application: Application) -> ColumnElement[bool]:
    """Applications of the same organisation, or of the same person for themselves."""
    if application.organisation_id is not None:
        return Application.organisation_id == application.organisation_id
    return (Application.applicant_id == application.applicant_id) & Application.organisation_id.is_(None)


def _charged_in_year(session: Session, quota_ids: Sequence[int], at: datetime) -> int:
    """GPU-seconds charged in the calendar year of ``at``, by the site's clock."""
    year = at.astimezone(ALMATY).year
    window = (datetime(year, 1, 1, tzinfo=ALMATY), datetime(year + 1, 1, 1, tzinfo=ALMATY))
    return sum(ledger.charged_within(session, quota_ids, window).values())


def _months_after(moment: datetime, months: int) -> datetime:
    local = moment.astimezone(ALMATY)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day)
