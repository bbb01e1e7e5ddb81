"""A site for the pages about outages: a draft, a repair, a move to answer, nodes that come and go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from allocator.actors import Role
from allocator.db import Database
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    Node,
    NodeState,
    Outage,
    OutageKind,
    Person,
    Quota,
    Repair,
)
from allocator.policy import load_policy
from allocator.states import RepairState
from allocator.upkeep import outages, phases
from allocator.upkeep.outages import OutagePlan
from config.clock import utcnow
from scheduler import repairs
from tests import factories, upkeep

RULES = load_policy().bookings
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# What `fill` gives the numbers of.
NUMBERS = ("outage", "repair", "move", "moved", "node", "unfinished", "asked")


def work_out(database: Database) -> None:
    """What the scheduler does until no repair waits any more."""
    while repairs.work_out(database, rules=RULES, now=utcnow(), go_on=lambda: True)["worked_out"]:
        pass


@dataclass
class OutageScene:
    """A cluster of its own, `count` bookings in the way of each thing."""

    session: Session
    owner: Person
    operator: Person
    now: datetime
    slug: str = "grid"

    def fill(self, count: int) -> dict[str, int]:
        """Everything that a page can show, and the numbers of it."""
        session, now = self.session, self.now.replace(minute=0, second=0, microsecond=0) + HOUR
        actor = factories.actor_of(self.operator)
        cluster = factories.cluster(session, slug=self.slug, nodes=2 * count, now=self.now)
        nodes = sorted(cluster.nodes, key=lambda node: node.name)
        published = self._outage(cluster, nodes[:count], now + 3 * DAY)
        moved = self._book(cluster, nodes[:count], now + 3 * DAY)
        stuck = self._book(cluster, nodes[count:], now + 3 * DAY)
        upkeep.prepare(session, actor, published, rules=RULES, now=self.now)
        outages.publish(
            session,
            actor,
            published,
            "fewest_drops",
            expected_version=published.version,
            rules=RULES,
            now=self.now,
        )
        move = session.query(BookingMove).filter_by(booking_id=moved[0].id).one()
        draft = self._draft(cluster, nodes, now + 9 * DAY)
        for _ in range(count):
            self._outage(cluster, nodes[:1], now + 20 * DAY)
        self._book(cluster, nodes[count:], now + 2 * HOUR)
        repair = self._fail(cluster, nodes[-1])
        announced = phases.Announcement(f"new[1-{count}]", "gpu", "h200", 8, now + 30 * DAY)
        node = phases.announce(session, actor, cluster, announced, now=self.now)[0]
        for number in range(count):
            nodes[number].leaves_at = now + (60 + number) * DAY
        unfinished = self._outage(cluster, nodes, now + 9 * DAY, wait=True)
        (asked,) = phases.leave(session, actor, cluster, nodes[-1:], now + 50 * DAY, now=self.now)
        session.flush()
        return {
            "outage": draft.id,
            "unfinished": unfinished.id,
            "asked": asked.id,
            "published": published.id,
            "repair": repair.id,
            "move": move.id,
            "moved": stuck[0].id,
            "node": node.id,
        }

    def _draft(self, cluster: Cluster, nodes: list[Node], start: datetime) -> Outage:
        """Half of the nodes go: what needs them can only stay if those on the other half make way."""
        half = nodes[: len(nodes) // 2]
        short = self._quota(cluster)
        short.valid_from, short.valid_until = start, start + 12 * HOUR
        factories.booking(self.session, short, on=half, starts_at=start, hours=12, now=self.now)
        self._book(cluster, nodes[len(half) :], start, hours=12)
        return self._outage(cluster, half, start)

    def _outage(self, cluster: Cluster, nodes: list[Node], starts_at: datetime, wait: bool = False) -> Outage:
        plan = OutagePlan(
            OutageKind.MAINTENANCE,
            starts_at,
            starts_at + 12 * HOUR,
            "New firmware for the switches.",
            tuple(node.id for node in nodes),
        )
        actor = factories.actor_of(self.operator)
        if wait:  # until the test has it worked out
            return outages.draft(self.session, actor, cluster, plan, now=self.now)
        return upkeep.draft(self.session, actor, cluster, plan, rules=RULES, now=self.now)

    def _book(
        self, cluster: Cluster, nodes: list[Node], starts_at: datetime, hours: int = 6
    ) -> list[Booking]:
        return [
            factories.booking(
                self.session, self._quota(cluster), on=[node], starts_at=starts_at, hours=hours, now=self.now
            )
            for node in nodes
        ]

    def _quota(self, cluster: Cluster) -> Quota:
        application = factories.application(self.session, self.owner, cluster)
        return factories.quota(
            self.session, application, valid_until=self.now + 40 * DAY, valid_from=self.now - DAY
        )

    def _fail(self, cluster: Cluster, node: Node) -> Repair:
        node.state, node.seen_at = NodeState.DOWN, self.now - HOUR
        self.session.flush()
        upkeep.watch(self.session, cluster, rules=RULES, now=self.now)
        return self.session.query(Repair).filter_by(state=RepairState.PROPOSED, outage_id=None).one()


def make_outage_scene(
    session: Session, now: datetime, owner: Person | None = None, operator: Person | None = None
) -> OutageScene:
    """A scene whose bookings are the owner's."""
    return OutageScene(
        session,
        owner or factories.person(session, name="Arman Kairat"),
        operator or factories.person(session, name="Dana Omar", roles=[Role.OPERATOR]),
        now,
    )
