"""What a page tells of repairs that are still being worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from allocator.health import scheduler_health
from allocator.models import Repair
from allocator.states import RepairState
from config.clock import utcnow
from web.session import db


@dataclass(frozen=True)
class Waits:
    """Since when it is waited, as of when that is told, and why it may take longer (a msgid)."""

    since: datetime
    now: datetime
    problem: str | None


def waits(repairs: Sequence[Repair]) -> Waits | None:
    """What to tell while the scheduler works; None: nothing is on its way."""
    since = [repair.asked_at for repair in repairs if repair.state is RepairState.WAITING]
    if not since:
        return None
    now = utcnow()
    return Waits(min(since), now, scheduler_health(db(), now).problem)
