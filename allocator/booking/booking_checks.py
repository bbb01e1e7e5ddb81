"""What a booking must keep to, as small pure checks: each returns the field and the fault, or None (R-15)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from allocator.applying.application_checks import amount_text
from allocator.booking.windows import Grid, Shape
from allocator.capacity import GpuType
from allocator.dividing.grants import Room
from allocator.errors import Fault
from allocator.ledger import Balance
from allocator.models import Quota
from allocator.policy import BookingRules
from allocator.states import QuotaState
from config.i18n import N_

HOUR = 3600
ALMATY = ZoneInfo("Asia/Almaty")


def grid_of(rules: BookingRules) -> Grid:
    """Where bookings may begin and end: counted from the hour at which the site's days of booking begin."""
    return Grid(rules.boundary, datetime.combine(date(2026, 1, 1), rules.day_starts_at, ALMATY))


@dataclass(frozen=True)
class Ask:
    """What somebody wants: ``nodes`` × ``gpus_per_node`` GPUs for exactly [starts_at, ends_at)."""

    nodes: int
    gpus_per_node: int
    starts_at: datetime
    ends_at: datetime

    @property
    def shape(self) -> Shape:
        return Shape(self.nodes, self.gpus_per_node)

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.starts_at

    @property
    def gpu_seconds(self) -> int:
        return self.nodes * self.gpus_per_node * int(self.length.total_seconds())


@dataclass(frozen=True)
class Opened:
    """A quota's bookings that are not over, and the GPU-seconds of those that have not begun."""

    count: int = 0
    gpu_seconds: int = 0


@dataclass(frozen=True)
class Circumstances:
    """All that an ask is measured by."""

    quota: Quota
    balance: Balance
    gpu_type: GpuType | None
    rules: BookingRules
    now: datetime
    rooms: Sequence[Room] = ()  # of the published periods that the ask touches
    opened: Opened = Opened()


Check = Callable[[Ask, Circumstances], tuple[str, Fault] | None]


def check(
    ask: Ask,
    quota: Quota,
    balance: Balance,
    gpu_type: GpuType | None,
    rules: BookingRules,
    now: datetime,
    rooms: Sequence[Room] = (),
    opened: Opened = Opened(),
) -> dict[str, list[Fault]]:
    """All faults by field: nodes, gpus_per_node, starts_at, hours, balance, limit, quota."""
    return faults_of(ask, Circumstances(quota, balance, gpu_type, rules, now, rooms, opened))


def faults_of(
    ask: Ask, around: Circumstances, checks: Sequence[Check] | None = None
) -> dict[str, list[Fault]]:
    """``check`` with some of the checks only."""
    faults: dict[str, list[Fault]] = {}
    for found in (one(ask, around) for one in checks or CHECKS):
        if found:
            faults.setdefault(found[0], []).append(found[1])
    return faults


def _quota_active(_ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if around.quota.state == QuotaState.ACTIVE:
        return None
    return "quota", Fault(N_("This quota is closed: nothing can be booked on it any more."))


def _nodes(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if around.gpu_type is None:
        return "nodes", Fault(N_("The cluster has no nodes of this kind at the moment."))
    most, awaited = around.gpu_type.nodes, around.gpu_type.awaited
    if 1 <= ask.nodes <= most:
        return None
    if not awaited:
        return "nodes", Fault(N_("Choose between 1 and %(most)s nodes."), {"most": most})
    return "nodes", Fault(
        N_("Choose between 1 and %(most)s nodes; %(awaited)s of them are announced and have not joined yet."),
        {"most": most, "awaited": awaited},
    )


def _gpus(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if around.gpu_type is None:
        return None
    most = around.gpu_type.gpus_per_node
    if not 1 <= ask.gpus_per_node <= most:
        return "gpus_per_node", Fault(N_("Choose between 1 and %(most)s GPUs per node."), {"most": most})
    if ask.nodes > 1 and ask.gpus_per_node < most:
        return "gpus_per_node", Fault(
            N_("Several nodes can only be booked whole, with %(gpus)s GPUs each; a part only of one node."),
            {"gpus": most},
        )
    if ask.gpus_per_node < most and not around.quota.cluster.shares_nodes:
        return "gpus_per_node", Fault(
            N_("This cluster gives whole nodes only, with %(gpus)s GPUs each."), {"gpus": most}
        )
    return None


def _on_boundary(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    grid = grid_of(around.rules)
    if grid.holds(ask.starts_at) and grid.holds(ask.ends_at):
        return None
    return "hours" if grid.holds(ask.starts_at) else "starts_at", off_boundary(around.rules)


def off_boundary(rules: BookingRules) -> Fault:
    """What to say of a booking that begins or ends between two boundaries of the policy."""
    minutes = _minutes(rules.boundary)
    if minutes == 1:
        return Fault(N_("A booking begins and ends on a whole minute."))
    if minutes == 60:
        return Fault(N_("A booking begins and ends on the hour."))
    return Fault(
        N_("A booking begins and ends every %(minutes)s minutes, counted from %(from)s."),
        {"minutes": minutes, "from": rules.day_starts_at.strftime("%H:%M")},
    )


def _length(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    rules, validity = around.rules, around.quota.valid_until - around.quota.valid_from
    if ask.length < rules.min_length:
        return "hours", Fault(
            N_("A booking lasts at least %(minutes)s minutes."), {"minutes": _minutes(rules.min_length)}
        )
    if ask.length > rules.max_length:
        return "hours", Fault(N_("A booking lasts at most %(days)s days."), {"days": rules.max_length.days})
    if ask.length > validity:
        return "hours", Fault(N_("This is longer than the quota is valid."))
    return None


def _not_past(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if ask.starts_at >= around.now + around.rules.lead_time:
        return None
    if ask.starts_at < around.now:
        return "starts_at", Fault(N_("This start has passed."))
    return "starts_at", Fault(
        N_("A booking is made at least %(minutes)s minutes before it starts."),
        {"minutes": _minutes(around.rules.lead_time)},
    )


def _not_too_far(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if ask.starts_at <= around.now + around.rules.max_ahead:
        return None
    return "starts_at", Fault(
        N_("A booking starts at most %(days)s days from now."), {"days": around.rules.max_ahead.days}
    )


def _within_validity(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    quota = around.quota
    if quota.valid_from <= ask.starts_at and ask.ends_at <= quota.valid_until:
        return None
    validity = {"since": quota.valid_from, "until": quota.valid_until}
    return "starts_at", Fault(
        N_("The quota is valid from %(since)s until %(until)s; a booking lies inside of that."), validity
    )


def _within_balance(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    missing = ask.gpu_seconds - around.balance.available
    if missing <= 0:
        return None
    return "balance", Fault(
        N_("This needs %(needed)s GPU-hours, but only %(available)s are left in the quota."),
        {"needed": _hours(ask.gpu_seconds), "available": _hours(around.balance.available, up=False)},
    )


def _few_enough(_ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    if around.opened.count < around.rules.max_open:
        return None
    return "limit", Fault(
        N_("A quota has at most %(most)s bookings at a time that are not over."),
        {"most": around.rules.max_open},
    )


def _not_hoarded(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    """Who books everything at once for the distant future blocks what others could use."""
    most = around.quota.gpu_seconds * around.rules.max_open_percent // 100
    ahead = around.opened.gpu_seconds
    # the balance says the rest: a limit of all hours is none
    if around.rules.max_open_percent >= 100 or ahead + ask.gpu_seconds <= most:
        return None
    return "limit", Fault(
        N_(
            "At most %(most)s GPU-hours of this quota may lie in bookings that have not begun; "
            "%(ahead)s do, and this would be %(needed)s more."
        ),
        {
            "most": _hours(most, up=False),
            "ahead": _hours(ahead),
            "needed": _hours(ask.gpu_seconds),
        },
    )


def _within_grants(ask: Ask, around: Circumstances) -> tuple[str, Fault] | None:
    """In every published period that it touches, a booking needs room in the grant of that period."""
    for room in around.rooms:
        seconds = overlap(ask, room.period.starts_at, room.period.ends_at)
        needed = ask.nodes * ask.gpus_per_node * seconds
        if needed <= room.available:
            continue
        last = room.period.ends_at - timedelta(seconds=1)
        return "balance", Fault(
            N_(
                "From %(starts_at)s to %(ends_at)s this needs %(needed)s GPU-hours, but only %(available)s "
                "of what was granted for that period are left."
            ),
            {
                "starts_at": room.period.starts_at.astimezone(ALMATY).date(),
                "ends_at": last.astimezone(ALMATY).date(),
                "needed": _hours(needed),
                "available": _hours(room.available, up=False),
            },
        )
    return None


def overlap(ask: Ask, since: datetime, until: datetime) -> int:
    """Seconds of the ask inside [since, until)."""
    return max(int((min(ask.ends_at, until) - max(ask.starts_at, since)).total_seconds()), 0)


def _minutes(length: timedelta) -> int:
    return int(length.total_seconds()) // 60


def _hours(gpu_seconds: int, up: bool = True) -> str:
    """GPU-hours to two places; rounded so that a shortage never looks like enough."""
    return amount_text(-(-gpu_seconds * 100 // HOUR) if up else gpu_seconds * 100 // HOUR)


# what is the same for every start that lies on a boundary, and what the start decides
SHAPE_CHECKS: tuple[Check, ...] = (
    _quota_active,
    _nodes,
    _gpus,
    _on_boundary,
    _length,
    _within_balance,
    _few_enough,
    _not_hoarded,
)
TIME_CHECKS: tuple[Check, ...] = (_not_past, _not_too_far, _within_validity, _within_grants)
CHECKS = (*SHAPE_CHECKS, *TIME_CHECKS)
