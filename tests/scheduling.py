"""What tests of the scheduler share: a site with bookings, and a simulated cluster whose clock stands still.

`site(database, tmp_path)` gives both. Rows are made with tests.factories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.db import Database
from allocator.models import Booking, Event, Node, OutboxItem, Quota, Reservation
from config.settings import ClusterSettings
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.reconcile import Outcome, reconcile
from tests import factories
from tests.factories import NOW

WEEK = timedelta(days=7)
SLUG = "alem"
T = TypeVar("T")


class StillClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **lengths: float) -> datetime:
        self.now += timedelta(**lengths)
        return self.now


@dataclass
class Site:
    """One cluster `alem` with nodes gpu0001 … on both sides, and one quota, which `aigerim` may use."""

    database: Database
    cluster: SimulatedCluster
    clock: StillClock
    quota_id: int = 0
    nodes: list[int] = field(default_factory=list)

    def reconcile(self) -> Outcome:
        return reconcile(self.database, self.cluster, WEEK, self.clock.now)

    def book(self, *nodes: int, **given: Any) -> int:
        """A booking of whole nodes by their numbers (1, 2, …); returns its id."""
        with self.database.transaction() as session:
            on = [session.get_one(Node, self.nodes[number - 1]) for number in nodes or (1,)]
            quota = session.get_one(Quota, given.pop("quota_id", self.quota_id))
            return factories.booking(session, quota, on=on, **given).id

    def change(self, booking_id: int, **values: Any) -> None:
        """Set columns of a booking directly."""
        with self.database.transaction() as session:
            booking = session.get_one(Booking, booking_id)
            for name, value in values.items():
                setattr(booking, name, value)

    def reservation(self, booking_id: int) -> Reservation:
        """The booking's row, detached."""
        return self.ask(
            lambda session: session.scalars(
                select(Reservation).where(Reservation.booking_id == booking_id)
            ).one()
        )

    def names(self) -> list[str]:
        """Names of the reservations that the cluster holds."""
        return [found.name for found in self.cluster.reservations()]

    def letters(self) -> list[str]:
        return self.ask(
            lambda session: list(session.scalars(select(OutboxItem.letter).order_by(OutboxItem.id)))
        )

    def events(self) -> list[str]:
        return self.ask(lambda session: list(session.scalars(select(Event.kind).order_by(Event.seq))))

    def ask(self, question: Callable[[Session], T]) -> T:
        with self.database.reader() as session:
            answer = question(session)
            session.expunge_all()
            return answer


def cluster_settings(folder: Path, nodes: int = 4) -> ClusterSettings:
    return ClusterSettings(slug=SLUG, nodes=nodes, database=folder / "simulated.sqlite3")


def site(database: Database, folder: Path, *, nodes: int = 4, now: datetime = NOW) -> Site:
    """A site at `now`; its simulated cluster keeps its file in `folder`."""
    clock = StillClock(now)
    made = Site(database, SimulatedCluster(cluster_settings(folder, nodes), clock=clock), clock)
    with database.transaction() as session:
        cluster = factories.cluster(session, slug=SLUG, nodes=nodes, now=now)
        for number, node in enumerate(cluster.nodes, start=1):
            node.name = f"gpu{number:04}"
        made.nodes = [node.id for node in cluster.nodes]
        person = factories.person(session, cluster_login="aigerim")
        quota = factories.quota(
            session,
            factories.application(session, person, cluster),
            gpu_hours=1_000,
            valid_from=now - timedelta(days=1),
            valid_until=now + timedelta(days=60),
        )
        made.quota_id = quota.id
    return made
