"""Outages on both databases: planned, shown with whom they move, published, called off, over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor, Role
from allocator.booking import bookings
from allocator.booking.bookings import Ask
from allocator.errors import Forbidden, Invalid, NoCapacity, Stale, WrongState
from allocator.models import (
    Booking,
    BookingMove,
    Event,
    Node,
    NodeSlot,
    OutageKind,
    OutboxItem,
    Quota,
)
from allocator.policy import load_policy
from allocator.states import BookingState, MoveState, OutageState, RepairState
from allocator.upkeep import moves, outage_queries, outages, repairs
from allocator.upkeep.mending import ChangeKind
from allocator.upkeep.moves import Placement
from allocator.upkeep.outages import OutagePlan
from tests import factories, upkeep
from tests.factories import NOW

RULES = load_policy().bookings
SOON = NOW + timedelta(days=3)
HOUR = timedelta(hours=1)


@pytest.fixture
def quota(session: Session) -> Quota:
    """Plenty of hours on four nodes of eight GPUs."""
    return factories.quota(session, gpu_hours=100_000)


@pytest.fixture
def operator(session: Session) -> Actor:
    return factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))


def nodes_of(quota: Quota) -> list[Node]:
    return sorted(quota.cluster.nodes, key=lambda node: node.name)


def plan(
    nodes: Sequence[Node],
    start: datetime = SOON,
    hours: int = 12,
    kind: OutageKind = OutageKind.MAINTENANCE,
    reason: str = "New firmware for the switches.",
) -> OutagePlan:
    return OutagePlan(kind, start, start + hours * HOUR, reason, tuple(node.id for node in nodes))


def test_a_draft_shows_whom_it_would_move_and_moves_nobody(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    (repair,) = outage_queries.proposals(session, outage)
    (change,) = repairs.variants_of(repair)["fewest_moves"].changes
    # the night before is free, and nearer than the time after the maintenance
    assert (change.kind, change.booking_id) == (ChangeKind.MOVE, booking.id)
    assert change.to_starts_at == SOON - 6 * HOUR
    assert (booking.starts_at, outage.state) == (SOON, OutageState.DRAFT)
    assert session.scalars(select(NodeSlot.outage_id).where(NodeSlot.outage_id.is_not(None))).all() == []
    assert session.scalars(select(OutboxItem)).all() == []


def test_publishing_moves_tells_why_and_holds_the_nodes(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    (moved,) = outages.publish(
        session, operator, outage, "fewest_drops", expected_version=outage.version, rules=RULES, now=NOW
    )
    session.flush()
    assert (booking.starts_at, booking.ends_at) == (SOON - 6 * HOUR, SOON)
    assert {slot.starts_at for slot in booking.slots} == {SOON - 6 * HOUR}
    assert (moved.from_starts_at, moved.reason) == (SOON, "New firmware for the switches.")
    assert moved.state is MoveState.TOLD
    assert moved.answer_until == min(NOW + RULES.move_answer, moved.to_starts_at or NOW)
    (letter,) = session.scalars(select(OutboxItem)).all()
    assert (letter.letter, letter.details["reason"]) == ("booking_moved", "New firmware for the switches.")
    assert outage.state is OutageState.PUBLISHED
    assert len(outage.slots) == 4
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == [
        "outage.drafted",
        "repair.waiting",
        "repair.proposed",
        "booking.moved",
        "repair.applied",
        "outage.published",
    ]
    with pytest.raises(IntegrityError, match="node_slots_no_overlap"), session.begin_nested():
        factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=1)
    events.verify(session)


def test_nobody_can_book_into_a_published_outage(session: Session, quota: Quota, operator: Actor) -> None:
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    actor = factories.actor_of(quota.application.applicant)
    with pytest.raises(NoCapacity):
        bookings.book(session, actor, quota, Ask(1, 8, SOON, SOON + HOUR), rules=RULES, now=NOW)


def test_other_nodes_at_the_same_time_are_no_move(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:2], starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes[:2]), rules=RULES, now=NOW)
    made = outages.publish(
        session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW
    )
    assert made == []
    assert {slot.node.name for slot in booking.slots} == {node.name for node in nodes[2:]}
    assert (booking.starts_at, booking.version) == (SOON, 1)
    assert session.scalars(select(OutboxItem)).all() == []


def test_a_started_and_a_pinned_booking_never_move(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    running = factories.booking(
        session, quota, on=nodes[:1], starts_at=NOW - HOUR, hours=100, state=BookingState.STARTED
    )
    pinned = factories.booking(session, quota, on=nodes[1:2], starts_at=SOON, hours=6)
    moves.pin(session, operator, pinned, reason="A demonstration.", expected_version=1, now=NOW)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    (repair,) = outage_queries.proposals(session, outage)
    for variant in repairs.variants_of(repair).values():
        assert (variant.changes, set(variant.stuck)) == ((), {running.id, pinned.id})
    with pytest.raises(WrongState, match=str(pinned.id)):
        outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)


def test_an_outage_of_broken_nodes_begins_behind_what_runs_there(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)[:1]
    running = factories.booking(
        session, quota, on=nodes, starts_at=NOW - HOUR, hours=10, state=BookingState.STARTED
    )
    broken = plan(nodes, NOW - HOUR, 48, OutageKind.OUTAGE)
    outage = upkeep.draft(session, operator, quota.cluster, broken, rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    (slot,) = outage.slots
    assert (slot.starts_at, slot.ends_at) == (running.ends_at, outage.ends_at)


def test_what_fits_nowhere_is_dropped_and_given_back(session: Session, operator: Actor) -> None:
    quota = factories.quota(session, gpu_hours=100_000, valid_until=SOON + 12 * HOUR)
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=SOON, hours=12)
    outage = upkeep.draft(
        session, operator, quota.cluster, plan(nodes, SOON - 48 * HOUR, 72), rules=RULES, now=NOW
    )
    (moved,) = outages.publish(
        session, operator, outage, "fewest_drops", expected_version=1, rules=RULES, now=NOW
    )
    assert (booking.state, booking.slots) == (BookingState.CANCELLED, [])
    assert (moved.to_starts_at, moved.state) == (None, MoveState.REFUNDED)
    assert session.scalars(select(OutboxItem.letter)).all() == ["booking_dropped"]


def test_a_changed_world_makes_the_proposal_stale(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    with pytest.raises(Stale):
        outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    upkeep.prepare(session, operator, outage, rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    states = session.execute(select(BookingMove.state)).scalars().all()
    assert states == [MoveState.TOLD]


def test_the_place_meant_for_a_booking_may_be_taken_meanwhile(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes[:1]), rules=RULES, now=NOW)
    for node in nodes[1:]:
        factories.booking(session, quota, on=[node], starts_at=SOON, hours=6)
    with pytest.raises(Stale):
        outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    session.expire_all()
    assert [slot.node_id for slot in booking.slots] == [nodes[0].id]


def test_calling_off_frees_the_nodes(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(Stale):
        outages.call_off(
            session, operator, outage, reason="Not needed.", expected_version=1, rules=RULES, now=NOW
        )
    outages.call_off(
        session, operator, outage, reason="Not needed.", expected_version=outage.version, rules=RULES, now=NOW
    )
    assert (outage.state, outage.slots) == (OutageState.CANCELLED, [])


def test_ending_early_cuts_its_slots_off(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    middle = SOON + HOUR
    outages.call_off(
        session, operator, outage, reason="Done.", expected_version=outage.version, rules=RULES, now=middle
    )
    assert (outage.state, outage.ends_at) == (OutageState.ENDED, middle)
    assert {slot.ends_at for slot in outage.slots} == {middle}


def test_time_ends_an_outage(session: Session, quota: Quota, operator: Actor) -> None:
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    assert outages.end_due(session, SOON + 12 * HOUR) == 0
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    assert outages.end_due(session, SOON) == 0
    assert outages.end_due(session, SOON + 12 * HOUR) == 1
    assert outage.state is OutageState.ENDED


def test_a_draft_can_be_changed_and_given_up(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    upkeep.change(
        session, operator, outage, plan(nodes[:1], hours=2), expected_version=1, rules=RULES, now=NOW
    )
    assert [one.node_id for one in outage.nodes] == [nodes[0].id]
    assert outage.version == 2
    outages.call_off(
        session, operator, outage, reason="Not needed.", expected_version=2, rules=RULES, now=NOW
    )
    assert outage.state is OutageState.CANCELLED
    assert outage_queries.proposals(session, outage) == []


@pytest.mark.parametrize(
    ("start", "hours", "reason", "field"),
    [
        (SOON, 0, "Why", "ends_at"),
        (NOW - HOUR, 4, "Why", "starts_at"),
        (NOW - 9 * HOUR, 4, "Why", "ends_at"),
        (SOON, 4, " ", "reason"),
    ],
)
def test_what_a_plan_must_be(
    session: Session, quota: Quota, operator: Actor, start: datetime, hours: int, reason: str, field: str
) -> None:
    wrong = plan(nodes_of(quota), start, hours, reason=reason)
    with pytest.raises(Invalid) as error:
        upkeep.draft(session, operator, quota.cluster, wrong, rules=RULES, now=NOW)
    assert field in error.value.fields


def test_two_outages_cannot_have_one_node(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(Invalid, match="nodes"):
        upkeep.draft(session, operator, quota.cluster, plan(nodes[:1]), rules=RULES, now=NOW)


def test_only_operators_plan_outages(session: Session, quota: Quota) -> None:
    auditor = factories.actor_of(factories.person(session, roles=[Role.AUDITOR]))
    with pytest.raises(Forbidden):
        upkeep.draft(session, auditor, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    assert session.scalars(outage_queries.list_outages(auditor)).all() == []


def test_an_open_proposal_is_given_up_with_its_draft(session: Session, quota: Quota, operator: Actor) -> None:
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    (first,) = outage_queries.proposals(session, outage)
    upkeep.prepare(session, operator, outage, rules=RULES, now=NOW)
    (second,) = outage_queries.proposals(session, outage)
    assert (first.state, second.state) == (RepairState.DISCARDED, RepairState.PROPOSED)
    assert session.get_one(Booking, factories.booking(session, quota).id).version == 1


def test_who_was_moved_may_go_back_when_it_is_called_off(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    owner = factories.actor_of(quota.application.applicant)
    booking = factories.booking(session, quota, on=nodes, starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    (moved,) = outages.publish(
        session, operator, outage, "fewest_drops", expected_version=1, rules=RULES, now=NOW
    )
    assert SOON not in moves.free_starts(session, moved, rules=RULES, now=NOW)
    moves.accept(session, owner, moved, now=NOW)
    again = outages.call_off(
        session, operator, outage, reason="The parts are late.", expected_version=2, rules=RULES, now=NOW
    )
    assert (again, moved.state, moved.answered_at) == (1, MoveState.TOLD, None)
    assert booking.starts_at == SOON - 6 * HOUR
    assert moved.answer_until == min(NOW + RULES.move_answer, booking.starts_at)
    assert SOON in moves.free_starts(session, moved, rules=RULES, now=NOW)
    moves.choose(session, owner, moved, SOON, expected_version=booking.version, rules=RULES, now=NOW + HOUR)
    assert booking.starts_at == SOON
    letters = session.execute(select(OutboxItem.letter, OutboxItem.recipient_id).order_by(OutboxItem.id))
    assert [tuple(row) for row in letters][:2] == [
        ("booking_moved", owner.person_id),
        ("booking_time_free", owner.person_id),
    ]
    events.verify(session)


def test_who_was_dropped_hears_that_the_time_is_free(session: Session, operator: Actor) -> None:
    quota = factories.quota(session, gpu_hours=100_000, valid_from=SOON, valid_until=SOON + 6 * HOUR)
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes, starts_at=SOON, hours=6)
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_drops", expected_version=1, rules=RULES, now=NOW)
    outages.call_off(
        session, operator, outage, reason="The parts are late.", expected_version=2, rules=RULES, now=NOW
    )
    letters = session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)).all()
    assert letters == ["booking_dropped", "dropped_time_free"]


def test_an_outage_that_is_over_is_not_called_off(session: Session, quota: Quota, operator: Actor) -> None:
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(WrongState):
        outages.call_off(
            session,
            operator,
            outage,
            reason="Done.",
            expected_version=2,
            rules=RULES,
            now=outage.ends_at + HOUR,
        )


def test_of_two_drafts_for_a_node_the_second_says_which_is_in_its_way(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    first, second = (
        upkeep.draft(session, operator, quota.cluster, plan(nodes), rules=RULES, now=NOW) for _ in range(2)
    )
    outages.publish(session, operator, first, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(WrongState) as caught:
        outages.publish(session, operator, second, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    assert caught.value.details == {"number": first.id}


def test_a_pin_that_was_taken_off_asks_for_another_look(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    booking.pin = "A demonstration."
    session.flush()
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes[:1]), rules=RULES, now=NOW)
    moves.unpin(session, operator, booking, expected_version=booking.version, now=NOW)
    with pytest.raises(Stale):
        outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    upkeep.prepare(session, operator, outage, rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    assert {slot.node_id for slot in booking.slots}.isdisjoint({nodes[0].id})


def test_what_was_moved_by_hand_is_not_in_the_way(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    booking.pin = "A demonstration."
    session.flush()
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes[:1]), rules=RULES, now=NOW)
    moves.by_hand(
        session,
        operator,
        booking,
        Placement(SOON, (nodes[1].name,)),
        reason="Its node is serviced.",
        expected_version=booking.version,
        rules=RULES,
        now=NOW,
    )
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    assert outage.state is OutageState.PUBLISHED


def test_only_a_draft_is_worked_out_again(session: Session, quota: Quota, operator: Actor) -> None:
    outage = upkeep.draft(session, operator, quota.cluster, plan(nodes_of(quota)), rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    with pytest.raises(WrongState):
        upkeep.prepare(session, operator, outage, rules=RULES, now=NOW)
