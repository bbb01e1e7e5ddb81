"""Repairs on both databases: nodes that fail, both ways to mend, applied once, moves answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, events, ledger
from allocator.actors import Actor, Role
from allocator.db import Database
from allocator.errors import Conflict, Forbidden, Invalid, NoCapacity, NotFound, Stale, WrongState
from allocator.models import (
    Booking,
    BookingKind,
    BookingMove,
    Event,
    Node,
    NodeState,
    OutboxItem,
    Quota,
    Repair,
    RepairCause,
)
from allocator.policy import load_policy
from allocator.states import BookingState, MoveState, RepairState
from allocator.upkeep import moves, phases, repair_steps, repairs
from allocator.upkeep.failures import MOMENT
from allocator.upkeep.mending import ChangeKind, Loss
from allocator.upkeep.moves import Placement
from tests import factories, upkeep
from tests.factories import NOW

RULES = load_policy().bookings
HOUR = timedelta(hours=1)
SOON = NOW + 3 * HOUR
LATER = NOW + timedelta(days=3)
ALL_DAY = 24


@pytest.fixture
def quota(session: Session) -> Quota:
    """Plenty of hours on four nodes of eight GPUs."""
    return factories.quota(session, gpu_hours=100_000)


@pytest.fixture
def operator(session: Session) -> Actor:
    return factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))


@pytest.fixture
def owner(quota: Quota) -> Actor:
    return factories.actor_of(quota.application.applicant)


def nodes_of(quota: Quota) -> list[Node]:
    return sorted(quota.cluster.nodes, key=lambda node: node.name)


def fail(session: Session, quota: Quota, *names: str) -> None:
    """What the inventory writes down when nodes stop working."""
    seen = [
        capacity.NodeSeen(
            node.name,
            "gpu",
            "h200",
            8,
            NodeState.DOWN if node.name[-1] in names else NodeState.UP,
            "no answer",
        )
        for node in nodes_of(quota)
    ]
    capacity.save_nodes(session, quota.cluster, seen, NOW)


def watch(session: Session, quota: Quota, after: timedelta = MOMENT) -> int:
    return upkeep.watch(session, quota.cluster, rules=RULES, now=NOW + after)


def proposed(session: Session) -> Repair:
    return session.scalars(select(Repair).where(Repair.state == RepairState.PROPOSED)).one()


def propose(session: Session, operator: Actor, quota: Quota, *lost: Node, hours: int = 30) -> Repair:
    losses = [Loss(node.id, NOW, NOW + hours * HOUR) for node in lost]
    return upkeep.propose(
        session,
        operator,
        quota.cluster,
        "h200",
        RepairCause.NODES_DOWN,
        losses,
        details={"nodes": [node.name for node in lost]},
        rules=RULES,
        now=NOW,
    )


def apply(
    session: Session, operator: Actor, repair: Repair, variant: str = "fewest_drops"
) -> list[BookingMove]:
    return repair_steps.apply(
        session,
        operator,
        repair,
        variant,
        reason="A power supply failed.",
        expected_version=repair.version,
        rules=RULES,
        now=NOW,
    )


def test_nodes_that_fail_propose_a_repair_and_operators_are_told_once(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    fail(session, quota, "1")
    assert watch(session, quota, MOMENT - timedelta(seconds=1)) == 0
    assert watch(session, quota) == 1
    assert watch(session, quota, MOMENT * 2) == 0
    repair = proposed(session)
    assert (repair.cause, repair.details["nodes"]) == (RepairCause.NODES_DOWN, [nodes[0].name])
    (change,) = repairs.variants_of(repair)["fewest_moves"].changes
    assert (change.kind, change.booking_id) == (ChangeKind.REBIND, booking.id)
    (letter,) = session.scalars(select(OutboxItem)).all()
    assert (letter.letter, letter.recipient_id) == ("repair_proposed", operator.person_id)
    assert (letter.details["nodes"], letter.details["count"]) == (nodes[0].name, 1)
    # nothing has happened to the booking
    assert [slot.node_id for slot in booking.slots] == [nodes[0].id]


def test_nodes_that_come_back_withdraw_the_proposal(session: Session, quota: Quota, operator: Actor) -> None:
    factories.booking(session, quota, on=nodes_of(quota)[:1], starts_at=SOON, hours=6)
    fail(session, quota, "1")
    watch(session, quota)
    fail(session, quota)
    assert watch(session, quota, MOMENT * 2) == 0
    assert session.scalars(select(Repair.state)).all() == [RepairState.DISCARDED]


def test_a_failure_that_nobody_booked_proposes_nothing(
    session: Session, quota: Quota, operator: Actor
) -> None:
    factories.booking(session, quota, on=nodes_of(quota)[:1], starts_at=LATER, hours=6)
    fail(session, quota, "1", "2")
    assert watch(session, quota) == 0


def test_what_was_decided_is_not_proposed_again(session: Session, quota: Quota, operator: Actor) -> None:
    factories.booking(session, quota, on=nodes_of(quota)[:1], starts_at=SOON, hours=6)
    fail(session, quota, "1")
    watch(session, quota)
    repair = proposed(session)
    repairs.discard(
        session, operator, repair, reason="It is back soon.", expected_version=repair.version, now=NOW
    )
    assert watch(session, quota, MOMENT * 3) == 0
    factories.booking(session, quota, on=nodes_of(quota)[1:2], starts_at=SOON, hours=6)
    fail(session, quota, "1", "2")
    assert upkeep.watch(session, quota.cluster, rules=RULES, now=NOW + 4 * MOMENT) == 1
    assert proposed(session).details["nodes"] == [node.name for node in nodes_of(quota)[:2]]


def test_a_proposal_follows_the_bookings(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    first = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    fail(session, quota, "1")
    watch(session, quota)
    first.state = BookingState.CANCELLED
    first.slots.clear()
    session.flush()
    second = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=2)
    watch(session, quota, MOMENT * 2)
    assert repairs.affected_of(proposed(session)) == {second.id: 1}
    # the same nodes: operators know already
    assert len(session.scalars(select(OutboxItem)).all()) == 1


def test_the_nearest_other_time_is_taken_and_told(
    session: Session, quota: Quota, operator: Actor, owner: Actor
) -> None:
    nodes = nodes_of(quota)
    wide = factories.booking(session, quota, on=nodes, starts_at=NOW + 26 * HOUR, hours=4)
    repair = propose(session, operator, quota, nodes[0])
    nodes[0].state = NodeState.DOWN
    repair = upkeep.again(session, operator, repair, expected_version=repair.version, rules=RULES, now=NOW)
    # four nodes are not to be had while one is down, and nobody knows for how long
    assert [c.kind for c in repairs.variants_of(repair)["fewest_drops"].changes] == [ChangeKind.DROP]
    nodes[0].state = NodeState.UP
    repair = upkeep.again(session, operator, repair, expected_version=repair.version, rules=RULES, now=NOW)
    (moved,) = apply(session, operator, repair)
    assert wide.starts_at == NOW + 30 * HOUR
    assert moved.answer_until == wide.starts_at
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds[-2:] == ["booking.moved", "repair.applied"]
    (letter,) = session.scalars(select(OutboxItem)).all()
    assert (letter.letter, letter.recipient_id) == ("booking_moved", owner.person_id)


def test_others_make_way_only_where_that_saves_a_booking(session: Session, operator: Actor) -> None:
    big = factories.quota(session, gpu_hours=100_000, valid_until=NOW + 12 * HOUR)
    small = factories.quota(
        session, factories.application(session, factories.person(session), big.cluster), gpu_hours=100_000
    )
    nodes = nodes_of(big)
    lost = factories.booking(session, big, on=nodes[:2], starts_at=NOW + 2 * HOUR, hours=10)
    others = [
        factories.booking(session, small, on=[node], starts_at=NOW + 2 * HOUR, hours=10) for node in nodes[2:]
    ]
    repair = propose(session, operator, big, *nodes[:2], hours=48)
    few_moves, few_drops = (repairs.variants_of(repair)[name] for name in ("fewest_moves", "fewest_drops"))
    assert [(c.kind, c.booking_id) for c in few_moves.changes] == [(ChangeKind.DROP, lost.id)]
    assert {(c.kind, c.booking_id, c.saves) for c in few_drops.changes} == {
        (ChangeKind.REBIND, lost.id, None),
        *((ChangeKind.MOVE, other.id, lost.id) for other in others),
    }
    made = apply(session, operator, repair)
    assert {moved.booking_id for moved in made} == {other.id for other in others}
    assert {slot.node_id for slot in lost.slots} == {node.id for node in nodes[2:]}


def test_a_flexible_booking_is_planned_anew_without_a_word(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=NOW + 4 * HOUR, hours=4)
    booking.kind, booking.state = BookingKind.FLEXIBLE, BookingState.PLANNED
    booking.earliest_at, booking.latest_at = NOW, NOW + 60 * HOUR
    session.flush()
    repair = propose(session, operator, quota, nodes[0])
    assert apply(session, operator, repair) == []
    assert booking.starts_at == NOW + 30 * HOUR
    assert session.scalars(select(OutboxItem)).all() == []


def test_an_offer_that_lost_its_nodes_lapses(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes, starts_at=NOW + 4 * HOUR, hours=4)
    booking.held_until, booking.state = NOW + HOUR, BookingState.HELD
    session.flush()
    assert apply(session, operator, propose(session, operator, quota, nodes[0])) == []
    assert (booking.state, booking.slots) == (BookingState.LAPSED, [])


def test_the_freeze_and_what_has_begun_are_left_alone(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    frozen = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=2)
    begun = factories.booking(session, quota, on=nodes[1:2], starts_at=NOW - HOUR, hours=9)
    phases.freeze(session, operator, quota.cluster, NOW + 12 * HOUR, reason="A visit.", now=NOW)
    repair = propose(session, operator, quota, *nodes[:2])
    for variant in repairs.variants_of(repair).values():
        assert (variant.changes, set(variant.stuck)) == ((), {frozen.id, begun.id})
    assert apply(session, operator, repair) == []


def test_a_repair_is_applied_once_and_only_by_operators(
    session: Session, quota: Quota, operator: Actor, owner: Actor
) -> None:
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    repair = propose(session, operator, quota, nodes[0])
    with pytest.raises(Forbidden):
        apply(session, owner, repair)
    with pytest.raises(NotFound):
        apply(session, operator, repair, "no_such_way")
    apply(session, operator, repair)
    with pytest.raises(WrongState):
        apply(session, operator, repair)


def test_a_booking_that_changed_makes_it_stale(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    repair = propose(session, operator, quota, nodes[0])
    moves.pin(session, operator, booking, reason="A demonstration.", expected_version=1, now=NOW)
    with pytest.raises(Stale):
        apply(session, operator, repair)


def test_a_target_node_that_failed_meanwhile_makes_it_stale(
    session: Session, quota: Quota, operator: Actor
) -> None:
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes[:1], starts_at=SOON, hours=6)
    repair = propose(session, operator, quota, nodes[0])
    for node in nodes[1:]:
        node.state = NodeState.DOWN
    with pytest.raises(Stale):
        apply(session, operator, repair)


def test_two_operators_at_once_apply_it_once(database: Database) -> None:
    with database.transaction() as session:
        quota = factories.quota(session, gpu_hours=100_000)
        operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        nodes = nodes_of(quota)
        factories.booking(session, quota, on=nodes, starts_at=NOW + 4 * HOUR, hours=4)
        number = propose(session, operator, quota, nodes[0]).id

    def one(_: int) -> str:
        with database.writer() as session:
            try:
                apply(session, operator, session.get_one(Repair, number))
                session.commit()
            except Conflict as error:
                return error.code
            return "applied"

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(one, range(4)))
    assert answers.count("applied") == 1
    assert set(answers) <= {"applied", "wrong_state", "stale"}
    with database.reader() as session:
        assert len(session.scalars(select(BookingMove)).all()) == 1
        events.verify(session)


def moved_booking(session: Session, operator: Actor, quota: Quota) -> BookingMove:
    """A booking of all nodes, moved by a repair."""
    nodes = nodes_of(quota)
    factories.booking(session, quota, on=nodes, starts_at=NOW + 26 * HOUR, hours=4)
    (moved,) = apply(session, operator, propose(session, operator, quota, nodes[0]))
    return moved


def test_the_new_time_is_accepted_once(session: Session, quota: Quota, operator: Actor, owner: Actor) -> None:
    moved = moved_booking(session, operator, quota)
    assert session.scalars(moves.open_moves(owner, NOW)).all() == [moved]
    assert moves.may_answer(owner, moved, NOW)
    assert not moves.may_answer(operator, moved, NOW)
    moves.accept(session, owner, moved, now=NOW + HOUR)
    assert (moved.state, moved.answered_by_id) == (MoveState.ACCEPTED, owner.person_id)
    assert session.scalars(moves.open_moves(owner, NOW)).all() == []
    with pytest.raises(WrongState):
        moves.refund(session, owner, moved, expected_version=moved.booking.version, now=NOW)


def test_another_time_is_free_of_the_lead_time(
    session: Session, quota: Quota, operator: Actor, owner: Actor
) -> None:
    moved = moved_booking(session, operator, quota)
    booking = moved.booking
    factories.booking(session, quota, on=nodes_of(quota)[:1], starts_at=NOW + 40 * HOUR, hours=2)
    with pytest.raises(NoCapacity):
        moves.choose(
            session,
            owner,
            moved,
            NOW + 39 * HOUR,
            expected_version=booking.version,
            rules=RULES,
            now=NOW,
        )
    with pytest.raises(Invalid):
        moves.choose(
            session,
            owner,
            moved,
            NOW + timedelta(days=300),
            expected_version=booking.version,
            rules=RULES,
            now=NOW,
        )
    moves.choose(
        session, owner, moved, NOW + 31 * HOUR, expected_version=booking.version, rules=RULES, now=NOW
    )
    assert (booking.starts_at, booking.ends_at) == (NOW + 31 * HOUR, NOW + 35 * HOUR)
    assert moved.state is MoveState.CHANGED


def test_the_hours_come_back_in_full(session: Session, quota: Quota, operator: Actor, owner: Actor) -> None:
    moved = moved_booking(session, operator, quota)
    before = ledger.balance(session, quota).available
    back = moves.refund(session, owner, moved, expected_version=moved.booking.version, now=NOW)
    assert ledger.balance(session, quota).available == before + back
    assert (moved.booking.state, moved.booking.slots) == (BookingState.CANCELLED, [])
    letters = session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)).all()
    assert letters == ["booking_moved"]  # who cancels needs no letter about it


def test_silence_accepts(session: Session, quota: Quota, operator: Actor, owner: Actor) -> None:
    moved = moved_booking(session, operator, quota)
    assert not moves.may_answer(owner, moved, moved.answer_until)
    with pytest.raises(WrongState):
        moves.accept(session, owner, moved, now=moved.answer_until)


def test_a_stranger_finds_no_move(session: Session, quota: Quota, operator: Actor) -> None:
    moved = moved_booking(session, operator, quota)
    with pytest.raises(NotFound):
        moves.find(session, factories.actor_of(factories.person(session)), moved.id)


def test_an_operator_moves_by_hand_with_a_reason(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = nodes_of(quota)
    booking = factories.booking(session, quota, on=nodes[:1], starts_at=LATER, hours=4)
    wanted = Placement(LATER + HOUR, (nodes[3].name,))

    def by_hand(reason: str, placement: Placement = wanted) -> BookingMove | None:
        return moves.by_hand(
            session,
            operator,
            booking,
            placement,
            reason=reason,
            expected_version=booking.version,
            rules=RULES,
            now=NOW,
        )

    with pytest.raises(Invalid):
        by_hand(" ")
    with pytest.raises(Invalid):
        by_hand("Why", Placement(LATER, ("nowhere",)))
    moved = by_hand("The node is needed whole.")
    assert moved is not None
    assert (booking.starts_at, [slot.node_id for slot in booking.slots]) == (LATER + HOUR, [nodes[3].id])
    # other nodes alone are told to nobody
    assert by_hand("Cooling.", Placement(booking.starts_at, (nodes[1].name,))) is None
    assert session.scalars(select(OutboxItem.letter)).all() == ["booking_moved"]
    again = by_hand("Once more.", Placement(LATER + 2 * HOUR))
    assert again is not None
    assert (moved.state, again.state) == (MoveState.CHANGED, MoveState.TOLD)


def test_nobody_pins_or_places_what_is_their_own(session: Session) -> None:
    person = factories.person(session, roles=[Role.OPERATOR])
    application = factories.application(session, person, factories.cluster(session))
    booking = factories.booking(session, factories.quota(session, application))
    with pytest.raises(Forbidden):
        moves.pin(session, factories.actor_of(person), booking, reason="Mine.", expected_version=1, now=NOW)


def test_a_pin_is_taken_off(session: Session, quota: Quota, operator: Actor) -> None:
    booking = factories.booking(session, quota)
    moves.pin(session, operator, booking, reason="A demonstration.", expected_version=1, now=NOW)
    moves.unpin(session, operator, booking, expected_version=booking.version, now=NOW)
    assert booking.pin is None
    with pytest.raises(WrongState):
        moves.unpin(session, operator, booking, expected_version=booking.version, now=NOW)
    kinds = session.scalars(select(Event.kind).where(Event.subject_type == "booking")).all()
    assert kinds == ["booking.pinned", "booking.unpinned"]
    assert session.get_one(Booking, booking.id).version == 3
