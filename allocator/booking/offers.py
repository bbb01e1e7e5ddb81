"""Offers: the best times for what somebody wishes, why nothing fits, and holding one until a yes.

Looking at offers holds nothing. ``hold`` does, for the policy's minutes and charged like a booking;
``accept`` makes a booking of it, ``release`` gives it up, and what nobody accepts lapses (bookings.advance).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload

from allocator import capacity, prices
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters, bookings, congestion, placing
from allocator.booking.booking_checks import Ask
from allocator.booking.congestion import Congestion
from allocator.booking.offer_search import Search, Wish
from allocator.booking.why_not import NEAR, Change, WhyNot, at_the_wish, why_not
from allocator.booking.windows import Grid, nearest_after
from allocator.errors import Fault, KezekError, WrongState
from allocator.ledger import Balance
from allocator.models import Booking, BookingKind, Quota, WaitlistEntry
from allocator.policy import BookingRules, Policy, Price
from allocator.sqltime import Window
from allocator.states import BookingState, QuotaState, WaitlistState, move
from config.i18n import N_

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class OfferKind(StrEnum):
    """Why a time is offered: nothing fits sooner, nothing is less crowded, or it is what was preferred."""

    EARLIEST = "earliest"
    CHEAPEST = "cheapest"
    PREFERRED = "preferred"


@dataclass(frozen=True)
class Offer:
    """One time that is free now. ``crowding`` is the mean congestion of its hours (see ``Congestion``)."""

    ask: Ask
    kinds: tuple[OfferKind, ...]
    crowding: float


@dataclass(frozen=True)
class Offers:
    """The answer to a wish: up to three ``offers``, or ``why`` nothing fits with what would.

    ``price`` is in tenge, None for a category that today's policy does not know. ``hold`` is how long an
    offer is kept once it is held. Where the preferred start is not among the offers, ``refused`` are the
    rules that forbid it (none: it is taken), and ``instead`` what could be had just then, or on that day.
    """

    wish: Wish
    balance: Balance
    offers: tuple[Offer, ...]
    why: WhyNot | None
    price: Price | None
    hold: timedelta
    planned_prices: bool  # crowding by the plan's prices, not by the share of GPUs taken
    refused: tuple[Fault, ...] = ()
    instead: tuple[Change, ...] = ()

    @property
    def remaining(self) -> int:
        """GPU-seconds that stay available after one of them; negative when the wish is more than there is."""
        return self.balance.available - self.wish.gpu_seconds


def offers(
    session: Session, actor: Actor, quota: Quota, wish: Wish, *, policy: Policy, now: datetime
) -> Offers:
    """The best times for the wish, or why there is none; raises only what ``require`` raises.

    Without a preferred time, the start of a day by the policy is preferred. A time that is best in two ways
    is one offer with two kinds.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    search = Search.read(session, quota, wish, policy.bookings, now)
    crowds = congestion.read(session, quota, search.ground.nodes, search.window, now)
    found = () if search.faults else _find(session, wish, search, crowds)
    at = found[0].ask.starts_at if found else search.since
    price = prices.price(session, quota, wish.gpu_seconds, at, policy=policy)
    elsewhere = bool(found) and wish.preferred_at not in {None, *(offer.ask.starts_at for offer in found)}
    refused = search.refused() if elsewhere else ()
    return Offers(
        wish=wish,
        balance=search.balance,
        offers=found,
        why=None if found else why_not(search),
        price=price,
        hold=policy.bookings.hold,
        planned_prices=crowds.planned,
        refused=refused,
        instead=at_the_wish(search) if elsewhere and (not refused or _far(wish, found)) else (),
    )


def _far(wish: Wish, found: Sequence[Offer]) -> bool:
    """Whether no offer lies on the day of the preferred start."""
    wanted = wish.preferred_at
    return wanted is not None and all(abs(offer.ask.starts_at - wanted) > NEAR[-1] for offer in found)


def _find(session: Session, wish: Wish, search: Search, crowds: Congestion) -> tuple[Offer, ...]:
    """The best of all times; of those without new names for others, should one of the others not work out."""
    for by_count in (True, False):
        starts = search.starts(by_count)
        first = nearest_after(starts, search.since, search.grid)
        if first is None:
            continue
        found = _best(wish, search, starts, first, crowds)
        if not by_count or all(search.possible(session, offer.ask) for offer in found):
            return found
    return ()


def _best(
    wish: Wish, search: Search, starts: Sequence[Window], first: datetime, crowds: Congestion
) -> tuple[Offer, ...]:
    chosen: dict[datetime, list[OfferKind]] = {first: [OfferKind.EARLIEST]}
    chosen.setdefault(least_crowded(wish, search, starts, crowds) or first, []).append(OfferKind.CHEAPEST)
    preferred = _preferred(wish, search, starts)
    if preferred is not None:
        chosen.setdefault(preferred, []).append(OfferKind.PREFERRED)
    return tuple(
        Offer(wish.at(start), tuple(kinds), round(crowds.mean(start, start + wish.length), 6))
        for start, kinds in chosen.items()
    )


def least_crowded(
    wish: Wish, search: Search, starts: Sequence[Window], crowds: Congestion
) -> datetime | None:
    """The start whose hours are the least crowded, the earliest among equals."""
    # prices are by the hour: a finer step would only cost time
    grid = Grid(search.grid.step * -(-HOUR // search.grid.step), search.grid.anchor)
    best: tuple[float, datetime] | None = None
    for since, until in starts:
        start = grid.ceil(since)
        while start <= until:
            one = (round(crowds.mean(start, start + wish.length), 6), start)
            if best is None or one < best:
                best = one
            start += grid.step
    return best[1] if best else None


def _preferred(wish: Wish, search: Search, starts: Sequence[Window]) -> datetime | None:
    """The start nearest to the preferred one; without any, the first at which a day begins."""
    if wish.preferred_at is None:
        return nearest_after(starts, search.since, Grid(DAY, search.grid.anchor))
    return search.nearest(starts)


def hold(
    session: Session, actor: Actor, quota: Quota, ask: Ask, *, rules: BookingRules, now: datetime
) -> Booking:
    """Keep these GPUs for the policy's minutes. Raises Invalid for broken rules, NoCapacity when taken.

    A person holds one offer of a quota at a time: the one before is given up by this, if this succeeds.
    """
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None:
        raise ValueError("an offer is held for a person")
    if not session.scalar(_of_person(actor.person_id, quota).exists().select()):
        placing.look_ahead(session, quota, ask, rules, now)
    capacity.lock(session, quota.cluster)
    before = _held_by(session, actor.person_id, quota)
    # a yes after its start would book, and charge for, what has passed
    terms = placing.Terms(BookingState.HELD, held_until=min(now + rules.hold, ask.starts_at))
    try:
        # a savepoint: who gets no new offer keeps the old one
        with session.begin_nested():
            for earlier in before:
                bookings.end_now(session, actor, earlier, "", now)
            return placing.make(session, actor, quota, ask, terms=terms, rules=rules, now=now)
    except KezekError:
        for earlier in before:
            session.expire(earlier)  # it is as it was, not as the savepoint had it
        raise


def _held_by(session: Session, person_id: int, quota: Quota) -> Sequence[Booking]:
    statement = _of_person(person_id, quota).with_for_update(key_share=True)
    return session.scalars(statement.execution_options(populate_existing=True)).all()


def _of_person(person_id: int, quota: Quota) -> Select[Booking]:
    """Offers that the person holds by their own choice; what the waitlist has offered waits longer."""
    waited_for = select(WaitlistEntry.booking_id).where(
        WaitlistEntry.state == WaitlistState.OFFERED, WaitlistEntry.quota_id == quota.id
    )
    return select(Booking).where(
        Booking.quota_id == quota.id,
        Booking.booked_by_id == person_id,
        Booking.state == BookingState.HELD,
        Booking.id.not_in(waited_for),
    )


def held_by(actor: Actor, now: datetime) -> Select[Booking]:
    """What the actor holds and may say yes to, the most urgent first; not what the waitlist offers."""
    waited_for = select(WaitlistEntry.booking_id).where(WaitlistEntry.state == WaitlistState.OFFERED)
    return (
        select(Booking)
        .options(joinedload(Booking.quota).joinedload(Quota.application), joinedload(Booking.cluster))
        .where(
            Booking.booked_by_id == actor.person_id,
            Booking.state == BookingState.HELD,
            Booking.held_until > now,
            Booking.id.not_in(waited_for),
        )
        .order_by(Booking.held_until, Booking.id)
    )


def accept(session: Session, actor: Actor, booking: Booking, *, expected_version: int, now: datetime) -> None:
    """Make a booking of an offer: a firm one is CONFIRMED, a flexible one PLANNED.

    Raises Stale when it is not as the person saw it, WrongState when it has lapsed or the quota is closed.
    """
    require(actor, Action.BOOKING_CREATE, booking.quota)
    placing.take(session, booking, expected_version)
    session.refresh(booking.quota)
    if booking.state is BookingState.HELD and booking.held_until is not None and booking.held_until <= now:
        raise WrongState(N_("The time of this offer is over. Ask for offers again: it may still be free."))
    if booking.quota.state is not QuotaState.ACTIVE:
        raise WrongState(N_("This quota is closed: nothing can be booked on it any more."))
    flexible = booking.kind is BookingKind.FLEXIBLE
    target = BookingState.PLANNED if flexible else BookingState.CONFIRMED
    columns, length = {"version": booking.version + 1}, booking.gpu_seconds
    move(booking, target, actor=actor, now=now, columns=columns, gpu_seconds=length)
    if flexible:
        booking_letters.planned(session, booking, now=now)
    else:
        booking_letters.booked(session, booking, now=now)


def release(
    session: Session, actor: Actor, booking: Booking, *, expected_version: int, now: datetime
) -> None:
    """Give an offer up before its time. Raises Stale, WrongState when it is no offer any more."""
    require(actor, Action.BOOKING_CANCEL, booking)
    placing.take(session, booking, expected_version)
    if booking.state is not BookingState.HELD:
        raise WrongState(N_("This is no offer any more."), {"state": booking.state.value})
    bookings.end_now(session, actor, booking, "", now)
