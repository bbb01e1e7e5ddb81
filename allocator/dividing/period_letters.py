"""Who is told what about a period: the applicant whose quota it is about."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from allocator import outbox
from allocator.applying.application_checks import hours_text
from allocator.models import Adjustment, Grant, Period, Quota, Reclaim
from allocator.policy import PeriodRules

ALMATY = ZoneInfo("Asia/Almaty")
HOUR = 3600


def granted(session: Session, grant: Grant, adjustment: Adjustment | None, *, now: datetime) -> None:
    """The period was published; ``adjustment`` when a person set this share."""
    asked = grant.claim.request if grant.claim else 0
    details = {"hours": hours_text(grant.gpu_seconds), "asked": hours_text(asked * HOUR)}
    letter = "grant_published" if grant.gpu_seconds else "grant_none"
    if adjustment is not None:
        letter = "grant_adjusted"
        details |= {"before": hours_text(adjustment.before * HOUR), "reason": adjustment.reason}
    _post(session, letter, grant, details, now)


def more(session: Session, grant: Grant, gpu_seconds: int, *, now: datetime) -> None:
    """A grant has grown: from the reserve, or from hours that others gave back."""
    details = {"more": hours_text(gpu_seconds), "hours": hours_text(grant.current)}
    _post(session, "grant_raised", grant, details, now)


def waits(session: Session, quota: Quota, period: Period, *, now: datetime) -> None:
    """The quota was approved when the period had been divided."""
    application = quota.application
    details = {
        "id": quota.id,
        "title": application.title,
        **_days(period),
        "next": _day(period.ends_at),
    }
    outbox.post(session, "quota_waits", application.applicant_id, details, now=now)


def warned(session: Session, reclaim: Reclaim, *, now: datetime) -> None:
    """Hours may be taken back: what was planned, what was used, and until when to answer."""
    details = {
        "planned": hours_text(reclaim.planned),
        "used": hours_text(reclaim.used),
        "take_back": hours_text(reclaim.take_back),
        "until": _day(reclaim.answer_until),
    }
    _post(session, "grant_warning", reclaim.grant, details, now)


def reclaimed(session: Session, grant: Grant, gpu_seconds: int, *, now: datetime) -> None:
    """An operator has confirmed it."""
    details = {"back": hours_text(gpu_seconds), "hours": hours_text(grant.current)}
    _post(session, "grant_reclaimed", grant, details, now)


def to_operator(
    session: Session, letter: str, period: Period, person_id: int, rules: PeriodRules, *, now: datetime
) -> None:
    """Something about a period is due: opened by itself, to be proposed, to be published."""
    details = {
        "id": period.id,
        "cluster": period.cluster.title,
        "gpu_type": period.gpu_type.upper(),
        **_days(period),
        "claims": str(len(period.claims)),
        "propose_by": _day(period.starts_at - timedelta(days=rules.proposal_days)),
        "publish_by": _day(period.starts_at - timedelta(days=rules.publication_days)),
    }
    outbox.post(session, letter, person_id, details, now=now)


def _post(session: Session, letter: str, grant: Grant, more: dict[str, str], now: datetime) -> None:
    period = grant.period
    details = {
        "id": grant.quota_id,
        "title": grant.quota.application.title,
        **_days(period),
        **more,
    }
    outbox.post(session, letter, grant.quota.application.applicant_id, details, now=now)


def _days(period: Period) -> dict[str, str]:
    # the last day, not the midnight after it
    return {
        "starts_at": _day(period.starts_at),
        "ends_at": _day(period.ends_at - timedelta(seconds=1)),
    }


def _day(moment: datetime) -> str:
    return moment.astimezone(ALMATY).strftime("%d.%m.%Y")
