"""The waitlist on both databases: who is offered what gets free, in which order, and what silence means."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from threading import Event as Flag

import pytest
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor, Role
from allocator.booking import bookings, cascade, offers, plan_search, planning, waitlist
from allocator.booking.offer_search import Wish
from allocator.booking.standing import standing as standing_of
from allocator.db import Database
from allocator.errors import Invalid, NotFound, Stale, WrongState
from allocator.models import (
    Booking,
    Cluster,
    Event,
    Node,
    NodeSlot,
    OutboxItem,
    PlanRun,
    Quota,
    WaitlistEntry,
)
from allocator.policy import load_policy
from allocator.states import BookingState, QuotaState, WaitlistState
from allocator.upkeep import repair_steps
from tests import factories
from tests.dividing import DECEMBER, make_site
from tests.factories import NOW

RULES = load_policy().bookings
ONE, TEN, DAY = timedelta(hours=1), timedelta(hours=10), timedelta(days=1)
SOON = NOW + 2 * DAY
ANSWER = RULES.waitlist_answer

Joining = Callable[..., WaitlistEntry]
Counting = Callable[[Engine], AbstractContextManager[list[str]]]


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def taken(session: Session, quota: Quota) -> Booking:
    """The whole cluster for the day that all wait for."""
    on = list(quota.cluster.nodes)
    return factories.booking(session, rival(session, quota, 90_000), on=on, starts_at=SOON, hours=24)


def rival(session: Session, quota: Quota, gpu_hours: int = 1_600) -> Quota:
    """Another applicant's quota on the same cluster."""
    applicant = factories.person(session)
    return factories.quota(
        session, factories.application(session, applicant, quota.cluster, gpu_hours=gpu_hours)
    )


def actor_of(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def wish(nodes: int = 4, gpus: int = 8, hours: int = 24) -> Wish:
    return Wish(nodes, gpus, timedelta(hours=hours), SOON, SOON + DAY)


def join(session: Session, quota: Quota, wanted: Wish | None = None, now: datetime = NOW) -> WaitlistEntry:
    return waitlist.join(session, actor_of(quota), quota, wanted or wish(), rules=RULES, now=now)


def give_back(session: Session, booking: Booking, now: datetime = NOW) -> None:
    actor = factories.actor_of(booking.booked_by)
    bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=now)


def round_at(session: Session, quota: Quota, now: datetime = NOW) -> list[WaitlistEntry]:
    """What the scheduler does for the waitlist, without a planner."""
    cluster = quota.cluster
    cascade.settle(session, cluster, rules=RULES, now=now)
    queue = planning.queue(session, cluster, "h200", now)
    entries = waitlist.in_order(session, cluster, "h200", queue)
    picture = planning.read(session, cluster, "h200", entries, rules=RULES, now=now)
    solution = plan_search.solve(picture, seconds=0)
    return cascade.offer_all(session, solution, rules=RULES, now=now)


def letters(session: Session) -> list[str]:
    return list(session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)))


def test_what_gets_free_is_offered_and_held(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    assert round_at(session, quota) == []
    give_back(session, taken)
    session.query(OutboxItem).delete()
    assert round_at(session, quota) == [entry]
    assert (entry.state, entry.answer_until) == (WaitlistState.OFFERED, NOW + ANSWER)
    held = entry.booking
    assert held is not None
    assert (held.state, held.held_until, held.starts_at) == (BookingState.HELD, NOW + ANSWER, SOON)
    assert held.booked_by_id == quota.application.applicant_id
    assert letters(session) == ["waitlist_offer"]
    assert round_at(session, quota) == []  # it is held, and nobody is asked twice
    event = session.scalars(select(Event).where(Event.kind == "booking.held")).one()
    assert event.actor_id is None  # the machine held it, for a person


def test_a_yes_makes_a_booking(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    with pytest.raises(Stale):
        waitlist.accept(session, actor_of(quota), entry, expected_version=1, now=NOW)
    actor = actor_of(quota)
    booking = waitlist.accept(session, actor, entry, expected_version=entry.version, now=NOW + ONE)
    assert (booking.state, entry.state) == (BookingState.CONFIRMED, WaitlistState.ACCEPTED)
    assert letters(session)[-1] == "booking_confirmed"
    with pytest.raises(WrongState):
        waitlist.decline(session, actor, entry, expected_version=entry.version, rules=RULES, now=NOW + ONE)
    events.verify(session)


def test_a_no_goes_to_the_next_one(session: Session, quota: Quota, taken: Booking) -> None:
    first, second = join(session, quota), join(session, rival(session, quota), now=NOW + ONE)
    give_back(session, taken)
    assert round_at(session, quota, NOW + ONE) == [first]
    held = first.booking
    assert held is not None
    actor = actor_of(quota)
    waitlist.decline(session, actor, first, expected_version=first.version, rules=RULES, now=NOW + ONE)
    assert (first.state, first.offers, held.state) == (WaitlistState.WAITING, 1, BookingState.LAPSED)
    assert round_at(session, quota, NOW + ONE) == [second]
    # and back to the first, when it has rested and the second lets it pass as well
    late = NOW + ONE + ANSWER
    assert round_at(session, quota, late) == [first]
    assert second.offers == 1


def test_silence_is_a_no_and_a_letter(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    late = NOW + ANSWER
    with pytest.raises(WrongState):
        waitlist.accept(session, actor_of(quota), entry, expected_version=entry.version, now=late)
    cascade.settle(session, quota.cluster, rules=RULES, now=late)
    assert (entry.state, entry.offers, entry.booking) == (WaitlistState.WAITING, 1, None)
    assert session.scalars(select(NodeSlot)).all() == []
    assert letters(session)[-1] == "waitlist_passed"
    assert round_at(session, quota, late) == []  # it rests
    assert round_at(session, quota, late + ANSWER) == [entry]


def test_who_never_answers_waits_no_more(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    entry.offers = cascade.MOST_PASSED - 1
    give_back(session, taken)
    round_at(session, quota)
    cascade.settle(session, quota.cluster, rules=RULES, now=NOW + ANSWER)
    assert entry.state is WaitlistState.LAPSED
    assert letters(session)[-1] == "waitlist_over"


def test_an_offer_may_be_taken_on_its_booking_too(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    held = entry.booking
    assert held is not None
    offers.accept(session, actor_of(quota), held, expected_version=held.version, now=NOW)
    cascade.settle(session, quota.cluster, rules=RULES, now=NOW + ANSWER)
    assert (entry.state, held.state) == (WaitlistState.ACCEPTED, BookingState.CONFIRMED)


def test_a_window_that_is_over_ends_the_waiting(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota, wish(hours=10))
    late = SOON + timedelta(hours=14)
    cascade.settle(session, quota.cluster, rules=RULES, now=late - ONE)
    assert entry.state is WaitlistState.WAITING
    cascade.settle(session, quota.cluster, rules=RULES, now=late)
    assert (entry.state, letters(session)[-1]) == (WaitlistState.LAPSED, "waitlist_over")


def test_a_closed_quota_waits_for_nothing(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    quota.state = QuotaState.CLOSED
    give_back(session, taken)
    assert round_at(session, quota) == []
    assert entry.state is WaitlistState.LAPSED


def test_who_cannot_pay_is_passed_over(session: Session, quota: Quota, taken: Booking) -> None:
    first, second = join(session, quota), join(session, rival(session, quota), now=NOW + ONE)
    quota.gpu_seconds = 1
    give_back(session, taken)
    assert round_at(session, quota) == []
    assert (first.state, first.offers) == (WaitlistState.WAITING, 0)
    assert first.rests_until == NOW + cascade.RETRY
    assert round_at(session, quota) == [second]


def test_small_entries_pass_large_ones_that_do_not_fit(
    session: Session, quota: Quota, taken: Booking
) -> None:
    large, small = join(session, quota), join(session, rival(session, quota), wish(1, 8, 10))
    node = taken.slots[0]
    session.delete(node)
    session.flush()
    assert round_at(session, quota) == [small]
    assert large.state is WaitlistState.WAITING


def nodes_of(quota: Quota) -> list[Node]:
    return sorted(quota.cluster.nodes, key=lambda node: node.name)


def test_what_another_offer_may_leave_is_kept_for_who_is_first(session: Session, quota: Quota) -> None:
    """Three of four nodes are free and one is offered: small wishes do not use the three up meanwhile."""
    nodes, other = nodes_of(quota), rival(session, quota, 90_000)
    taken = factories.booking(session, other, on=nodes, starts_at=SOON, hours=24)
    one = join(session, rival(session, quota), wish(1))
    large = join(session, quota, now=NOW + ONE)
    small = join(session, rival(session, quota), wish(1, 8, 10), now=NOW + TEN)
    give_back(session, taken)
    assert round_at(session, quota, NOW + TEN) == [one]
    assert (large.state, small.state) == (WaitlistState.WAITING, WaitlistState.WAITING)
    standing = standing_of(session, large, rules=RULES, now=NOW + TEN)
    assert (standing.rank, standing.expected_at, standing.if_others_decline) == (1, SOON, True)
    standing = standing_of(session, small, rules=RULES, now=NOW + TEN)
    assert (standing.rank, standing.expected_at, standing.makes_way) == (2, None, True)
    late = NOW + TEN + ANSWER
    assert round_at(session, quota, late) == [large]  # and nobody else: now all four are its own
    assert large.booking is not None
    assert large.booking.starts_at == SOON
    # with its no they are everybody's
    actor = actor_of(quota)
    waitlist.decline(session, actor, large, expected_version=large.version, rules=RULES, now=late)
    assert round_at(session, quota, late) == [small]


def test_once_the_offer_is_taken_nothing_is_kept(session: Session, quota: Quota, taken: Booking) -> None:
    other = rival(session, quota)
    one, large = join(session, other, wish(1)), join(session, quota, now=NOW + ONE)
    small = join(session, rival(session, quota), wish(1, 8, 10), now=NOW + ONE)
    give_back(session, taken)
    assert round_at(session, quota, NOW + ONE) == [one]
    waitlist.accept(session, actor_of(other), one, expected_version=one.version, now=NOW + ONE)
    assert round_at(session, quota, NOW + ONE) == [small]
    assert standing_of(session, large, rules=RULES, now=NOW + ONE).expected_at is None


def test_what_is_given_back_piece_by_piece_is_kept_together(session: Session, quota: Quota) -> None:
    """Four bookings of a node each, far ahead: without this, whoever wants one node gets each of them."""
    far, other = NOW + 20 * DAY, rival(session, quota, 90_000)
    given = [
        factories.booking(session, other, on=[node], starts_at=far, hours=24) for node in nodes_of(quota)
    ]
    large = join(session, quota, Wish(4, 8, DAY, far, far + DAY))
    small = join(session, rival(session, quota), Wish(1, 8, TEN, far, far + DAY), now=NOW + ONE)
    for booking in given[:3]:
        give_back(session, booking, NOW + ONE)
        assert round_at(session, quota, NOW + ONE) == []
    standing = standing_of(session, large, rules=RULES, now=NOW + ONE)
    assert (standing.expected_at, standing.kept_at) == (None, far)
    # too near to its start anybody may have what would else stay empty
    near = far - RULES.fix_ahead
    assert standing_of(session, large, rules=RULES, now=near + ONE).kept_at is None
    assert standing_of(session, small, rules=RULES, now=near + ONE).expected_at == far
    give_back(session, given[3], near)
    assert round_at(session, quota, near) == [large]
    assert small.state is WaitlistState.WAITING


def test_too_near_to_wait_for_more_the_small_one_gets_it(session: Session, quota: Quota) -> None:
    far, other = NOW + 20 * DAY, rival(session, quota, 90_000)
    given = [
        factories.booking(session, other, on=[node], starts_at=far, hours=24) for node in nodes_of(quota)
    ]
    join(session, quota, Wish(4, 8, DAY, far, far + DAY))
    small = join(session, rival(session, quota), Wish(1, 8, TEN, far, far + DAY), now=NOW + ONE)
    near = far - RULES.fix_ahead + ONE
    give_back(session, given[0], near)
    assert round_at(session, quota, near) == [small]


def test_who_cannot_pay_keeps_nobody_waiting(session: Session, quota: Quota) -> None:
    far, other = NOW + 20 * DAY, rival(session, quota, 90_000)
    given = [
        factories.booking(session, other, on=[node], starts_at=far, hours=24) for node in nodes_of(quota)
    ]
    join(session, quota, Wish(4, 8, DAY, far, far + DAY))
    small = join(session, rival(session, quota), Wish(1, 8, TEN, far, far + DAY), now=NOW + ONE)
    quota.gpu_seconds = 1
    give_back(session, given[0], NOW + ONE)
    assert round_at(session, quota, NOW + ONE) == [small]


def test_rank_and_date_are_honest(session: Session, quota: Quota, taken: Booking) -> None:
    first = join(session, quota)
    second = join(session, rival(session, quota), now=NOW + ONE)
    elsewhere = factories.quota(session)  # another cluster is no rival
    standing = standing_of(session, second, rules=RULES, now=NOW)
    assert elsewhere.cluster_id != quota.cluster_id
    assert (standing.rank, standing.of, standing.expected_at) == (2, 2, None)
    give_back(session, taken)
    assert standing_of(session, first, rules=RULES, now=NOW).expected_at == SOON
    round_at(session, quota)
    standing = standing_of(session, second, rules=RULES, now=NOW)
    assert (standing.rank, standing.of) == (1, 1)
    assert (standing.expected_at, standing.if_others_decline) == (SOON, True)
    with pytest.raises(WrongState):
        standing_of(session, first, rules=RULES, now=NOW)


def test_prices_decide_before_arrival(session: Session, quota: Quota, taken: Booking) -> None:
    small, large = join(session, quota, wish(1, 8, 10)), join(session, rival(session, quota))
    run = PlanRun(
        cluster_id=quota.cluster_id,
        gpu_type="h200",
        made_at=NOW,
        starts_at=NOW,
        prices={"hours": [1.0] * 100},
        bookings=1,
        value=1.0,
        bound=1.0,
    )
    assert waitlist.in_order(session, quota.cluster, "h200", [small, large]) == [small, large]
    session.add(run)
    session.flush()
    assert waitlist.in_order(session, quota.cluster, "h200", [small, large]) == [large, small]


def test_nobody_waits_for_what_is_free(session: Session, quota: Quota) -> None:
    with pytest.raises(Invalid) as error:
        join(session, quota)
    assert set(error.value.fields) == {"latest_at"}


def test_a_quota_waits_for_so_much(session: Session, quota: Quota, taken: Booking) -> None:
    for _ in range(waitlist.MOST_ENTRIES):
        join(session, quota, wish(1, 1, 1))
    with pytest.raises(Invalid) as error:
        join(session, quota, wish(1, 1, 1))
    assert set(error.value.fields) == {"limit"}
    with pytest.raises(Invalid) as error:
        join(session, rival(session, quota, 90_000), wish(9))
    assert set(error.value.fields) == {"nodes"}


def test_leaving_gives_the_offer_up(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    held = entry.booking
    assert held is not None
    waitlist.withdraw(session, actor_of(quota), entry, expected_version=entry.version, now=NOW)
    assert (entry.state, held.state) == (WaitlistState.WITHDRAWN, BookingState.LAPSED)
    with pytest.raises(WrongState):
        waitlist.withdraw(session, actor_of(quota), entry, expected_version=entry.version, now=NOW)


def test_entries_are_their_own_business(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    actor = actor_of(quota)
    assert waitlist.find(session, actor, entry.id) is entry
    assert list(waitlist.of_quota(session, actor, quota)) == [entry]
    assert list(session.scalars(waitlist.own(actor))) == [entry]
    stranger = factories.actor_of(factories.person(session))
    assert list(session.scalars(waitlist.own(stranger))) == []
    for use in (
        lambda: waitlist.find(session, stranger, entry.id),
        lambda: waitlist.of_quota(session, stranger, quota),
        lambda: waitlist.join(session, stranger, quota, wish(), rules=RULES, now=NOW),
        lambda: waitlist.withdraw(session, stranger, entry, expected_version=1, now=NOW),
        lambda: waitlist.accept(session, stranger, entry, expected_version=1, now=NOW),
    ):
        with pytest.raises(NotFound):
            use()


def test_time_that_no_grant_carries_is_no_obstacle(session: Session) -> None:
    """GPUs are free at once in a period without hours: what gets free after it is offered all the same."""
    here = make_site(session)
    here.quota("science", 20_000)
    here.publish(here.propose())
    late = factories.quota(
        session, factories.application(session, factories.person(session), here.cluster, gpu_hours=9_000)
    )
    after = DECEMBER[1]
    on = list(here.cluster.nodes)
    other = factories.booking(session, rival(session, late, 90_000), on=on, starts_at=after, hours=48)
    wanted = Wish(4, 8, TEN, after - 2 * DAY, after + 2 * DAY)
    entry = join(session, late, wanted, now=NOW)
    assert round_at(session, late) == []
    give_back(session, other)
    entry.rests_until = None
    assert round_at(session, late) == [entry]
    assert entry.booking is not None
    assert entry.booking.starts_at == after


def test_an_offer_that_a_repair_ends_costs_no_place(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    held = entry.booking
    assert held is not None
    operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
    repair_steps.drop(session, held, repair_steps.Why("Power is out.", operator, RULES, NOW))
    session.execute(delete(NodeSlot).where(NodeSlot.booking_id == held.id))
    cascade.settle(session, quota.cluster, rules=RULES, now=NOW + ONE)
    assert (entry.state, entry.offers, entry.rests_until) == (WaitlistState.WAITING, 0, None)
    assert letters(session)[-1] == "waitlist_lost"


def test_given_up_on_its_own_page_an_offer_counts(session: Session, quota: Quota, taken: Booking) -> None:
    entry = join(session, quota)
    give_back(session, taken)
    round_at(session, quota)
    held = entry.booking
    assert held is not None
    offers.release(session, actor_of(quota), held, expected_version=held.version, now=NOW)
    cascade.settle(session, quota.cluster, rules=RULES, now=NOW + ONE)
    assert (entry.offers, entry.rests_until) == (1, NOW + ONE + ANSWER)


def test_silence_in_too_short_a_time_is_no_answer(session: Session, quota: Quota, taken: Booking) -> None:
    """At night with an hour to answer: it rests, but that is not one of the three that end the waiting."""
    now = SOON - 2 * ONE
    entry = join(session, quota, wish(hours=10))
    give_back(session, taken, now)
    assert round_at(session, quota, now) == [entry]
    assert entry.answer_until == SOON
    cascade.settle(session, quota.cluster, rules=RULES, now=SOON)
    assert (entry.state, entry.offers) == (WaitlistState.WAITING, 0)
    assert entry.rests_until == SOON + ANSWER


def test_room_by_the_number_of_nodes_is_offered_too(session: Session, quota: Quota) -> None:
    """Names of nodes that nobody was promised keep nobody waiting (late binding)."""
    far = NOW + 20 * DAY
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    other = rival(session, quota, 90_000)
    factories.booking(session, other, on=nodes[:2], starts_at=far, hours=10)
    back = factories.booking(session, other, on=nodes[2:], starts_at=far, hours=10)
    factories.booking(session, other, on=nodes[:2], starts_at=far + TEN, hours=10)
    wanted = Wish(2, 8, 2 * TEN, far, far + 2 * TEN)
    entry = join(session, quota, wanted)
    # two are free in the first ten hours and two others in the second: no two for both as named today
    factories.booking(session, other, on=nodes[2:3], starts_at=far + TEN, hours=10)
    give_back(session, back)
    for slot in session.scalars(select(NodeSlot).where(NodeSlot.node_id == nodes[1].id)):
        if slot.starts_at == far + TEN:
            session.delete(slot)
            session.flush()
            assert slot.booking is not None
            slot.booking.nodes = 1
    session.flush()
    assert offers.offers(session, actor_of(quota), quota, wanted, policy=load_policy(), now=NOW).offers
    with pytest.raises(Invalid) as error:
        join(session, rival(session, quota), wanted)
    assert set(error.value.fields) == {"latest_at"}
    assert round_at(session, quota) == [entry]


def test_a_long_queue_costs_no_more_queries(
    session: Session, quota: Quota, taken: Booking, count_queries: Counting
) -> None:
    def queries() -> int:
        session.flush()
        session.expunge_all()
        cluster = session.get_one(Cluster, quota.cluster_id)
        with count_queries(session.get_bind().engine) as statements:
            cascade.settle(session, cluster, rules=RULES, now=NOW)
            queue = planning.queue(session, cluster, "h200", NOW)
            planning.read(session, cluster, "h200", queue, rules=RULES, now=NOW)
        return len(statements)

    join(session, quota)
    few = queries()
    for _ in range(5):
        join(session, rival(session, session.get_one(Quota, quota.id)))
    assert queries() == few


@pytest.mark.integration
def test_offers_lapse_in_both_jobs_at_once(postgres_database: Database) -> None:
    """The round of the waitlist and the one that lets time pass meet at the same offers, row by row."""
    database, late = postgres_database, NOW + ANSWER
    with database.transaction() as session:
        quota = factories.quota(session)
        rivals = [rival(session, quota) for _ in range(4)]
        node = sorted(quota.cluster.nodes, key=lambda node: node.name)
        for one, place in zip(rivals, node, strict=True):
            entry = _waits(session, one)
            held = factories.booking(
                session, one, on=[place], starts_at=SOON, hours=10, state=BookingState.CONFIRMED
            )
            held.held_until, held.state = late, BookingState.HELD
            session.flush()
            entry.booking_id, entry.answer_until, entry.state = held.id, late, WaitlistState.OFFERED
        slug = quota.cluster.slug

    held_rows, settled = Flag(), Flag()

    def pass_time() -> None:
        with database.transaction() as session:
            last = session.scalars(select(Booking).order_by(Booking.id.desc()).limit(1).with_for_update())
            assert last.one()
            held_rows.set()
            settled.wait(1)  # by then the other one has the chain, or waits for our row without it
            bookings.advance(session, late)

    def settle() -> int:
        held_rows.wait(5)
        with database.transaction() as session:
            cluster = session.scalars(select(Cluster).where(Cluster.slug == slug)).one()
            return cascade.settle(session, cluster, rules=RULES, now=late)

    with ThreadPoolExecutor(2) as pool:
        passing, settling = pool.submit(pass_time), pool.submit(settle)
        passing.result()
        assert settling.result() == 4
    with database.reader() as session:
        assert set(session.scalars(select(Booking.state))) == {BookingState.LAPSED}
        events.verify(session)


def _waits(session: Session, quota: Quota) -> WaitlistEntry:
    entry = WaitlistEntry(
        quota=quota,
        cluster_id=quota.cluster_id,
        gpu_type=quota.gpu_type,
        asked_by_id=quota.application.applicant_id,
        nodes=1,
        gpus_per_node=8,
        length_seconds=36_000,
        earliest_at=SOON,
        latest_at=SOON + DAY,
        created_at=NOW,
    )
    session.add(entry)
    session.flush()
    return entry
