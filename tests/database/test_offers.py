"""Offers on both databases: the best times, why nothing fits, and what holding one really keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import events, ledger
from allocator.actors import Actor
from allocator.booking import bookings, offers
from allocator.booking.booking_checks import ALMATY, Ask
from allocator.booking.offer_search import Wish
from allocator.booking.offers import OfferKind, Offers
from allocator.booking.why_not import Change, ChangeKind, Constraint
from allocator.errors import Invalid, NoCapacity, NotFound, Stale, WrongState
from allocator.models import Booking, Event, NodeSlot, OutboxItem, PlanRun, Quota
from allocator.policy import Policy, load_policy
from allocator.states import BookingState, QuotaState, ReservationState
from scheduler.desired import read_desired
from tests import factories
from tests.dividing import DECEMBER, make_site
from tests.factories import HOUR, NOW

POLICY = load_policy()
RULES = POLICY.bookings
SOON = NOW + timedelta(days=1)
ONE, TEN = timedelta(hours=1), timedelta(hours=10)
FIRST = NOW + ONE  # the lead is a minute, so that the next full hour is the first start


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def ask(
    session: Session, actor: Actor, quota: Quota, wish: Wish, policy: Policy = POLICY, now: datetime = NOW
) -> Offers:
    return offers.offers(session, actor, quota, wish, policy=policy, now=now)


def full(session: Session, quota: Quota, start: datetime, hours: int, nodes: int = 4) -> Booking:
    """Somebody else's booking of whole nodes."""
    other = factories.quota(
        session, factories.application(session, factories.person(session), quota.cluster, gpu_hours=90_000)
    )
    on = sorted(quota.cluster.nodes, key=lambda node: node.name)[:nodes]
    return factories.booking(session, other, on=on, starts_at=start, hours=hours)


def starts(found: Offers) -> dict[OfferKind, datetime]:
    return {kind: offer.ask.starts_at for offer in found.offers for kind in offer.kinds}


def test_an_empty_cluster_offers_now_and_the_start_of_a_day(
    session: Session, actor: Actor, quota: Quota
) -> None:
    found = ask(session, actor, quota, Wish(1, 8, TEN))
    assert starts(found)[OfferKind.EARLIEST] == FIRST
    assert starts(found)[OfferKind.CHEAPEST] == FIRST
    preferred = starts(found)[OfferKind.PREFERRED].astimezone(ALMATY)
    assert (preferred.day, preferred.hour) == (24, 10)
    assert [len(offer.kinds) for offer in found.offers] == [2, 1]
    assert (found.why, found.hold, found.remaining) == (None, timedelta(minutes=10), 1520 * HOUR)
    assert session.scalars(select(Booking)).all() == []


def test_prices_of_the_plan_decide_what_is_cheapest(session: Session, actor: Actor, quota: Quota) -> None:
    prices = [1.0] * 100 + [0.25] * 20 + [1.0] * 2_200
    session.add(
        PlanRun(
            cluster_id=quota.cluster_id,
            gpu_type="h200",
            made_at=NOW,
            starts_at=NOW,
            prices={"hours": prices},
            bookings=10,
            value=1.0,
            bound=1.0,
        )
    )
    session.flush()
    found = ask(session, actor, quota, Wish(1, 8, TEN, latest_at=NOW + timedelta(days=30)))
    assert found.planned_prices
    assert starts(found)[OfferKind.CHEAPEST] == NOW + timedelta(hours=100)
    assert [offer.crowding for offer in found.offers] == [1.0, 0.25, 1.0]


def test_without_a_plan_the_share_taken_decides(session: Session, actor: Actor, quota: Quota) -> None:
    full(session, quota, NOW, 30, nodes=2)
    found = ask(session, actor, quota, Wish(1, 8, TEN))
    assert not found.planned_prices
    assert starts(found)[OfferKind.CHEAPEST] == NOW + timedelta(hours=30)
    assert found.offers[0].crowding == 0.5


def test_what_is_preferred_is_approached_from_both_sides(
    session: Session, actor: Actor, quota: Quota
) -> None:
    full(session, quota, SOON, 24)
    near_end = Wish(4, 8, TEN, preferred_at=SOON + timedelta(hours=20))
    assert starts(ask(session, actor, quota, near_end))[OfferKind.PREFERRED] == SOON + timedelta(hours=24)
    near_start = Wish(4, 8, TEN, preferred_at=SOON + timedelta(hours=2))
    assert starts(ask(session, actor, quota, near_start))[OfferKind.PREFERRED] == SOON - TEN


def test_a_wish_keeps_to_its_window(session: Session, actor: Actor, quota: Quota) -> None:
    wish = Wish(1, 8, TEN, earliest_at=SOON + timedelta(minutes=20), latest_at=SOON + timedelta(hours=12))
    found = ask(session, actor, quota, wish)
    assert {offer.ask.starts_at for offer in found.offers} == {SOON + ONE}


def test_strangers_get_no_offers(session: Session, quota: Quota) -> None:
    stranger = factories.actor_of(factories.person(session))
    with pytest.raises(NotFound):
        ask(session, stranger, quota, Wish(1, 8, TEN))


def test_taken_gpus_come_with_what_would_fit(session: Session, actor: Actor, quota: Quota) -> None:
    full(session, quota, SOON, 24, nodes=2)
    wish = Wish(3, 8, TEN, earliest_at=SOON, latest_at=SOON + timedelta(hours=28))
    why = ask(session, actor, quota, wish).why
    assert why is not None
    assert why.constraint is Constraint.CAPACITY
    assert [(change.kind, change.ask) for change in why.changes] == [
        (ChangeKind.EARLIER, Ask(3, 8, SOON - TEN, SOON)),
        (ChangeKind.LATER, Ask(3, 8, SOON + timedelta(hours=24), SOON + timedelta(hours=34))),
        (ChangeKind.FEWER, Ask(2, 8, SOON, SOON + TEN)),
        (ChangeKind.SHORTER, Ask(3, 8, SOON + timedelta(hours=24), SOON + timedelta(hours=28))),
    ]
    for change in why.changes:
        found = bookings.quote(session, actor, quota, change.ask, rules=RULES, now=NOW)
        assert found.fits


def test_where_no_node_is_free_a_part_may_be(session: Session, actor: Actor, quota: Quota) -> None:
    full(session, quota, SOON, 24, nodes=3)
    last = max(quota.cluster.nodes, key=lambda node: node.name)
    factories.booking(session, quota, on=[last], starts_at=SOON, hours=24, gpus_per_node=5)
    wish = Wish(2, 8, TEN, earliest_at=SOON, latest_at=SOON + TEN)
    why = ask(session, actor, quota, wish).why
    assert why is not None
    fewer = [change.ask for change in why.changes if change.kind is ChangeKind.FEWER]
    assert fewer == [Ask(1, 3, SOON, SOON + TEN)]


def test_a_preferred_start_that_is_taken_comes_with_what_could_be_had_just_then(
    session: Session, actor: Actor, quota: Quota
) -> None:
    wanted = SOON + timedelta(hours=20)
    full(session, quota, SOON, 300, nodes=3)
    last = max(quota.cluster.nodes, key=lambda node: node.name)
    factories.booking(session, quota, on=[last], starts_at=SOON + timedelta(hours=26), hours=10)
    found = ask(session, actor, quota, Wish(4, 8, TEN, preferred_at=wanted))
    assert wanted not in starts(found).values()
    assert found.refused == ()
    # three nodes are taken all day; the fourth is free until six hours after the wish
    assert [(change.kind, change.ask) for change in found.instead] == [
        (ChangeKind.FEWER, Ask(1, 8, SOON + timedelta(hours=16), SOON + timedelta(hours=26)))
    ]
    fewer = ask(session, actor, quota, Wish(2, 8, ONE, preferred_at=wanted))
    assert fewer.instead[0] == Change(ChangeKind.FEWER, Ask(1, 8, wanted, wanted + ONE))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (SOON + timedelta(minutes=30), "begins and ends on the hour"),
        (NOW + timedelta(days=89, hours=20), "is valid from"),
        (NOW + timedelta(days=100), "at most 90 days from now"),
    ],
)
def test_a_preferred_start_that_a_rule_forbids_is_named(
    session: Session, actor: Actor, quota: Quota, wanted: datetime, said: str
) -> None:
    found = ask(session, actor, quota, Wish(1, 8, TEN, preferred_at=wanted))
    assert found.offers
    assert any(said in str(fault) for fault in found.refused), found.refused
    assert found.instead == ()


def test_alternatives_keep_near_to_the_preferred_start(session: Session, actor: Actor, quota: Quota) -> None:
    wanted = SOON + timedelta(days=3)
    why = ask(session, actor, quota, Wish(1, 8, timedelta(minutes=90), preferred_at=wanted)).why
    assert why is not None
    assert [change.ask for change in why.changes] == [Ask(1, 8, wanted, wanted + ONE)]


def test_the_balance_binds_and_says_what_it_carries(session: Session, actor: Actor, quota: Quota) -> None:
    why = ask(session, actor, quota, Wish(4, 8, timedelta(hours=60))).why
    assert why is not None
    assert why.constraint is Constraint.BALANCE
    assert [(change.kind, change.ask.nodes, change.ask.length) for change in why.changes] == [
        (ChangeKind.FEWER, 3, timedelta(hours=60)),
        (ChangeKind.SHORTER, 4, timedelta(hours=50)),
    ]


@pytest.mark.parametrize(
    ("wish", "constraint", "kinds"),
    [
        (Wish(9, 8, TEN), Constraint.SHAPE, {ChangeKind.FEWER}),
        (Wish(0, 8, TEN), Constraint.SHAPE, set()),
        (Wish(2, 4, TEN), Constraint.SHAPE, set()),
        (Wish(1, 8, timedelta(minutes=90)), Constraint.LENGTH, {ChangeKind.SHORTER}),
        (Wish(1, 8, timedelta(days=30)), Constraint.LENGTH, {ChangeKind.SHORTER}),
        (Wish(1, 8, timedelta(0)), Constraint.LENGTH, set()),
        (Wish(1, 8, TEN, earliest_at=NOW + timedelta(days=70)), Constraint.WINDOW, {ChangeKind.EARLIER}),
        (
            Wish(1, 8, TEN, latest_at=FIRST + 3 * ONE),
            Constraint.WINDOW,
            {ChangeKind.LATER, ChangeKind.SHORTER},
        ),
    ],
)
def test_every_rule_is_named_when_it_binds(
    session: Session, actor: Actor, quota: Quota, wish: Wish, constraint: Constraint, kinds: set[ChangeKind]
) -> None:
    found = ask(session, actor, quota, wish)
    assert found.offers == ()
    assert found.why is not None
    assert found.why.constraint is constraint
    assert {change.kind for change in found.why.changes} == kinds
    assert str(found.why.message)


def test_a_closed_quota_has_nothing_to_change(session: Session, actor: Actor, quota: Quota) -> None:
    quota.state = QuotaState.CLOSED
    session.flush()
    why = ask(session, actor, quota, Wish(1, 8, TEN)).why
    assert why is not None
    assert (why.constraint, why.changes) == (Constraint.QUOTA, ())


def test_the_grant_of_a_period_binds(session: Session) -> None:
    site = make_site(session)
    quota, _ = site.quota("science", 40_000), site.quota("science", 40_000)
    site.publish(site.propose())
    actor = factories.actor_of(quota.application.applicant)
    bookings.book(
        session,
        actor,
        quota,
        Ask(2, 8, DECEMBER[0], DECEMBER[0] + timedelta(days=28)),
        rules=RULES,
        now=NOW,
    )
    found = ask(session, actor, quota, Wish(1, 8, timedelta(days=28)))
    assert found.why is not None
    assert found.why.constraint is Constraint.GRANT
    (change,) = found.why.changes
    assert change.kind is ChangeKind.FEWER or change.kind is ChangeKind.SHORTER
    assert bookings.quote(session, actor, quota, change.ask, rules=RULES, now=NOW).fits


def test_too_much_booked_ahead_binds(session: Session, actor: Actor, quota: Quota) -> None:
    rules = replace(RULES, max_open=2, max_open_percent=10)
    policy = replace(POLICY, bookings=rules)
    bookings.book(session, actor, quota, Ask(1, 8, SOON, SOON + TEN), rules=rules, now=NOW)
    why = ask(session, actor, quota, Wish(2, 8, TEN), policy).why
    assert why is not None
    assert why.constraint is Constraint.LIMIT
    assert [(change.kind, change.ask.shape.nodes, change.ask.length) for change in why.changes] == [
        (ChangeKind.FEWER, 1, TEN),
        (ChangeKind.SHORTER, 2, timedelta(hours=5)),
    ]
    with pytest.raises(Invalid) as caught:
        bookings.book(session, actor, quota, Ask(2, 8, SOON, SOON + TEN), rules=rules, now=NOW)
    assert list(caught.value.fields) == ["limit"]
    bookings.book(session, actor, quota, Ask(1, 8, SOON, SOON + TEN), rules=rules, now=NOW)
    why = ask(session, actor, quota, Wish(1, 8, ONE), policy).why
    assert why is not None
    assert why.changes == ()


def test_the_price_follows_the_category(session: Session) -> None:
    head = factories.person(session)
    company = factories.organisation(session, head=head)
    cluster = factories.cluster(session)
    application = factories.application(session, head, cluster, organisation=company, category="startup")
    quota = factories.quota(session, application)
    actor = factories.actor_of(head)
    price = ask(session, actor, quota, Wish(1, 8, TEN)).price
    assert price is not None
    assert (price.gross, price.subsidy, price.net) == (
        Decimal("112000.00"),
        Decimal("78400.00"),
        Decimal("33600.00"),
    )
    quota.valid_from = NOW - timedelta(days=800)  # the months of the subsidy have passed
    session.flush()
    price = ask(session, actor, quota, Wish(1, 8, TEN)).price
    assert price is not None
    assert price.subsidy == 0


def test_free_hours_of_the_year_come_first(session: Session, actor: Actor, quota: Quota) -> None:
    wish = Wish(1, 8, TEN)  # 80 of a citizen's 200 free GPU-hours
    bookings.book(session, actor, quota, Ask(2, 8, SOON, SOON + TEN), rules=RULES, now=NOW)
    price = ask(session, actor, quota, wish).price
    assert price is not None
    assert (price.free, price.net) == (Decimal(40 * 1400), Decimal(40 * 1400))


# holding


def hold(
    session: Session, actor: Actor, quota: Quota, nodes: int = 1, start: datetime = SOON, now: datetime = NOW
) -> Booking:
    return offers.hold(session, actor, quota, Ask(nodes, 8, start, start + TEN), rules=RULES, now=now)


def test_a_held_offer_is_really_held(session: Session, actor: Actor, quota: Quota) -> None:
    held = hold(session, actor, quota, nodes=4)
    assert (held.state, held.held_until) == (BookingState.HELD, NOW + timedelta(minutes=10))
    other = factories.quota(session, factories.application(session, factories.person(session), quota.cluster))
    rival = factories.actor_of(other.application.applicant)
    with pytest.raises(NoCapacity):
        hold(session, rival, other)
    assert ledger.balance(session, quota).booked_ahead == 320 * HOUR
    assert session.scalars(select(OutboxItem)).all() == []
    desired = read_desired(session, quota.cluster.slug, RULES.materialise, NOW)
    assert desired is not None
    assert desired.wanted.reservations == {}
    assert desired.tracked == {}


def test_accepted_it_is_a_booking_with_a_letter(session: Session, actor: Actor, quota: Quota) -> None:
    held = hold(session, actor, quota)
    at = NOW + timedelta(minutes=9, seconds=59)
    offers.accept(session, actor, held, expected_version=held.version, now=at)
    assert held.state is BookingState.CONFIRMED
    assert session.scalars(select(OutboxItem.letter)).all() == ["booking_confirmed"]
    assert bookings.advance(session, NOW + ONE)[BookingState.LAPSED] == 0
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == ["booking.held", "booking.confirmed"]
    desired = read_desired(session, quota.cluster.slug, RULES.materialise, NOW)
    assert desired is not None
    assert list(desired.wanted.reservations) == [held.reservation_name]
    events.verify(session)


def test_what_nobody_accepts_lapses_and_costs_nothing(session: Session, actor: Actor, quota: Quota) -> None:
    held = hold(session, actor, quota, nodes=4)
    late = NOW + timedelta(minutes=10)
    with pytest.raises(WrongState):
        offers.accept(session, actor, held, expected_version=held.version, now=late)
    assert bookings.advance(session, late)[BookingState.LAPSED] == 1
    assert held.state is BookingState.LAPSED
    assert session.scalars(select(NodeSlot)).all() == []
    assert ledger.balance(session, quota).charged == 0
    with pytest.raises(Stale):
        offers.accept(session, actor, held, expected_version=1, now=NOW)
    hold(session, actor, quota, nodes=4, now=late)
    desired = read_desired(session, quota.cluster.slug, RULES.materialise, late)
    assert desired is not None
    assert desired.tracked[held.reservation_name].over


def test_a_person_holds_one_offer_at_a_time(session: Session, actor: Actor, quota: Quota) -> None:
    first = hold(session, actor, quota, nodes=4)
    second = hold(session, actor, quota, nodes=4, start=SOON + ONE)  # its hours overlap with the first's
    assert (first.state, second.state) == (BookingState.LAPSED, BookingState.HELD)
    full(session, quota, SOON + timedelta(days=5), 24, nodes=1)
    with pytest.raises(NoCapacity):
        hold(session, actor, quota, nodes=4, start=SOON + timedelta(days=5))
    assert second.state is BookingState.HELD
    assert len(second.slots) == 4


def test_an_offer_is_given_up_by_choice(session: Session, actor: Actor, quota: Quota) -> None:
    held = hold(session, actor, quota)
    offers.release(session, actor, held, expected_version=held.version, now=NOW)
    assert held.state is BookingState.LAPSED
    with pytest.raises(WrongState):
        offers.release(session, actor, held, expected_version=held.version, now=NOW)
    booked = bookings.book(session, actor, quota, Ask(1, 8, SOON, SOON + TEN), rules=RULES, now=NOW)
    with pytest.raises(WrongState):
        offers.release(session, actor, booked, expected_version=booked.version, now=NOW)


def test_giving_an_offer_back_like_a_booking_does_the_same(
    session: Session, actor: Actor, quota: Quota
) -> None:
    held = hold(session, actor, quota)
    done = bookings.cancel(session, actor, held, reason="", expected_version=held.version, now=NOW)
    assert (done.charged, held.state) == (0, BookingState.LAPSED)
    assert session.scalars(select(OutboxItem)).all() == []


def test_a_quota_closed_meanwhile_accepts_nothing(session: Session, actor: Actor, quota: Quota) -> None:
    held = hold(session, actor, quota)
    quota.state = QuotaState.CLOSED
    session.flush()
    with pytest.raises(WrongState):
        offers.accept(session, actor, held, expected_version=held.version, now=NOW)


def test_cleaning_stays_free_after_each_booking(session: Session, actor: Actor, quota: Quota) -> None:
    rules = replace(RULES, cleaning=ONE)
    policy = replace(POLICY, bookings=rules)
    booking = bookings.book(session, actor, quota, Ask(4, 8, SOON, SOON + TEN), rules=rules, now=NOW)
    assert {slot.ends_at for slot in booking.slots} == {SOON + TEN + ONE}
    assert booking.gpu_seconds == 320 * HOUR  # nobody pays for cleaning
    wish = Wish(1, 8, TEN, earliest_at=SOON, latest_at=SOON + timedelta(days=2))
    found = ask(session, actor, quota, wish, policy)
    assert starts(found)[OfferKind.EARLIEST] == SOON + TEN + ONE
    with pytest.raises(NoCapacity):
        bookings.book(session, actor, quota, Ask(1, 8, SOON - TEN, SOON), rules=rules, now=NOW)
    booking.reservation.state, booking.reservation.seen_at = ReservationState.RESERVED, NOW
    bookings.advance(session, SOON)
    at = SOON + 2 * ONE
    bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=at)
    assert {slot.ends_at for slot in booking.slots} == {at + ONE}


# late binding

FAR = NOW + timedelta(days=10)


def checkered(session: Session, quota: Quota) -> list[Booking]:
    """Two of four nodes are free at any time of twenty hours, and no two of them all the time."""
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    other = factories.quota(
        session, factories.application(session, factories.person(session), quota.cluster, gpu_hours=90_000)
    )
    return [
        factories.booking(session, other, on=on, starts_at=start, hours=10)
        for on, start in ((nodes[:2], FAR), (nodes[2:], FAR + TEN))
    ]


def test_names_given_early_are_no_obstacle(session: Session, actor: Actor, quota: Quota) -> None:
    others = checkered(session, quota)
    versions = [other.version for other in others]
    wish = Wish(2, 8, 2 * TEN, earliest_at=FAR, latest_at=FAR + 2 * TEN)
    found = ask(session, actor, quota, wish)
    assert [offer.ask.starts_at for offer in found.offers] == [FAR]
    booking = offers.hold(session, actor, quota, found.offers[0].ask, rules=RULES, now=NOW)
    slots = session.scalars(select(NodeSlot)).all()
    assert sorted((slot.starts_at - FAR, slot.ends_at - FAR) for slot in slots) == sorted(
        2 * [(timedelta(0), TEN)] + 2 * [(TEN, 2 * TEN)] + 2 * [(timedelta(0), 2 * TEN)]
    )
    assert len({slot.node_id for slot in booking.slots}) == 2
    # nobody was moved and nobody is told
    assert [other.version for other in others] == versions
    assert session.scalars(select(OutboxItem)).all() == []
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == ["cluster.rebound", "booking.held"]


@pytest.mark.parametrize("why", ["pinned", "known to the cluster", "soon"])
def test_what_is_fixed_keeps_its_nodes(session: Session, actor: Actor, quota: Quota, why: str) -> None:
    others = checkered(session, quota)
    now = NOW
    for other in others:
        if why == "pinned":
            other.pin = "Their data lies there."
        elif why == "known to the cluster":
            other.reservation.state = ReservationState.RESERVED
    if why == "soon":
        now = FAR - timedelta(days=7)
    session.flush()
    wish = Wish(2, 8, 2 * TEN, earliest_at=FAR, latest_at=FAR + 2 * TEN)
    found = ask(session, actor, quota, wish, now=now)
    assert found.offers == ()
    assert found.why is not None
    assert found.why.constraint is Constraint.CAPACITY
    with pytest.raises(NoCapacity):
        offers.hold(session, actor, quota, wish.at(FAR), rules=RULES, now=now)


def test_an_offer_is_never_held_beyond_its_start(session: Session, actor: Actor, quota: Quota) -> None:
    """Two minutes before the hour: a yes after it would book what has begun, and charge for it."""
    now = FIRST - timedelta(minutes=2)
    held = offers.hold(session, actor, quota, Ask(1, 8, FIRST, FIRST + TEN), rules=RULES, now=now)
    assert held.held_until == FIRST
    with pytest.raises(WrongState):
        offers.accept(session, actor, held, expected_version=held.version, now=FIRST)


@pytest.mark.parametrize("minutes", [40, 45, 96, 180])
def test_every_offer_lies_on_a_boundary(session: Session, actor: Actor, quota: Quota, minutes: int) -> None:
    step = timedelta(minutes=minutes)
    rules = replace(RULES, boundary=step, min_length=step)
    full(session, quota, NOW, 5)
    found = ask(session, actor, quota, Wish(1, 8, 2 * step), replace(POLICY, bookings=rules))
    assert found.offers
    for offer in found.offers:
        assert bookings.quote(session, actor, quota, offer.ask, rules=rules, now=NOW).fits
