"""Bookings on both databases: what is asked, what is held, what is charged."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, events, ledger, letters
from allocator.actors import ANONYMOUS, SYSTEM, Actor, Role
from allocator.booking import booking_letters, bookings
from allocator.booking.bookings import Ask
from allocator.errors import Forbidden, Invalid, NoCapacity, NotFound, SignInRequired, Stale, WrongState
from allocator.models import (
    Booking,
    Cluster,
    Event,
    JobRecord,
    Node,
    NodeSlot,
    NodeState,
    OutboxItem,
    Quota,
)
from allocator.policy import load_policy
from allocator.states import BookingState, QuotaState, ReservationState
from tests import factories
from tests.factories import HOUR, NOW

RULES = load_policy().bookings
SOON = NOW + timedelta(days=1)


@pytest.fixture
def quota(session: Session) -> Quota:
    """1,600 GPU-hours on four nodes of eight GPUs."""
    return factories.quota(session)


@pytest.fixture
def actor(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def ask(nodes: int = 1, gpus: int = 8, start: datetime = SOON, hours: int = 10) -> Ask:
    return Ask(nodes, gpus, start, start + timedelta(hours=hours))


def book(session: Session, actor: Actor, quota: Quota, wanted: Ask, now: datetime = NOW) -> Booking:
    return bookings.book(session, actor, quota, wanted, rules=RULES, now=now)


def reserved(session: Session, actor: Actor, quota: Quota, wanted: Ask) -> Booking:
    """A booking that the cluster holds."""
    booking = book(session, actor, quota, wanted)
    booking.reservation.state = ReservationState.RESERVED
    booking.reservation.seen_at = NOW
    return booking


def test_a_booking_holds_named_nodes_and_waits_for_the_cluster(
    session: Session, actor: Actor, quota: Quota
) -> None:
    booking = book(session, actor, quota, ask(nodes=2))
    assert booking.state is BookingState.CONFIRMED
    assert [(slot.node.name[-1], slot.gpu_from, slot.gpu_to) for slot in booking.slots] == [
        ("1", 0, 8),
        ("2", 0, 8),
    ]
    assert booking.reservation.state is ReservationState.PENDING
    assert booking.reservation.name == f"kezek-{booking.id}"
    event = session.scalars(select(Event)).one()
    assert (event.kind, event.actor_id, event.after["gpu_seconds"]) == (
        "booking.confirmed",
        actor.person_id,
        160 * HOUR,
    )
    assert session.scalars(select(OutboxItem.letter)).all() == ["booking_confirmed"]
    assert events.verify(session) == 1


def test_the_ledger_tells_where_every_hour_went(session: Session, actor: Actor, quota: Quota) -> None:
    ended = factories.booking(
        session, quota, starts_at=NOW - timedelta(days=3), hours=10, state=BookingState.ENDED
    )
    factories.booking(session, quota, hours=5, state=BookingState.CANCELLED)
    book(session, actor, quota, ask(hours=20))
    _job(session, quota, 1, ended.id, gpus=8, hours=3)
    _job(session, quota, 2, None, gpus=2, hours=4)
    session.flush()
    balance = ledger.balance(session, quota)
    assert balance == ledger.Balance(1600 * HOUR, 160 * HOUR, 80 * HOUR, 24 * HOUR, 8 * HOUR)
    assert (balance.charged, balance.available, balance.overrun) == (248 * HOUR, 1352 * HOUR, 0)
    assert ledger.used_in_bookings(session, [ended.id]) == {ended.id: 24 * HOUR}
    assert len(session.scalars(ledger.jobs(quota)).all()) == 2


def test_an_overrun_is_shown_and_never_a_negative_balance(session: Session) -> None:
    quota = factories.quota(session, gpu_hours=10)
    _job(session, quota, 1, None, gpus=8, hours=2)
    session.flush()
    balance = ledger.balance(session, quota)
    assert (balance.available, balance.overrun) == (0, 6 * HOUR)


def test_usage_is_cut_at_midnight(session: Session, quota: Quota) -> None:
    midnight = NOW.replace(hour=0)
    days = [(midnight + timedelta(days=n), midnight + timedelta(days=n + 1)) for n in range(-2, 1)]
    _job(session, quota, 1, None, gpus=8, hours=30, started=midnight - timedelta(hours=30))
    _job(session, quota, 2, None, gpus=1, hours=2, started=midnight + timedelta(hours=1))
    session.flush()
    assert ledger.usage_by_day(session, quota, days) == [8 * 6 * HOUR, 8 * 24 * HOUR, 2 * HOUR]


def _job(
    session: Session,
    quota: Quota,
    job_id: int,
    booking_id: int | None,
    *,
    gpus: int,
    hours: int,
    started: datetime = NOW - timedelta(days=3),
) -> None:
    session.add(
        JobRecord(
            cluster_id=quota.cluster_id,
            job_id=job_id,
            submitted_at=started,
            login="u",
            account=quota.account,
            state="COMPLETED",
            started_at=started,
            ended_at=started + timedelta(hours=hours),
            elapsed_seconds=hours * HOUR,
            gpus=gpus,
            gpu_seconds=gpus * hours * HOUR,
            quota_id=quota.id,
            booking_id=booking_id,
            read_at=NOW,
        )
    )


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (ask(nodes=0), "nodes"),
        (ask(nodes=5), "nodes"),
        (ask(gpus=0), "gpus_per_node"),
        (ask(gpus=9), "gpus_per_node"),
        (ask(nodes=2, gpus=4), "gpus_per_node"),
        (ask(hours=0), "hours"),
        (ask(hours=24 * 29), "hours"),
        (ask(hours=-3), "hours"),
        (ask(start=NOW - timedelta(hours=1)), "starts_at"),
        (ask(start=NOW), "starts_at"),
        (ask(start=NOW + timedelta(days=91)), "starts_at"),
        (ask(start=NOW + timedelta(days=60)), "starts_at"),
        (ask(start=SOON + timedelta(minutes=30)), "starts_at"),
        (Ask(1, 8, SOON, SOON + timedelta(minutes=90)), "hours"),
        (ask(nodes=4, hours=51), "balance"),
    ],
)
def test_what_breaks_a_rule_is_refused_beside_its_field(
    session: Session, actor: Actor, quota: Quota, wanted: Ask, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        book(session, actor, quota, wanted)
    assert field in caught.value.fields
    assert session.scalars(select(Booking)).all() == []


def test_a_closed_quota_books_nothing(session: Session, actor: Actor, quota: Quota) -> None:
    quota.state = QuotaState.CLOSED
    session.flush()
    with pytest.raises(Invalid) as caught:
        book(session, actor, quota, ask())
    assert list(caught.value.fields) == ["quota"]


def test_only_members_book(session: Session, quota: Quota) -> None:
    stranger = factories.actor_of(factories.person(session))
    operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
    for who, error in ((stranger, NotFound), (operator, Forbidden), (ANONYMOUS, SignInRequired)):
        with pytest.raises(error):
            book(session, who, quota, ask())


def test_when_full_the_nearest_starts_are_named(session: Session, actor: Actor, quota: Quota) -> None:
    book(session, actor, quota, ask(nodes=4, hours=10))
    wanted = ask(nodes=1, start=SOON + timedelta(hours=4), hours=4)
    with pytest.raises(NoCapacity):
        book(session, actor, quota, wanted)
    found = bookings.quote(session, actor, quota, wanted, rules=RULES, now=NOW)
    assert (found.before, found.after) == (SOON - timedelta(hours=4), SOON + timedelta(hours=10))
    found = bookings.quote(session, actor, quota, ask(start=NOW - timedelta(days=1)), rules=RULES, now=NOW)
    assert not found.fits
    assert found.after == NOW + timedelta(hours=1)
    assert found.remaining == (1600 - 320 - 80) * HOUR


def test_as_soon_as_possible_waits_for_what_is_taken(session: Session, actor: Actor, quota: Quota) -> None:
    first = bookings.earliest(session, quota, ask(4).shape, timedelta(hours=3), rules=RULES, now=NOW)
    assert first == NOW + timedelta(hours=1)
    book(session, actor, quota, ask(nodes=1, start=first, hours=10))
    second = bookings.earliest(session, quota, ask(4).shape, timedelta(hours=3), rules=RULES, now=NOW)
    assert second == first + timedelta(hours=10)
    shared = bookings.earliest(session, quota, ask(3).shape, timedelta(hours=3), rules=RULES, now=NOW)
    assert shared == first


def test_only_nodes_that_are_up_are_given(session: Session, actor: Actor, quota: Quota) -> None:
    for node in session.scalars(select(Node).order_by(Node.name).limit(3)):
        node.state = NodeState.DOWN
    session.flush()
    assert book(session, actor, quota, ask()).slots[0].node.name.endswith("4")
    with pytest.raises(NoCapacity):
        book(session, actor, quota, ask())


def test_two_parts_share_a_node(session: Session, actor: Actor, quota: Quota) -> None:
    first, second = book(session, actor, quota, ask(gpus=3)), book(session, actor, quota, ask(gpus=5))
    assert first.slots[0].node_id == second.slots[0].node_id
    assert (second.slots[0].gpu_from, second.slots[0].gpu_to) == (3, 8)


def test_before_its_start_everything_is_given_back(session: Session, actor: Actor, quota: Quota) -> None:
    booking = book(session, actor, quota, ask(nodes=4))
    done = bookings.cancel(
        session, actor, booking, reason="not needed", expected_version=booking.version, now=NOW
    )
    assert (done.given_back, done.charged) == (320 * HOUR, 0)
    assert booking.state is BookingState.CANCELLED
    assert session.scalars(select(NodeSlot)).all() == []
    assert ledger.balance(session, quota).charged == 0
    book(session, actor, quota, ask(nodes=4))


def test_a_running_booking_ends_now_and_is_charged_until_now(
    session: Session, actor: Actor, quota: Quota
) -> None:
    booking = reserved(session, actor, quota, ask(nodes=4))
    assert bookings.advance(session, SOON)[BookingState.STARTED] == 1
    now = SOON + timedelta(hours=4, microseconds=1)
    done = bookings.cancel(session, actor, booking, reason="ready", expected_version=booking.version, now=now)
    assert done.charged == 128 * HOUR + 32  # the second that had begun
    assert done.given_back + done.charged == 320 * HOUR
    assert (booking.state, booking.ends_at) == (BookingState.ENDED, SOON + timedelta(hours=4, seconds=1))
    assert {slot.ends_at for slot in booking.slots} == {booking.ends_at}
    assert ledger.balance(session, quota).booked_passed == done.charged
    assert events.verify(session) == 3


def test_started_but_not_yet_marked_is_charged_too(session: Session, actor: Actor, quota: Quota) -> None:
    booking = reserved(session, actor, quota, ask())
    done = bookings.cancel(
        session, actor, booking, reason="", expected_version=1, now=SOON + timedelta(hours=1)
    )
    assert done.charged == 8 * HOUR
    assert booking.state is BookingState.ENDED


@pytest.mark.parametrize("state", [ReservationState.BLOCKED, ReservationState.PENDING])
def test_what_the_cluster_never_reserved_costs_nothing(
    session: Session, actor: Actor, quota: Quota, state: ReservationState
) -> None:
    """It refused, or it was away from beginning to end."""
    given_back, ended = book(session, actor, quota, ask()), book(session, actor, quota, ask())
    for booking in (given_back, ended):
        booking.reservation.state = state
    bookings.advance(session, SOON)
    now = SOON + timedelta(hours=2)
    done = bookings.cancel(
        session, actor, given_back, reason="", expected_version=given_back.version, now=now
    )
    assert done.charged == 0
    assert bookings.advance(session, SOON + timedelta(days=1))[BookingState.CANCELLED] == 1
    assert ended.state is BookingState.CANCELLED
    told = session.scalars(select(OutboxItem.details).where(OutboxItem.letter == "booking_cancelled")).all()
    assert [(letter["booking"], letter["given_back"]) for letter in told] == [(ended.id, "80")]
    assert ledger.balance(session, quota).charged == 0


def test_a_stale_page_gives_nothing_back(session: Session, actor: Actor, quota: Quota) -> None:
    booking = book(session, actor, quota, ask())
    seen = booking.version
    bookings.advance(session, SOON)
    with pytest.raises(Stale):
        bookings.cancel(session, actor, booking, reason="", expected_version=seen, now=SOON)


def test_nothing_is_given_back_twice(session: Session, actor: Actor, quota: Quota) -> None:
    booking = book(session, actor, quota, ask())
    bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=NOW)
    with pytest.raises(WrongState):
        bookings.cancel(session, actor, booking, reason="", expected_version=booking.version, now=NOW)


def test_operators_give_back_and_the_owner_gets_a_letter(
    session: Session, actor: Actor, quota: Quota
) -> None:
    booking = book(session, actor, quota, ask())
    operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
    auditor = factories.actor_of(factories.person(session, roles=[Role.AUDITOR]))
    with pytest.raises(Forbidden):
        bookings.cancel(session, auditor, booking, reason="x", expected_version=1, now=NOW)
    bookings.cancel(session, operator, booking, reason="repair", expected_version=1, now=NOW)
    letters = session.scalars(select(OutboxItem).order_by(OutboxItem.id)).all()
    assert [(letter.letter, letter.recipient_id) for letter in letters] == [
        ("booking_confirmed", actor.person_id),
        ("booking_cancelled", actor.person_id),
    ]


def test_time_passes_once_even_after_a_long_pause(session: Session, actor: Actor, quota: Quota) -> None:
    booking = reserved(session, actor, quota, ask())
    long_after = SOON + timedelta(days=3)
    assert bookings.advance(session, long_after) == {
        BookingState.LAPSED: 0,
        BookingState.STARTED: 1,
        BookingState.CANCELLED: 0,
        BookingState.ENDED: 1,
    }
    assert booking.state is BookingState.ENDED
    assert booking.version == 3
    assert sum(bookings.advance(session, long_after).values()) == 0
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == ["booking.confirmed", "booking.started", "booking.ended"]


def test_nodes_are_kept_as_they_were_last_seen(session: Session) -> None:
    capacity.declare_clusters(session, [("alem", "Alem"), ("farabi", "Farabi")], NOW)
    capacity.declare_clusters(session, [("alem", "Alem.Cloud")], NOW)
    cluster = session.scalars(select(Cluster).filter_by(slug="alem")).one()
    assert cluster.title == "Alem.Cloud"
    up = [capacity.NodeSeen(f"n{n}", "gpu", "h200", 8, NodeState.UP) for n in (1, 2, 3)]
    capacity.save_nodes(session, cluster, up, NOW)
    assert capacity.gpu_types(session, cluster) == {"h200": capacity.GpuType("h200", 3, 8, 24, 3, 24)}
    before = session.scalars(select(Event)).all()
    capacity.save_nodes(session, cluster, up, NOW + timedelta(minutes=1))
    assert len(session.scalars(select(Event)).all()) == len(before)
    down = capacity.NodeSeen("n1", "gpu", "h200", 8, NodeState.DOWN, "fan")
    capacity.save_nodes(session, cluster, [down, up[1]], NOW + timedelta(minutes=2))
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds[len(before) :] == ["node.down", "node.gone"]
    assert capacity.gpu_types(session, cluster) == {"h200": capacity.GpuType("h200", 2, 8, 16, 1, 8)}
    gone = session.scalars(select(Node).filter_by(name="n3")).one()
    assert gone.seen_at == NOW + timedelta(minutes=1)
    fewer = capacity.NodeSeen("n2", "gpu", "h200", 4, NodeState.UP)
    capacity.save_nodes(session, cluster, [down, fewer], NOW + timedelta(minutes=3))
    last = session.scalars(select(Event).order_by(Event.seq.desc())).first()
    assert last is not None
    assert (last.kind, last.before["gpus"], last.after["gpus"]) == ("node.changed", 8, 4)


def test_booked_shares_are_summed_by_day(session: Session, actor: Actor, quota: Quota) -> None:
    book(session, actor, quota, ask(nodes=2, start=SOON, hours=30))
    book(session, actor, quota, ask(gpus=3, start=SOON, hours=1))
    days = [(NOW + timedelta(days=n), NOW + timedelta(days=n + 1)) for n in range(4)]
    booked = capacity.booked_by_window(session, [quota.cluster], days)
    assert booked == {(quota.cluster_id, "h200"): [0, (16 * 24 + 3) * HOUR, 16 * 6 * HOUR, 0]}


@pytest.mark.parametrize("lang", ["kk", "ru", "en"])
def test_every_letter_about_a_booking_can_be_read(
    session: Session, actor: Actor, quota: Quota, lang: str
) -> None:
    booking = book(session, actor, quota, ask(hours=3))
    booking_letters.cancelled(session, booking, 12 * HOUR, SYSTEM, now=NOW)
    booking_letters.blocked(session, booking, "The nodes are still busy.", now=NOW)
    for letter in session.scalars(select(OutboxItem)):
        subject, body = letters.render(letter.letter, lang, "Aigerim", letter.details, "https://kezek.kz")
        assert str(booking.id) in subject
        assert f"https://kezek.kz/bookings/{booking.id}" in body
        assert "%(" not in subject + body


def test_the_limit_of_nodes_says_how_many_are_only_announced(
    session: Session, actor: Actor, quota: Quota
) -> None:
    node = quota.cluster.nodes[0]
    node.state, node.joins_at = NodeState.EXPECTED, NOW + timedelta(days=9)
    with pytest.raises(Invalid) as refused:
        book(session, actor, quota, ask(nodes=5))
    (fault,) = refused.value.fields["nodes"]
    assert fault.message.startswith("Choose between 1 and %(most)s nodes; %(awaited)s of them are announced")
    assert fault.details == {"most": 4, "awaited": 1}
