"""The bridge between rows and the planner: what is booked as columns over slots of time.

``read`` takes a picture of one GPU type, ``plan_search`` looks for a better plan on it without touching the
database, and who writes that down (``replanning``) takes the picture again first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager

from allocator import capacity
from allocator.booking import line_limits, rebinding
from allocator.booking.booking_checks import grid_of
from allocator.booking.line_limits import Limits
from allocator.booking.windows import Grid, NodeHeld, Shape
from allocator.models import Booking, Cluster, Period, Quota, WaitlistEntry
from allocator.policy import BookingRules
from allocator.states import BookingState, PeriodState, QuotaState, WaitlistState
from allocator.upkeep import repair_inputs
from allocator.upkeep.mending import Claim

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from allocator.planner import Demand

HOUR = timedelta(hours=1)
GPUS = 8  # of a node of the planner's; smaller nodes are counted in larger GPUs
MOST_SLOTS = 20_000  # with a finer boundary the planner counts in several of them
PROMISED = 1_000.0  # what is promised outweighs all that may still be
FIRST = 30.0  # and whoever is first in line those who stand behind


@dataclass(frozen=True)
class Picture:
    """Everything that a plan of one GPU type depends on, as it was at ``now``.

    ``nodes`` hold only what is no booking: outages, and the time before they join and after they leave.
    ``waiting`` are entries of the waitlist, in their order, with negative numbers and without places.
    """

    now: datetime
    nodes: tuple[NodeHeld, ...]
    claims: tuple[Claim, ...]
    waiting: tuple[Claim, ...]
    whole: bool
    grid: Grid
    cleaning: timedelta
    loose_from: datetime = capacity.FOREVER  # what begins from then on can still get other names of nodes
    keep_from: datetime = capacity.FOREVER  # from then on what gets free is kept together for who is first
    offered: frozenset[int] = frozenset()  # bookings that are offers which nobody has answered yet
    limits: Mapping[int, Limits] = field(default_factory=dict)  # of those who wait, by number

    def limits_of(self, claim: Claim) -> Limits:
        return line_limits.of(claim, self.limits)

    @property
    def loose(self) -> list[Claim]:
        """What a plan may move: promised at some time of a window, with all its nodes there."""
        there = {node.id for node in self.nodes}
        return [
            claim
            for claim in self.claims
            if claim.silent and claim.movable and all(place.node_id in there for place in claim.places)
        ]


@dataclass(frozen=True)
class Worth:
    """How good what is booked is: weighted GPU-hours, what no plan exceeds, and a price for each hour."""

    starts_at: datetime
    prices: tuple[float, ...]
    bookings: int
    value: float
    bound: float


def read(
    session: Session,
    cluster: Cluster,
    gpu_type: str,
    entries: Sequence[WaitlistEntry] = (),
    *,
    rules: BookingRules,
    now: datetime,
) -> Picture:
    """The picture as the database has it; ``entries`` are in the order of the waitlist.

    Seven queries, and a dozen more if anybody waits.
    """
    claims = repair_inputs.read_claims(session, cluster, gpu_type, rules=rules, now=now)
    edges = _edges(session, cluster, gpu_type, now)
    # nothing is moved into the days that are frozen, nor nearer than the notice that people were promised
    soonest = now + rules.fix_ahead
    frozen = cluster.frozen_until or now
    claims = [_bounded(one, soonest, frozen, edges) if one.silent else one for one in claims]
    nodes = repair_inputs.read_nodes(session, cluster, gpu_type, {claim.id for claim in claims}, now=now)
    offered = _offered(session, cluster) if entries else frozenset()
    held = [claim for claim in claims if claim.id in offered]
    seen = picture_of(session, cluster, entries, nodes, held, rules=rules, now=now)
    return replace(seen, claims=tuple(claims))


def picture_of(
    session: Session,
    cluster: Cluster,
    entries: Sequence[WaitlistEntry],
    nodes: Sequence[NodeHeld],
    offered: Sequence[Claim],
    *,
    rules: BookingRules,
    now: datetime,
) -> Picture:
    """Who waits, with their limits, on these nodes; of bookings only those that are ``offered``."""
    wanted = tuple(waiting(entry, rules, now) for entry in entries)
    return Picture(
        now=now,
        nodes=tuple(nodes),
        claims=tuple(offered),
        waiting=wanted,
        whole=not cluster.shares_nodes,
        grid=grid_of(rules),
        cleaning=rules.cleaning,
        loose_from=rebinding.loose_from(rules, now),
        keep_from=now + rules.fix_ahead,
        offered=frozenset(claim.id for claim in offered),
        limits=line_limits.read(session, cluster, entries, wanted, rules=rules, now=now),
    )


def _offered(session: Session, cluster: Cluster) -> frozenset[int]:
    """What is held for somebody and will be free again without an answer."""
    held = select(Booking.id).where(Booking.cluster_id == cluster.id, Booking.state == BookingState.HELD)
    return frozenset(session.scalars(held))


def _bounded(claim: Claim, soonest: datetime, frozen: datetime, edges: Collection[datetime]) -> Claim:
    """The starts at which a promise is still kept, and the same hours charged to the same grants."""
    if any(claim.starts_at < edge < claim.ends_at for edge in edges):
        return replace(claim, first=claim.starts_at, last=claim.starts_at)
    return replace(claim, first=max(claim.first, frozen, min(claim.starts_at, soonest)))


def _edges(session: Session, cluster: Cluster, gpu_type: str, now: datetime) -> set[datetime]:
    """Where a published period begins or ends."""
    rows = session.execute(
        select(Period.starts_at, Period.ends_at).where(
            Period.cluster_id == cluster.id,
            Period.gpu_type == gpu_type,
            Period.state == PeriodState.PUBLISHED,
            Period.ends_at > now,
        )
    )
    return {edge for row in rows for edge in row}


def queue(session: Session, cluster: Cluster, gpu_type: str, now: datetime) -> Sequence[WaitlistEntry]:
    """Who waits for the type and may get an offer now, in order of arrival, with quotas. One query."""
    return session.scalars(
        select(WaitlistEntry)
        .join(WaitlistEntry.quota)
        .options(contains_eager(WaitlistEntry.quota))
        .where(
            WaitlistEntry.cluster_id == cluster.id,
            WaitlistEntry.gpu_type == gpu_type,
            WaitlistEntry.state == WaitlistState.WAITING,
            Quota.state == QuotaState.ACTIVE,
            WaitlistEntry.rests_until.is_(None) | (WaitlistEntry.rests_until <= now),
        )
        .order_by(WaitlistEntry.created_at, WaitlistEntry.id)
    ).all()


def waiting(entry: WaitlistEntry, rules: BookingRules, now: datetime) -> Claim:
    """An entry as what a plan makes room for: its number is negative, and it has no places yet."""
    length = timedelta(seconds=entry.length_seconds)
    quota = entry.quota
    # whoever is offered something needs the time of an offer to say yes
    soonest = now + max(rules.lead_time, rules.hold)
    first = grid_of(rules).ceil(max(entry.earliest_at, quota.valid_from, soonest))
    last = min(entry.latest_at, quota.valid_until) - length
    return Claim(
        id=-entry.id,
        version=entry.version,
        shape=Shape(entry.nodes, entry.gpus_per_node),
        starts_at=first,
        ends_at=first + length,
        places=(),
        first=first,
        last=min(last, now + rules.max_ahead),
        gap=rules.cleaning,
    )


class Slots:
    """The planner's clock: slots of one length from the picture's moment on, none finer than a boundary."""

    def __init__(self, picture: Picture, until: datetime) -> None:
        step = picture.grid.step
        self.origin = picture.grid.floor(picture.now)
        self.step = step * max(1, -int(-((until - self.origin) / step) // MOST_SLOTS))
        self.count = max(1, self.after(until))

    def after(self, moment: datetime) -> int:
        """The first slot that begins at the moment or later."""
        return -((self.origin - moment) // self.step)

    def before(self, moment: datetime) -> int:
        """The last slot that begins at the moment or earlier."""
        return (moment - self.origin) // self.step

    def length(self, length: timedelta) -> int:
        return -(-length // self.step)

    def at(self, slot: int) -> datetime:
        return self.origin + slot * self.step


def demand_of(
    picture: Picture,
    slots: Slots,
    fixed: Iterable[Claim],
    wanted: Iterable[Claim],
    first: Collection[int] = (),
) -> tuple[Demand, list[Claim]] | None:
    """The planner's columns, and whose they are; None where its nodes of eight GPUs cannot show ours.

    A booking's value is its GPU-hours. The policy has no weight of a pool or of merit for bookings: who gets
    how much was settled when the period was divided, and planning does not judge a second time. So what is
    promised outweighs all that may still be, and among those who wait GPU-hours count, which the waitlist's
    order by congestion (``waitlist.in_order``) then sorts where they cannot all be had: ``first`` are the
    numbers of those before whom nobody waits for the same days.
    """
    import numpy as np

    from allocator.planner import Demand

    size = max((node.gpus for node in picture.nodes), default=0)
    if not size or GPUS % size:
        return None
    scale = GPUS // size
    kept, rows = [], []
    for claim in wanted:
        length = slots.length(claim.length + claim.gap)
        earliest = max(slots.after(claim.first), 0)
        latest = min(slots.before(claim.last) + length, slots.count)
        fits = claim.shape.nodes == 1 or claim.shape.gpus == size
        if fits and earliest + length <= latest:
            weight = PROMISED if claim.id > 0 else FIRST if claim.id in first else 1.0
            kept.append(claim)
            rows.append((claim.shape.nodes, claim.shape.gpus * scale, length, earliest, latest, weight))
    columns = np.array(rows, dtype=float).reshape(-1, 6).T
    nodes, gpus, duration, earliest_at, latest_at = columns[:5].astype(np.int64)
    demand = Demand(
        nodes_total=len(picture.nodes),
        slots=slots.count,
        slot_hours=slots.step / HOUR,
        nodes=nodes,
        gpus=gpus,
        duration=duration,
        earliest=earliest_at,
        latest=latest_at,
        weight=columns[5],
        capacity=_room(picture, slots, fixed, scale),
        groups=leaves(picture.nodes),
    )
    return demand, kept


def leaves(nodes: Sequence[NodeHeld]) -> tuple[int, ...] | None:
    """The leaf switch of each node by number, as the planner wants it; None where the cluster tells none."""
    names = [node.switch for node in nodes]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return tuple(number[name] for name in names) if all(names) and len(number) > 1 else None


def _room(picture: Picture, slots: Slots, fixed: Iterable[Claim], scale: int) -> NDArray[np.int8]:
    """GPUs free on each node in each slot around what stays; a slot that is taken in part is taken."""
    import numpy as np

    row = {node.id: place for place, node in enumerate(picture.nodes)}
    room = np.array([[node.gpus * scale] for node in picture.nodes], np.int64).repeat(slots.count, axis=1)

    def take(place: int, gpus: int, since: datetime, until: datetime) -> None:
        room[place, max(slots.before(since), 0) : max(slots.after(until), 0)] -= gpus * scale

    for place, node in enumerate(picture.nodes):
        for held in node.held:
            take(place, held.gpu_to - held.gpu_from, held.starts_at, held.ends_at)
    for claim in fixed:
        for part in claim.places:
            if part.node_id in row:
                gpus = part.gpu_to - part.gpu_from
                take(row[part.node_id], gpus, claim.starts_at, claim.ends_at + claim.gap)
    return room.clip(0).astype(np.int8)


def worth(picture: Picture) -> Worth:
    """What the bookings of the picture are worth, beside a proven bound, and the prices that prove it."""
    from allocator.planner.bound import upper_bound

    claims = [claim for claim in picture.claims if claim.places]
    demanded = [_as_demanded(claim, picture) for claim in claims]
    ends = [one.last + one.length + one.gap for one in (*demanded, *picture.waiting)]
    slots = Slots(picture, max(ends, default=picture.now + HOUR))
    made = demand_of(picture, slots, (), [*demanded, *picture.waiting])
    value = sum(replace(one, starts_at=max(one.starts_at, slots.origin)).weight for one in claims) / 3600
    if made is None:
        return Worth(slots.origin, (), len(claims), value, value)
    demand, _ = made
    demand = replace(demand, weight=demand.weight.clip(0.0, 1.0))
    bound = upper_bound(demand)
    # the planner counts GPUs of an eighth of a node
    share = max(node.gpus for node in picture.nodes) / GPUS
    most = max(bound.value * demand.slot_hours * share, value)
    prices = _by_hour(bound.price.tolist(), demand.slot_hours)
    return Worth(slots.origin, tuple(prices), len(claims), value, most)


def _as_demanded(claim: Claim, picture: Picture) -> Claim:
    """With the window that was promised, or its own time alone; what has begun counts from now on."""
    if claim.silent and claim.movable and claim.first <= claim.last:
        return claim
    start = max(claim.starts_at, picture.grid.floor(picture.now))
    return replace(claim, starts_at=start, first=start, last=start)


def _by_hour(prices: Sequence[float], hours: float) -> list[float]:
    """The mean price of each hour, whatever a slot's length."""
    count = max(1, -int(-len(prices) * hours // 1))
    found = []
    for hour in range(count):
        first, last = int(hour / hours), max(-int(-(hour + 1) / hours // 1), int(hour / hours) + 1)
        part = prices[first:last]
        found.append(round(sum(part) / len(part), 4) if part else 0.0)
    return found
