"""Writing down what was read back from the cluster, in short transactions, with their events and letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from allocator import events, problems, states
from allocator.actors import SYSTEM
from allocator.booking import booking_letters
from allocator.db import Database
from allocator.models import Booking, Outage, Quota
from allocator.models import Reservation as ReservationRow
from allocator.states import ReservationState
from scheduler.clusters.base import ClusterError, Conflict, Reservation
from scheduler.desired import Desired, Tracked
from scheduler.plan import (
    Actual,
    CreateReservation,
    Plan,
    UpdateReservation,
    account_differences,
    in_the_way,
    reservation_differences,
)

# Events queue behind one row, and so do all who write one: hold it for a moment only.
CHUNK = 50
LONGEST = 500
LIMITS_SEEN = timedelta(minutes=10)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Problem:
    code: str
    sentence: str


@dataclass(frozen=True)
class Finding:
    """What was read back for one row; ``state`` is where it belongs now."""

    row: Tracked
    state: ReservationState
    healed: bool = False
    problem: Problem | None = None


@dataclass
class Tally:
    """How many reservations came to what in one round."""

    reserved: int = 0
    healed: int = 0
    blocked: int = 0
    released: int = 0


def record(
    database: Database,
    desired: Desired,
    plan: Plan,
    failures: Mapping[str, ClusterError],
    after: Actual,
    now: datetime,
) -> Tally:
    """Bring the rows to what ``after`` shows. Idempotent: cut short anywhere, the next round writes the rest.

    Rows that another process changed meanwhile are left to the next round.
    """
    found = list(findings(desired, plan, failures, after))
    quiet = [one for one in found if _is_quiet(one)]
    tally = Tally(blocked=sum(one.state is ReservationState.BLOCKED for one in found))
    for chunk in _chunks(quiet, 1_000):
        with database.transaction() as session:
            _touch(session, chunk, now)
    for chunk in _chunks([one for one in found if not _is_quiet(one)], CHUNK):
        with database.transaction() as session:
            for finding in chunk:
                _settle(session, finding, tally, now)
    _record_quotas(database, desired, failures, after, now)
    _record_outages(database, desired, failures, after, now)
    return tally


def findings(
    desired: Desired, plan: Plan, failures: Mapping[str, ClusterError], after: Actual
) -> Iterator[Finding]:
    """Pure: what each row has come to. Rows about which nothing is known yet are left out."""
    corrected = {step.name for step in plan.steps if isinstance(step, CreateReservation | UpdateReservation)}
    for name, row in desired.tracked.items():
        actual = after.reservations.get(name)
        if not row.wanted:
            # A booking whose time is up but that nobody has ended yet keeps its state: whether it was ever
            # delivered decides what is charged.
            if actual is None and row.over:
                yield Finding(row, ReservationState.RELEASED)
            elif actual is None and row.waits and row.state is not ReservationState.PENDING:
                yield Finding(row, ReservationState.PENDING)
            continue
        wanted = desired.wanted.reservations[name]
        if actual is not None and not reservation_differences(wanted, actual, after.now):
            healed = name in corrected and row.state is ReservationState.RESERVED
            yield Finding(row, ReservationState.RESERVED, healed)
        elif name in failures:
            foreign = [one for one in after.reservations.values() if not desired.wanted.knows(one.name)]
            problem = _problem(wanted, failures[name], foreign)
            yield Finding(row, ReservationState.BLOCKED, problem=problem)


def _problem(wanted: Reservation, error: ClusterError, foreign: Iterable[Reservation]) -> Problem:
    if isinstance(error, Conflict):
        blocking = [str(found) for found in in_the_way(wanted, foreign)]
        if blocking:
            return Problem(problems.FOREIGN, "; ".join(blocking)[:LONGEST])
        return Problem(problems.BUSY, str(error)[:LONGEST])
    return Problem(error.code, str(error)[:LONGEST])


def _is_quiet(finding: Finding) -> bool:
    """As it was: nothing to tell anybody, only the time of the last look changes."""
    return (
        finding.state is ReservationState.RESERVED
        and finding.row.state is ReservationState.RESERVED
        and not finding.healed
    )


def _touch(session: Session, quiet: Sequence[Finding], now: datetime) -> None:
    session.execute(
        update(ReservationRow)
        .where(ReservationRow.id.in_([one.row.id for one in quiet]))
        .values(seen_at=now)
        .execution_options(synchronize_session=False)
    )


def _settle(session: Session, finding: Finding, tally: Tally, now: datetime) -> None:
    row = session.get_one(ReservationRow, finding.row.id, with_for_update=True)
    if row.state is not finding.row.state:
        return
    before = row.state
    if finding.state is not ReservationState.BLOCKED:
        row.problem_code = row.problem = None
    elif finding.problem:
        row.problem_code, row.problem = finding.problem.code, finding.problem.sentence
    if finding.state is ReservationState.RESERVED:
        row.seen_at = now
    if finding.healed:
        row.healed += 1
        tally.healed += 1
        events.record(session, SYSTEM, row, "reservation.healed", now=now, after={"healed": row.healed})
    if before is finding.state:
        return
    row.state_since = now
    reason = finding.problem.sentence if finding.problem else ""
    states.move(row, finding.state, actor=SYSTEM, now=now, reason=reason)
    tally.reserved += finding.state is ReservationState.RESERVED
    tally.released += finding.state is ReservationState.RELEASED
    _write(session, finding, before, now)


def _write(session: Session, finding: Finding, before: ReservationState, now: datetime) -> None:
    """Tell people what changes for them: not reserved; reserved at last, or again after a problem."""
    booking = session.get_one(Booking, finding.row.booking_id)
    if finding.state is ReservationState.BLOCKED and finding.problem:
        booking_letters.blocked(session, booking, problems.sentence(finding.problem.code), now=now)
    elif finding.state is ReservationState.RESERVED and (
        not finding.row.seen_before or before is ReservationState.BLOCKED
    ):
        booking_letters.reserved(session, booking, now=now)


def _record_quotas(
    database: Database, desired: Desired, failures: Mapping[str, ClusterError], after: Actual, now: datetime
) -> None:
    if after.accounts is None:
        return
    good, bad = [], {}
    for name, account in desired.wanted.accounts.items():
        found = after.accounts.get(name)
        if found is not None and not account_differences(account, found):
            good.append(desired.quotas[name])
        elif name in failures:
            bad[desired.quotas[name]] = str(failures[name])[:LONGEST]
    for chunk in _chunks(good, 1_000):
        with database.transaction() as session:
            # Not every quota in every round: at 20,000 of them the table would be written anew all the time.
            old = or_(
                Quota.limits_seen_at.is_(None),
                Quota.limits_seen_at < now - LIMITS_SEEN,
                Quota.limits_problem.is_not(None),
            )
            statement = update(Quota).where(Quota.id.in_(chunk), old)
            session.execute(statement.values(limits_seen_at=now, limits_problem=None))
    with database.transaction() as session:
        for quota_id, problem in bad.items():
            session.execute(update(Quota).where(Quota.id == quota_id).values(limits_problem=problem))


def _record_outages(
    database: Database, desired: Desired, failures: Mapping[str, ClusterError], after: Actual, now: datetime
) -> None:
    """Whether jobs are kept off the nodes of each outage; what is as it was is not written again."""
    wanted = desired.wanted.reservations
    changed: list[tuple[int, dict[str, object]]] = []
    for outage in desired.outages:
        held = [(wanted[name], after.reservations.get(name)) for name in outage.names]
        kept = all(found and not reservation_differences(one, found, after.now) for one, found in held)
        said = next((str(failures[name])[:LONGEST] for name in outage.names if name in failures), None)
        problem = None if kept else said or outage.problem
        reserved_at = (outage.reserved_at or now) if kept and held else None
        if (problem, reserved_at) != (outage.problem, outage.reserved_at):
            changed.append((outage.id, {"problem": problem, "reserved_at": reserved_at}))
    if changed:
        with database.transaction() as session:
            for outage_id, values in changed:
                session.execute(update(Outage).where(Outage.id == outage_id).values(**values))


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
