"""The ledger: what became of a quota's GPU-seconds, each number with those it came from (R-15, R-20).

The rule, the same for pages, limits and checks:

    charged   = booked ahead + booked and passed + used outside of bookings
    available = granted - charged, but never below 0; what is charged beyond the grant is the overrun

- A booking is charged as a whole from the moment it is made, used or not: others could not have these GPUs.
  So is an offer while it is held. Nothing is charged for what was cancelled or lapsed; a booking that was
  ended early is charged until that moment.
- Jobs inside a booking are already paid for by it. Jobs outside of bookings are charged by what they used.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice

from sqlalchemy import Select, Subquery, case, func, select
from sqlalchemy.orm import Session

from allocator.models import Booking, JobRecord, Quota
from allocator.sqltime import Window, overlap_seconds, seconds_between, window_table
from allocator.states import OPEN_BOOKINGS, VOID_BOOKINGS, BookingState

CHUNK = 5_000  # ids in one statement: both databases have a limit, and one statement may name them thrice


@dataclass(frozen=True)
class Balance:
    """GPU-seconds of one quota; the rule is the module's text."""

    granted: int
    booked_ahead: int = 0  # bookings that are not over yet, the running one as a whole
    booked_passed: int = 0  # bookings that are over
    used_inside: int = 0  # of the jobs in its bookings: shown, never charged
    used_outside: int = 0  # of the jobs beside its bookings

    @property
    def charged(self) -> int:
        return self.booked_ahead + self.booked_passed + self.used_outside

    @property
    def available(self) -> int:
        return max(self.granted - self.charged, 0)

    @property
    def overrun(self) -> int:
        """Charged beyond the grant: jobs beside bookings may run on for a moment after the last second."""
        return max(self.charged - self.granted, 0)

    @property
    def used(self) -> int:
        return self.used_inside + self.used_outside


def balance(session: Session, quota: Quota) -> Balance:
    """The balance of one quota, always from the database."""
    return balances(session, [quota.id])[quota.id]


def balances(session: Session, quota_ids: Iterable[int]) -> dict[int, Balance]:
    """The balances of the quotas that exist among ``quota_ids``, in one query for thousands of them."""
    return {id: one for ids in _chunks(quota_ids) for id, one in _balances(session, ids).items()}


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(ids)
    while part := list(islice(rest, CHUNK)):
        yield part


def _balances(session: Session, ids: Sequence[int]) -> dict[int, Balance]:
    booked, used = _booked(ids), _used(ids)
    rows = session.execute(
        select(
            Quota.id,
            Quota.gpu_seconds,
            func.coalesce(booked.c.ahead, 0),
            func.coalesce(booked.c.passed, 0),
            func.coalesce(used.c.inside, 0),
            func.coalesce(used.c.outside, 0),
        )
        .outerjoin(booked, booked.c.quota_id == Quota.id)
        .outerjoin(used, used.c.quota_id == Quota.id)
        .where(Quota.id.in_(ids))
    )
    return {row[0]: Balance(*(int(amount) for amount in row[1:])) for row in rows}


def _booked(ids: Sequence[int]) -> Subquery:
    gpu_seconds = Booking.nodes * Booking.gpus_per_node * seconds_between(Booking.starts_at, Booking.ends_at)
    ahead = Booking.state.in_(OPEN_BOOKINGS)
    return (
        select(
            Booking.quota_id,
            func.sum(gpu_seconds).filter(ahead).label("ahead"),
            func.sum(gpu_seconds).filter(Booking.state == BookingState.ENDED).label("passed"),
        )
        .where(Booking.quota_id.in_(ids))
        .group_by(Booking.quota_id)
        .subquery("booked")
    )


def _used(ids: Sequence[int]) -> Subquery:
    inside = JobRecord.booking_id.is_not(None)
    return (
        select(
            JobRecord.quota_id,
            func.sum(JobRecord.gpu_seconds).filter(inside).label("inside"),
            func.sum(JobRecord.gpu_seconds).filter(~inside).label("outside"),
        )
        .where(JobRecord.quota_id.in_(ids))
        .group_by(JobRecord.quota_id)
        .subquery("used")
    )


def charged_within(session: Session, quota_ids: Iterable[int], window: Window) -> dict[int, int]:
    """GPU-seconds charged to each quota inside [since, until), cut at both ends; one without is missing.

    The same rule as for the balance: bookings as a whole, and jobs outside of bookings. Two queries for
    thousands of quotas.
    """
    charged: dict[int, int] = {}
    for ids in _chunks(quota_ids):
        parts = (_booked_within(ids, window), _ran_within(ids, window))
        for quota_id, gpu_seconds in chain.from_iterable(session.execute(part) for part in parts):
            if quota_id is not None:
                charged[quota_id] = charged.get(quota_id, 0) + int(gpu_seconds)
    return charged


def booked_within(session: Session, quota_ids: Iterable[int], window: Window) -> dict[int, int]:
    """GPU-seconds of each quota's bookings inside [since, until), cut at both ends."""
    return {
        quota_id: int(gpu_seconds)
        for ids in _chunks(quota_ids)
        for quota_id, gpu_seconds in session.execute(_booked_within(ids, window))
    }


def _booked_within(ids: Sequence[int], window: Window) -> Select[int, int]:
    since, until = window
    bounds = window_table([window])
    booked = Booking.nodes * Booking.gpus_per_node
    in_window = overlap_seconds(Booking.starts_at, Booking.ends_at, bounds.c.since, bounds.c.until)
    return (
        select(Booking.quota_id, func.sum(booked * in_window))
        .select_from(Booking)
        .join(bounds, (Booking.starts_at < bounds.c.until) & (Booking.ends_at > bounds.c.since))
        .where(Booking.quota_id.in_(ids), Booking.state.not_in(VOID_BOOKINGS))
        .where(Booking.starts_at < until, Booking.ends_at > since)
        .group_by(Booking.quota_id)
    )


def _ran_within(ids: Sequence[int], window: Window) -> Select[int | None, int]:
    """Of jobs outside of bookings."""
    bounds = window_table([window])
    ended = func.coalesce(JobRecord.ended_at, JobRecord.read_at, type_=JobRecord.read_at.type)
    ran = overlap_seconds(JobRecord.started_at, ended, bounds.c.since, bounds.c.until)
    return (
        select(JobRecord.quota_id, func.sum(JobRecord.gpus * ran))
        .select_from(JobRecord)
        .join(bounds, (JobRecord.started_at < bounds.c.until) & (ended > bounds.c.since))
        .where(JobRecord.quota_id.in_(ids), JobRecord.booking_id.is_(None))
        .group_by(JobRecord.quota_id)
    )


def used_before(session: Session, quota_ids: Iterable[int], moment: datetime) -> dict[int, int]:
    """GPU-seconds that jobs of each quota had used at ``moment``, inside bookings and out."""
    return {id: used for ids in _chunks(quota_ids) for id, used in _used_before(session, ids, moment)}


def _used_before(session: Session, ids: Sequence[int], moment: datetime) -> Iterator[tuple[int, int]]:
    ended = func.coalesce(JobRecord.ended_at, JobRecord.read_at, type_=JobRecord.read_at.type)
    cut = case((ended < moment, ended), else_=moment)
    rows = session.execute(
        select(JobRecord.quota_id, func.sum(JobRecord.gpus * seconds_between(JobRecord.started_at, cut)))
        .where(JobRecord.quota_id.in_(ids), JobRecord.started_at < moment)
        .group_by(JobRecord.quota_id)
    )
    return ((quota_id, int(used)) for quota_id, used in rows if quota_id is not None)


def used_in_bookings(session: Session, booking_ids: Iterable[int]) -> dict[int, int]:
    """GPU-seconds that jobs used inside each of the bookings; one without jobs is missing. One query."""
    rows = session.execute(
        select(JobRecord.booking_id, func.sum(JobRecord.gpu_seconds))
        .where(JobRecord.booking_id.in_(list(booking_ids)))
        .group_by(JobRecord.booking_id)
    )
    return {booking_id: int(gpu_seconds) for booking_id, gpu_seconds in rows if booking_id is not None}


def usage_by_day(session: Session, quota: Quota, days: Sequence[Window]) -> list[int]:
    """GPU-seconds used in each of ``days`` (windows [since, until)), a job's cut at midnight. One query.

    A running job counts up to when it was last read. The cut is by the clock: time that a job stood
    suspended is counted here and not in the balance, which takes the elapsed time of the accounting.
    """
    table = window_table(days)
    ended = func.coalesce(JobRecord.ended_at, JobRecord.read_at, type_=JobRecord.read_at.type)
    seconds = overlap_seconds(JobRecord.started_at, ended, table.c.since, table.c.until)
    rows = session.execute(
        select(table.c.n, func.sum(JobRecord.gpus * seconds))
        .select_from(JobRecord)
        .join(table, (JobRecord.started_at < table.c.until) & (ended > table.c.since))
        .where(JobRecord.quota_id == quota.id)
        .group_by(table.c.n)
    )
    used = [0] * len(days)
    for n, gpu_seconds in rows:
        used[n] = int(gpu_seconds)
    return used


def jobs(quota: Quota) -> Select[JobRecord]:
    """The quota's jobs, the latest submitted first: a statement for a page or an export."""
    return (
        select(JobRecord)
        .where(JobRecord.quota_id == quota.id)
        .order_by(JobRecord.submitted_at.desc(), JobRecord.id.desc())
    )
