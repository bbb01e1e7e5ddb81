"""What each of those who wait could take at all: starts that its grants carry, and hours that it has left.

Whoever could not take what is kept for it shall not keep others waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import capacity, ledger
from allocator.booking.booking_checks import SHAPE_CHECKS, Ask, Circumstances, Opened, faults_of
from allocator.booking.grounds import Ground
from allocator.booking.windows import Shape
from allocator.dividing import grants
from allocator.models import Booking, Cluster, WaitlistEntry
from allocator.policy import BookingRules
from allocator.sqltime import Window, seconds_between
from allocator.states import OPEN_BOOKINGS
from allocator.upkeep.mending import Claim


@dataclass(frozen=True)
class Limits:
    """``starts`` as closed intervals in order, also beyond the days that are open for booking yet."""

    starts: tuple[Window, ...]
    able: bool = True


def read(
    session: Session,
    cluster: Cluster,
    entries: Sequence[WaitlistEntry],
    claims: Iterable[Claim],
    *,
    rules: BookingRules,
    now: datetime,
) -> dict[int, Limits]:
    """The limits by the numbers of the claims, which are the entries' in their order.

    A constant number of queries, and three for each published period; ``entries`` are of one GPU type.
    """
    if not entries:
        return {}
    quotas = {entry.quota_id: entry.quota for entry in entries}
    balances = ledger.balances(session, quotas)
    begun = opened_of(session, quotas, now)
    rooms = grants.rooms_of(session, cluster, entries[0].gpu_type, quotas, since=now)
    gpu_type = capacity.gpu_types(session, cluster).get(entries[0].gpu_type)
    found = {}
    for entry, claim in zip(entries, claims, strict=True):
        number = entry.quota_id
        around = Circumstances(
            entry.quota,
            balances[number],
            gpu_type,
            rules,
            now,
            rooms[number],
            begun.get(number, Opened()),
        )
        ask = Ask(entry.nodes, entry.gpus_per_node, claim.first, claim.first + claim.length)
        last = min(entry.latest_at, entry.quota.valid_until) - claim.length
        ground = Ground((), rooms[number], not cluster.shares_nodes, rules.cleaning)
        shape = Shape(entry.nodes, entry.gpus_per_node)
        starts = ground.granted(shape, claim.length, [(claim.first, last)]) if claim.first <= last else []
        allowed = tuple((first, until) for first, until in starts if first <= until)
        found[claim.id] = Limits(allowed, not faults_of(ask, around, SHAPE_CHECKS))
    return found


def of(claim: Claim, known: Mapping[int, Limits]) -> Limits:
    """The claim's limits; without any, its own first and last start are all."""
    found = known.get(claim.id)
    if found is not None:
        return found
    return Limits(((claim.first, claim.last),) if claim.first <= claim.last else ())


def opened_of(session: Session, quota_ids: Iterable[int], now: datetime) -> dict[int, Opened]:
    """``placing.opened`` of many quotas. One query."""
    length = seconds_between(Booking.starts_at, Booking.ends_at)
    ahead = func.sum(Booking.nodes * Booking.gpus_per_node * length).filter(Booking.starts_at > now)
    rows = session.execute(
        select(Booking.quota_id, func.count(), func.coalesce(ahead, 0))
        .where(Booking.quota_id.in_(list(quota_ids)), Booking.state.in_(OPEN_BOOKINGS))
        .group_by(Booking.quota_id)
    )
    return {number: Opened(int(count), int(gpu_seconds)) for number, count, gpu_seconds in rows}
