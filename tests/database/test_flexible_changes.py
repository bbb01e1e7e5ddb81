"""Another window or length for a flexible booking, on both databases: as long as its time is not fixed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, ledger
from allocator.actors import Actor, Role
from allocator.booking import flexible, flexible_changes
from allocator.booking.offer_search import Wish
from allocator.errors import Forbidden, Invalid, NoCapacity, NotFound, Stale, WrongState
from allocator.models import Booking, Event, OutboxItem, Quota
from allocator.policy import load_policy
from allocator.states import BookingState
from tests import factories
from tests.factories import HOUR, NOW

POLICY = load_policy()
RULES = POLICY.bookings
TEN, DAY = timedelta(hours=10), timedelta(days=1)
FAR = NOW + 10 * DAY


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


@pytest.fixture
def booking(session: Session, actor: Actor, quota: Quota) -> Booking:
    """Two nodes for ten hours of a day that is ten days ahead."""
    return flexible.ask(session, actor, quota, wish(nodes=2), rules=RULES, now=NOW)


def wish(since: datetime = FAR, until: datetime = FAR + DAY, hours: int = 10, nodes: int = 1) -> Wish:
    return Wish(nodes, 8, timedelta(hours=hours), since, until)


def change(session: Session, actor: Actor, booking: Booking, wanted: Wish, version: int = 1) -> None:
    flexible_changes.change(session, actor, booking, wanted, expected_version=version, rules=RULES, now=NOW)


def full(session: Session, quota: Quota, start: datetime, hours: int) -> Booking:
    """Somebody else's firm booking of the whole cluster."""
    other = factories.quota(
        session, factories.application(session, factories.person(session), quota.cluster, gpu_hours=90_000)
    )
    return factories.booking(session, other, on=list(quota.cluster.nodes), starts_at=start, hours=hours)


@pytest.mark.parametrize(("since", "until"), [(FAR - DAY, FAR + 2 * DAY), (FAR, FAR + TEN)])
def test_another_window_leaves_the_plan_where_it_may_stay(
    session: Session, actor: Actor, booking: Booking, since: datetime, until: datetime
) -> None:
    start, nodes = booking.starts_at, {slot.node_id for slot in booking.slots}
    change(session, actor, booking, wish(since, until))
    assert (booking.earliest_at, booking.latest_at, booking.starts_at) == (since, until, start)
    assert {slot.node_id for slot in booking.slots} == nodes
    assert (booking.state, booking.nodes, booking.version) == (BookingState.PLANNED, 2, 2)
    event = session.scalars(select(Event).where(Event.kind == "booking.window_changed")).one()
    assert event.before["latest_at"] != event.after["latest_at"] or since != FAR
    assert event.actor_id == actor.person_id
    events.verify(session)


def test_another_length_is_another_charge(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    found = flexible_changes.quote(session, actor, booking, wish(hours=20), policy=POLICY, now=NOW)
    assert (found.fits, found.remaining) == (True, (1_600 - 320) * HOUR)
    change(session, actor, booking, wish(hours=20))
    assert booking.gpu_seconds == 320 * HOUR == ledger.balance(session, quota).charged
    assert {slot.ends_at - slot.starts_at for slot in booking.slots} == {2 * TEN}
    change(session, actor, booking, wish(hours=1), version=2)
    assert ledger.balance(session, quota).charged == 16 * HOUR


def test_its_own_hours_are_its_own(session: Session) -> None:
    quota = factories.quota(session, gpu_hours=160)
    actor = factories.actor_of(quota.application.applicant)
    booking = flexible.ask(session, actor, quota, wish(nodes=2), rules=RULES, now=NOW)
    change(session, actor, booking, wish(FAR + 5 * DAY, FAR + 6 * DAY))
    assert booking.starts_at >= FAR + 5 * DAY
    with pytest.raises(Invalid) as error:
        change(session, actor, booking, wish(FAR, FAR + DAY, hours=11), version=2)
    assert set(error.value.fields) == {"balance"}


def test_what_is_taken_leaves_the_old_promise(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    full(session, quota, FAR + 5 * DAY, 24)
    wanted = wish(FAR + 5 * DAY, FAR + 6 * DAY)
    assert not flexible_changes.quote(session, actor, booking, wanted, policy=POLICY, now=NOW).fits
    with pytest.raises(NoCapacity):
        change(session, actor, booking, wanted)
    assert (booking.earliest_at, booking.version, len(booking.slots)) == (FAR, 1, 2)


def test_others_make_way_for_it_too(session: Session, actor: Actor, quota: Quota, booking: Booking) -> None:
    wide = flexible.ask(
        session, actor, quota, wish(FAR + 5 * DAY, FAR + 7 * DAY, nodes=4), rules=RULES, now=NOW
    )
    wanted = wish(wide.starts_at, wide.ends_at)
    assert flexible_changes.quote(session, actor, booking, wanted, policy=POLICY, now=NOW).makes_way
    change(session, actor, booking, wanted)
    assert (booking.earliest_at, booking.latest_at) == (wanted.earliest_at, wanted.latest_at)
    assert wide.earliest_at is not None
    assert wide.latest_at is not None
    assert wide.earliest_at <= wide.starts_at < wide.ends_at <= wide.latest_at
    assert wide.starts_at >= booking.ends_at or wide.ends_at <= booking.starts_at


def test_a_window_that_is_none_is_refused(session: Session, actor: Actor, booking: Booking) -> None:
    with pytest.raises(Invalid) as error:
        change(session, actor, booking, wish(hours=30))
    assert set(error.value.fields) == {"latest_at"}


def test_what_is_fixed_is_moved_and_not_promised_anew(
    session: Session, actor: Actor, quota: Quota, booking: Booking
) -> None:
    with pytest.raises(Stale):
        change(session, actor, booking, wish(), version=7)
    flexible.fix_due(session, quota.cluster, rules=RULES, now=FAR - DAY)
    with pytest.raises(WrongState):
        change(session, actor, booking, wish(), version=2)


def test_only_those_whose_it_is(session: Session, booking: Booking) -> None:
    stranger = factories.actor_of(factories.person(session))
    operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
    for who, error in ((stranger, NotFound), (operator, Forbidden)):
        with pytest.raises(error):
            change(session, who, booking, wish())
        with pytest.raises(error):
            flexible_changes.quote(session, who, booking, wish(), policy=POLICY, now=NOW)


def test_the_others_read_of_it(session: Session, actor: Actor, booking: Booking) -> None:
    """Who changed it knows; the one who booked it is told what is promised now."""
    booking.booked_by = factories.person(session)
    session.flush()
    session.query(OutboxItem).delete()
    change(session, actor, booking, wish(FAR, FAR + 3 * DAY), version=booking.version)
    letter = session.scalars(select(OutboxItem)).one()
    assert (letter.letter, letter.recipient_id) == ("booking_planned", booking.booked_by_id)
