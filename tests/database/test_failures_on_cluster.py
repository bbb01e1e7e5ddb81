"""From a node that dies to the reservation on other nodes, on both databases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from allocator.actors import Role
from allocator.db import Database
from allocator.models import Booking, BookingMove, Node, OutageKind, Repair
from allocator.policy import load_policy
from allocator.states import RepairState
from allocator.upkeep import failures, outages, repair_steps
from allocator.upkeep.outages import OutagePlan
from scheduler import inventory, repairs
from scheduler.clusters.base import NodeState
from tests import factories, upkeep
from tests.factories import NOW
from tests.scheduling import SLUG, Site, site

RULES = load_policy().bookings
HOUR = timedelta(hours=1)


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Site:
    made = site(database, tmp_path)
    with database.transaction() as session:
        factories.person(session, roles=[Role.OPERATOR])
    return made


def look(here: Site) -> int:
    """What the inventory job and the job of repairs do; returns how many repairs are new."""
    inventory.take(here.database, here.cluster, here.clock.now)
    new = inventory.watch(here.database, SLUG, here.clock.now)
    done = repairs.work_out(here.database, rules=RULES, now=here.clock.now, go_on=lambda: True)
    assert done["worked_out"] == new
    return new


def apply(here: Site) -> int:
    """An operator takes the proposal; returns how many letters that makes."""
    with here.database.transaction() as session:
        operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        repair = session.scalars(select(Repair).where(Repair.state == RepairState.PROPOSED)).one()
        return len(
            repair_steps.apply(
                session,
                operator,
                repair,
                "fewest_drops",
                reason="A power supply failed.",
                expected_version=repair.version,
                rules=RULES,
                now=here.clock.now,
            )
        )


def nodes_of(here: Site, booking_id: int) -> tuple[str, ...]:
    name = f"kezek-{booking_id}"
    return next(one.nodes for one in here.cluster.reservations() if one.name == name)


def test_a_dead_node_is_replaced_in_the_reservation(here: Site) -> None:
    booking = here.book(1, starts_at=NOW + 3 * HOUR, hours=6)
    here.reconcile()
    assert nodes_of(here, booking) == ("gpu0001",)
    here.cluster.set_node("gpu0001", NodeState.DOWN, "not responding")
    here.clock.advance(seconds=30)
    assert look(here) == 0
    here.clock.advance(seconds=failures.MOMENT.total_seconds())
    assert look(here) == 1
    assert apply(here) == 0  # the same time on another node is told to nobody
    here.reconcile()
    assert nodes_of(here, booking) == ("gpu0002",)
    here.clock.advance(minutes=1)
    assert look(here) == 0


def test_what_must_move_moves_on_the_cluster_too(here: Site) -> None:
    first = here.book(1, 2, 3, starts_at=NOW + 3 * HOUR, hours=6)
    second = here.book(4, starts_at=NOW + 3 * HOUR, hours=2)
    here.reconcile()
    here.cluster.set_node("gpu0001", NodeState.DOWN, "not responding")
    look(here)
    here.clock.advance(minutes=3)
    look(here)
    assert apply(here) == 1
    here.reconcile()
    moved = here.ask(lambda session: session.get_one(Booking, first))
    assert (
        moved.starts_at == NOW + 5 * HOUR
    )  # as soon as the other has ended, and a day's notice is not broken
    held = next(one for one in here.cluster.reservations() if one.name == f"kezek-{first}")
    assert (held.starts_at, set(held.nodes)) == (moved.starts_at, {"gpu0002", "gpu0003", "gpu0004"})
    assert nodes_of(here, second) == ("gpu0004",)
    assert "booking_moved" in here.letters()


def test_a_published_outage_takes_the_reservation_away_from_its_nodes(here: Site) -> None:
    booking = here.book(1, 2, starts_at=NOW + 30 * HOUR, hours=6)
    here.reconcile()
    with here.database.transaction() as session:
        operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        node = session.get_one(Node, here.nodes[0])
        plan = OutagePlan(OutageKind.MAINTENANCE, NOW + 29 * HOUR, NOW + 40 * HOUR, "New cables.", (node.id,))
        outage = upkeep.draft(session, operator, node.cluster, plan, rules=RULES, now=NOW)
        outages.publish(session, operator, outage, "fewest_moves", expected_version=1, rules=RULES, now=NOW)
        assert session.scalars(select(BookingMove)).all() == []
    here.reconcile()
    assert "gpu0001" not in nodes_of(here, booking)
    assert here.reconcile().plan.steps == ()
