"""Where somebody who waits stands: rank and date by the same line by which offers are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.orm import Session

from allocator import capacity
from allocator.booking import line, planning, waitlist
from allocator.booking.line import Stand, Turn
from allocator.booking.planning import Picture
from allocator.booking.windows import Held, NodeHeld, Place, Shape
from allocator.errors import WrongState
from allocator.models import Booking, Cluster, NodeSlot, WaitlistEntry
from allocator.policy import BookingRules
from allocator.sqltime import Window
from allocator.states import BookingState, WaitlistState
from allocator.upkeep.mending import Claim
from config.i18n import N_

MOST_LINKED = 50  # behind more who want days like its own nobody can say when; a page has to be there at once
MOST_NODES_LINKED = 8_000  # and so with so many nodes for each of them: only the rank is told then


@dataclass(frozen=True)
class Standing:
    """An entry's place among those that want the same GPUs in the same days; rank 1 is next.

    ``expected_at``: the start that the line has for it, None while nobody can know; ``if_others_decline``: it
    is held as an offer to others. ``kept_at``: nothing suits yet, and what gets free from then on is kept
    together for it. ``makes_way``: something is kept for somebody before it.
    """

    rank: int
    of: int
    expected_at: datetime | None
    if_others_decline: bool = False
    kept_at: datetime | None = None
    makes_way: bool = False


def standing(session: Session, entry: WaitlistEntry, *, rules: BookingRules, now: datetime) -> Standing:
    """The entry's honest place and date. Raises WrongState when it does not wait."""
    if entry.state is not WaitlistState.WAITING:
        raise WrongState(N_("There is nothing to wait for."), {"state": entry.state.value})
    cluster = entry.quota.cluster
    queue = planning.queue(session, cluster, entry.gpu_type, now)
    # who rests gets nothing just now and keeps nobody waiting; it still may ask where it will stand
    everybody = queue if entry in queue else [*queue, entry]
    ordered = waitlist.in_order(session, cluster, entry.gpu_type, everybody)
    place = ordered.index(entry)
    rank = 1 + sum(waits_for_same(entry, other) for other in ordered[:place])
    of = rank + sum(waits_for_same(entry, other) for other in ordered[place + 1 :])
    # those behind it make no difference to it, nor those whose days have nothing to do with its own
    linked = _linked(ordered[: place + 1], entry, rules)
    if len(linked) > MOST_LINKED:
        return Standing(rank, of, expected_at=None)
    picture = _picture(session, cluster, linked, rules, now)
    if len(linked) * len(picture.nodes) > MOST_NODES_LINKED:
        return Standing(rank, of, expected_at=None)
    stands = line.stand(picture)
    return _standing(stands, rank, of, now + rules.max_ahead)


def _linked(entries: Sequence[WaitlistEntry], own: WaitlistEntry, rules: BookingRules) -> list[WaitlistEntry]:
    """Its own and those whose place can matter for it, be it through the days of others; in their order."""
    linked: set[int] = set()
    until = own.earliest_at
    for one in sorted(entries, key=lambda one: one.earliest_at):
        if linked and one.earliest_at > until + rules.cleaning:
            if own.id in linked:
                break
            linked = set()
        until = max(until, one.latest_at) if linked else one.latest_at
        linked.add(one.id)
    return [one for one in entries if one.id in linked]


def _picture(
    session: Session, cluster: Cluster, entries: Sequence[WaitlistEntry], rules: BookingRules, now: datetime
) -> Picture:
    """``planning.read`` for a page: what is booked is of interest here only as what is taken."""
    gpu_type = entries[0].gpu_type
    nodes = capacity.held(session, cluster, gpu_type, now, capacity.FOREVER)
    offered = _offered(session, cluster, nodes, now)
    theirs = {
        (place.node_id, Held(place.gpu_from, place.gpu_to, one.starts_at, one.ends_at))
        for one in offered
        for place in one.places
    }
    firm = nodes
    if theirs:
        firm = [
            replace(node, held=tuple(o for o in node.held if (node.id, o) not in theirs)) for node in nodes
        ]
    return planning.picture_of(session, cluster, entries, firm, offered, rules=rules, now=now)


def _offered(session: Session, cluster: Cluster, nodes: Sequence[NodeHeld], now: datetime) -> list[Claim]:
    """Offers without an answer, as claims that end with their cleaning. One query."""
    rows = session.execute(
        capacity.slots()
        .join(NodeSlot.booking)
        .where(Booking.cluster_id == cluster.id, Booking.state == BookingState.HELD, NodeSlot.ends_at > now)
    )
    names = {node.id: node.name for node in nodes}
    windows: dict[int, Window] = {}
    places: dict[int, list[Place]] = {}
    for number, node_id, gpu_from, gpu_to, starts_at, ends_at in rows:
        if number is not None and node_id in names:
            windows[number] = (starts_at, ends_at)
            places.setdefault(number, []).append(Place(node_id, names[node_id], gpu_from, gpu_to))
    return [
        Claim(
            id=number,
            version=0,
            shape=Shape(len(own), own[0].gpu_to - own[0].gpu_from),
            starts_at=windows[number][0],
            ends_at=windows[number][1],
            places=tuple(own),
            first=windows[number][0],
            last=windows[number][0],
        )
        for number, own in places.items()
    ]


def waits_for_same(entry: WaitlistEntry, other: WaitlistEntry) -> bool:
    """Whether both want a part of the same days."""
    return entry.earliest_at < other.latest_at and other.earliest_at < entry.latest_at


def _standing(stands: list[Stand], rank: int, of: int, opened: datetime) -> Standing:
    own = stands[-1]
    known = own.turn not in (Turn.UNKNOWN, Turn.TOGETHER)
    return Standing(
        rank=rank,
        of=of,
        expected_at=own.claim.starts_at if known else None,
        # beyond the days that are open nobody has been offered anything
        if_others_decline=own.turn is Turn.LATER and own.claim.starts_at <= opened,
        kept_at=own.claim.starts_at if own.turn is Turn.TOGETHER else None,
        makes_way=any(line.meet(own.claim, one.claim) for one in stands[:-1] if one.keeps),
    )
