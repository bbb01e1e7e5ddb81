"""Whether the machinery behind the pages is alive, read from what it writes down about itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.models import JobHealth
from config.i18n import N_

# a run may be late by some intervals before anybody needs to know
MISSED_RUNS = 4
GRACE = timedelta(seconds=60)


@dataclass(frozen=True)
class SchedulerHealth:
    """``late`` are jobs that have not begun for too long, ``failing`` those whose last run failed."""

    late: tuple[str, ...]
    failing: tuple[str, ...]
    known: int

    @property
    def problem(self) -> str | None:
        """Why the scheduler does not count as healthy; a cluster that is away alone is no such reason."""
        if not self.known:
            return N_("The scheduler has not run yet.")
        if self.late:
            return N_("The scheduler is late.")
        return None


def scheduler_health(session: Session, now: datetime) -> SchedulerHealth:
    jobs = session.scalars(select(JobHealth).order_by(JobHealth.name)).all()
    return SchedulerHealth(
        late=tuple(job.name for job in jobs if now - job.started_at > _patience(job)),
        failing=tuple(job.name for job in jobs if job.problem is not None),
        known=len(jobs),
    )


def _patience(job: JobHealth) -> timedelta:
    return MISSED_RUNS * timedelta(seconds=job.interval_seconds) + GRACE
