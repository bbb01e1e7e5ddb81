"""Flexible bookings on both databases: what is promised, who makes way for whom, and when a time is fixed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import ledger
from allocator.actors import SYSTEM, Actor
from allocator.booking import bookings, flexible, planning, replanning
from allocator.booking.offer_search import Wish
from allocator.booking.planning import Picture
from allocator.booking.windows import Place
from allocator.errors import Invalid, NoCapacity, NotFound
from allocator.models import (
    Booking,
    BookingKind,
    Event,
    OutboxItem,
    PlanRun,
    Quota,
    Repair,
    RepairCause,
)
from allocator.policy import load_policy
from allocator.states import BookingState
from allocator.upkeep import repair_steps
from allocator.upkeep.mending import Change, ChangeKind
from scheduler.desired import read_desired
from tests import factories
from tests.dividing import DECEMBER, Site, make_site
from tests.factories import HOUR, NOW

POLICY = load_policy()
RULES = POLICY.bookings
ONE, TEN, DAY = timedelta(hours=1), timedelta(hours=10), timedelta(days=1)
FAR = NOW + 10 * DAY


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def wish(
    nodes: int = 1, gpus: int = 8, hours: int = 10, since: datetime = FAR, until: datetime = FAR + DAY
) -> Wish:
    return Wish(nodes, gpus, timedelta(hours=hours), since, until)


def ask(session: Session, actor: Actor, quota: Quota, wanted: Wish, now: datetime = NOW) -> Booking:
    return flexible.ask(session, actor, quota, wanted, rules=RULES, now=now)


def on_cluster(session: Session, quota: Quota) -> list[str]:
    """The reservations that the cluster is told of."""
    desired = read_desired(session, quota.cluster.slug, RULES.materialise, NOW)
    assert desired is not None
    return sorted(desired.wanted.reservations)


def letters(session: Session) -> list[str]:
    return list(session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)))


def kinds(session: Session) -> list[str]:
    return list(session.scalars(select(Event.kind).order_by(Event.seq)))


def full(session: Session, quota: Quota, start: datetime, hours: int, nodes: int = 4) -> Booking:
    """Somebody else's firm booking of whole nodes."""
    other = factories.quota(
        session, factories.application(session, factories.person(session), quota.cluster, gpu_hours=90_000)
    )
    on = sorted(quota.cluster.nodes, key=lambda node: node.name)[:nodes]
    return factories.booking(session, other, on=on, starts_at=start, hours=hours)


def test_a_window_is_promised_and_charged_from_the_start(
    session: Session, actor: Actor, quota: Quota
) -> None:
    booking = ask(session, actor, quota, wish())
    assert (booking.state, booking.kind) == (BookingState.PLANNED, BookingKind.FLEXIBLE)
    assert (booking.earliest_at, booking.latest_at) == (FAR, FAR + DAY)
    assert FAR <= booking.starts_at < booking.ends_at <= FAR + DAY
    assert len(booking.slots) == 1
    assert ledger.balance(session, quota).available == (1_600 - 80) * HOUR
    assert letters(session) == ["booking_planned"]
    assert flexible.fixed_from(booking, RULES) == booking.starts_at - timedelta(days=3)


def test_plans_stay_away_from_the_cluster_until_they_are_fixed(
    session: Session, actor: Actor, quota: Quota
) -> None:
    soon = wish(since=NOW + ONE, until=NOW + 2 * DAY)
    booking = ask(session, actor, quota, soon)
    assert letters(session) == []  # it is fixed in the next round, and one letter is enough
    assert on_cluster(session, quota) == []
    assert flexible.fix_due(session, quota.cluster, rules=RULES, now=NOW) == 1
    assert booking.state is BookingState.CONFIRMED
    assert letters(session) == ["booking_fixed"]
    assert flexible.fixed_from(booking, RULES) is None
    assert on_cluster(session, quota) == [booking.reservation_name]
    assert kinds(session)[-1] == "booking.confirmed"


def test_a_time_is_fixed_as_late_as_the_policy_says(session: Session, actor: Actor, quota: Quota) -> None:
    booking = ask(session, actor, quota, wish())
    due = booking.starts_at - RULES.fix_ahead
    assert flexible.fix_due(session, quota.cluster, rules=RULES, now=due - ONE) == 0
    assert booking.state is BookingState.PLANNED
    assert flexible.fix_due(session, quota.cluster, rules=RULES, now=due) == 1
    assert flexible.fix_due(session, quota.cluster, rules=RULES, now=due) == 0


def test_the_least_crowded_hours_of_the_window_are_planned(
    session: Session, actor: Actor, quota: Quota
) -> None:
    prices = [1.0] * 245 + [0.25] * 10 + [1.0] * 2_000
    run = PlanRun(
        cluster_id=quota.cluster_id,
        gpu_type="h200",
        made_at=NOW,
        starts_at=NOW,
        prices={"hours": prices},
        bookings=1,
        value=1.0,
        bound=1.0,
    )
    session.add(run)
    session.flush()
    assert ask(session, actor, quota, wish()).starts_at == NOW + timedelta(hours=245)


def test_others_with_a_window_make_way(session: Session, actor: Actor, quota: Quota) -> None:
    """Whoever can begin later does, for one who cannot; nobody leaves the own window."""
    wide = ask(session, actor, quota, wish(4))
    tight = wish(4, since=wide.starts_at, until=wide.ends_at)
    found = flexible.quote(session, actor, quota, tight, policy=POLICY, now=NOW)
    assert (found.fits, found.makes_way, found.starts_at) == (True, True, wide.starts_at)
    before = wide.starts_at
    booking = ask(session, actor, quota, tight)
    assert booking.starts_at == before
    assert wide.starts_at >= booking.ends_at or wide.ends_at <= booking.starts_at
    assert wide.earliest_at
    assert wide.latest_at
    assert wide.earliest_at <= wide.starts_at < wide.ends_at <= wide.latest_at
    assert {slot.starts_at for slot in wide.slots} == {wide.starts_at}
    assert "booking.replanned" in kinds(session)
    # nobody is told of a plan that changes inside of what was promised
    assert letters(session) == ["booking_planned", "booking_planned"]


def test_nothing_firm_makes_way(session: Session, actor: Actor, quota: Quota) -> None:
    full(session, quota, FAR, 24)
    found = flexible.quote(session, actor, quota, wish(), policy=POLICY, now=NOW)
    assert (found.fits, found.starts_at, found.faults) == (False, None, {})
    with pytest.raises(NoCapacity):
        ask(session, actor, quota, wish())


@pytest.mark.parametrize("tied", ["pin", "freeze", "repair"])
def test_what_is_tied_makes_no_way(session: Session, actor: Actor, quota: Quota, tied: str) -> None:
    wide = ask(session, actor, quota, wish(4))
    if tied == "pin":
        wide.pin = "The minister comes"
    elif tied == "freeze":
        quota.cluster.frozen_until = FAR + DAY
    else:
        session.add(
            Repair(
                cluster=quota.cluster,
                gpu_type="h200",
                cause=RepairCause.NODES_DOWN,
                details={},
                variants={},
                asked_at=NOW,
            )
        )
    session.flush()
    with pytest.raises(NoCapacity):
        ask(session, actor, quota, wish(4, since=wide.starts_at, until=wide.ends_at))


def test_a_window_has_room_for_the_booking(session: Session, actor: Actor, quota: Quota) -> None:
    with pytest.raises(Invalid) as error:
        ask(session, actor, quota, wish(hours=30))
    assert set(error.value.fields) == {"latest_at"}
    beyond = quota.valid_until + DAY
    with pytest.raises(Invalid) as error:
        ask(session, actor, quota, wish(since=beyond, until=beyond + 2 * DAY))
    assert set(error.value.fields) == {"earliest_at"}
    with pytest.raises(Invalid) as error:
        ask(session, actor, quota, wish(hours=0))
    assert "hours" in error.value.fields


def test_what_is_promised_keeps_to_the_quota(session: Session, actor: Actor, quota: Quota) -> None:
    until = quota.valid_until
    booking = ask(session, actor, quota, wish(since=until - 2 * DAY, until=until + 9 * DAY))
    assert booking.latest_at is not None
    assert booking.latest_at <= until


def test_strangers_promise_themselves_nothing(session: Session, quota: Quota) -> None:
    stranger = factories.actor_of(factories.person(session))
    with pytest.raises(NotFound):
        ask(session, stranger, quota, wish())
    with pytest.raises(NotFound):
        flexible.quote(session, stranger, quota, wish(), policy=POLICY, now=NOW)


def test_a_plan_can_be_given_back(session: Session, actor: Actor, quota: Quota) -> None:
    booking = ask(session, actor, quota, wish())
    bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=NOW)
    assert booking.state is BookingState.CANCELLED
    assert ledger.balance(session, quota).available == 1_600 * HOUR


def test_limits_count_plans_too(session: Session, actor: Actor, quota: Quota) -> None:
    rules = replace(RULES, max_open=1)
    flexible.ask(session, actor, quota, wish(), rules=rules, now=NOW)
    with pytest.raises(Invalid) as error:
        flexible.ask(session, actor, quota, wish(), rules=rules, now=NOW)
    assert set(error.value.fields) == {"limit"}


def _picture_round(session: Session, quota: Quota, now: datetime = NOW) -> Picture:
    return planning.read(session, quota.cluster, "h200", rules=RULES, now=now)


def test_no_plan_comes_nearer_than_the_notice(session: Session, actor: Actor, quota: Quota) -> None:
    """Its page says when the time is fixed: a machine may plan it for sooner, but never past that notice."""
    booking = ask(session, actor, quota, wish(since=NOW + ONE, until=FAR + DAY))
    repair_steps.set_window(
        session, booking, FAR, FAR + TEN, "booking.replanned", repair_steps.Why("", SYSTEM, RULES, NOW)
    )
    for slot in booking.slots:
        slot.starts_at, slot.ends_at = FAR, FAR + TEN
    session.flush()
    (claim,) = _picture_round(session, quota).claims
    assert claim.first == NOW + RULES.fix_ahead
    # what is nearer than that already is about to be fixed: it comes no nearer either
    (claim,) = _picture_round(session, quota, FAR - DAY).claims
    assert claim.first == FAR


def test_a_plan_shifts_no_hours_between_grants(session: Session) -> None:
    """Over the end of a published period its parts are charged to what is granted on each side."""
    here = make_site(session)
    quota = here.quota("science", 20_000)
    quota.valid_from = NOW
    here.publish(here.propose())
    actor = factories.actor_of(quota.application.applicant)
    begin = DECEMBER[0] - 4 * ONE
    for node in here.cluster.nodes:
        factories.booking(session, here_rival(here), on=[node], starts_at=begin - DAY, hours=24)
        factories.booking(session, here_rival(here), on=[node], starts_at=begin + TEN, hours=24)
    booking = ask(session, actor, quota, wish(since=begin - DAY, until=begin + TEN + DAY), now=NOW)
    assert booking.starts_at == begin
    claim = next(one for one in _picture_round(session, quota).claims if one.id == booking.id)
    assert (claim.first, claim.last) == (begin, begin)


def here_rival(here: Site) -> Quota:
    """Somebody else's quota there, without limits."""
    applicant = factories.person(here.session)
    application = factories.application(here.session, applicant, here.cluster, gpu_hours=90_000)
    return factories.quota(here.session, application)


def test_others_make_way_only_where_the_grant_suffices(session: Session) -> None:
    """What the quote promises can be asked for: room in a period without hours is none."""
    here = make_site(session)
    rich = here.quota("science", 20_000)
    here.publish(here.propose())
    poor = here.quota("science", 20_000)  # too late for this period
    first, second = (factories.actor_of(one.application.applicant) for one in (rich, poor))
    # both sides of the first of December are planned for others, and either side could make way
    begin = DECEMBER[0]
    ask(session, first, rich, wish(4, since=begin - TEN, until=begin + 4 * TEN))
    ask(session, first, rich, wish(4, since=begin, until=begin + 4 * TEN))
    ask(session, first, rich, wish(4, since=begin, until=begin + 4 * TEN))
    wanted = wish(4, since=begin, until=begin + 2 * TEN)
    found = flexible.quote(session, second, poor, wanted, policy=POLICY, now=NOW)
    assert not found.fits
    with pytest.raises(NoCapacity):
        ask(session, second, poor, wanted)


def test_other_nodes_alone_are_written_down_too(session: Session, actor: Actor, quota: Quota) -> None:
    """Every change has its event, also one that people are not told of."""
    booking = ask(session, actor, quota, wish())
    (slot,) = booking.slots
    other = next(node for node in quota.cluster.nodes if node.id != slot.node_id)
    change = Change(
        booking.id,
        booking.version,
        ChangeKind.REBIND,
        booking.starts_at,
        booking.ends_at,
        booking.starts_at,
        booking.ends_at,
        (Place(other.id, other.name, 0, 8),),
    )
    replanning.carry_out(session, [change], rules=RULES, now=NOW)
    assert [slot.node_id for slot in booking.slots] == [other.id]
    event = session.scalars(select(Event).where(Event.kind == "cluster.rebound")).one()
    assert event.after == {"bookings": [booking.id]}
