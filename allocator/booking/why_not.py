"""Why nothing fits: the one constraint that binds, and the nearest changes of the wish that would fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from allocator.booking.booking_checks import Ask, faults_of
from allocator.booking.offer_search import Search
from allocator.booking.windows import Shape, nearest_after, nearest_before
from allocator.errors import Fault
from config.i18n import N_

# how far from the preferred start something smaller is looked for first: just then, then on that day
NEAR = (timedelta(0), timedelta(hours=12))


class Constraint(StrEnum):
    """What stands in the way, the first of these that does."""

    QUOTA = "quota"  # it is closed
    SHAPE = "shape"  # the cluster has no such nodes
    LENGTH = "length"
    BALANCE = "balance"  # too few GPU-hours are left in the quota
    LIMIT = "limit"  # too much is booked ahead
    WINDOW = "window"  # no start lies in the window, the quota's validity and the rules
    GRANT = "grant"  # the period's grant is too small, though GPUs are free
    CAPACITY = "capacity"  # the GPUs are taken


class ChangeKind(StrEnum):
    EARLIER = "earlier"
    LATER = "later"
    FEWER = "fewer"  # nodes, or GPUs of one node
    SHORTER = "shorter"


@dataclass(frozen=True)
class Change:
    """The wish changed in one way so that it fits now; ``ask`` says at which time."""

    kind: ChangeKind
    ask: Ask


@dataclass(frozen=True)
class WhyNot:
    """``message`` says it in a sentence; ``faults`` are the broken rules by field, where it is rules."""

    constraint: Constraint
    message: Fault
    faults: Mapping[str, list[Fault]]
    changes: tuple[Change, ...]


FIELDS = {
    "quota": Constraint.QUOTA,
    "nodes": Constraint.SHAPE,
    "gpus_per_node": Constraint.SHAPE,
    "hours": Constraint.LENGTH,
    "balance": Constraint.BALANCE,
    "limit": Constraint.LIMIT,
}


def why_not(search: Search) -> WhyNot:
    """For a search without a start; pure."""
    for field, constraint in FIELDS.items():
        if field in search.faults:
            return WhyNot(constraint, search.faults[field][0], search.faults, tuple(_changes(search)))
    first, last = search.span(search.wish.length)
    if first > last:
        constraint, message = Constraint.WINDOW, _no_window(search)
    else:
        constraint, message = _taken(search)
    return WhyNot(constraint, message, {}, tuple(_changes(search)))


def _no_window(search: Search) -> Fault:
    wish, around = search.wish, search.around
    first, _ = search.span(wish.length)
    if first > around.now + around.rules.max_ahead:
        return Fault(
            N_("A booking starts at most %(days)s days from now."), {"days": around.rules.max_ahead.days}
        )
    if first > around.quota.valid_until - wish.length:
        until = {"until": around.quota.valid_until}
        return Fault(N_("The quota is valid until %(until)s: too short for this."), until)
    return Fault(N_("The window that was given is shorter than the booking."))


def _taken(search: Search) -> tuple[Constraint, Fault]:
    wish = search.wish
    granted = replace(search.ground, rooms=())
    first, last = search.span(wish.length)
    if nearest_after(granted.starts(wish.shape, wish.length, first, last), first, search.grid):
        return Constraint.GRANT, Fault(
            N_("GPUs are free, but what was granted for these days does not suffice for it.")
        )
    return Constraint.CAPACITY, Fault(
        N_("At no time of the window are %(nodes)s × %(gpus)s GPUs free for so long."),
        {"nodes": wish.nodes, "gpus": wish.gpus_per_node},
    )


def _changes(search: Search) -> Iterator[Change]:
    """Each verified against every rule: what is proposed here can be held, unless somebody is quicker."""
    if search.faults.keys() & {"quota", "gpus_per_node"}:
        return
    smaller = list(_near_the_wish(search, (*NEAR, None)))
    for change in (*_other_times(search), *smaller):
        if not faults_of(change.ask, search.around):
            yield change


def at_the_wish(search: Search) -> tuple[Change, ...]:
    """What could be had at the preferred start, or on that day, where the wish itself only fits elsewhere."""
    if search.wish.preferred_at is None or search.faults:
        return ()
    found = _near_the_wish(search, NEAR)
    return tuple(change for change in found if not faults_of(change.ask, search.around))


def _near_the_wish(search: Search, reach: Sequence[timedelta | None]) -> Iterator[Change]:
    """Fewer GPUs and a shorter time, each as near to the preferred start as there is any."""
    if search.wish.preferred_at is None:
        reach = (None,)
    for tried in (_fewer, _shorter):
        found = (tried(search, within) for within in reach)
        if change := next((one for one in found if one is not None), None):
            yield change


def _other_times(search: Search) -> Iterator[Change]:
    if search.faults:
        return
    wish, (first, last) = search.wish, search.span(search.wish.length)
    everywhere = search.span(wish.length, anywhere=True)
    starts = search.ground.starts(wish.shape, wish.length, *everywhere)
    if start := nearest_before(starts, min(first, last), search.grid):
        yield Change(ChangeKind.EARLIER, wish.at(start))
    if start := nearest_after(starts, max(first, last), search.grid):
        yield Change(ChangeKind.LATER, wish.at(start))


def _fewer(search: Search, within: timedelta | None) -> Change | None:
    """As many nodes as fit; if not even one does, as many GPUs of one node."""
    wish, seconds = search.wish, int(search.wish.length.total_seconds())
    if wish.nodes < 1 or seconds <= 0:
        return None
    budget = _budget(search) // seconds

    def nodes(count: int) -> Ask | None:
        return _best(search, Shape(count, wish.gpus_per_node), wish.length, within)

    def gpus(count: int) -> Ask | None:
        return _best(search, Shape(1, count), wish.length, within)

    most = search.around.gpu_type.nodes if search.around.gpu_type else 0
    ask = _largest(min(wish.nodes - 1, most, budget // max(wish.gpus_per_node, 1)), nodes)
    if ask is None and search.around.quota.cluster.shares_nodes:
        ask = _largest(min(wish.gpus_per_node - 1, budget), gpus)
    return Change(ChangeKind.FEWER, ask) if ask else None


def _shorter(search: Search, within: timedelta | None) -> Change | None:
    wish, rules = search.wish, search.around.rules
    gpus = wish.nodes * wish.gpus_per_node
    seconds = min(_budget(search) // max(gpus, 1), int(wish.length.total_seconds()) - 1)
    longest = min(timedelta(seconds=max(seconds, 0)), rules.max_length)
    least = rules.min_length // rules.boundary

    def lasting(steps: int) -> Ask | None:
        return _best(search, wish.shape, (steps + least - 1) * rules.boundary, within)

    ask = _largest(longest // rules.boundary - least + 1, lasting)
    return Change(ChangeKind.SHORTER, ask) if ask else None


def _budget(search: Search) -> int:
    """GPU-seconds that one more booking may have."""
    rules, quota = search.around.rules, search.around.quota
    budget = search.balance.available
    if rules.max_open_percent < 100:
        ahead = quota.gpu_seconds * rules.max_open_percent // 100 - search.around.opened.gpu_seconds
        budget = min(budget, max(ahead, 0))
    return budget


def _best(search: Search, shape: Shape, length: timedelta, within: timedelta | None) -> Ask | None:
    start = search.best_start(shape, length, within)
    return Ask(shape.nodes, shape.gpus, start, start + length) if start else None


def _largest(most: int, tried: Callable[[int], Ask | None]) -> Ask | None:
    """What the largest number of 1 … most gives that gives anything: who gets more could have less."""
    best, low, high = None, 1, most
    while low <= high:
        middle = (low + high) // 2
        found = tried(middle)
        if found is None:
            high = middle - 1
        else:
            best, low = found, middle + 1
    return best
