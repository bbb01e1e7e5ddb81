"""Builders of what only calendars show: outages, prices of demand, feeds. They never commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from sqlalchemy.orm import Session

from allocator.accounts.tokens import new_token, token_hash
from allocator.models import (
    Booking,
    BookingSeries,
    CalendarFeed,
    Cluster,
    Node,
    NodeSlot,
    Outage,
    Person,
    PlanRun,
    Quota,
    WaitlistEntry,
)
from allocator.models.outages import OutageKind, OutageNode
from allocator.states import BookingState, OutageState, WaitlistState
from config.clock import utcnow
from tests.factories import NOW, booking


def outage(
    session: Session,
    cluster: Cluster,
    by: Person,
    *,
    on: Iterable[Node] | None = None,
    starts_at: datetime = NOW + timedelta(days=3),
    hours: int = 10,
    state: OutageState = OutageState.PUBLISHED,
    reason: str = "The cooling is renewed.",
    now: datetime = NOW,
) -> Outage:
    """Maintenance of the nodes `on` (else of the last one); published, it holds them."""
    chosen = list(on) if on is not None else sorted(cluster.nodes, key=lambda node: node.name)[-1:]
    row = Outage(
        cluster=cluster,
        kind=OutageKind.MAINTENANCE,
        state=state,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(hours=hours),
        reason=reason,
        created_by_id=by.id,
        created_at=now,
        published_at=None if state is OutageState.DRAFT else now,
    )
    row.nodes = [OutageNode(node_id=node.id) for node in chosen]
    if state is OutageState.PUBLISHED:
        row.slots = [
            NodeSlot(node=node, gpu_from=0, gpu_to=node.gpus, starts_at=row.starts_at, ends_at=row.ends_at)
            for node in chosen
        ]
    session.add(row)
    session.flush()
    return row


def prices(
    session: Session, cluster: Cluster, by_hour: Sequence[float], *, starts_at: datetime = NOW
) -> PlanRun:
    """The latest plan of the cluster's GPUs, with a price for each hour from `starts_at`."""
    row = PlanRun(
        cluster=cluster,
        gpu_type="h200",
        made_at=starts_at,
        starts_at=starts_at,
        prices={"hours": list(by_hour)},
        bookings=1,
        value=1.0,
        bound=1.0,
    )
    session.add(row)
    session.flush()
    return row


def held(session: Session, quota: Quota, *, minutes: int = 10, days: int = 28) -> Booking:
    """An offer that waits for a yes, of one GPU for an hour."""
    now = utcnow()
    start = now.replace(minute=0, second=0, microsecond=0) + timedelta(days=days)
    row = booking(session, quota, starts_at=start, hours=1, gpus_per_node=1, now=now)
    row.state, row.held_until = BookingState.HELD, now + timedelta(minutes=minutes)
    session.flush()
    return row


def series(session: Session, quota: Quota, by: Person) -> BookingSeries:
    """Nights of a week, without its bookings."""
    row = BookingSeries(
        quota_id=quota.id,
        weekdays=127,
        start_minute=22 * 60,
        length_seconds=12 * 3600,
        first_day=date(2026, 12, 1),
        last_day=date(2026, 12, 7),
        created_by_id=by.id,
        created_at=NOW,
    )
    session.add(row)
    session.flush()
    return row


def waiting(
    session: Session,
    quota: Quota,
    by: Person,
    *,
    offer: Booking | None = None,
    after: int = 20,
    days: int = 20,
    now: datetime = NOW,
) -> WaitlistEntry:
    """A place on the waitlist for `days` from `after` days from now on, with an offer or without one."""
    first = now.replace(minute=0, second=0, microsecond=0) + timedelta(days=after)
    row = WaitlistEntry(
        quota=quota,
        cluster_id=quota.cluster_id,
        gpu_type=quota.gpu_type,
        asked_by_id=by.id,
        nodes=1,
        gpus_per_node=1,
        length_seconds=3600,
        earliest_at=first,
        latest_at=first + timedelta(days=days),
        state=WaitlistState.OFFERED if offer else WaitlistState.WAITING,
        booking=offer,
        answer_until=offer.held_until if offer else None,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row


def feed(
    session: Session,
    person: Person,
    *,
    quota: Quota | None = None,
    token: str | None = None,
    now: datetime = NOW,
) -> CalendarFeed:
    """An address of a feed; its secret is `token`, or nobody's."""
    row = CalendarFeed(
        token_hash=token_hash(token or new_token()), person_id=person.id, quota=quota, created_at=now
    )
    session.add(row)
    session.flush()
    return row
