"""The demonstration's data: what a newcomer is to find, on a large cluster and on the four nodes of a lab."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import demo, events
from allocator.db import Database
from allocator.models import (
    Booking,
    BookingKind,
    BookingMove,
    BookingSeries,
    Cluster,
    Node,
    NodeState,
    Outage,
    PlanRun,
    Repair,
    WaitlistEntry,
)
from allocator.policy import load_policy
from allocator.states import BookingState, MoveState, OutageState, RepairState, WaitlistState
from tests import factories

# In the middle of a month; on its last evening; a minute before a day of booking begins, and when it does.
MOMENTS = (
    datetime(2026, 11, 22, 6, 5, 30, tzinfo=UTC),
    datetime(2026, 11, 30, 18, 30, tzinfo=UTC),
    datetime(2026, 12, 1, 4, 59, tzinfo=UTC),
    datetime(2027, 2, 28, 5, 0, tzinfo=UTC),
)


def load(session: Session, nodes: int, now: datetime) -> Node | None:
    cluster = factories.cluster(session, nodes=nodes, now=now - timedelta(days=40))
    return demo.load(session, cluster, load_policy(None), login=None, now=now)


@pytest.mark.parametrize(("nodes", "now"), [(64, MOMENTS[0]), *((4, now) for now in MOMENTS)], ids=str)
def test_whenever_it_is_loaded_everybody_finds_something(
    sqlite_database: Database, nodes: int, now: datetime
) -> None:
    with sqlite_database.transaction() as session:
        failed = load(session, nodes, now)
        assert failed is not None
        assert failed.state is NodeState.DOWN
    with sqlite_database.reader() as session:
        states = Counter(session.scalars(select(Booking.state)))
        kinds = Counter(session.scalars(select(Booking.kind)))
        assert {*states} >= {
            BookingState.ENDED,
            BookingState.STARTED,
            BookingState.CONFIRMED,
            BookingState.PLANNED,
            BookingState.HELD,
        }
        assert kinds[BookingKind.FLEXIBLE] == 2
        warned = session.scalars(select(Booking).where(Booking.no_show_warned_at.is_not(None))).one()
        assert (warned.state, warned.no_show_warned_at) == (BookingState.STARTED, now)
        assert session.scalar(select(func.count()).select_from(BookingSeries)) == 1
        assert session.scalars(select(WaitlistEntry.state)).all() == [WaitlistState.WAITING] * 2
        assert OutageState.PUBLISHED in session.scalars(select(Outage.state)).all()
        assert MoveState.TOLD in session.scalars(select(BookingMove.state)).all()
        assert RepairState.PROPOSED in session.scalars(select(Repair.state)).all()
        assert session.scalar(select(func.count()).where(Node.state == NodeState.EXPECTED))
        assert max(session.scalars(select(PlanRun)).one().prices["hours"]) > 0
        events.verify(session)


def test_a_booking_begins_two_minutes_after_loading(sqlite_database: Database) -> None:
    now = MOMENTS[0]
    with sqlite_database.transaction() as session:
        load(session, 4, now)
        cluster = session.scalars(select(Cluster)).one()
        soon = now + timedelta(minutes=2), now + timedelta(minutes=4)
        found = select(Booking).where(Booking.cluster_id == cluster.id, Booking.starts_at.between(*soon))
        assert [booking.state for booking in session.scalars(found)] == [BookingState.CONFIRMED]
