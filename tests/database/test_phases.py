"""Capacity over time on both databases: nodes that join at a date, that are late, that leave; the freeze."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, overview
from allocator.actors import Actor, Role
from allocator.applying import application_queries
from allocator.booking import bookings
from allocator.booking.bookings import Ask
from allocator.capacity import NodeSeen
from allocator.errors import Conflict, Forbidden, Invalid, NoCapacity, WrongState
from allocator.models import Booking, Cluster, Event, Node, NodeState, Quota
from allocator.policy import load_policy
from allocator.upkeep import phases, repair_steps, repairs
from allocator.upkeep.mending import ChangeKind
from allocator.upkeep.phases import Announcement
from tests import factories, upkeep
from tests.factories import NOW

RULES = load_policy().bookings
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
JOIN = NOW + 10 * DAY


@pytest.fixture
def quota(session: Session) -> Quota:
    return factories.quota(session, gpu_hours=100_000)


@pytest.fixture
def operator(session: Session) -> Actor:
    return factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))


def announce(
    session: Session, operator: Actor, cluster: Cluster, names: str = "x[01-02]", joins_at: datetime = JOIN
) -> list[Node]:
    coming = Announcement(names, "gpu", "h200", 8, joins_at)
    return phases.announce(session, operator, cluster, coming, now=NOW)


def book(session: Session, quota: Quota, nodes: int, start: datetime, hours: int = 6) -> Booking:
    actor = factories.actor_of(quota.application.applicant)
    ask = Ask(nodes, 8, start, start + hours * HOUR)
    return bookings.book(session, actor, quota, ask, rules=RULES, now=NOW)


def seen(cluster: Cluster, *names: str) -> list[NodeSeen]:
    known = [node.name for node in cluster.nodes if node.state is NodeState.UP]
    return [NodeSeen(name, "gpu", "h200", 8, NodeState.UP) for name in (*known, *names)]


def test_announced_nodes_are_booked_from_the_day_they_join(
    session: Session, quota: Quota, operator: Actor
) -> None:
    announce(session, operator, quota.cluster)
    with pytest.raises(NoCapacity):
        book(session, quota, 5, JOIN - HOUR)
    booking = book(session, quota, 6, JOIN)
    assert {"x01", "x02"} <= {slot.node.name for slot in booking.slots}


def test_announced_nodes_are_not_counted_as_there(session: Session, quota: Quota, operator: Actor) -> None:
    coming, late = announce(session, operator, quota.cluster)
    late.state = NodeState.DOWN
    session.flush()
    there = capacity.gpu_types(session, quota.cluster)["h200"]
    assert (there.nodes, there.nodes_there, there.gpus_there, there.awaited) == (6, 4, 32, 2)
    assert [(offer.nodes, offer.gpus) for offer in overview.offers(session)] == [(4, 32)]
    behind = application_queries.capacity_now(session, quota.application)
    assert (behind.nodes, behind.gpus, behind.nodes_up) == (4, 32, 4)
    # one that has worked and failed is there
    coming.state, coming.seen_at = NodeState.DOWN, JOIN + HOUR
    session.flush()
    assert capacity.gpu_types(session, quota.cluster)["h200"].nodes_there == 5


def test_the_inventory_takes_over_when_it_sees_them(session: Session, quota: Quota, operator: Actor) -> None:
    first, second = announce(session, operator, quota.cluster)
    capacity.save_nodes(session, quota.cluster, seen(quota.cluster), NOW)
    assert (first.state, second.state) == (NodeState.EXPECTED, NodeState.EXPECTED)
    capacity.save_nodes(session, quota.cluster, seen(quota.cluster, "x01"), NOW + HOUR)
    assert (first.state, second.state) == (NodeState.UP, NodeState.EXPECTED)
    # what works before its day is still not promised to anybody before it
    with pytest.raises(NoCapacity):
        book(session, quota, 5, JOIN - DAY)


def test_a_node_that_is_late_is_down_until_it_is_seen(
    session: Session, quota: Quota, operator: Actor
) -> None:
    first, _ = announce(session, operator, quota.cluster)
    for moment in (JOIN, JOIN + HOUR):
        capacity.save_nodes(session, quota.cluster, seen(quota.cluster), moment)
        assert first.state is NodeState.DOWN
    capacity.save_nodes(session, quota.cluster, seen(quota.cluster, "x01", "x02"), JOIN + 2 * HOUR)
    assert str(first.state) == "up"
    without = [node for node in seen(quota.cluster) if not node.name.startswith("x")]
    capacity.save_nodes(session, quota.cluster, without, JOIN + 3 * HOUR)
    assert str(first.state) == "gone"


def test_an_announcement_is_taken_back_unless_something_is_booked(
    session: Session, quota: Quota, operator: Actor
) -> None:
    first, second = announce(session, operator, quota.cluster)
    book(session, quota, 5, JOIN)  # the four that are there, and x01
    with pytest.raises(Conflict):
        phases.withdraw(session, operator, first, reason="Not bought.", now=NOW)
    with pytest.raises(Conflict):
        phases.postpone(session, operator, first, JOIN + DAY, now=NOW)
    phases.withdraw(session, operator, second, reason="Not bought.", now=NOW)
    assert (second.state, second.joins_at) == (NodeState.GONE, None)
    phases.postpone(session, operator, first, JOIN - DAY, now=NOW)
    assert first.joins_at == JOIN - DAY
    again = announce(session, operator, quota.cluster, "x02")
    assert (again, second.state) == ([second], NodeState.EXPECTED)


def test_leaving_nodes_show_whom_they_move_first(session: Session, quota: Quota, operator: Actor) -> None:
    nodes = sorted(quota.cluster.nodes, key=lambda node: node.name)
    leaves_at = NOW + 5 * DAY
    before = factories.booking(session, quota, on=nodes[:1], starts_at=NOW + DAY, hours=6)
    across = factories.booking(session, quota, on=nodes[:2], starts_at=leaves_at - HOUR, hours=6)
    (repair,) = upkeep.leave(session, operator, quota.cluster, nodes[:1], leaves_at, rules=RULES, now=NOW)
    assert nodes[0].leaves_at is None
    (change,) = repairs.variants_of(repair)["fewest_moves"].changes
    assert (change.kind, change.booking_id) == (ChangeKind.REBIND, across.id)
    repair_steps.apply(
        session,
        operator,
        repair,
        "fewest_moves",
        reason="It goes elsewhere.",
        expected_version=repair.version,
        rules=RULES,
        now=NOW,
    )
    assert nodes[0].leaves_at == leaves_at
    assert nodes[0].id not in {slot.node_id for slot in across.slots}
    assert [slot.node_id for slot in before.slots] == [nodes[0].id]
    with pytest.raises(NoCapacity):
        book(session, quota, 4, leaves_at + 9 * HOUR)
    phases.stay(session, operator, nodes[0], now=NOW)
    book(session, quota, 4, leaves_at + 9 * HOUR)
    kinds = session.scalars(select(Event.kind).where(Event.subject_type == "node")).all()
    assert kinds == ["node.leaves", "node.stays"]
    with pytest.raises(WrongState):
        phases.stay(session, operator, nodes[0], now=NOW)


@pytest.mark.parametrize(
    ("names", "gpus", "joins_at", "field"),
    [
        ("", 8, JOIN, "names"),
        ("a b;c", 8, JOIN, "names"),
        ("ok", 0, JOIN, "gpus"),
        ("ok", 8, NOW, "joins_at"),
        ("x[1-99999]", 8, JOIN, "names"),
    ],
)
def test_what_an_announcement_must_be(
    session: Session, quota: Quota, operator: Actor, names: str, gpus: int, joins_at: datetime, field: str
) -> None:
    with pytest.raises(Invalid) as error:
        phases.announce(
            session, operator, quota.cluster, Announcement(names, "gpu", "h200", gpus, joins_at), now=NOW
        )
    assert field in error.value.fields


def test_a_node_that_is_there_is_not_announced_again(session: Session, quota: Quota, operator: Actor) -> None:
    with pytest.raises(Invalid, match="names"):
        announce(session, operator, quota.cluster, quota.cluster.nodes[0].name)


def test_freezing_and_thawing(session: Session, quota: Quota, operator: Actor) -> None:
    cluster = quota.cluster
    with pytest.raises(Invalid):
        phases.freeze(session, operator, cluster, NOW, reason="A visit.", now=NOW)
    phases.freeze(session, operator, cluster, NOW + DAY, reason="A visit.", now=NOW)
    assert cluster.frozen_until == NOW + DAY
    phases.freeze(session, operator, cluster, None, reason="It is over.", now=NOW)
    assert str(cluster.frozen_until) == "None"
    auditor = factories.actor_of(factories.person(session, roles=[Role.AUDITOR]))
    with pytest.raises(Forbidden):
        phases.freeze(session, auditor, cluster, NOW + DAY, reason="A visit.", now=NOW)


def test_a_late_node_gets_another_day(session: Session, quota: Quota, operator: Actor) -> None:
    (node,) = announce(session, operator, quota.cluster, "new1")
    late = (node.joins_at or NOW) + timedelta(hours=1)
    capacity.save_nodes(session, quota.cluster, [], late)
    assert node.state is NodeState.DOWN
    phases.postpone(session, operator, node, late + timedelta(days=9), now=late)
    assert (node.state, node.joins_at) == (NodeState.EXPECTED, late + timedelta(days=9))


def test_a_node_that_is_being_set_up_stays_announced(session: Session, quota: Quota, operator: Actor) -> None:
    (node,) = announce(session, operator, quota.cluster, "new1")
    joins_at = node.joins_at or NOW
    broken = NodeSeen("new1", "gpu", "h200", 8, NodeState.DOWN, "being installed")
    seen = []
    for now in (NOW, joins_at):
        capacity.save_nodes(session, quota.cluster, [broken], now)
        seen.append(node.state)
    assert seen == [NodeState.EXPECTED, NodeState.DOWN]


def test_a_later_day_to_leave_counts_too(session: Session, quota: Quota, operator: Actor) -> None:
    node = sorted(quota.cluster.nodes, key=lambda node: node.name)[0]
    for days in (20, 40):
        (repair,) = upkeep.leave(
            session, operator, quota.cluster, [node], NOW + timedelta(days=days), rules=RULES, now=NOW
        )
        repair_steps.apply(
            session,
            operator,
            repair,
            "fewest_moves",
            reason="Sold.",
            expected_version=repair.version,
            rules=RULES,
            now=NOW,
        )
        assert node.leaves_at == NOW + timedelta(days=days)
