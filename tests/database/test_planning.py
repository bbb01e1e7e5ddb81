"""Planning on both databases: pictures, rounds of the job, races, and promises that nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import combinations
from random import Random

import pytest
from sqlalchemy import delete, select

from allocator import events
from allocator.actors import Actor
from allocator.booking import (
    bookings,
    calendar_queries,
    flexible,
    plan_search,
    planning,
    replanning,
    waitlist,
)
from allocator.booking.booking_checks import Ask
from allocator.booking.offer_search import Wish
from allocator.db import Database
from allocator.errors import Invalid, KezekError, NoCapacity, Stale
from allocator.models import (
    Booking,
    Cluster,
    Event,
    Node,
    NodeSlot,
    NodeState,
    PlanRun,
    Quota,
    WaitlistEntry,
)
from allocator.policy import load_policy
from allocator.states import OPEN_BOOKINGS, BookingState, WaitlistState
from allocator.upkeep.mending import ChangeKind
from scheduler.replan import replan
from tests import factories
from tests.factories import NOW

RULES = load_policy().bookings
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FAR = NOW + 10 * DAY
SECONDS = 0.3


@pytest.fixture
def quota_id(database: Database) -> int:
    """A quota of many hours on the cluster `alem` with four nodes of eight GPUs."""
    with database.transaction() as session:
        applicant = factories.person(session)
        cluster = factories.cluster(session)
        return factories.quota(
            session, factories.application(session, applicant, cluster, gpu_hours=90_000)
        ).id


def run(database: Database, now: datetime = NOW, seconds: float = SECONDS) -> dict[str, int]:
    return dict(replan(database, "alem", rules=RULES, now=now, go_on=lambda: True, seconds=seconds))


def flexibly(
    database: Database, quota_id: int, nodes: int, hours: int, since: datetime, until: datetime, gpus: int = 8
) -> int:
    wish = Wish(nodes, gpus, timedelta(hours=hours), since, until)
    with database.transaction() as session:
        quota = session.get_one(Quota, quota_id)
        actor = Actor(quota.application.applicant_id)
        return flexible.ask(session, actor, quota, wish, rules=RULES, now=NOW).id


def wait(database: Database, quota_id: int, nodes: int, hours: int, since: datetime, until: datetime) -> int:
    wish = Wish(nodes, 8, timedelta(hours=hours), since, until)
    with database.transaction() as session:
        quota = session.get_one(Quota, quota_id)
        actor = Actor(quota.application.applicant_id)
        return waitlist.join(session, actor, quota, wish, rules=RULES, now=NOW).id


def firmly(database: Database, quota_id: int, nodes: int, hours: int, start: datetime, gpus: int = 8) -> int:
    with database.transaction() as session:
        quota = session.get_one(Quota, quota_id)
        actor = Actor(quota.application.applicant_id)
        ask = Ask(nodes, gpus, start, start + timedelta(hours=hours))
        return bookings.book(session, actor, quota, ask, rules=RULES, now=NOW).id


def place(database: Database, where: dict[int, tuple[datetime, tuple[int, ...]]]) -> None:
    """Put bookings somewhere by hand, as an earlier plan might have."""
    with database.transaction() as session:
        session.execute(delete(NodeSlot).where(NodeSlot.booking_id.in_(where)))
        names = session.scalars(select(Node).order_by(Node.name)).all()
        for booking_id, (start, nodes) in where.items():
            booking = session.get_one(Booking, booking_id)
            end = start + (booking.ends_at - booking.starts_at)
            booking.starts_at, booking.ends_at = start, end
            booking.slots = [
                NodeSlot(node_id=names[n].id, gpu_from=0, gpu_to=8, starts_at=start, ends_at=end)
                for n in nodes
            ]


def check_promises(database: Database) -> None:
    """Every open booking has all its GPUs, nothing overlaps, and no plan leaves its window."""
    with database.reader() as session:
        rows = session.scalars(select(Booking).where(Booking.state.in_(OPEN_BOOKINGS))).all()
        for booking in rows:
            assert len(booking.slots) == booking.nodes
            for slot in booking.slots:
                assert (slot.starts_at, slot.ends_at) == (booking.starts_at, booking.ends_at)
                assert slot.gpu_to - slot.gpu_from == booking.gpus_per_node
            if booking.earliest_at and booking.latest_at:
                assert booking.earliest_at <= booking.starts_at
                assert booking.ends_at <= booking.latest_at
        for one, other in combinations(session.scalars(select(NodeSlot)).all(), 2):
            assert (
                one.node_id != other.node_id
                or one.gpu_to <= other.gpu_from
                or other.gpu_to <= one.gpu_from
                or one.ends_at <= other.starts_at
                or other.ends_at <= one.starts_at
            )
        events.verify(session)


def entry_state(database: Database, entry_id: int) -> tuple[WaitlistState, datetime | None]:
    with database.reader() as session:
        entry = session.get_one(WaitlistEntry, entry_id)
        return entry.state, entry.booking.starts_at if entry.booking else None


@pytest.fixture
def scattered(database: Database, quota_id: int) -> tuple[int, int]:
    """Two bookings of two nodes lie so that four nodes for two days are free nowhere in their window."""
    firmly(database, quota_id, 4, 24, FAR - DAY)
    firmly(database, quota_id, 4, 24, FAR + 4 * DAY)
    one = flexibly(database, quota_id, 2, 24, FAR, FAR + 4 * DAY)
    other = flexibly(database, quota_id, 2, 24, FAR, FAR + 4 * DAY)
    place(database, {one: (FAR + DAY, (0, 1)), other: (FAR + 2 * DAY, (2, 3))})
    return one, other


def test_plans_make_room_for_who_waits(database: Database, quota_id: int, scattered: tuple[int, int]) -> None:
    entry = wait(database, quota_id, 4, 48, FAR, FAR + 4 * DAY)
    done = run(database)
    assert (done["offered"], done.get("stale", 0)) == (1, 0)
    assert done["replanned"] >= 1
    assert entry_state(database, entry)[0] is WaitlistState.OFFERED
    check_promises(database)
    with database.reader() as session:
        assert {session.get_one(Booking, one).state for one in scattered} == {BookingState.PLANNED}
        moved = session.scalars(select(Event).where(Event.kind == "booking.replanned")).all()
        assert {event.reason for event in moved} == {replanning.ANEW}


def test_nothing_moves_without_need(database: Database, quota_id: int, scattered: tuple[int, int]) -> None:
    done = run(database)
    assert (done["replanned"], done["offered"]) == (0, 0)
    with database.reader() as session:
        starts = [session.get_one(Booking, one).starts_at for one in scattered]
        assert starts == [FAR + DAY, FAR + 2 * DAY]


@pytest.mark.parametrize("tied", ["pin", "freeze"])
def test_plans_leave_alone_what_is_tied(
    database: Database, quota_id: int, scattered: tuple[int, int], tied: str
) -> None:
    entry = wait(database, quota_id, 4, 48, FAR, FAR + 4 * DAY)
    with database.transaction() as session:
        if tied == "pin":
            for one in scattered:
                session.get_one(Booking, one).pin = "As agreed"
        else:
            session.scalars(select(Cluster)).one().frozen_until = FAR + 4 * DAY
    assert run(database)["offered"] == 0
    assert entry_state(database, entry) == (WaitlistState.WAITING, None)


def test_a_round_fixes_what_is_due(database: Database, quota_id: int) -> None:
    booking = flexibly(database, quota_id, 1, 10, NOW + HOUR, NOW + DAY)
    assert run(database)["fixed"] == 1
    with database.reader() as session:
        assert session.get_one(Booking, booking).state is BookingState.CONFIRMED
    assert run(database)["fixed"] == 0


def test_prices_and_bound_are_kept(database: Database, quota_id: int) -> None:
    firmly(database, quota_id, 4, 24, NOW + DAY)
    entry = wait(database, quota_id, 4, 24, NOW + DAY, NOW + 2 * DAY)
    assert run(database)["prices"] == 1
    with database.reader() as session:
        made = session.scalars(select(PlanRun)).one()
        assert (made.bookings, made.starts_at, made.made_at) == (1, NOW, NOW)
        assert made.value == 4 * 8 * 24
        assert made.bound >= made.value
        cluster = session.scalars(select(Cluster)).one()
        demand = calendar_queries.demand(session, cluster, "h200")
        assert demand is not None
        crowded, idle = demand.mean(NOW + DAY, NOW + 2 * DAY), demand.mean(NOW, NOW + DAY)
        assert (crowded is not None, idle is not None) == (True, True)
        assert crowded > idle >= 0  # type: ignore[operator]
    assert entry_state(database, entry)[0] is WaitlistState.WAITING
    assert run(database)["prices"] == 0  # they are fresh
    later = NOW + replanning.PRICES_LAST
    assert run(database, later)["prices"] == 1
    long_after = later + replanning.RUNS_KEPT
    run(database, long_after)
    with database.reader() as session:
        assert [one.made_at for one in session.scalars(select(PlanRun))] == [later, long_after]


def test_what_is_given_back_cascades(database: Database, quota_id: int) -> None:
    booking = firmly(database, quota_id, 4, 24, FAR)
    entry = wait(database, quota_id, 1, 10, FAR, FAR + DAY)
    assert run(database)["offered"] == 0
    with database.transaction() as session:
        row = session.get_one(Booking, booking)
        actor = Actor(row.booked_by_id)
        bookings.cancel(session, actor, row, reason="", expected_version=row.version, now=NOW)
    assert run(database)["offered"] == 1
    assert entry_state(database, entry) == (WaitlistState.OFFERED, FAR)


def test_outages_and_phases_are_in_the_picture(database: Database, quota_id: int) -> None:
    with database.transaction() as session:
        cluster = session.scalars(select(Cluster)).one()
        first, second, third, fourth = session.scalars(select(Node).order_by(Node.name)).all()
        first.leaves_at = FAR
        second.state, second.joins_at = NodeState.EXPECTED, FAR
        third.state = NodeState.DOWN
        names = [first.name, second.name, fourth.name]
        session.flush()
        picture = planning.read(session, cluster, "h200", rules=RULES, now=NOW)
        assert [node.name for node in picture.nodes] == names
        slots = planning.Slots(picture, FAR + DAY)
        made = planning.demand_of(picture, slots, (), ())
        assert made is not None
        capacity = made[0].capacity
        assert capacity is not None
        here, there = slots.after(FAR) - 1, slots.after(FAR)
        assert capacity[:, here].tolist() == [8, 0, 8]
        assert capacity[:, there].tolist() == [0, 8, 8]


def test_a_picture_that_is_old_moves_nobody(
    database: Database, quota_id: int, scattered: tuple[int, int]
) -> None:
    """A booker comes between looking for the plan and writing it down."""
    wait(database, quota_id, 4, 48, FAR, FAR + 4 * DAY)
    with database.reader() as session:
        cluster = session.scalars(select(Cluster)).one()
        entries = planning.queue(session, cluster, "h200", NOW)
        picture = planning.read(session, cluster, "h200", entries, rules=RULES, now=NOW)
    solution = plan_search.solve(picture, seconds=SECONDS)
    assert solution.changes
    assert {change.kind for change in solution.changes} <= {ChangeKind.REPLAN, ChangeKind.REBIND}
    firmly(database, quota_id, 1, 1, FAR)
    with database.transaction() as session:
        cluster = session.scalars(select(Cluster)).one()
        with pytest.raises(Stale):
            replanning.check(session, cluster, "h200", picture, rules=RULES)
    check_promises(database)


def test_two_rounds_and_bookers_at_once(
    database: Database, quota_id: int, scattered: tuple[int, int]
) -> None:
    """Who comes second sees that the world has changed: no overlap, no broken promise, no second offer."""
    entry = wait(database, quota_id, 4, 48, FAR, FAR + 4 * DAY)
    errors: list[KezekError] = []

    def book(hour: int) -> None:
        try:
            firmly(database, quota_id, 1, 1, FAR + hour * HOUR)
        except (NoCapacity, Invalid, Stale) as error:
            errors.append(error)

    with ThreadPoolExecutor(4) as pool:
        rounds = [pool.submit(run, database) for _ in range(2)]
        bookers = [pool.submit(book, hour) for hour in range(0, 40, 13)]
        done = [one.result() for one in rounds]
        for booker in bookers:
            booker.result()
    check_promises(database)
    assert sum(one["offered"] for one in done) <= 1
    run(database)
    check_promises(database)
    assert entry_state(database, entry)[0] in (WaitlistState.OFFERED, WaitlistState.WAITING)


def steps(random: Random, count: int) -> Iterator[tuple[str, int, int, int, int, int]]:
    kinds = ("flexible", "flexible", "flexible", "firm", "wait", "cancel", "round")
    for _ in range(count):
        nodes, gpus = random.choice([(1, 1), (1, 4), (1, 8), (2, 8), (3, 8), (4, 8)])
        hours, first = random.randint(1, 30), random.randint(0, 72)
        yield random.choice(kinds), nodes, gpus, hours, first, random.randint(0, 60)


def _cancel_one(database: Database, random: Random) -> None:
    with database.transaction() as session:
        rows = session.scalars(select(Booking).where(Booking.state.in_(OPEN_BOOKINGS))).all()
        if rows:
            row = random.choice(list(rows))
            actor = Actor(row.booked_by_id)
            bookings.cancel(session, actor, row, reason="", expected_version=row.version, now=NOW)


def _step(
    database: Database, quota_id: int, random: Random, step: tuple[str, int, int, int, int, int]
) -> None:
    kind, nodes, gpus, hours, first, more = step
    start = FAR + first * HOUR
    until = start + (hours + more) * HOUR
    if kind == "flexible":
        flexibly(database, quota_id, nodes, hours, start, until, gpus)
    elif kind == "firm":
        firmly(database, quota_id, nodes, hours, start, gpus)
    elif kind == "wait":
        wait(database, quota_id, nodes, hours, start, until)
    elif kind == "cancel":
        _cancel_one(database, random)
    else:
        run(database, seconds=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_no_sequence_breaks_a_promise(database: Database, quota_id: int, seed: int) -> None:
    """Whatever people ask for, in whatever order: plans stay in their windows and never overlap."""
    random = Random(seed)
    for step in steps(random, 40):
        try:
            _step(database, quota_id, random, step)
        except (Invalid, NoCapacity):
            continue
        check_promises(database)
    run(database)
    check_promises(database)
