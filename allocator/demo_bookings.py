"""Demonstration data of booking: a calendar that is alive, and something that waits for each kind of person.

It goes through the use cases with times in the past, as the rest of the demonstration does. Days are counted
from the next beginning of a day of booking; shapes are parts of the cluster, however large it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from allocator import capacity, states
from allocator.actors import SYSTEM
from allocator.booking import bookings, flexible, no_shows, offers, planning, replanning, series, waitlist
from allocator.booking.booking_checks import ALMATY, Ask, grid_of
from allocator.booking.offer_search import Wish
from allocator.booking.windows import Shape
from allocator.capacity import NodeSeen
from allocator.models import Booking, Node, NodeSlot, NodeState, OutageKind, Quota
from allocator.states import ReservationState
from allocator.upkeep import failures, outages, phases, working_out
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.phases import Announcement

if TYPE_CHECKING:
    from allocator.demo import Scene

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BROKEN = "XID 79: GPU has fallen off the bus"
# When nothing is free, so that there is something to wait for; the rest of the firm ones leave room.
WALL = (9, 11)
# category, part of the nodes in percent (0: all that are free), the day and hour of the start, hours, how
# many days ago
FIRM = (
    ("strategic", 40, -2, 0, 96, 6),
    # so full a day that a node which fails leaves no simple way out
    ("science", 0, 0, 0, 20, 5),
    ("science", 25, 0, 20, 52, 5),
    ("priority", 12, 5, 1, 12, 6),
    ("strategic", 60, 3, 0, 48, 4),
    ("science", 25, 3, 12, 36, 4),
    ("citizen", 5, 1, 4, 24, 3),
    ("priority", 8, 2, 0, 20, 3),
)


def play(scene: Scene) -> Node | None:
    """All of it; returns the node that fails, which a simulated cluster has to be told."""
    quotas = _quotas(scene)
    idle = _idle(scene, quotas["priority"])
    for category, percent, day, hour, hours, ago in FIRM:
        start = _at(scene, day, hour)
        nodes = _part(scene, percent) if percent else _free(scene, start, hours)
        _book(scene, quotas[category], nodes, start, hours, ago)
    _wall(scene, quotas)
    _maintenance(scene)
    _capacity(scene)
    _loose(scene, quotas)
    bookings.advance(scene.session, scene.now)
    _warn(scene, idle)
    broken = _failure(scene, quotas["science"])
    _hold(scene)
    _prices(scene)
    return broken


def _quotas(scene: Scene) -> Mapping[str, Quota]:
    """The large quotas by the category of their applications; the start-up's head has "priority" too."""
    found = scene.session.scalars(select(Quota).order_by(Quota.id))
    return {quota.application.category: quota for quota in found}


def _owner(quota: Quota) -> str:
    return {"priority": "startup"}.get(quota.application.category, quota.application.category)


def _at(scene: Scene, day: int, hour: int = 0) -> datetime:
    """That many days and hours after the next beginning of a day of booking."""
    local = scene.now.astimezone(ALMATY)
    begin = datetime.combine(local.date(), scene.policy.bookings.day_starts_at, ALMATY)
    return begin + (begin <= local) * DAY + day * DAY + hour * HOUR


def _part(scene: Scene, percent: int) -> int:
    return max(scene.most.nodes * percent // 100, 1)


def _free(scene: Scene, starts_at: datetime, hours: int) -> int:
    """How many nodes are wholly free for so long."""
    found = capacity.free(scene.session, scene.cluster, scene.gpu_type, starts_at, starts_at + hours * HOUR)
    return sum(node.free == ((0, node.gpus),) for node in found)


def _book(scene: Scene, quota: Quota, nodes: int, starts_at: datetime, hours: int, ago: int) -> Booking:
    ask = Ask(nodes, scene.most.gpus_per_node, starts_at, starts_at + hours * HOUR)
    actor, rules = scene.actor(_owner(quota)), scene.policy.bookings
    return bookings.book(scene.session, actor, quota, ask, rules=rules, now=scene.now - ago * DAY)


def _idle(scene: Scene, quota: Quota) -> Booking:
    """One node of the start-up that has run nothing since this morning."""
    rules = scene.policy.bookings
    start = grid_of(rules).floor(scene.now - rules.no_show - HOUR)
    booking = _book(scene, quota, 1, start, 12, 1)
    reserved_at = scene.now - 20 * HOUR
    states.move(booking.reservation, ReservationState.RESERVED, actor=SYSTEM, now=reserved_at)
    booking.reservation.seen_at = reserved_at
    return booking


def _warn(scene: Scene, idle: Booking) -> None:
    """It is warned now, as if accounting had been read; on a simulated cluster a job comes after all."""
    read_until = scene.cluster.usage_read_until
    scene.cluster.usage_read_until = scene.now
    scene.session.flush()
    no_shows.warn_due(scene.session, rules=scene.policy.bookings, now=scene.now)
    scene.cluster.usage_read_until = read_until
    scene.session.refresh(idle)


def _wall(scene: Scene, quotas: Mapping[str, Quota]) -> None:
    """Two days that are full, and two who wait for them."""
    first, last = WALL
    half = scene.most.nodes // 2
    hours = (last - first) * 24
    for category, nodes in (("strategic", half), ("science", scene.most.nodes - half)):
        _book(scene, quotas[category], nodes, _at(scene, first), hours, 4)
    for category, percent, length, ago in (("priority", 12, 24, 3), ("citizen", 6, 12, 2)):
        quota = quotas[category]
        wish = Wish(
            _part(scene, percent),
            scene.most.gpus_per_node,
            length * HOUR,
            earliest_at=_at(scene, first),
            latest_at=_at(scene, last),
        )
        actor, at = scene.actor(_owner(quota)), scene.now - ago * DAY
        waitlist.join(scene.session, actor, quota, wish, rules=scene.policy.bookings, now=at)


def _maintenance(scene: Scene) -> None:
    """All nodes for some hours, published yesterday: one booking had to move, and its owner may answer."""
    operator, rules = scene.actor("operator"), scene.policy.bookings
    nodes = scene.session.scalars(select(Node.id).where(Node.cluster_id == scene.cluster.id)).all()
    plan = OutagePlan(
        OutageKind.MAINTENANCE,
        _at(scene, 5, 4),
        _at(scene, 5, 10),
        "Салқындату жүйесінің жоспарлы жөндеуі.",
        tuple(nodes),
    )
    at = scene.now - 30 * HOUR
    made = outages.draft(scene.session, operator, scene.cluster, plan, now=at)
    working_out.at_once(scene.session, rules=rules, now=at)
    outages.publish(
        scene.session,
        operator,
        made,
        rules.repair,
        expected_version=made.version,
        rules=rules,
        now=at + 6 * HOUR,
    )


def _capacity(scene: Scene) -> None:
    """New nodes that are announced."""
    count = _part(scene, 6)
    names = "new01" if count == 1 else f"new[01-{count:02}]"
    partition = scene.session.scalars(
        select(Node.partition).where(Node.cluster_id == scene.cluster.id).limit(1)
    ).one()
    coming = Announcement(names, partition, scene.gpu_type, scene.most.gpus_per_node, _at(scene, 12))
    phases.announce(scene.session, scene.actor("operator"), scene.cluster, coming, now=scene.now - 20 * HOUR)


def _loose(scene: Scene, quotas: Mapping[str, Quota]) -> None:
    """What is planned inside of windows, and nights of the coming week."""
    rules, gpus = scene.policy.bookings, scene.most.gpus_per_node
    for category, percent, hours, days in (("priority", 10, 36, (3, 13)), ("science", 15, 48, (2, 16))):
        quota = quotas[category]
        wish = Wish(
            _part(scene, percent),
            gpus,
            hours * HOUR,
            earliest_at=_at(scene, days[0]),
            latest_at=_at(scene, days[1]),
        )
        actor = scene.actor(_owner(quota))
        flexible.ask(scene.session, actor, quota, wish, rules=rules, now=scene.now - DAY)
    first = _at(scene, 0).date()
    series.book_series(
        scene.session,
        scene.actor("startup"),
        quotas["priority"],
        Shape(_part(scene, 4), gpus),
        series.nights(first, first + 7 * DAY, rules),
        only_fitting=True,
        rules=rules,
        now=scene.now - 20 * HOUR,
    )


def _failure(scene: Scene, quota: Quota) -> Node | None:
    """A node fails that is booked for the coming day: a repair is proposed, and operators are told."""
    until = _at(scene, 1)
    booked = select(NodeSlot.node_id).join(NodeSlot.booking).where(Booking.quota_id == quota.id)
    busy = select(NodeSlot.node_id).where(NodeSlot.starts_at <= scene.now, NodeSlot.ends_at > scene.now)
    nodes = scene.session.scalars(
        select(Node)
        .where(
            Node.cluster_id == scene.cluster.id,
            Node.state == NodeState.UP,
            Node.id.in_(booked.where(NodeSlot.starts_at > scene.now, NodeSlot.starts_at < until)),
            Node.id.not_in(busy),
        )
        .order_by(Node.name.desc())
    ).all()
    if not nodes:
        return None
    broken, rules = nodes[0], scene.policy.bookings
    capacity.save_nodes(scene.session, scene.cluster, _seen(scene, broken), scene.now - 5 * HOUR / 60)
    failures.watch(scene.session, scene.cluster, now=scene.now)
    # whoever opens the demonstration first finds it worked out
    working_out.at_once(scene.session, rules=rules, now=scene.now)
    return broken


def _seen(scene: Scene, broken: Node) -> list[NodeSeen]:
    """What the inventory sees with that node down."""
    there = scene.session.scalars(
        select(Node).where(Node.cluster_id == scene.cluster.id, Node.state != NodeState.EXPECTED)
    )
    return [
        NodeSeen(node.name, node.partition, node.gpu_type, node.gpus, NodeState.DOWN, BROKEN)
        if node is broken
        else NodeSeen(node.name, node.partition, node.gpu_type, node.gpus, node.state, node.reason or "")
        for node in there
    ]


def _hold(scene: Scene) -> None:
    """An offer that the start-up's head holds for the next minutes."""
    quota = scene.session.scalars(select(Quota).order_by(Quota.id).limit(1)).one()
    start = _at(scene, 1)
    ask = Ask(1, scene.most.gpus_per_node, start, start + 4 * HOUR)
    rules = scene.policy.bookings
    offers.hold(scene.session, scene.actor("startup"), quota, ask, rules=rules, now=scene.now)


def _prices(scene: Scene) -> None:
    """What each hour is worth to those who want it, as the scheduler works it out in every round."""
    cluster, rules = scene.cluster, scene.policy.bookings
    waiting = planning.queue(scene.session, cluster, scene.gpu_type, scene.now)
    picture = planning.read(scene.session, cluster, scene.gpu_type, waiting, rules=rules, now=scene.now)
    worth = planning.worth(picture)
    replanning.record(scene.session, cluster, scene.gpu_type, worth, now=scene.now)
