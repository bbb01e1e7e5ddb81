"""Flexible bookings: a promise of some time in a window, planned anew while that helps others, fixed in time.

From the yes on there is always a plan that keeps the promise: slots are held like those of any booking, and
only ever swapped for others inside of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, prices
from allocator.actors import SYSTEM, Actor
from allocator.authorization import Action, require
from allocator.booking import (
    booking_letters,
    congestion,
    offers,
    placing,
    plan_search,
    planning,
    replanning,
)
from allocator.booking.offer_search import Search, Wish
from allocator.booking.placing import TAKEN, Terms
from allocator.booking.windows import nearest_after
from allocator.errors import Fault, Invalid, NoCapacity, Stale
from allocator.ledger import Balance
from allocator.models import Booking, Cluster, Quota
from allocator.policy import BookingRules, Policy, Price
from allocator.sqltime import Window
from allocator.states import BookingState, move
from allocator.upkeep.mending import Change, Claim
from config.i18n import N_

BATCH = 200
HURRY = 0.5  # seconds
MADE_ROOM = N_("Planned anew within its window, so that another booking finds room.")


@dataclass(frozen=True)
class FlexibleQuote:
    """Whether some time of the window could be promised now, and when it would be by today's plan.

    ``window`` is what would be promised: the asked one within what the rules and the quota allow.
    ``makes_way``: others whose time is not fixed would be planned anew for it.
    """

    wish: Wish
    window: Window
    balance: Balance
    faults: Mapping[str, list[Fault]]
    starts_at: datetime | None
    makes_way: bool
    price: Price | None
    fixed_from: datetime | None

    @property
    def fits(self) -> bool:
        return not self.faults and self.starts_at is not None

    @property
    def remaining(self) -> int:
        """GPU-seconds that stay available after it; negative when the wish is more than there is."""
        return self.balance.available - self.wish.gpu_seconds


@dataclass(frozen=True)
class Room:
    """A start for the wish, and what becomes of others for it."""

    start: datetime
    changes: tuple[Change, ...] = ()


def quote(
    session: Session, actor: Actor, quota: Quota, wish: Wish, *, policy: Policy, now: datetime
) -> FlexibleQuote:
    """What ``ask`` would do now; raises only what ``require`` raises, and nothing is held by it."""
    require(actor, Action.BOOKING_CREATE, quota)
    rules = policy.bookings
    search = Search.read(session, quota, wish, rules, now)
    faults = faults_of(search)
    room = None if faults else find_room(session, quota, search, rules, now)
    return quoted(session, quota, search, faults, room, policy=policy)


def quoted(
    session: Session,
    quota: Quota,
    search: Search,
    faults: Mapping[str, list[Fault]],
    room: Room | None,
    *,
    policy: Policy,
    counted: int = 0,
) -> FlexibleQuote:
    """What was found as a quote; ``counted`` GPU-seconds of it are charged already."""
    wish, start = search.wish, room.start if room else None
    at = start or search.since
    return FlexibleQuote(
        wish=wish,
        window=search.window,
        balance=search.balance,
        faults=faults,
        starts_at=start,
        makes_way=bool(room and room.changes),
        price=prices.price(session, quota, wish.gpu_seconds, at, policy=policy, counted=counted),
        fixed_from=start - policy.bookings.fix_ahead if start else None,
    )


def faults_of(search: Search) -> dict[str, list[Fault]]:
    wish = search.wish
    if wish.earliest_at is None or wish.latest_at is None:
        raise ValueError("a flexible booking has a window")
    faults = {field: list(found) for field, found in search.faults.items()}
    first, last = search.span(wish.length)
    if wish.latest_at <= wish.earliest_at:
        faults.setdefault("latest_at", []).append(Fault(N_("The window ends before it begins.")))
    elif wish.latest_at - wish.earliest_at < wish.length:
        fault = Fault(N_("The window is shorter than the booking."))
        faults.setdefault("latest_at", []).append(fault)
    elif first > last:
        fault = Fault(N_("In no part of this window can the quota be booked."))
        faults.setdefault("earliest_at", []).append(fault)
    return faults


def find_room(
    session: Session,
    quota: Quota,
    search: Search,
    rules: BookingRules,
    now: datetime,
    besides: Booking | None = None,
) -> Room | None:
    """A start that is free, or for which others make way; ``besides`` is the booking to be changed."""
    return _free(session, quota, search, now) or _made_free(session, quota, search, rules, now, besides)


def _free(session: Session, quota: Quota, search: Search, now: datetime) -> Room | None:
    """The least crowded start that is free."""
    starts = search.starts()
    first = nearest_after(starts, search.since, search.grid)
    if first is None:
        return None
    crowds = congestion.read(session, quota, search.ground.nodes, search.window, now)
    return Room(offers.least_crowded(search.wish, search, starts, crowds) or first)


def _made_free(
    session: Session,
    quota: Quota,
    search: Search,
    rules: BookingRules,
    now: datetime,
    besides: Booking | None,
) -> Room | None:
    """A start for which others whose time is not fixed make way."""
    if replanning.is_contested(session, quota.cluster, quota.gpu_type):
        return None
    first, last = search.span(search.wish.length)
    picture = planning.read(session, quota.cluster, quota.gpu_type, rules=rules, now=now)
    if besides is not None:
        others = tuple(claim for claim in picture.claims if claim.id != besides.id)
        picture = replace(picture, claims=others)
    end = first + search.wish.length
    claim = Claim(-1, 1, search.wish.shape, first, end, (), first, last, rules.cleaning)
    starts = search.ground.granted(search.wish.shape, search.wish.length, [(first, last)])
    # SQLite lets nobody write while we look
    alone = session.get_bind().dialect.name == "sqlite"
    found = plan_search.make_room(picture, claim, starts, seconds=HURRY if alone else plan_search.PATIENCE)
    return Room(found[0].starts_at, found[1]) if found else None


def ask(
    session: Session, actor: Actor, quota: Quota, wish: Wish, *, rules: BookingRules, now: datetime
) -> Booking:
    """Promise a time in the window: PLANNED, charged like any booking. Raises Invalid, NoCapacity.

    Others that were promised a window may be planned anew for it, inside of theirs.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None:
        raise ValueError("a booking is made by a person")
    search = Search.read(session, quota, wish, rules, now)
    if faults := faults_of(search):
        raise Invalid(faults)
    # looked for before the lock, as that may take a second; under it all is checked again
    room = find_room(session, quota, search, rules, now)
    if room is None:
        raise NoCapacity(TAKEN)
    capacity.lock(session, quota.cluster)
    try:
        booking = _promise(session, actor, quota, search, room, rules, now)
    except NoCapacity:
        # somebody was quicker
        again = _free(session, quota, Search.read(session, quota, wish, rules, now), now)
        if again is None:
            raise
        booking = _promise(session, actor, quota, search, again, rules, now)
    if not is_due(booking, rules, now):  # else the next round fixes it, and one letter is enough
        booking_letters.planned(session, booking, now=now)
    return booking


def _promise(
    session: Session,
    actor: Actor,
    quota: Quota,
    search: Search,
    room: Room,
    rules: BookingRules,
    now: datetime,
) -> Booking:
    terms, exact = Terms(BookingState.PLANNED, window=search.window), search.wish.at(room.start)
    try:
        # a savepoint: without the booking nobody is planned anew either
        with session.begin_nested():
            make_way(session, quota, room, rules, now)
            return placing.make(session, actor, quota, exact, terms=terms, rules=rules, now=now)
    except Stale as error:
        raise NoCapacity(TAKEN) from error


def make_way(session: Session, quota: Quota, room: Room, rules: BookingRules, now: datetime) -> None:
    """Plan the others anew, under the lock. Raises Stale when they are not as they were."""
    if not room.changes:
        return
    if replanning.is_contested(session, quota.cluster, quota.gpu_type):
        raise Stale(replanning.CHANGED)
    replanning.carry_out(session, room.changes, rules=rules, now=now, reason=MADE_ROOM)


def fixed_from(booking: Booking, rules: BookingRules) -> datetime | None:
    """When the time will be fixed by today's plan, None if it is no question any more."""
    return booking.starts_at - rules.fix_ahead if booking.state is BookingState.PLANNED else None


def is_due(booking: Booking, rules: BookingRules, now: datetime) -> bool:
    due = fixed_from(booking, rules)
    return due is not None and due <= now


def fix_due(session: Session, cluster: Cluster, *, rules: BookingRules, now: datetime) -> int:
    """Fix what begins so soon by the plan that people must know; a letter tells them. A batch at most."""
    capacity.lock(session, cluster)
    due = session.scalars(
        select(Booking)
        .where(
            Booking.cluster_id == cluster.id,
            Booking.state == BookingState.PLANNED,
            Booking.starts_at <= now + rules.fix_ahead,
        )
        .order_by(Booking.starts_at, Booking.id)
        .limit(BATCH)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for booking in due:
        columns = {"version": booking.version + 1}
        move(
            booking,
            BookingState.CONFIRMED,
            actor=SYSTEM,
            now=now,
            columns=columns,
            starts_at=booking.starts_at,
            ends_at=booking.ends_at,
        )
        booking_letters.fixed(session, booking, now=now)
    return len(due)
