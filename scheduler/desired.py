"""What a cluster should hold, read from the database in a handful of queries however much there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from allocator.dividing import period_limits
from allocator.models import Booking, Cluster, Node, NodeSlot, NodeState, Person, Quota, QuotaMember
from allocator.models import Reservation as ReservationRow
from allocator.states import VOID_BOOKINGS, BookingState, QuotaState, ReservationState
from scheduler.clusters import base
from scheduler.clusters.names import MOST_SHARES
from scheduler.outages import TrackedOutage, read_outages, retired_outages
from scheduler.plan import OUR_ACCOUNT, OUR_RESERVATION, Wanted

# A limit must stand before the booking begins that it is for, and rounds are half a minute apart.
EARLY = timedelta(minutes=2)
CHUNK = 5_000  # values in one statement: both databases have a limit
UNSETTLED = (ReservationState.PENDING, ReservationState.RESERVED, ReservationState.BLOCKED)
LIVE = (BookingState.CONFIRMED, BookingState.STARTED)
UNSURE = (BookingState.HELD, BookingState.PLANNED)


@dataclass(frozen=True)
class Tracked:
    """One reservation's row as it was read.

    ``wanted``: the cluster should have it now; ``over``: its booking has ended or was cancelled; ``waits``:
    for nodes that are announced and not there yet.
    """

    id: int
    name: str
    booking_id: int
    state: ReservationState
    seen_before: bool
    wanted: bool
    over: bool
    waits: bool = False


@dataclass(frozen=True)
class Desired:
    """The wanted state of one cluster and the rows that will remember how far it has come.

    ``quotas`` maps an account's name to its quota's id; ``tracked`` a reservation's name to its row.
    """

    cluster_id: int
    wanted: Wanted
    quotas: Mapping[str, int]
    tracked: Mapping[str, Tracked]
    outages: tuple[TrackedOutage, ...] = ()


def read_desired(
    session: Session, slug: str, materialise: timedelta, now: datetime, shown: Iterable[str] = ()
) -> Desired | None:
    """The desired state of cluster ``slug`` at ``now`` (its own clock); None for a cluster without a row.

    Of the names ``shown`` there, those that this database has given and that are over count as retired.
    """
    cluster = session.execute(select(Cluster.id, Cluster.reserves_gpus).where(Cluster.slug == slug)).first()
    if cluster is None:
        return None
    rows = _bookings(session, cluster.id, materialise, now)
    live = [row for row in rows if _is_wanted(row, now)]
    # A closed quota's account stays for as long as one of its bookings is kept.
    needed = {row.quota_id for row in live if row.quota_state is not QuotaState.ACTIVE}
    accounts, quotas = _accounts(session, cluster.id, needed, now)
    reservations, waiting = _reservations(session, live)
    if not cluster.reserves_gpus:
        for name, gpus in _gpus_at_a_time(live, reservations, now).items():
            accounts[name] = replace(accounts[name], gpus=gpus)
    lost = {row.name for row in live} - reservations.keys() - waiting
    outages = read_outages(session, cluster.id, now)
    tracked = {
        row.name: Tracked(
            row.id,
            row.name,
            row.booking_id,
            row.state,
            row.seen_at is not None,
            row.name in reservations,
            row.booking_state not in LIVE,
            row.name in waiting,
        )
        for row in rows
        if row.name not in lost
    }
    reservations |= outages.reservations
    unwanted = {name for name in shown if name not in reservations and name not in accounts}
    # One that was moved to nodes that are still to come holds what others may have by now.
    retired = frozenset(_retired(session, cluster.id, unwanted, now)) | (waiting & unwanted)
    wanted = Wanted(accounts, reservations, retired)
    return Desired(cluster.id, wanted, quotas, tracked, outages.tracked)


def _retired(session: Session, cluster_id: int, names: Iterable[str], now: datetime) -> Iterator[str]:
    """Those names that this database has given to a booking or a quota of the cluster that is over."""
    # By the cluster's own clock: ours may be ahead, and a job is promised its last minute too.
    over = or_(Booking.state.in_(VOID_BOOKINGS), Booking.ends_at <= now)
    named = sorted(name for name in names if OUR_RESERVATION.fullmatch(name) or OUR_ACCOUNT.fullmatch(name))
    for start in range(0, len(named), CHUNK):
        some = named[start : start + CHUNK]
        rows = (
            select(ReservationRow.name)
            .join(Booking, Booking.id == ReservationRow.booking_id)
            .where(ReservationRow.cluster_id == cluster_id, ReservationRow.name.in_(some), over)
        )
        yield from session.scalars(rows)
        ids = {int(name.removeprefix("kezek-q")) for name in some if OUR_ACCOUNT.fullmatch(name)}
        quotas = select(Quota.id).where(Quota.cluster_id == cluster_id, Quota.id.in_(storable(ids)))
        yield from (Quota.account_name(quota_id) for quota_id in session.scalars(quotas))
    yield from retired_outages(session, cluster_id, names)


def storable(ids: Iterable[int]) -> list[int]:
    """Those numbers that a column can hold: anybody may name an account kezek-q with nineteen nines."""
    return [number for number in ids if number < 2**63]


def _bookings(session: Session, cluster_id: int, materialise: timedelta, now: datetime) -> Sequence[Any]:
    """Rows that are not settled yet: to be made, to be kept, or to be released."""
    # What lies beyond the horizon stays PENDING and unread; what the cluster has already is never taken back.
    soon = Booking.starts_at <= now + materialise
    pending = ReservationRow.state == ReservationState.PENDING
    # An offer, and a plan that may still change, are nothing for the cluster.
    waiting = pending & or_(Booking.state.in_(UNSURE), Booking.state.in_(LIVE) & ~soon)
    statement = (
        select(
            ReservationRow.id,
            ReservationRow.name,
            ReservationRow.state,
            ReservationRow.seen_at,
            ReservationRow.booking_id,
            Booking.quota_id,
            Booking.state.label("booking_state"),
            Booking.starts_at,
            Booking.ends_at,
            Booking.gpus_per_node,
            Quota.state.label("quota_state"),
        )
        .join(Booking, Booking.id == ReservationRow.booking_id)
        .join(Quota, Quota.id == Booking.quota_id)
        .where(ReservationRow.cluster_id == cluster_id, ReservationRow.state.in_(UNSETTLED))
        .where(~waiting)
    )
    return session.execute(statement).all()


def _is_wanted(row: Any, now: datetime) -> bool:
    return row.booking_state in LIVE and row.ends_at > now


def _reservations(
    session: Session, live: Iterable[Any]
) -> tuple[dict[str, base.Reservation], frozenset[str]]:
    """What to make, and the names of what has to wait for nodes that are announced and not there yet."""
    bookings = {row.booking_id: row for row in live}
    nodes: dict[int, list[tuple[str, int]]] = defaultdict(list)
    waiting = set()
    for booking_id, name, gpus, state in _slots(session, bookings):
        nodes[booking_id].append((name, gpus))
        if state is NodeState.EXPECTED:
            waiting.add(bookings[booking_id].name)
    made = {}
    for booking_id, row in bookings.items():
        places = nodes.get(booking_id)
        if row.name in waiting:
            continue
        if not places:
            # The slots went with a cancellation that came between the two queries: the next round sees it.
            continue
        whole = all(gpus <= row.gpus_per_node for _, gpus in places)
        made[row.name] = base.Reservation(
            name=row.name,
            starts_at=row.starts_at.replace(microsecond=0),
            ends_at=row.ends_at.replace(microsecond=0),
            nodes=tuple(sorted(name for name, _ in places)),
            accounts=(Quota(id=row.quota_id).account,),
            gpus_per_node=None if whole else row.gpus_per_node,
        )
    return made, frozenset(waiting)


def _slots(session: Session, bookings: Iterable[int]) -> Iterator[tuple[int, str, int, NodeState]]:
    """The booking, the node's name, how many GPUs the node has and how it is."""
    ids = sorted(bookings)
    for start in range(0, len(ids), CHUNK):
        statement = (
            select(NodeSlot.booking_id, Node.name, Node.gpus, Node.state)
            .join(Node, Node.id == NodeSlot.node_id)
            .where(NodeSlot.booking_id.in_(ids[start : start + CHUNK]))
        )
        for booking, name, gpus, state in session.execute(statement):
            yield booking or 0, name, gpus, state


def _gpus_at_a_time(
    live: Iterable[Any], reservations: Mapping[str, base.Reservation], now: datetime
) -> dict[str, int]:
    """What accounts are limited to where nothing else keeps bookings of one node apart.

    Only while a part of a node is theirs: then they have all the GPUs that they booked for now, and no more.
    """
    gpus: dict[str, list[int]] = {}
    sharing = set()
    for row in live:
        made = reservations.get(row.name)
        if made is None:
            continue
        [account] = made.accounts
        amounts = gpus.setdefault(account, [0, 0])
        for which, moment in enumerate((now, now + EARLY)):
            if made.starts_at <= moment < made.ends_at:
                amounts[which] += row.gpus_per_node * len(made.nodes)
                if made.gpus_per_node is not None:
                    sharing.add(account)
    return {account: max(amounts) for account, amounts in gpus.items() if account in sharing}


def _accounts(
    session: Session, cluster_id: int, needed: set[int], now: datetime
) -> tuple[dict[str, base.Account], dict[str, int]]:
    """Accounts of live quotas, and of any other that a live booking still needs."""
    mine = and_(Quota.cluster_id == cluster_id, _live_quota(needed))
    members: dict[int, set[str]] = defaultdict(set)
    logins = (
        select(QuotaMember.quota_id, Person.cluster_login)
        .join(Person, Person.id == QuotaMember.person_id)
        .join(Quota, Quota.id == QuotaMember.quota_id)
        .where(mine, Person.cluster_login.is_not(None), Person.disabled_at.is_(None))
    )
    for quota_id, login in session.execute(logins):
        members[quota_id] |= {login} if login else set()
    periods = period_limits.current_limits(session, cluster_id, now)
    accounts, quotas = {}, {}
    statement = select(Quota.id, Quota.gpu_seconds, Quota.valid_from).where(mine)
    for quota_id, gpu_seconds, valid_from in session.execute(statement):
        name = Quota(id=quota_id).account
        # Before its validity begins a quota has its account, for reservations to name, but nothing to spend.
        period = periods.get(quota_id)
        minutes = _limit(gpu_seconds, period) // 60 if valid_from <= now else 0
        description = f"kezek quota {quota_id}"
        who = frozenset(members[quota_id])
        accounts[name] = base.Account(name, description, minutes, who, _shares(period))
        quotas[name] = quota_id
    return accounts, quotas


def _limit(gpu_seconds: int, period: tuple[int, int] | None) -> int:
    """GPU-seconds at which the account stops: the quota, or earlier at the end of what a period granted.

    The cluster counts from the account's first job and never forgets, so that what was used before the
    period comes on top of the grant.
    """
    if period is None:
        return gpu_seconds
    granted, used_before = period
    return min(gpu_seconds, used_before + granted)


def _shares(period: tuple[int, int] | None) -> int:
    """The account's weight among queued jobs: a share for each GPU-hour granted, and never none at all.

    Outside of periods it is Slurm's own default, lest what a period granted ranks jobs long after it.
    """
    return min(max(period[0] // 3600, 1), MOST_SHARES) if period else 1


def _live_quota(needed: set[int]) -> ColumnElement[bool]:
    active = Quota.state == QuotaState.ACTIVE
    return or_(active, Quota.id.in_(sorted(needed))) if needed else active
