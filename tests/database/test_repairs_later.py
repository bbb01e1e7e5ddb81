"""Between a proposal and its decision the world goes on, on both databases: what may still be applied."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.errors import Invalid, Stale, WrongState
from allocator.models import (
    Booking,
    BookingMove,
    Event,
    Node,
    NodeSlot,
    OutageKind,
    Quota,
    Repair,
    RepairCause,
)
from allocator.policy import load_policy
from allocator.states import BookingState, MoveState, RepairState
from allocator.upkeep import moves, outage_queries, outages, phases, repair_steps, repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.moves import Placement
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.repair_inputs import affected
from tests import factories, upkeep
from tests.factories import NOW

RULES = load_policy().bookings
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def quota(session: Session) -> Quota:
    return factories.quota(session, gpu_hours=100_000)


@pytest.fixture
def operator(session: Session) -> Actor:
    return factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))


@pytest.fixture
def owner(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def nodes_of(quota: Quota) -> list[Node]:
    return sorted(quota.cluster.nodes, key=lambda node: node.name)


def propose(
    session: Session, operator: Actor, quota: Quota, node: Node, since: datetime, hours: int
) -> Repair:
    return upkeep.propose(
        session,
        operator,
        quota.cluster,
        "h200",
        RepairCause.NODES_DOWN,
        [Loss(node.id, since, since + hours * HOUR)],
        details={"nodes": [node.name]},
        rules=RULES,
        now=NOW,
    )


def apply(session: Session, operator: Actor, repair: Repair, at: datetime = NOW) -> list[BookingMove]:
    return repair_steps.apply(
        session,
        operator,
        repair,
        "fewest_drops",
        reason="A power supply failed.",
        expected_version=repair.version,
        rules=RULES,
        now=at,
    )


def moved_booking(session: Session, operator: Actor, quota: Quota) -> BookingMove:
    """A booking of all nodes, moved to another day."""
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes, starts_at=NOW + 3 * DAY, hours=12)
    (moved,) = apply(session, operator, propose(session, operator, quota, nodes[0], NOW + 3 * DAY, 12))
    return moved


def test_what_was_frozen_since_stays(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes[:1], starts_at=NOW + 6 * HOUR, hours=6)
    repair = propose(session, operator, quota, nodes[0], NOW, 24)
    phases.freeze(session, operator, quota.cluster, NOW + DAY, reason="A visit.", now=NOW)
    with pytest.raises(Stale):
        apply(session, operator, repair)


def test_an_old_proposal_moves_nobody_to_tonight(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=NOW + 3 * DAY, hours=6)
    repair = propose(session, operator, quota, nodes[0], NOW + 3 * DAY - HOUR, 96)
    (change,) = repairs.variants_of(repair)["fewest_drops"].changes
    assert change.to_starts_at is not None
    assert change.to_starts_at < booking.starts_at
    with pytest.raises(Stale):
        apply(session, operator, repair, change.to_starts_at - 2 * HOUR)
    assert len(apply(session, operator, repair, change.to_starts_at - DAY)) == 1


def test_what_was_bound_elsewhere_since_is_not_moved(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    others = [
        factories.booking(session, quota, on=[node], starts_at=NOW + 30 * DAY, hours=6) for node in nodes[1:]
    ]
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=NOW + 30 * DAY, hours=6)
    repair = propose(session, operator, quota, nodes[0], NOW + 30 * DAY, 6)
    # late binding: one of the others is gone, and this one has its node; its version has not changed
    session.execute(delete(NodeSlot).where(NodeSlot.booking_id == others[0].id))
    others[0].state = BookingState.CANCELLED
    booking.slots[0].node_id = nodes[1].id
    session.flush()
    with pytest.raises(Stale):
        apply(session, operator, repair)
    assert booking.starts_at == NOW + 30 * DAY


def test_an_outages_repair_is_decided_with_the_outage(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes[:1], starts_at=NOW + 3 * DAY, hours=6)
    plan = OutagePlan(OutageKind.MAINTENANCE, NOW + 3 * DAY, NOW + 4 * DAY, "New fans.", (nodes[0].id,))
    outage = upkeep.draft(session, operator, quota.cluster, plan, rules=RULES, now=NOW)
    (repair,) = outage_queries.proposals(session, outage)
    with pytest.raises(WrongState):
        repairs.discard(session, operator, repair, reason="No.", expected_version=repair.version, now=NOW)
    with pytest.raises(WrongState):
        upkeep.again(
            session, operator, repair, expected_version=repair.version, until=NOW + DAY, rules=RULES, now=NOW
        )


def test_nodes_that_leave_keep_their_own_date(session: Session, quota: Quota, operator: Actor) -> None:
    (repair,) = upkeep.leave(
        session, operator, quota.cluster, nodes_of(quota)[:1], NOW + 30 * DAY, rules=RULES, now=NOW
    )
    with pytest.raises(Invalid):
        upkeep.again(
            session, operator, repair, expected_version=repair.version, until=NOW + DAY, rules=RULES, now=NOW
        )
    assert repair.state is RepairState.PROPOSED


def test_a_second_move_takes_the_place_of_an_unanswered_one(
    session: Session, quota: Quota, operator: Actor, owner: Actor
) -> None:
    first = moved_booking(session, operator, quota)
    booking = first.booking
    (second,) = apply(
        session, operator, propose(session, operator, quota, nodes_of(quota)[0], booking.starts_at, 12)
    )
    assert (first.state, first.answered_by_id) == (MoveState.CHANGED, None)
    assert session.scalars(moves.open_moves(owner, NOW)).all() == [second]
    with pytest.raises(WrongState):
        moves.refund(session, owner, first, expected_version=booking.version, now=NOW)


def test_nothing_is_left_to_answer_for_what_is_dropped(session: Session, operator: Actor) -> None:
    short = factories.quota(session, gpu_hours=100_000, valid_until=NOW + 4 * DAY)
    first = moved_booking(session, operator, short)
    repair = propose(session, operator, short, nodes_of(short)[0], NOW, 24 * 6)
    (lost,) = apply(session, operator, repair)
    assert (lost.to_starts_at, first.booking.state) == (None, BookingState.CANCELLED)
    assert first.state is MoveState.CHANGED


def test_a_booking_that_was_given_back_has_no_answer_left(
    session: Session, quota: Quota, operator: Actor, owner: Actor
) -> None:
    moved = moved_booking(session, operator, quota)
    moved.booking.state = BookingState.CANCELLED
    session.flush()
    with pytest.raises(WrongState):
        moves.accept(session, owner, moved, now=NOW + HOUR)
    assert moved.state is MoveState.TOLD


def test_an_operator_gives_notice_too(session: Session, quota: Quota, operator: Actor) -> None:
    booking = factories.booking(session, quota, on=nodes_of(quota)[:1], starts_at=NOW + 5 * DAY, hours=6)

    def move(starts_at: datetime) -> BookingMove | None:
        return moves.by_hand(
            session,
            operator,
            booking,
            Placement(starts_at),
            reason="Two groups work together.",
            expected_version=booking.version,
            rules=RULES,
            now=NOW,
        )

    with pytest.raises(Invalid) as caught:
        move(NOW + 3 * HOUR)
    assert set(caught.value.fields) == {"starts_at"}
    moved = move(NOW + DAY)
    assert moved is not None
    assert moved.answer_until == NOW + DAY
    # so near it may only go later, and that at any time
    assert move(NOW + DAY + HOUR) is not None


def test_a_whole_cluster_may_be_lost(session: Session, operator: Actor) -> None:
    cluster = factories.cluster(session, slug="great", nodes=1_001)
    factories.quota(session, factories.application(session, factories.person(session), cluster))
    losses = [Loss(node.id, NOW, NOW + DAY) for node in cluster.nodes]
    assert affected(session, losses, NOW) == {}


def test_who_applied_moved_and_superseded_is_on_record(
    session: Session, quota: Quota, operator: Actor
) -> None:
    moved = moved_booking(session, operator, quota)
    booking = session.get_one(Booking, moved.booking_id)
    apply(session, operator, propose(session, operator, quota, nodes_of(quota)[0], booking.starts_at, 12))
    kinds = session.execute(select(Event.kind, Event.actor_id).order_by(Event.seq.desc()).limit(3)).all()
    assert [tuple(row) for row in kinds] == [
        ("repair.applied", operator.person_id),
        ("booking.moved", operator.person_id),
        ("booking_move.changed", operator.person_id),
    ]


def test_nobody_is_moved_into_a_published_outage(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=NOW + 3 * DAY, hours=12)
    everything = tuple(node.id for node in nodes)
    around = (
        OutagePlan(OutageKind.MAINTENANCE, NOW + 3 * DAY + 12 * HOUR, NOW + 5 * DAY, "New fans.", everything),
        OutagePlan(OutageKind.MAINTENANCE, NOW + DAY, NOW + 3 * DAY, "New pumps.", everything),
    )
    for plan in around:
        outage = upkeep.draft(session, operator, quota.cluster, plan, rules=RULES, now=NOW)
        outages.publish(session, operator, outage, "fewest_drops", expected_version=1, rules=RULES, now=NOW)
    (moved,) = apply(session, operator, propose(session, operator, quota, nodes[0], NOW + 3 * DAY, 12))
    assert moved.booking_id == booking.id
    assert booking.starts_at == NOW + 5 * DAY
