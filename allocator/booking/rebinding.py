"""Late binding: names of nodes are promised to nobody until the cluster is told, so they may still change.

Whole nodes that are booked beyond the days told to the cluster can be named anew whenever a new booking fits
by count but on no nodes as named today. Their times stay as they are; nobody is moved, and nobody is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM
from allocator.booking.windows import Held, NodeHeld, Place, Shape, merged, natural
from allocator.capacity import BEGINNING
from allocator.models import Booking, NodeSlot, Quota, Reservation
from allocator.policy import BookingRules
from allocator.sqltime import Window
from allocator.states import OPEN_BOOKINGS, ReservationState

# What is about to be told to the cluster stays as it is: reconcile may just be reading it.
MARGIN = timedelta(hours=1)
MOST_WORK = 300_000  # bookings × nodes: it is done under the lock of the cluster


@dataclass(frozen=True)
class Loose:
    """A booking of whole nodes whose names may change; ``ends_at`` is the end of its cleaning."""

    id: int
    starts_at: datetime
    ends_at: datetime
    nodes: frozenset[int]


@dataclass(frozen=True)
class Rebinding:
    """``places`` for what asks, and other nodes by booking for those that make way."""

    places: tuple[Place, ...]
    changes: Mapping[int, tuple[Place, ...]]


@dataclass
class _Node:
    """A node while names are given: what stays where it is, and until when the last booking goes."""

    node: NodeHeld
    fixed: Sequence[Held]
    until: datetime
    ahead: int = field(default=0)  # of ``fixed``, those that begin before the time that is looked at

    def free(self, starts_at: datetime, ends_at: datetime) -> bool:
        while self.ahead < len(self.fixed) and self.fixed[self.ahead].starts_at <= starts_at:
            self.until = max(self.until, self.fixed[self.ahead].ends_at)
            self.ahead += 1
        return self.until <= starts_at and (self.ahead == len(self.fixed) or self.next_at >= ends_at)

    @property
    def next_at(self) -> datetime:
        """When the next fixed thing begins."""
        return self.fixed[self.ahead].starts_at


def loose_from(rules: BookingRules, now: datetime) -> datetime:
    """Bookings that start from then on are not on the cluster yet."""
    return now + rules.materialise + MARGIN


def count_starts(nodes: Sequence[NodeHeld], shape: Shape, length: timedelta, span: Window) -> list[Window]:
    """When enough nodes would be free by their number, whatever their names, as closed intervals in order."""
    fit = [node for node in nodes if node.gpus == shape.gpus]
    changes = sorted(
        change
        for node in fit
        for first, last in merged(sorted((held.starts_at, held.ends_at) for held in node.held))
        for change in ((first, 1), (last, -1))
    )
    starts, position, used, most = [], span[0], 0, len(fit) - shape.nodes
    since: datetime | None = span[0] - length if most < 0 else None
    for moment, step in changes:
        used += step
        if used > most and since is None:
            since = moment
        elif used <= most and since is not None:
            # nothing may start so early that it runs into the time that is full, nor before that ends
            if since - length >= position:
                starts.append((position, min(since - length, span[1])))
            position, since = max(position, moment), None
    last = span[1] if since is None else min(span[1], since - length)
    if position <= last:
        starts.append((position, last))
    return [(first, last) for first, last in starts if first <= span[1]]


def rebind(nodes: Sequence[NodeHeld], loose: Sequence[Loose], ask: Loose, count: int) -> Rebinding | None:
    """Names for ``count`` nodes for ``ask`` and for everybody loose, or None; pure.

    ``nodes`` hold what stays where it is. In order of starts each takes nodes that are free for it. At first
    those that it has, so that little changes; if that fails, those with the least room before the next fixed
    thing. Without such things names are found whenever the number of nodes suffices, as intervals on a line
    can always be coloured.
    """
    in_order = sorted([*loose, ask], key=attrgetter("starts_at", "id"))
    for keeping in (True, False):
        given = _names(nodes, in_order, {ask.id: count}, keeping)
        if given is not None:
            changes = {
                one.id: given[one.id]
                for one in loose
                if {place.node_id for place in given[one.id]} != one.nodes
            }
            return Rebinding(given[ask.id], changes)
    return None


def _names(
    nodes: Sequence[NodeHeld], in_order: Sequence[Loose], counts: Mapping[int, int], keeping: bool
) -> dict[int, tuple[Place, ...]] | None:
    rows = [
        _Node(node, sorted(node.held, key=attrgetter("starts_at")), BEGINNING)
        for node in sorted(nodes, key=lambda node: natural(node.name))
    ]
    given: dict[int, tuple[Place, ...]] = {}
    for one in in_order:
        free = [row for row in rows if row.free(one.starts_at, one.ends_at)]
        wanted = counts.get(one.id, len(one.nodes))
        if len(free) < wanted:
            return None
        free.sort(key=lambda row: (keeping and row.node.id not in one.nodes, _room(row, one)))
        for row in free[:wanted]:
            row.until = one.ends_at
        given[one.id] = tuple(Place(row.node.id, row.node.name, 0, row.node.gpus) for row in free[:wanted])
    return given


def _room(row: _Node, one: Loose) -> tuple[float, float]:
    """After it and before it: the tightest place first."""
    after = (row.next_at - one.ends_at).total_seconds() if row.ahead < len(row.fixed) else float("inf")
    return after, (one.starts_at - row.until).total_seconds()


def find(
    session: Session,
    quota: Quota,
    nodes: Sequence[NodeHeld],
    shape: Shape,
    window: Window,
    rules: BookingRules,
    now: datetime,
    besides: int | None = None,
) -> Rebinding | None:
    """How the shape would fit if others made way; ``window`` ends with the cleaning. One or two queries.

    ``nodes`` are all bookable ones with everything that is taken of them from the first loose moment on,
    but for the booking ``besides``, which is to get the places.
    """
    begin = loose_from(rules, now)
    fit = [node for node in nodes if node.gpus == shape.gpus]
    if window[0] < begin or not count_starts(fit, shape, window[1] - window[0], (window[0], window[0])):
        return None
    read = _read(session, quota, begin, {node.id: node for node in fit})
    loose = [one for one in read if one.id != besides]
    if len(loose) * len(fit) > MOST_WORK:
        return None
    free = {(one.starts_at, one.ends_at, node) for one in loose for node in one.nodes}
    fixed = [
        NodeHeld(
            node.id,
            node.name,
            node.gpus,
            tuple(held for held in node.held if (held.starts_at, held.ends_at, node.id) not in free),
        )
        for node in fit
    ]
    return rebind(fixed, loose, Loose(0, *window, frozenset()), shape.nodes)


def _read(session: Session, quota: Quota, begin: datetime, fit: Mapping[int, NodeHeld]) -> list[Loose]:
    """Open bookings of whole nodes that the cluster does not know. One query, of rows and not of objects."""
    frozen = quota.cluster.frozen_until
    rows = session.execute(
        select(
            Booking.id,
            NodeSlot.node_id,
            NodeSlot.gpu_from,
            NodeSlot.gpu_to,
            NodeSlot.starts_at,
            NodeSlot.ends_at,
        )
        .join(NodeSlot.booking)
        .join(Booking.reservation)
        .join(Booking.quota)
        .where(
            Booking.cluster_id == quota.cluster_id,
            Quota.gpu_type == quota.gpu_type,
            Booking.state.in_(OPEN_BOOKINGS),
            # what begins in frozen days is left alone by every machine
            Booking.starts_at >= max(begin, frozen or begin),
            Booking.pin.is_(None),
            Reservation.state == ReservationState.PENDING,
            Reservation.seen_at.is_(None),
        )
    )
    windows: dict[int, Window] = {}
    nodes: dict[int, set[int]] = {}
    tied: set[int] = set()
    for number, node_id, gpu_from, gpu_to, starts_at, ends_at in rows:
        windows[number] = (starts_at, ends_at)
        nodes.setdefault(number, set()).add(node_id)
        if node_id not in fit or (gpu_from, gpu_to) != (0, fit[node_id].gpus):
            tied.add(number)
    return [
        Loose(number, *windows[number], frozenset(own)) for number, own in nodes.items() if number not in tied
    ]


def apply(session: Session, quota: Quota, found: Rebinding, now: datetime) -> bool:
    """Give the others their new names; False if the world has changed meanwhile. The caller has the lock."""
    if not found.changes:
        return True
    of_them = NodeSlot.booking_id.in_(list(found.changes))
    still = select(Booking.id).where(Booking.id.in_(list(found.changes)), Booking.state.in_(OPEN_BOOKINGS))
    # nobody waited for: an offer that lapses just now may itself be waiting for what we have
    if len(session.scalars(still.with_for_update(skip_locked=True, key_share=True)).all()) < len(
        found.changes
    ):
        return False
    try:
        with session.begin_nested():
            windows = {
                slot.booking_id: (slot.starts_at, slot.ends_at)
                for slot in session.scalars(select(NodeSlot).where(of_them))
            }
            session.execute(
                delete(NodeSlot).where(of_them), execution_options={"synchronize_session": "fetch"}
            )
            session.add_all(
                NodeSlot(
                    booking_id=number,
                    node_id=place.node_id,
                    gpu_from=place.gpu_from,
                    gpu_to=place.gpu_to,
                    starts_at=windows[number][0],
                    ends_at=windows[number][1],
                )
                for number, places in found.changes.items()
                for place in places
            )
            session.flush()
    except IntegrityError:
        return False
    after = {"bookings": sorted(found.changes)}
    events.record(session, SYSTEM, quota.cluster, "cluster.rebound", now=now, after=after)
    return True
