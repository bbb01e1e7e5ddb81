"""What the page of a quota says about periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import grants, period_queries
from allocator.grants import Room
from allocator.models import Grant, Period, Quota, Reclaim
from allocator.states import PeriodState, ReclaimState

SHOWN = 6


@dataclass(frozen=True)
class Part:
    """A quota's part of a published period for its page; `warning` when hours may be taken back."""

    grant: Grant
    room: Room
    warning: Reclaim | None
    is_open: bool


@dataclass(frozen=True)
class Parts:
    """What the page of a quota says about periods: the one in force, the others, what can be planned."""

    current: Part | None
    grants: list[Grant]
    plannable: list[Period]


def parts_of(session: Session, quota: Quota, now: datetime) -> Parts:
    """The running period first, else the next one that is published already."""
    found = list(period_queries.grants_of(session, quota))
    ahead = [grant for grant in found if grant.period.ends_at > now]
    chosen = min(ahead, key=lambda grant: grant.period.starts_at, default=None)
    current = None
    if chosen is not None:
        live = chosen.period.state is PeriodState.PUBLISHED
        current = Part(chosen, grants.room(session, chosen), _warning(session, chosen), live)
    return Parts(current, found[:SHOWN], list(period_queries.open_periods(session, quota)))


def _warning(session: Session, grant: Grant) -> Reclaim | None:
    waits = (ReclaimState.WARNED, ReclaimState.PROPOSED)
    return session.scalar(select(Reclaim).where(Reclaim.grant_id == grant.id, Reclaim.state.in_(waits)))
