"""The differences between what a cluster should hold and what it holds: plain data that prints like a diff.

Everything here is pure: the same two states and the same moment always give the same plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from scheduler.clusters.base import OUR_PREFIX, Account, Reservation

# What Kezek calls its own; others with our prefix are somebody's experiment.
OUR_RESERVATION = re.compile(r"kezek-[1-9][0-9]{0,18}", re.ASCII)
# The second number: nodes of one outage that it takes at different times have reservations of their own.
OUR_OUTAGE = re.compile(r"kezek-outage-(?P<id>[1-9][0-9]{0,18})(?:-[1-9][0-9]{0,3})?", re.ASCII)
OUR_ACCOUNT = re.compile(r"kezek-q[1-9][0-9]{0,18}", re.ASCII)
START = "start"


@dataclass(frozen=True)
class Wanted:
    """What a cluster should hold, by name; ``retired``: what our database made and knows to be over.

    Nothing else is ever removed. A name of our form that the database does not know belongs to another Kezek,
    or to this one before its database was restored from a copy: people may be working in it.
    """

    accounts: Mapping[str, Account] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()

    def knows(self, name: str) -> bool:
        """Whether this database has given the name to something."""
        return name in self.reservations or name in self.accounts or name in self.retired


@dataclass(frozen=True)
class Actual:
    """What a cluster holds at ``now`` (its own clock); ``accounts`` is None while accounting is away."""

    now: datetime
    accounts: Mapping[str, Account] | None = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One field that is not as it should be, in words."""

    field: str
    actual: str
    wanted: str


@dataclass(frozen=True)
class SaveAccount:
    """Create the account, or correct it when there is an ``actual`` one."""

    account: Account
    actual: Account | None = None

    @property
    def name(self) -> str:
        return self.account.name

    def lines(self) -> Iterator[str]:
        if self.actual is None:
            yield f"+ account {_account(self.account)}"
        else:
            yield from _changed(f"account {self.name}", account_differences(self.account, self.actual))


@dataclass(frozen=True)
class RemoveAccount:
    """Remove an account whose quota is over."""

    actual: Account

    @property
    def name(self) -> str:
        return self.actual.name

    def lines(self) -> Iterator[str]:
        yield f"- account {_account(self.actual)}"


@dataclass(frozen=True)
class CreateReservation:
    reservation: Reservation

    @property
    def name(self) -> str:
        return self.reservation.name

    def lines(self) -> Iterator[str]:
        yield f"+ reservation {_reservation(self.reservation)}"


@dataclass(frozen=True)
class UpdateReservation:
    """Correct an existing reservation in what ``differences`` names."""

    reservation: Reservation
    differences: tuple[Difference, ...]
    actual: Reservation

    @property
    def name(self) -> str:
        return self.reservation.name

    @property
    def moves_start(self) -> bool:
        """Whether it begins at another time than it should."""
        return any(difference.field == START for difference in self.differences)

    def lines(self) -> Iterator[str]:
        yield from _changed(f"reservation {self.name}", self.differences)


@dataclass(frozen=True)
class DeleteReservation:
    actual: Reservation

    @property
    def name(self) -> str:
        return self.actual.name

    def lines(self) -> Iterator[str]:
        yield f"- reservation {_reservation(self.actual)}"


Step = SaveAccount | DeleteReservation | UpdateReservation | CreateReservation | RemoveAccount


@dataclass(frozen=True)
class ForeignInTheWay:
    """Somebody else's reservation lies over a window of ours; it is reported and never touched."""

    name: str
    foreign: Reservation
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        where = _names(self.nodes)
        return f"{self.name}: reservation {self.foreign.name} has {where} {_window(self.foreign)}"


@dataclass(frozen=True)
class NotOurs:
    """Something carries our prefix, but our database has not made it; left alone."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: not made by this Kezek, left alone"


@dataclass(frozen=True)
class AccountingAway:
    """Accounts cannot be compared now; reservations are looked after all the same."""

    def __str__(self) -> str:
        return "accounting does not answer: accounts and limits are left as they are"


Notice = ForeignInTheWay | NotOurs | AccountingAway


@dataclass(frozen=True)
class Plan:
    """``steps`` in the order in which they must happen, and what people should know."""

    steps: tuple[Step, ...] = ()
    notices: tuple[Notice, ...] = ()

    def lines(self) -> Iterator[str]:
        """A diff: ``+`` what appears, ``-`` what goes, ``!`` what people should know."""
        for step in self.steps:
            yield from step.lines()
        for notice in self.notices:
            yield f"! {notice}"


def make_plan(wanted: Wanted, actual: Actual) -> Plan:
    """What has to be done to ``actual`` so that it becomes ``wanted``; foreign things are never in it."""
    # Reservations name accounts, so these come first and go last; what is deleted frees nodes for the new.
    saves, removals = _account_steps(wanted, actual)
    deletes, updates, creates = _reservation_steps(wanted, actual)
    return Plan((*saves, *deletes, *updates, *creates, *removals), tuple(_notices(wanted, actual)))


def _account_steps(wanted: Wanted, actual: Actual) -> tuple[list[SaveAccount], list[RemoveAccount]]:
    if actual.accounts is None:
        return [], []
    saves = []
    for name, account in sorted(wanted.accounts.items()):
        found = actual.accounts.get(name)
        if found is None or account_differences(account, found):
            saves.append(SaveAccount(account, found))
    removals = [
        RemoveAccount(account)
        for name, account in sorted(actual.accounts.items())
        if name in wanted.retired and OUR_ACCOUNT.fullmatch(name)
    ]
    return saves, removals


def _reservation_steps(
    wanted: Wanted, actual: Actual
) -> tuple[list[DeleteReservation], list[UpdateReservation], list[CreateReservation]]:
    deletes = [
        DeleteReservation(found)
        for name, found in sorted(actual.reservations.items())
        if name in wanted.retired and (OUR_RESERVATION.fullmatch(name) or OUR_OUTAGE.fullmatch(name))
    ]
    updates, creates = [], []
    for name, reservation in sorted(wanted.reservations.items()):
        found = actual.reservations.get(name)
        if found is None:
            creates.append(CreateReservation(_from_now(reservation, actual.now)))
        elif faults := reservation_differences(reservation, found, actual.now):
            updates.append(UpdateReservation(_correction(reservation, found, actual.now), faults, found))
    return deletes, updates, creates


def account_differences(wanted: Account, actual: Account) -> tuple[Difference, ...]:
    """Limit and logins; the description is for people's eyes and may be rewritten by the cluster."""
    faults = []
    if wanted.gpu_minutes != actual.gpu_minutes:
        faults.append(Difference("GPU-minutes", _limit(actual.gpu_minutes), _limit(wanted.gpu_minutes)))
    if wanted.gpus != actual.gpus:
        faults.append(Difference("GPUs at a time", _limit(actual.gpus), _limit(wanted.gpus)))
    if wanted.logins != actual.logins:
        faults.append(Difference("logins", _names(actual.logins), _names(wanted.logins)))
    if wanted.shares is not None and wanted.shares != actual.shares:
        faults.append(Difference("shares", str(actual.shares), str(wanted.shares)))
    return tuple(faults)


def reservation_differences(
    wanted: Reservation, actual: Reservation, now: datetime
) -> tuple[Difference, ...]:
    """Every field of ``actual`` that breaks the promise; whole seconds, order of names does not count."""
    faults = []
    # Once begun, when it began is history: one made again in the middle starts later than it was booked.
    begun = wanted.starts_at <= now and actual.starts_at <= now
    if not begun and _second(wanted.starts_at) != _second(actual.starts_at):
        faults.append(Difference(START, _time(actual.starts_at), _time(wanted.starts_at)))
    if _second(wanted.ends_at) != _second(actual.ends_at):
        faults.append(Difference("end", _time(actual.ends_at), _time(wanted.ends_at)))
    if set(wanted.nodes) != set(actual.nodes):
        faults.append(Difference("nodes", _names(actual.nodes), _names(wanted.nodes)))
    if set(wanted.accounts) != set(actual.accounts):
        faults.append(Difference("accounts", _names(actual.accounts), _names(wanted.accounts)))
    if wanted.maintenance != actual.maintenance:
        faults.append(Difference("maintenance", str(actual.maintenance), str(wanted.maintenance)))
    # Not every cluster tells how many GPUs it holds: silence is no difference, or we'd correct for ever.
    if actual.gpus_per_node is not None and wanted.gpus_per_node != actual.gpus_per_node:
        faults.append(
            Difference("GPUs a node", str(actual.gpus_per_node), str(wanted.gpus_per_node or "all"))
        )
    return tuple(faults)


def in_the_way(wanted: Reservation, others: Iterable[Reservation]) -> Iterator[ForeignInTheWay]:
    """Those of ``others`` (which are not ours) that share a node and a moment with ``wanted``."""
    mine = set(wanted.nodes)
    for other in others:
        shared = mine.intersection(other.nodes)
        if shared and other.starts_at < wanted.ends_at and wanted.starts_at < other.ends_at:
            yield ForeignInTheWay(wanted.name, other, tuple(sorted(shared)))


def _notices(wanted: Wanted, actual: Actual) -> Iterator[Notice]:
    if actual.accounts is None:
        yield AccountingAway()
    foreign = [found for name, found in actual.reservations.items() if not wanted.knows(name)]
    for _, reservation in sorted(wanted.reservations.items()):
        if reservation.maintenance:  # it lies over everything
            continue
        yield from in_the_way(reservation, foreign)
    for found in foreign:
        if found.name.startswith(OUR_PREFIX):
            yield NotOurs("reservation", found.name)
    for name in sorted(actual.accounts or ()):
        if not wanted.knows(name):
            yield NotOurs("account", name)


def _from_now(reservation: Reservation, now: datetime) -> Reservation:
    """Slurm refuses a start that lies more than 600 s back: what should run already starts now."""
    return replace(reservation, starts_at=max(_second(reservation.starts_at), _second(now)))


def _correction(wanted: Reservation, actual: Reservation, now: datetime) -> Reservation:
    if wanted.starts_at <= now and actual.starts_at <= now:
        # The start of a reservation that has begun cannot be changed, so it is said as it is.
        return replace(wanted, starts_at=actual.starts_at)
    return _from_now(wanted, now)


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _changed(what: str, differences: Iterable[Difference]) -> Iterator[str]:
    for difference in differences:
        yield f"- {what}: {difference.field} {difference.actual}"
        yield f"+ {what}: {difference.field} {difference.wanted}"


def _account(account: Account) -> str:
    return f"{account.name}  {_limit(account.gpu_minutes)} GPU-minutes  {_names(account.logins)}"


def _reservation(reservation: Reservation) -> str:
    gpus = "all" if reservation.gpus_per_node is None else reservation.gpus_per_node
    shape = f"{_names(reservation.nodes)} × {gpus} GPUs"
    whose = "maintenance" if reservation.maintenance else _names(reservation.accounts)
    return f"{reservation.name}  {_window(reservation)}  {shape}  {whose}"


def _window(reservation: Reservation) -> str:
    return f"{_time(reservation.starts_at)} – {_time(reservation.ends_at)}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _limit(amount: int | None) -> str:
    return "unlimited" if amount is None else str(amount)


def _names(names: Iterable[str]) -> str:
    return ",".join(sorted(names)) or "none"
