"""Many clients after the last nodes at once: never an overlap, never over the balance, clear losers."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import combinations
from multiprocessing.synchronize import Barrier
from random import Random

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import events, ledger
from allocator.actors import Actor
from allocator.booking import bookings, changes, flexible, flexible_changes, offers
from allocator.booking.bookings import Ask
from allocator.booking.offer_search import Wish
from allocator.db import Database
from allocator.errors import Invalid, NoCapacity, Stale, WrongState
from allocator.models import Booking, Cluster, Event, NodeSlot, Quota
from allocator.policy import load_policy
from allocator.states import VOID_BOOKINGS, BookingState, ReservationState
from tests import factories
from tests.factories import HOUR, NOW

SOON, FAR = NOW + timedelta(days=1), NOW + timedelta(days=10)
CLIENTS = 200
PROCESSES = 4
RULES = load_policy().bookings


def _ask(nodes: int, gpus: int, start: datetime = SOON) -> Ask:
    return Ask(nodes, gpus, start, start + timedelta(hours=10))


def _try(database: Database, quota_id: int, ask: Ask, hold: bool) -> str:
    """One client: what a web request does, from its own connection."""
    with database.writer() as session:
        try:
            quota = session.get_one(Quota, quota_id)
            actor = Actor(quota.application.applicant_id)
            take = offers.hold if hold else bookings.book
            take(session, actor, quota, ask, rules=RULES, now=NOW)
            session.commit()
        except NoCapacity:
            return "no capacity"
        except Invalid as error:
            return ",".join(error.fields)
        return "held" if hold else "booked"


_gate: list[Barrier] = []


def _arrive(gate: Barrier) -> None:
    _gate.append(gate)


def _process(url: str, quota_ids: Sequence[int], ask: Ask, hold: bool) -> list[str]:
    database = Database(url)
    _gate[0].wait(90)  # a busy machine starts them seconds apart
    # SQLite lets one write at a time: more at once only wait longer than it allows
    with ThreadPoolExecutor(3 if url.startswith("sqlite") else 12) as pool:
        answers = list(pool.map(lambda quota_id: _try(database, quota_id, ask, hold), quota_ids))
    database.dispose()
    return answers


def _race(url: str, quota_ids: Sequence[int], ask: Ask, hold: bool = False) -> Counter[str]:
    """Four processes of several threads; each takes its share of the clients."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES, _arrive, (context.Barrier(PROCESSES),)) as pool:
        shares = [(url, quota_ids[n::PROCESSES], ask, hold) for n in range(PROCESSES)]
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
    """No overlap, every open booking on its nodes for its window, nothing spent twice, the chain unbroken."""
    slots = session.scalars(select(NodeSlot)).all()
    for one, other in combinations(slots, 2):
        apart = one.node_id != other.node_id or one.gpu_to <= other.gpu_from or other.gpu_to <= one.gpu_from
        assert apart or one.ends_at <= other.starts_at or other.ends_at <= one.starts_at
    for booking in session.scalars(select(Booking)):
        windows = [(slot.starts_at, slot.ends_at) for slot in booking.slots]
        void = booking.state in VOID_BOOKINGS
        assert windows == ([] if void else [(booking.starts_at, booking.ends_at)] * booking.nodes)
        assert booking.reservation.name == booking.reservation_name
        if booking.earliest_at and booking.latest_at:
            assert booking.earliest_at <= booking.starts_at < booking.ends_at <= booking.latest_at
    for balance in ledger.balances(session, session.scalars(select(Quota.id))).values():
        assert balance.charged <= balance.granted
    events.verify(session)


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "gpus", "winners"), [(3, 8, 1), (1, 3, 8)])
def test_the_last_nodes_go_to_as_many_as_fit(database_url: str, nodes: int, gpus: int, winners: int) -> None:
    database = Database(database_url)
    quota_ids = _quotas(database, 1000, 10)
    began = time.perf_counter()
    answers = _race(database_url, quota_ids * (CLIENTS // 10), _ask(nodes, gpus))
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


@pytest.mark.slow
def test_the_last_nodes_are_held_for_as_many_as_fit(database_url: str) -> None:
    database = Database(database_url)
    quota_ids = _quotas(database, 1000, CLIENTS)
    answers = _race(database_url, quota_ids, _ask(1, 4), hold=True)
    assert answers == {"held": 8, "no capacity": CLIENTS - 8}
    with database.reader() as session:
        _assert_sound(session)
        assert set(session.scalars(select(Booking.state))) == {BookingState.HELD}
    database.dispose()


def test_an_offer_is_accepted_or_lapses_and_never_both(database: Database) -> None:
    quota_ids = _quotas(database, 1000, 8)
    late = NOW + RULES.hold
    with database.transaction() as session:
        for quota_id in quota_ids:
            quota = session.get_one(Quota, quota_id)
            actor = Actor(quota.application.applicant_id)
            offers.hold(session, actor, quota, _ask(1, 4), rules=RULES, now=NOW)
        ids = session.scalars(select(Booking.id)).all()

    def accept(booking_id: int) -> str:
        with database.writer() as session:
            booking = session.get_one(Booking, booking_id)
            actor = Actor(booking.booked_by_id)
            try:
                # the person's clock shows a moment before, the scheduler's the moment itself
                offers.accept(session, actor, booking, expected_version=1, now=late - timedelta(seconds=1))
                session.commit()
            except (Stale, WrongState):
                return "too late"
            return "accepted"

    def pass_time(_: int) -> str:
        with database.transaction() as session:
            return str(bookings.advance(session, late)[BookingState.LAPSED])

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(job, n) for n in ids for job in (accept, pass_time)]
        answers = Counter(job.result() for job in waiting)
    with database.reader() as session:
        states = Counter(session.scalars(select(Booking.state)))
        assert states[BookingState.CONFIRMED] == answers["accepted"]
        assert states[BookingState.LAPSED] == answers["too late"]
        _assert_sound(session)


@pytest.mark.slow
def test_everything_at_once_leaves_a_sound_plan(database: Database) -> None:
    """Two hundred clients book, hold, accept, ask for windows, move, lengthen, shorten and give back."""
    quota_ids = _quotas(database, 600, 20)

    def client(number: int) -> str:
        random = Random(number)
        if number % 10 == 9:  # the scheduler, between them all
            with database.transaction() as session:
                bookings.advance(session, NOW + RULES.hold)
            with database.transaction() as session:
                cluster = session.scalars(select(Cluster)).one()
                flexible.fix_due(session, cluster, rules=RULES, now=NOW)
            return "done"
        # soon, where names of nodes are given, and later, where they still change
        start = random.choice([SOON, FAR]) + timedelta(hours=random.randrange(40))
        nodes = random.choice([1, 1, 2, 3])
        gpus = 8 if nodes > 1 or start >= FAR else random.choice([1, 2, 4, 8])
        ask = Ask(nodes, gpus, start, start + timedelta(hours=random.randrange(1, 20)))
        booking_id = 0
        for step in (_take, _change, _leave):
            answer, booking_id = step(database, random, quota_ids[number % 20], ask, booking_id)
            if answer != "done":
                return answer
        return "done"

    with ThreadPoolExecutor(4 if database.engine.dialect.name == "sqlite" else 16) as pool:
        answers = Counter(pool.map(client, range(CLIENTS)))
    print(f"\n{dict(answers)}")
    known = {"done", "no capacity", "no offer any more", "balance", "ends_at", "starts_at", "earliest_at"}
    assert answers.keys() <= known
    assert answers["done"] > 0
    assert answers["no capacity"] > 0
    with database.reader() as session:
        # whether later bookings had to change their nodes for others is luck; that they stay sound is not
        rebound = session.scalar(select(func.count()).where(Event.kind == "cluster.rebound"))
        print(f"bound anew {rebound} times")
        _assert_sound(session)


Step = tuple[str, int]


def _take(database: Database, random: Random, quota_id: int, ask: Ask, _: int) -> Step:
    with database.writer() as session:
        quota = session.get_one(Quota, quota_id)
        actor = Actor(quota.application.applicant_id)
        held = random.random() < 0.5
        try:
            if random.random() < 0.3:
                since, until = ask.starts_at, ask.ends_at + random.randrange(60) * timedelta(hours=1)
                wish = Wish(ask.nodes, ask.gpus_per_node, ask.length, since, until)
                booking = flexible.ask(session, actor, quota, wish, rules=RULES, now=NOW)
                session.commit()
                return "done", booking.id
            take = offers.hold if held else bookings.book
            booking = take(session, actor, quota, ask, rules=RULES, now=NOW)
            session.commit()
            if held and random.random() < 0.8:
                version = booking.version
                offers.accept(session, actor, booking, expected_version=version, now=NOW)
                session.commit()
        except (NoCapacity, Invalid, Stale, WrongState) as error:
            return _lost(error), 0
        return "done", booking.id


def _change(database: Database, random: Random, quota_id: int, ask: Ask, booking_id: int) -> Step:
    with database.writer() as session:
        booking = session.get_one(Booking, booking_id)
        actor, version, hours = Actor(booking.booked_by_id), booking.version, timedelta(hours=1)
        try:
            if booking.state is BookingState.PLANNED and booking.earliest_at and booking.latest_at:
                until = booking.latest_at + random.randrange(20) * hours
                wish = Wish(1, 1, ask.length, booking.earliest_at, until)
                flexible_changes.change(
                    session, actor, booking, wish, expected_version=version, rules=RULES, now=NOW
                )
                session.commit()
                return "done", booking_id
            match random.randrange(3):
                case 0:
                    start = booking.starts_at + random.randrange(-20, 20) * hours
                    changes.move(
                        session, actor, booking, start, expected_version=version, rules=RULES, now=NOW
                    )
                case 1:
                    end = booking.ends_at + random.randrange(1, 9) * hours
                    at = booking.ends_at - hours
                    changes.extend(
                        session, actor, booking, end, expected_version=version, rules=RULES, now=at
                    )
                case _:
                    end = booking.starts_at + hours
                    if end < booking.ends_at:
                        changes.shorten(
                            session, actor, booking, end, expected_version=version, rules=RULES, now=NOW
                        )
            session.commit()
        except (NoCapacity, Invalid) as error:
            return _lost(error), booking_id
        except (Stale, WrongState):
            pass  # only an offer so far, or given up for the next one
        return "done", booking_id


def _leave(database: Database, random: Random, quota_id: int, ask: Ask, booking_id: int) -> Step:
    if random.random() < 0.6:
        return "done", booking_id
    with database.writer() as session:
        booking = session.get_one(Booking, booking_id)
        actor, version = Actor(booking.booked_by_id), booking.version
        with suppress(Stale, WrongState):
            bookings.cancel(session, actor, booking, reason="", expected_version=version, now=NOW)
            session.commit()
    return "done", booking_id


def _lost(error: NoCapacity | Invalid | Stale | WrongState) -> str:
    if isinstance(error, Invalid):
        return ",".join(error.fields)
    return "no capacity" if isinstance(error, NoCapacity) else "no offer any more"


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
