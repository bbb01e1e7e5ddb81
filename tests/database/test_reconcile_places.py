"""Reconcile where places change: bookings in each other's way, nodes that are to come, published outages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from allocator.db import Database
from allocator.models import Booking, Cluster, Node, NodeSlot, NodeState, Outage, OutageKind, OutageNode
from allocator.states import BookingState, OutageState, ReservationState
from scheduler.clusters.base import Reservation
from scheduler.clusters.simulated_store import Fault
from tests import factories
from tests.factories import NOW
from tests.scheduling import Site, site

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Site:
    return site(database, tmp_path)


def held(here: Site, name: str) -> Reservation:
    return next(one for one in here.cluster.reservations() if one.name == name)


def put(here: Site, places: Mapping[int, int]) -> None:
    """Bind bookings (by id) to one other node each (by its number), all at once."""
    with here.database.transaction() as session:
        session.execute(delete(NodeSlot).where(NodeSlot.booking_id.in_(places)))
        for number, node in places.items():
            booking = session.get_one(Booking, number)
            window = {"starts_at": booking.starts_at, "ends_at": booking.ends_at}
            slot = NodeSlot(booking_id=number, node_id=here.nodes[node - 1], gpu_from=0, gpu_to=8, **window)
            session.add(slot)


def announce(here: Site) -> int:
    """The number of a node that is to come."""
    with here.database.transaction() as session:
        cluster = session.scalars(select(Cluster)).one()
        state = {"state": NodeState.EXPECTED, "joins_at": NOW + HOUR, "seen_at": NOW}
        node = Node(cluster=cluster, name="gpu0005", partition="gpu", gpu_type="h200", gpus=8, **state)
        session.add(node)
        session.flush()
        here.nodes.append(node.id)
    return len(here.nodes)


def outage(here: Site, windows: Mapping[int, tuple[datetime, datetime]]) -> int:
    """A published outage that has each node (by its number) for a window."""
    with here.database.transaction() as session:
        operator = factories.person(session)
        row = Outage(
            cluster=session.scalars(select(Cluster)).one(),
            kind=OutageKind.OUTAGE,
            state=OutageState.PUBLISHED,
            starts_at=min(since for since, _ in windows.values()),
            ends_at=max(until for _, until in windows.values()),
            reason="New firmware.",
            created_by_id=operator.id,
            created_at=NOW,
        )
        for number, (since, until) in windows.items():
            node_id = here.nodes[number - 1]
            row.nodes.append(OutageNode(node_id=node_id))
            row.slots.append(NodeSlot(node_id=node_id, gpu_from=0, gpu_to=8, starts_at=since, ends_at=until))
        session.add(row)
        session.flush()
        return row.id


def the_outage(here: Site, number: int) -> Outage:
    return here.ask(lambda session: session.get_one(Outage, number))


def maintenance(name: str, since: datetime, until: datetime, *nodes: str) -> Reservation:
    return Reservation(name, since, until, nodes, (), maintenance=True)


class TestInEachOthersWay:
    def test_a_chain_and_a_circle_are_settled_in_one_round(self, here: Site) -> None:
        first, second, third = (here.book(number) for number in (1, 2, 3))
        here.reconcile()
        told = here.letters()
        for places in ({first: 2, second: 4}, {first: 4, second: 2}, {first: 2, second: 3, third: 4}):
            put(here, places)
            assert here.reconcile().failures == {}
            assert {number: held(here, f"kezek-{number}").nodes for number in places} == {
                number: (f"gpu000{node}",) for number, node in places.items()
            }
        assert here.letters() == told, "nobody hears that a place was taken for a moment"

    def test_one_with_jobs_in_it_is_not_made_anew(self, here: Site) -> None:
        running = here.book(1, starts_at=NOW - HOUR, state=BookingState.STARTED)
        other = here.book(2, starts_at=NOW - HOUR, state=BookingState.STARTED)
        here.reconcile()
        for number in (running, other):
            here.cluster.submit("aigerim", f"kezek-q{here.quota_id}", 8, reservation=f"kezek-{number}")
        # Nobody moves what has begun; should it happen all the same, the jobs go on.
        put(here, {running: 2, other: 1})
        assert here.reconcile().failures.keys() == {f"kezek-{running}", f"kezek-{other}"}
        assert [run.state for run, _ in here.cluster.jobs()] == ["RUNNING", "RUNNING"]
        assert held(here, f"kezek-{running}").nodes == ("gpu0001",)


class TestNodesToCome:
    def test_they_are_waited_for(self, here: Site) -> None:
        coming = announce(here)
        booking = here.book(1, coming)
        assert here.reconcile().failures == {}
        assert here.names() == []
        assert here.reservation(booking).state is ReservationState.PENDING
        assert here.letters() == []

    def test_one_that_late_is_refused_and_told(self, here: Site) -> None:
        booking = here.book(announce(here))
        with here.database.transaction() as session:
            session.get_one(Node, here.nodes[-1]).state = NodeState.DOWN
        here.reconcile()
        assert here.reservation(booking).state is ReservationState.BLOCKED

    def test_a_booking_that_is_moved_there_leaves_its_place_to_others(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        put(here, {booking: announce(here)})
        next_ = here.book(1)
        assert here.reconcile().failures == {}
        assert here.names() == [f"kezek-{next_}"]
        assert here.reservation(booking).state is ReservationState.PENDING


class TestOutages:
    def test_they_are_kept_on_the_cluster_however_far_away(self, here: Site) -> None:
        since = NOW + 60 * DAY
        number = outage(here, {1: (since, since + DAY), 2: (since, since + DAY)})
        here.reconcile()
        wanted = maintenance(f"kezek-outage-{number}", since, since + DAY, "gpu0001", "gpu0002")
        assert here.cluster.reservations() == [wanted]
        assert the_outage(here, number).reserved_at == NOW
        assert the_outage(here, number).version == 1
        here.cluster.delete_by_hand(wanted.name)
        here.clock.advance(minutes=1)
        here.reconcile()
        assert here.cluster.reservations() == [wanted]
        assert the_outage(here, number).reserved_at == NOW
        assert here.reconcile().plan.steps == ()

    def test_nodes_that_are_taken_later_have_their_own(self, here: Site) -> None:
        until = NOW + DAY
        times = {1: (NOW, until), 2: (NOW + 2 * HOUR, until), announce(here): (NOW, until)}
        number = outage(here, times)
        here.reconcile()
        assert here.cluster.reservations() == [
            maintenance(f"kezek-outage-{number}", NOW, until, "gpu0001"),
            maintenance(f"kezek-outage-{number}-2", NOW + 2 * HOUR, until, "gpu0002"),
        ]

    def test_a_booking_moves_out_of_the_way_in_the_same_round(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        put(here, {booking: 2})
        number = outage(here, {1: (NOW + DAY, NOW + 2 * DAY)})
        assert here.reconcile().failures == {}
        assert held(here, f"kezek-{booking}").nodes == ("gpu0002",)
        assert held(here, f"kezek-outage-{number}").nodes == ("gpu0001",)

    @pytest.mark.parametrize("state", [OutageState.CANCELLED, OutageState.ENDED])
    def test_what_is_over_goes(self, here: Site, state: OutageState) -> None:
        number = outage(here, {1: (NOW, NOW + DAY)})
        here.reconcile()
        with here.database.transaction() as session:
            row = session.get_one(Outage, number)
            row.state, row.slots = state, []
        booking = here.book(1, starts_at=NOW + HOUR, hours=2)
        assert here.reconcile().failures == {}
        assert here.names() == [f"kezek-{booking}"]

    def test_those_of_another_database_are_left_alone(self, here: Site) -> None:
        foreign = maintenance("kezek-outage-77", NOW + DAY, NOW + 2 * DAY, "gpu0001")
        here.cluster.put_by_hand(foreign)
        booking = here.book(1)
        outcome = here.reconcile()
        assert held(here, foreign.name) == foreign
        assert here.reservation(booking).state is ReservationState.BLOCKED
        assert any("kezek-outage-77" in line for line in outcome.plan.lines())

    def test_what_keeps_it_away_is_written_down_until_it_is_there(self, here: Site) -> None:
        number = outage(here, {1: (NOW + DAY, NOW + 2 * DAY), 2: (NOW + DAY, NOW + 2 * DAY)})
        here.cluster.set_fault(Fault.UNDER_DELIVERY, 1)
        here.reconcile()
        row = the_outage(here, number)
        assert row.reserved_at is None
        assert "gpu0002" in (row.problem or "")
        here.cluster.clear_faults(Fault.UNDER_DELIVERY)
        here.reconcile()
        row = the_outage(here, number)
        assert (row.reserved_at, row.problem) == (NOW, None)
