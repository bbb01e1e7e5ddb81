"""Many clients after the last nodes at once: never an overlap, never over the balance, clear losers."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import combinations

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import bookings, events, ledger
from allocator.actors import Actor
from allocator.bookings import Ask
from allocator.db import Database
from allocator.errors import Invalid, NoCapacity, Stale
from allocator.models import Booking, NodeSlot, Quota
from allocator.policy import load_policy
from allocator.states import BookingState, ReservationState
from tests import factories
from tests.factories import HOUR, NOW

SOON = NOW + timedelta(days=1)
CLIENTS = 60


def _ask(nodes: int, gpus: int, start: datetime = SOON) -> Ask:
    return Ask(nodes, gpus, start, start + timedelta(hours=10))


def _try(database: Database, quota_id: int, ask: Ask) -> str:
    """One client: what a web request does, from its own connection."""
    with database.writer() as session:
        try:
            quota = session.get_one(Quota, quota_id)
            actor = Actor(quota.application.applicant_id)
            bookings.book(session, actor, quota, ask, rules=load_policy().bookings, now=NOW)
            session.commit()
        except NoCapacity:
            return "no capacity"
        except Invalid as error:
            return ",".join(error.fields)
        return "booked"


def _process(url: str, quota_ids: Sequence[int], ask: Ask, start_at: float) -> list[str]:
    database = Database(url)
    time.sleep(max(0.0, start_at - time.time()))
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda quota_id: _try(database, quota_id, ask), quota_ids))
    database.dispose()
    return answers


def _race(url: str, quota_ids: Sequence[int], ask: Ask) -> Counter[str]:
    """Four processes of five threads; each takes its share of the clients."""
    start_at = time.time() + 1.5
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        shares = [(url, quota_ids[n::4], ask, start_at) for n in range(4)]
        return Counter(answer for answers in pool.starmap(_process, shares) for answer in answers)


def _quotas(database: Database, gpu_hours: int, count: int) -> list[int]:
    """`count` quotas of as many applicants on one cluster of four nodes."""
    with database.transaction() as session:
        cluster = factories.cluster(session)
        return [
            factories.quota(
                session,
                factories.application(session, factories.person(session), cluster, gpu_hours=gpu_hours),
            ).id
            for _ in range(count)
        ]


def _assert_sound(session: Session) -> None:
    slots = session.scalars(select(NodeSlot)).all()
    for one, other in combinations(slots, 2):
        apart = one.node_id != other.node_id or one.gpu_to <= other.gpu_from or other.gpu_to <= one.gpu_from
        assert apart or one.ends_at <= other.starts_at or other.ends_at <= one.starts_at
    for booking in session.scalars(select(Booking)):
        assert len(booking.slots) == booking.nodes
        assert booking.reservation.name == booking.reservation_name
    events.verify(session)


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "gpus", "winners"), [(3, 8, 1), (1, 3, 8)])
def test_the_last_nodes_go_to_as_many_as_fit(database_url: str, nodes: int, gpus: int, winners: int) -> None:
    database = Database(database_url)
    quota_ids = _quotas(database, 1000, 6)
    began = time.perf_counter()
    answers = _race(database_url, quota_ids * (CLIENTS // 6), _ask(nodes, gpus))
    print(f"\n{CLIENTS} clients for {nodes}×{gpus}: {dict(answers)} in {time.perf_counter() - began:.1f} s")
    assert answers == {"booked": winners, "no capacity": CLIENTS - winners}
    with database.reader() as session:
        _assert_sound(session)
    database.dispose()


@pytest.mark.slow
def test_one_balance_is_never_spent_twice(database_url: str) -> None:
    database = Database(database_url)
    (quota_id,) = _quotas(database, 250, 1)  # enough for three bookings of 80 GPU-hours, not for four
    answers = _race(database_url, [quota_id] * CLIENTS, _ask(1, 8))
    assert answers == {"booked": 3, "balance": CLIENTS - 3}
    with database.reader() as session:
        _assert_sound(session)
        assert ledger.balance(session, session.get_one(Quota, quota_id)).available == 10 * HOUR
    database.dispose()


def test_without_the_lock_the_database_itself_refuses(session: Session) -> None:
    quota = factories.quota(session)
    factories.booking(session, quota, gpus_per_node=4)
    factories.booking(session, quota, gpus_per_node=4, first_gpu=4)
    with pytest.raises(IntegrityError, match="node_slots_no_overlap"):
        factories.booking(session, quota, gpus_per_node=1, first_gpu=3)


def test_giving_back_and_time_passing_at_once_end_a_booking_once(database: Database) -> None:
    (quota_id,) = _quotas(database, 5000, 1)
    with database.transaction() as session:
        quota = session.get_one(Quota, quota_id)
        held = ReservationState.RESERVED
        ids = [
            factories.booking(session, quota, on=[node], reservation=held).id for node in quota.cluster.nodes
        ]
    now = SOON + timedelta(hours=1)

    def give_back(booking_id: int) -> str:
        with database.writer() as session:
            booking = session.get_one(Booking, booking_id)
            actor = Actor(booking.booked_by_id)
            try:
                bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=now)
                session.commit()
            except Stale:
                return "stale"
            return "ended"

    def pass_time(_: int) -> str:
        with database.transaction() as session:
            return str(bookings.advance(session, now)[BookingState.STARTED])

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(job, n) for n in ids for job in (give_back, pass_time)]
        answers = Counter(job.result() for job in waiting)
    with database.reader() as session:
        states = Counter(session.scalars(select(Booking.state)))
        assert states[BookingState.ENDED] == answers["ended"]
        assert states[BookingState.STARTED] == answers["stale"]
        events.verify(session)
