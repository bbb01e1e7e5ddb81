"""Nodes that fail, on both databases: when a repair is proposed, and when operators are told of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity
from allocator.actors import Actor, Role
from allocator.models import Event, Node, NodeState, OutageKind, OutboxItem, Quota, Repair
from allocator.policy import load_policy
from allocator.states import RepairState
from allocator.upkeep import failures, outages, phases, repair_steps, repairs, working_out
from allocator.upkeep.failures import MOMENT, TRY_AGAIN
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.phases import Announcement
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


def nodes_of(quota: Quota) -> list[Node]:
    return sorted(quota.cluster.nodes, key=lambda node: node.name)


def see(session: Session, quota: Quota, at: datetime, *down: Node) -> None:
    """What the inventory writes down at that moment: these nodes do not work, the others do."""
    seen = [
        capacity.NodeSeen(
            node.name, "gpu", "h200", 8, NodeState.DOWN if node in down else NodeState.UP, "no answer"
        )
        for node in nodes_of(quota)
    ]
    capacity.save_nodes(session, quota.cluster, seen, at)


def watch(session: Session, quota: Quota, at: datetime) -> int:
    return upkeep.watch(session, quota.cluster, rules=RULES, now=at)


def fail(session: Session, quota: Quota, at: datetime, *down: Node) -> int:
    """Nodes stop working, and stay so for a moment; returns how many repairs are new."""
    see(session, quota, at, *down)
    return watch(session, quota, at + MOMENT)


def proposed(session: Session) -> Repair:
    return session.scalars(select(Repair).where(Repair.state == RepairState.PROPOSED)).one()


def letters(session: Session) -> int:
    return len(session.scalars(select(OutboxItem).where(OutboxItem.letter == "repair_proposed")).all())


def test_a_node_that_fails_again_is_proposed_again(session: Session, quota: Quota, operator: Actor) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    assert fail(session, quota, NOW, node) == 1
    assert fail(session, quota, NOW + HOUR) == 0
    assert fail(session, quota, NOW + 2 * HOUR, node) == 1
    assert proposed(session).details["nodes"] == [node.name]
    # it comes and goes: operators know of it
    assert letters(session) == 1


def test_bookings_that_came_after_a_decision_are_mended_too(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    fail(session, quota, NOW, node)
    apply(session, operator, proposed(session), NOW + HOUR)
    assert watch(session, quota, NOW + HOUR) == 0
    fail(session, quota, NOW + 2 * HOUR)
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    assert fail(session, quota, NOW + 3 * HOUR, node) == 1
    assert letters(session) == 2


def apply(session: Session, operator: Actor, repair: Repair, at: datetime) -> None:
    repair_steps.apply(
        session,
        operator,
        repair,
        "fewest_drops",
        reason="A power supply failed.",
        expected_version=repair.version,
        rules=RULES,
        now=at,
    )


def test_operators_are_told_of_the_same_node_a_month_later(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    fail(session, quota, NOW, node)
    apply(session, operator, proposed(session), NOW + HOUR)
    see(session, quota, NOW + 2 * HOUR)
    factories.booking(session, quota, on=[node], starts_at=NOW + 30 * DAY + 12 * HOUR, hours=6)
    assert fail(session, quota, NOW + 30 * DAY, node) == 1
    assert letters(session) == 2


def test_what_a_person_left_as_it_is_stays_so_while_it_is_the_same(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    fail(session, quota, NOW, node)
    repairs.discard(
        session,
        operator,
        proposed(session),
        reason="Back at noon.",
        expected_version=proposed(session).version,
        now=NOW + HOUR,
    )
    assert watch(session, quota, NOW + 2 * HOUR) == 0
    # a day later nobody knows any more when it comes back, and more bookings are near
    factories.booking(session, quota, on=[node], starts_at=NOW + 30 * HOUR, hours=6)
    assert watch(session, quota, NOW + 20 * HOUR) == 1
    assert letters(session) == 2


def test_nodes_that_are_down_in_their_maintenance_have_not_failed(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    plan = OutagePlan(OutageKind.MAINTENANCE, NOW + HOUR, NOW + 6 * HOUR, "New fans.", (node.id,))
    outage = upkeep.draft(session, operator, quota.cluster, plan, rules=RULES, now=NOW)
    outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
    assert fail(session, quota, NOW + HOUR, node) == 0
    # it should be back by now
    assert watch(session, quota, NOW + 6 * HOUR) == 1


def test_an_announced_node_that_is_late_is_told_before_its_bookings_begin(
    session: Session, quota: Quota, operator: Actor
) -> None:
    coming = Announcement("new1", "gpu", "h200", 8, NOW + 10 * DAY)
    (node,) = phases.announce(session, operator, quota.cluster, coming, now=NOW)
    factories.booking(session, quota, on=[node], starts_at=NOW + 10 * DAY, hours=6)
    assert watch(session, quota, NOW + 9 * DAY) == 0
    assert watch(session, quota, NOW + 10 * DAY - HOUR) == 1
    (change,) = repairs.variants_of(proposed(session))["fewest_drops"].changes
    assert node.id not in {place.node_id for place in change.places}
    see(session, quota, NOW + 10 * DAY - HOUR)
    assert watch(session, quota, NOW + 10 * DAY - HOUR) == 0
    assert session.scalars(select(Repair.state)).all() == [RepairState.DISCARDED]


def test_what_is_replaced_names_its_successor(session: Session, quota: Quota) -> None:
    first, second = nodes_of(quota)[:2]
    for node in (first, second):
        factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    fail(session, quota, NOW, first)
    old = proposed(session)
    assert old.details["until_is_guess"]
    fail(session, quota, NOW + HOUR, first, second)
    session.refresh(old)
    assert old.state is RepairState.DISCARDED
    assert old.details["replaced_by"] == proposed(session).id
    event = session.scalars(select(Event).where(Event.kind == "repair.discarded")).one()
    assert event.after["replaced_by"] == proposed(session).id


def test_a_date_that_a_person_set_is_no_guess_and_stays_theirs(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 12 * HOUR, hours=6)
    fail(session, quota, NOW, node)
    old = proposed(session)
    back = NOW + 3 * DAY
    new = upkeep.again(
        session, operator, old, expected_version=old.version, until=back, rules=RULES, now=NOW + HOUR
    )
    assert new.details["until_is_guess"] is False
    # another booking there has it worked out again; nobody has taken the date back
    factories.booking(session, quota, on=[node], starts_at=NOW + 30 * HOUR, hours=6)
    assert watch(session, quota, NOW + 2 * HOUR) == 1
    latest = proposed(session)
    assert latest.id != new.id
    assert (latest.details["until"], latest.details["until_is_guess"]) == (back.isoformat(), False)


def test_what_could_not_be_worked_out_is_tried_again_later(
    session: Session, quota: Quota, operator: Actor
) -> None:
    node = nodes_of(quota)[0]
    factories.booking(session, quota, on=[node], starts_at=NOW + 20 * HOUR, hours=6)
    see(session, quota, NOW, node)
    assert failures.watch(session, quota.cluster, now=NOW + MOMENT) == 1
    task = working_out.take(session, now=NOW + MOMENT)
    assert task is not None
    working_out.fail(session, task, "MemoryError: ")
    assert watch(session, quota, NOW + TRY_AGAIN) == 0
    assert watch(session, quota, NOW + MOMENT + TRY_AGAIN) == 1
    assert proposed(session).details["nodes"] == [node.name]
    assert letters(session) == 1
