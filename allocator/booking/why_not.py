"""Why nothing fits: the one constraint that binds, and the nearest changes of the wish that would fit."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from allocator.booking.booking_checks import ALMATY, Ask, faults_of
from allocator.booking.offer_search import Search
from allocator.booking.windows import Shape, nearest_after, nearest_before
from allocator.errors import Fault
from config.i18n import N_


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
        until = around.quota.valid_until.astimezone(ALMATY).strftime("%d.%m.%Y %H:%M")
        return Fault(N_("The quota is valid until %(until)s: too short for this."), {"until": until})
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
    for change in (*_other_times(search), _fewer(search), _shorter(search)):
        if change is not None and not faults_of(change.ask, search.around):
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


def _fewer(search: Search) -> Change | None:
    """As many nodes as fit; if not even one does, as many GPUs of one node."""
    wish, seconds = search.wish, int(search.wish.length.total_seconds())
    if wish.nodes < 1 or seconds <= 0:
        return None
    budget = _budget(search) // seconds

    def nodes(count: int) -> Ask | None:
        return _first(search, Shape(count, wish.gpus_per_node), wish.length)

    def gpus(count: int) -> Ask | None:
        return _first(search, Shape(1, count), wish.length)

    most = search.around.gpu_type.nodes if search.around.gpu_type else 0
    ask = _largest(min(wish.nodes - 1, most, budget // max(wish.gpus_per_node, 1)), nodes)
    if ask is None and search.around.quota.cluster.shares_nodes:
        ask = _largest(min(wish.gpus_per_node - 1, budget), gpus)
    return Change(ChangeKind.FEWER, ask) if ask else None


def _shorter(search: Search) -> Change | None:
    wish, rules = search.wish, search.around.rules
    gpus = wish.nodes * wish.gpus_per_node
    seconds = min(_budget(search) // max(gpus, 1), int(wish.length.total_seconds()) - 1)
    longest = min(timedelta(seconds=max(seconds, 0)), rules.max_length)
    least = rules.min_length // rules.boundary

    def lasting(steps: int) -> Ask | None:
        return _first(search, wish.shape, (steps + least - 1) * rules.boundary)

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


def _first(search: Search, shape: Shape, length: timedelta) -> Ask | None:
    start = search.first_start(shape, length)
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
