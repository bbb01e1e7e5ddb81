"""Longer, shorter, at another time: on both databases, within the rules and only if it is free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, ledger, letters
from allocator.actors import Actor, Role
from allocator.booking import bookings, changes, flexible
from allocator.booking.booking_checks import Ask
from allocator.booking.offer_search import Wish
from allocator.db import Database
from allocator.errors import Forbidden, Invalid, NoCapacity, NotFound, Stale, WrongState
from allocator.models import (
    Booking,
    BookingKind,
    BookingMove,
    Event,
    Grant,
    Node,
    NodeState,
    OutboxItem,
    Person,
    Quota,
)
from allocator.policy import load_policy
from allocator.states import BookingState, MoveState, QuotaState, ReservationState
from tests import factories
from tests.dividing import DECEMBER, make_site
from tests.factories import HOUR, NOW
from tests.scheduling import site

RULES = load_policy().bookings
SOON = NOW + timedelta(days=1)
ONE, TEN, DAY = timedelta(hours=1), timedelta(hours=10), timedelta(days=1)


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


@pytest.fixture
def booking(session: Session, actor: Actor, quota: Quota) -> Booking:
    """Two nodes for ten hours from tomorrow."""
    return bookings.book(session, actor, quota, Ask(2, 8, SOON, SOON + TEN), rules=RULES, now=NOW)


def run(session: Session, booking: Booking) -> None:
    """Let it begin on the cluster."""
    booking.reservation.state, booking.reservation.seen_at = ReservationState.RESERVED, NOW
    assert bookings.advance(session, booking.starts_at)[BookingState.STARTED] == 1


def extend(
    session: Session, actor: Actor, booking: Booking, ends_at: datetime, now: datetime = SOON + ONE
) -> None:
    changes.extend(session, actor, booking, ends_at, expected_version=booking.version, rules=RULES, now=now)


def shorten(
    session: Session, actor: Actor, booking: Booking, ends_at: datetime, now: datetime = SOON + ONE
) -> int:
    return changes.shorten(
        session, actor, booking, ends_at, expected_version=booking.version, rules=RULES, now=now
    )


def move(session: Session, actor: Actor, booking: Booking, starts_at: datetime, now: datetime = NOW) -> None:
    changes.move(session, actor, booking, starts_at, expected_version=booking.version, rules=RULES, now=now)


def test_a_running_booking_lasts_longer_under_its_number(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    run(session, booking)
    nodes, number = {slot.node_id for slot in booking.slots}, booking.id
    found = changes.extension(session, booking, rules=RULES, now=SOON + ONE)
    assert found.until == SOON + timedelta(hours=100)  # 1,600 GPU-hours on 16 GPUs
    extend(session, actor, booking, SOON + TEN + TEN)
    assert (booking.id, booking.state, booking.ends_at) == (number, BookingState.STARTED, SOON + TEN + TEN)
    assert {(slot.node_id, slot.ends_at) for slot in booking.slots} == {
        (node, SOON + TEN + TEN) for node in nodes
    }
    assert ledger.balance(session, quota).booked_ahead == 320 * HOUR
    event = session.scalars(select(Event).order_by(Event.seq.desc())).first()
    assert event is not None
    assert (event.kind, event.before["gpu_seconds"], event.after["gpu_seconds"]) == (
        "booking.extended",
        160 * HOUR,
        320 * HOUR,
    )
    assert event.actor_id == actor.person_id
    events.verify(session)


def test_only_in_its_last_hours(session: Session, actor: Actor, quota: Quota) -> None:
    long = bookings.book(session, actor, quota, Ask(1, 8, SOON, SOON + 5 * DAY), rules=RULES, now=NOW)
    early = SOON + 3 * DAY - ONE
    found = changes.extension(session, long, rules=RULES, now=early)
    assert not found.possible
    assert found.why.details == {"opens": datetime(2026, 11, 27, 6, tzinfo=UTC)}
    with pytest.raises(WrongState):
        extend(session, actor, long, SOON + 6 * DAY, now=early)
    extend(session, actor, long, SOON + 6 * DAY, now=early + ONE)


def test_only_if_nobody_has_booked_what_follows(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    (first, *_) = sorted(booking.slots, key=lambda slot: slot.id)
    factories.booking(session, quota, on=[first.node], starts_at=SOON + TEN + 2 * ONE, hours=1)
    found = changes.extension(session, booking, rules=RULES, now=SOON)
    assert (found.until, found.taken) == (SOON + TEN + 2 * ONE, True)
    with pytest.raises(NoCapacity):
        extend(session, actor, booking, SOON + TEN + 3 * ONE)
    extend(session, actor, booking, SOON + TEN + 2 * ONE)
    assert changes.extension(session, booking, rules=RULES, now=SOON).until is None


def test_cleaning_comes_between(session: Session, quota: Quota, booking: Booking) -> None:
    factories.booking(session, quota, on=[booking.slots[0].node], starts_at=SOON + TEN + 3 * ONE, hours=1)
    found = changes.extension(session, booking, rules=replace(RULES, cleaning=ONE), now=SOON)
    assert found.until == SOON + TEN + 2 * ONE


def test_a_part_may_grow_beside_another(session: Session, actor: Actor, quota: Quota) -> None:
    part = bookings.book(session, actor, quota, Ask(1, 3, SOON, SOON + TEN), rules=RULES, now=NOW)
    node = part.slots[0].node
    factories.booking(session, quota, on=[node], gpus_per_node=5, first_gpu=3, starts_at=SOON + TEN, hours=5)
    extend(session, actor, part, SOON + TEN + ONE)
    assert part.ends_at == SOON + TEN + ONE


def test_a_broken_node_cannot_be_had_longer(session: Session, quota: Quota, booking: Booking) -> None:
    session.get_one(Node, booking.slots[0].node_id).state = NodeState.DOWN
    session.flush()
    found = changes.extension(session, booking, rules=RULES, now=SOON)
    assert (found.until, found.taken) == (None, True)


@pytest.mark.parametrize(
    "ends_at", [SOON + TEN, SOON + ONE, SOON + TEN + timedelta(minutes=30), SOON + timedelta(hours=101)]
)
def test_a_wrong_end_is_refused(session: Session, actor: Actor, booking: Booking, ends_at: datetime) -> None:
    with pytest.raises(Invalid) as caught:
        extend(session, actor, booking, ends_at)
    assert list(caught.value.fields) == ["ends_at"]


def test_validity_and_length_limit_it(session: Session, quota: Quota, booking: Booking) -> None:
    quota.valid_until = SOON + TEN + timedelta(minutes=150)
    session.flush()
    assert changes.extension(session, booking, rules=RULES, now=SOON).until == SOON + TEN + 2 * ONE
    rules = replace(RULES, max_length=TEN + ONE)
    assert changes.extension(session, booking, rules=rules, now=SOON).until == SOON + TEN + ONE
    quota.state = QuotaState.CLOSED
    session.flush()
    assert not changes.extension(session, booking, rules=RULES, now=SOON).possible


def test_the_grant_limits_it(session: Session) -> None:
    here = make_site(session)
    quota, _ = here.quota("science", 40_000), here.quota("science", 40_000)
    here.publish(here.propose())
    actor = factories.actor_of(quota.application.applicant)
    grant = session.scalars(select(Grant).where(Grant.quota_id == quota.id)).one()

    def book(nodes: int, days: int) -> Booking:
        ask = Ask(nodes, 8, DECEMBER[0], DECEMBER[0] + days * DAY)
        return bookings.book(session, actor, quota, ask, rules=RULES, now=NOW)

    book(2, 28)
    booking = book(1, 1)
    found = changes.extension(session, booking, rules=RULES, now=DECEMBER[0])
    left = grant.gpu_seconds // HOUR - 2 * 8 * 24 * 28 - 8 * 24
    assert 0 < left // 8 < 24 * 28
    assert found.until == booking.ends_at + timedelta(hours=left // 8)


def test_shorter_gives_hours_back(session: Session, actor: Actor, quota: Quota, booking: Booking) -> None:
    run(session, booking)
    now = SOON + timedelta(hours=3, minutes=10)
    assert changes.least_end(booking, rules=RULES, now=now) == SOON + 4 * ONE
    assert shorten(session, actor, booking, SOON + 5 * ONE, now=now) == 80 * HOUR
    assert {slot.ends_at for slot in booking.slots} == {booking.ends_at} == {SOON + 5 * ONE}
    assert ledger.balance(session, quota).charged == 80 * HOUR
    for wrong in (SOON + 3 * ONE, SOON + 5 * ONE, SOON + 6 * ONE, SOON + timedelta(hours=4, minutes=30)):
        with pytest.raises(Invalid):
            shorten(session, actor, booking, wrong, now=now)
    with pytest.raises(WrongState):
        shorten(session, actor, booking, SOON + 5 * ONE, now=SOON + 5 * ONE)


def test_a_move_takes_its_own_place_into_account(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    for node in nodes[2:]:
        factories.booking(session, quota, on=[node], starts_at=SOON, hours=48)
    move(session, actor, booking, SOON + 3 * ONE)
    assert (booking.starts_at, booking.ends_at) == (SOON + 3 * ONE, SOON + 3 * ONE + TEN)
    assert {slot.starts_at for slot in booking.slots} == {booking.starts_at}
    assert booking.version == 2
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == ["booking.confirmed", "booking.moved"]


def test_a_move_to_what_is_taken_changes_nothing(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    factories.booking(session, quota, on=nodes[:3], starts_at=SOON + DAY, hours=24)
    found = changes.move_quote(session, actor, booking, SOON + DAY, rules=RULES, now=NOW)
    assert not found.fits
    assert (found.before, found.after) == (SOON + DAY - TEN, SOON + 2 * DAY)
    with pytest.raises(NoCapacity):
        move(session, actor, booking, SOON + DAY)
    assert booking.starts_at == SOON
    assert len(booking.slots) == 2
    near = SOON + DAY - TEN
    assert changes.move_quote(session, actor, booking, near, rules=RULES, now=NOW).fits
    wrong = changes.move_quote(session, actor, booking, NOW + timedelta(days=91), rules=RULES, now=NOW)
    assert list(wrong.faults) == ["starts_at"]


def test_what_has_begun_never_moves(session: Session, actor: Actor, booking: Booking) -> None:
    with pytest.raises(WrongState):
        move(session, actor, booking, SOON + DAY, now=SOON)
    run(session, booking)
    with pytest.raises(WrongState):
        move(session, actor, booking, SOON + DAY, now=SOON + ONE)


def test_a_spent_balance_still_moves(session: Session) -> None:
    quota = factories.quota(session, gpu_hours=160)
    actor = factories.actor_of(quota.application.applicant)
    booking = bookings.book(session, actor, quota, Ask(2, 8, SOON, SOON + TEN), rules=RULES, now=NOW)
    rules = replace(RULES, max_open=1, max_open_percent=100)
    changes.move(session, actor, booking, SOON + DAY, expected_version=booking.version, rules=rules, now=NOW)
    assert booking.starts_at == SOON + DAY


def test_moving_answers_what_was_asked(session: Session, actor: Actor, booking: Booking) -> None:
    asked = BookingMove(
        booking=booking,
        from_starts_at=SOON - DAY,
        from_ends_at=SOON - DAY + TEN,
        to_starts_at=SOON,
        to_ends_at=SOON + TEN,
        reason="Repair.",
        answer_until=SOON,
        moved_at=NOW,
    )
    session.add(asked)
    session.flush()
    move(session, actor, booking, SOON + DAY)
    assert (asked.state, asked.answered_by_id) == (MoveState.CHANGED, actor.person_id)


def test_only_those_whose_it_is_change_it(session: Session, booking: Booking) -> None:
    stranger = factories.actor_of(factories.person(session))
    operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
    for who, error in ((stranger, NotFound), (operator, Forbidden)):
        with pytest.raises(error):
            extend(session, who, booking, SOON + TEN + ONE)
        with pytest.raises(error):
            move(session, who, booking, SOON + DAY)
    assert shorten(session, operator, booking, SOON + 5 * ONE) == 80 * HOUR


def test_a_stale_page_changes_nothing(session: Session, actor: Actor, booking: Booking) -> None:
    move(session, actor, booking, SOON + DAY)
    with pytest.raises(Stale):
        changes.move(session, actor, booking, SOON, expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(Stale):
        changes.extend(
            session, actor, booking, SOON + 2 * DAY, expected_version=1, rules=RULES, now=SOON + DAY
        )


@pytest.mark.parametrize("lang", ["kk", "ru", "en"])
def test_the_others_read_of_a_change(
    session: Session, actor: Actor, quota: Quota, booking: Booking, lang: str
) -> None:
    member: Person = factories.person(session)
    booking.booked_by = member
    session.flush()
    move(session, actor, booking, SOON + DAY)
    letter = session.scalars(select(OutboxItem).where(OutboxItem.letter == "booking_changed")).one()
    assert letter.recipient_id == member.id
    subject, text = letters.render(letter.letter, lang, "Aigerim", letter.details, "https://kezek.kz")
    assert "25.11.2026 11:00" in text
    assert str(booking.id) in subject


def test_the_cluster_follows(database: Database, tmp_path: Path) -> None:
    """What was reserved already gets its other time, its longer and its shorter end on the cluster too."""
    here = site(database, tmp_path)
    number = here.book(1, starts_at=SOON, hours=10)

    def change(step: Callable[[Session, Actor, Booking], object]) -> None:
        with database.transaction() as session:
            booking = session.get_one(Booking, number)
            step(session, Actor(booking.booked_by_id), booking)
        here.reconcile()
        (held,) = here.cluster.reservations()
        with database.reader() as session:
            booking = session.get_one(Booking, number)
            assert (held.starts_at, held.ends_at) == (booking.starts_at, booking.ends_at)
            assert set(held.nodes) == {slot.node.name for slot in booking.slots}
            assert booking.reservation.state is ReservationState.RESERVED

    here.reconcile()
    change(lambda session, actor, booking: move(session, actor, booking, SOON + DAY))
    change(lambda session, actor, booking: move(session, actor, booking, SOON + 20 * DAY))
    change(lambda session, actor, booking: move(session, actor, booking, SOON))
    here.clock.now = SOON + ONE
    with database.transaction() as session:
        assert bookings.advance(session, here.clock.now)[BookingState.STARTED] == 1
    change(lambda session, actor, booking: extend(session, actor, booking, SOON + TEN + TEN))
    change(lambda session, actor, booking: shorten(session, actor, booking, SOON + 5 * ONE))


def _fixed(session: Session, actor: Actor, quota: Quota) -> Booking:
    """A flexible booking of ten hours whose time has just been fixed inside of its day."""
    wanted = Wish(1, 8, TEN, SOON, SOON + TEN + ONE)
    booking = flexible.ask(session, actor, quota, wanted, rules=RULES, now=NOW)
    assert flexible.fix_due(session, quota.cluster, rules=RULES, now=NOW) == 1
    assert booking.state is BookingState.CONFIRMED
    return booking


def test_once_fixed_a_flexible_one_moves_like_any_other(session: Session, actor: Actor, quota: Quota) -> None:
    """By one's own wish it may leave the window that was once asked for: then its time is its own."""
    booking = _fixed(session, actor, quota)
    move(session, actor, booking, SOON + 3 * DAY)
    session.flush()
    assert (booking.kind, booking.earliest_at, booking.latest_at) == (BookingKind.FIRM, None, None)
    event = session.scalars(select(Event).where(Event.kind == "booking.moved")).one()
    assert event.before["latest_at"]
    assert event.after["latest_at"] is None


def test_once_fixed_a_flexible_one_lasts_longer_than_its_window(
    session: Session, actor: Actor, quota: Quota
) -> None:
    booking = _fixed(session, actor, quota)
    extend(session, actor, booking, booking.ends_at + 5 * ONE, now=NOW)
    session.flush()
    assert booking.kind is BookingKind.FIRM


def test_what_has_not_begun_grows_no_further_than_may_lie_ahead(
    session: Session, actor: Actor, quota: Quota
) -> None:
    """Small and early, then made longer: that way round the limit is as closed as any other."""
    rules = replace(RULES, max_open_percent=10)  # of 1,600 GPU-hours
    ask = Ask(1, 8, SOON, SOON + TEN)
    booking = bookings.book(session, actor, quota, ask, rules=rules, now=NOW)
    found = changes.extension(session, booking, rules=rules, now=NOW)
    assert found.until == SOON + 2 * TEN
    with pytest.raises(Invalid):
        changes.extend(session, actor, booking, SOON + 3 * TEN, expected_version=1, rules=rules, now=NOW)
    # what runs is no hoard
    assert changes.extension(session, booking, rules=rules, now=SOON).until == SOON + timedelta(hours=200)


def test_what_was_reserved_for_another_time_proves_no_delivery(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    """The cluster held it on its old day and refuses the new one: then nothing is charged."""
    booking.reservation.state, booking.reservation.seen_at = ReservationState.RESERVED, NOW
    session.flush()
    move(session, actor, booking, SOON + DAY)
    booking.reservation.state = ReservationState.BLOCKED
    session.flush()
    bookings.advance(session, booking.starts_at)
    bookings.advance(session, booking.ends_at)
    session.refresh(booking)
    assert booking.state is BookingState.CANCELLED
    assert ledger.balance(session, quota).charged == 0


def test_shorter_is_possible_whatever_time_cleaning_takes_today(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    for slot in booking.slots:
        factories.booking(session, quota, on=[slot.node], starts_at=booking.ends_at, hours=5)
    rules = replace(RULES, cleaning=3 * ONE)
    changes.shorten(session, actor, booking, SOON + TEN - ONE, expected_version=1, rules=rules, now=SOON)
    assert booking.ends_at == SOON + TEN - ONE


@pytest.mark.parametrize("frozen", [False, True])
def test_names_given_early_are_no_obstacle_to_a_move(
    session: Session, actor: Actor, quota: Quota, booking: Booking, frozen: bool
) -> None:
    """Late binding, but not in days that an operator has frozen."""
    far = NOW + 20 * DAY
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    one = factories.booking(session, quota, on=nodes[:2], starts_at=far, hours=5)
    other = factories.booking(session, quota, on=nodes[2:], starts_at=far + 5 * ONE, hours=5)
    if frozen:
        quota.cluster.frozen_until = far + 5 * DAY
        session.flush()
        with pytest.raises(NoCapacity):
            move(session, actor, booking, far)
        assert len(booking.slots) == 2
        return
    assert changes.move_quote(session, actor, booking, far, rules=RULES, now=NOW).fits
    move(session, actor, booking, far)
    session.expire_all()
    own = {slot.node_id for slot in booking.slots}
    for booked in (one, other):
        assert own.isdisjoint({slot.node_id for slot in booked.slots})
    assert (len(own), len(one.slots), len(other.slots)) == (2, 2, 2)
    assert (one.version, other.version) == (1, 1)
