"""Where a booking fits and how it is written: the steps that quoting, booking, holding and changing share.

What is found here holds only under the cluster's lock (``capacity.lock``); without it, it is a good guess.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from allocator import capacity, events, ledger
from allocator.actors import Actor
from allocator.booking import grounds, rebinding
from allocator.booking.booking_checks import Ask, Opened, check
from allocator.booking.rebinding import Rebinding
from allocator.booking.windows import Place
from allocator.errors import Fault, Invalid, NoCapacity, Stale
from allocator.ledger import Balance
from allocator.locks import hold
from allocator.models import Booking, BookingKind, Cluster, NodeSlot, Quota, Reservation
from allocator.policy import BookingRules
from allocator.sqltime import Window, seconds_between
from allocator.states import OPEN_BOOKINGS, BookingState, ReservationState
from config.i18n import N_

TAKEN = N_("These GPUs are not free in that window.")


@dataclass(frozen=True)
class Quote:
    """What an ask would cost and whether it is possible now; nothing is held by it.

    ``faults`` are rules that it breaks, by field. Without faults but without ``places`` the GPUs are taken:
    ``before`` and ``after`` are then the nearest starts at which the same ask would fit.
    """

    ask: Ask
    balance: Balance
    faults: Mapping[str, list[Fault]]
    places: tuple[Place, ...] = ()
    before: datetime | None = None
    after: datetime | None = None
    rebinding: Rebinding | None = None  # others get other names of nodes, if this is booked

    @property
    def fits(self) -> bool:
        return not self.faults and bool(self.places)

    @property
    def remaining(self) -> int:
        """GPU-seconds that stay available after booking; negative when the ask is more than there is."""
        return self.balance.available - self.ask.gpu_seconds


@dataclass(frozen=True)
class Terms:
    """As what a booking is made: its state, how long it is held, the window of a flexible one, its series.

    ``booked_by_id`` is for whom, where that is not who acts. On ``places`` and no others, if it names some.
    """

    state: BookingState = BookingState.CONFIRMED
    held_until: datetime | None = None
    window: Window | None = None
    series_id: int | None = None
    booked_by_id: int | None = None
    places: tuple[Place, ...] = ()


FIRM = Terms()


def find(
    session: Session,
    quota: Quota,
    ask: Ask,
    rules: BookingRules,
    now: datetime,
    besides: Booking | None = None,
) -> Quote:
    """The quote without alternatives: all that booking needs, and quick enough to ask under the lock."""
    balance = balance_besides(session, quota, besides)
    types = capacity.gpu_types(session, quota.cluster)
    here = grounds.ground(session, quota, ask.starts_at, ask.ends_at, rules, besides)
    begun = opened(session, quota, now, besides)
    faults = check(ask, quota, balance, types.get(quota.gpu_type), rules, now, here.rooms, begun)
    if faults:
        return Quote(ask, balance, faults)
    places = here.places(ask.shape, ask.starts_at, ask.ends_at)
    if places:
        return Quote(ask, balance, {}, tuple(places))
    rebound = by_count(session, quota, ask, rules, now, besides)
    return Quote(ask, balance, {}, rebound.places if rebound else (), rebinding=rebound)


def by_count(
    session: Session,
    quota: Quota,
    ask: Ask,
    rules: BookingRules,
    now: datetime,
    besides: Booking | None = None,
) -> Rebinding | None:
    """Room by naming other bookings' nodes anew, from the days on of which the cluster knows nothing."""
    begin = rebinding.loose_from(rules, now)
    if ask.starts_at < begin:
        return None
    number = besides.id if besides else None
    nodes = capacity.held(session, quota.cluster, quota.gpu_type, begin, capacity.FOREVER, number)
    window = (ask.starts_at, ask.ends_at + rules.cleaning)
    return rebinding.find(session, quota, nodes, ask.shape, window, rules, now, number)


def balance_besides(session: Session, quota: Quota, besides: Booking | None) -> Balance:
    """The balance as if ``besides``, which is open, did not exist."""
    balance = ledger.balance(session, quota)
    if besides is None:
        return balance
    return dataclasses.replace(balance, booked_ahead=balance.booked_ahead - besides.gpu_seconds)


def opened(session: Session, quota: Quota, now: datetime, besides: Booking | None = None) -> Opened:
    """How many bookings of the quota are open, and how much lies in those that have not begun."""
    length = seconds_between(Booking.starts_at, Booking.ends_at)
    ahead = func.sum(Booking.nodes * Booking.gpus_per_node * length).filter(Booking.starts_at > now)
    statement = select(func.count(), func.coalesce(ahead, 0)).where(
        Booking.quota_id == quota.id, Booking.state.in_(OPEN_BOOKINGS)
    )
    if besides is not None:
        statement = statement.where(Booking.id != besides.id)
    count, gpu_seconds = session.execute(statement).one()
    return Opened(int(count), int(gpu_seconds))


def make(
    session: Session,
    actor: Actor,
    quota: Quota,
    ask: Ask,
    *,
    terms: Terms = FIRM,
    rules: BookingRules,
    now: datetime,
) -> Booking:
    """Lock, check, place and write, with the event. Raises Invalid for broken rules, or NoCapacity."""
    capacity.lock(session, quota.cluster)
    session.refresh(quota)  # it may have been closed while we waited
    found = must_fit(session, quota, ask, rules, now)
    if terms.places:
        if not grounds.ground(session, quota, ask.starts_at, ask.ends_at, rules).has(terms.places):
            raise NoCapacity(TAKEN)
        return write(session, actor, quota, ask, terms.places, terms=terms, rules=rules, now=now)
    if found.rebinding and not rebinding.apply(session, quota, found.rebinding, now):
        raise NoCapacity(TAKEN)
    return write(session, actor, quota, ask, found.places, terms=terms, rules=rules, now=now)


def must_fit(
    session: Session,
    quota: Quota,
    ask: Ask,
    rules: BookingRules,
    now: datetime,
    besides: Booking | None = None,
) -> Quote:
    """``find``, but raises Invalid for broken rules, and NoCapacity where nothing is free."""
    found = find(session, quota, ask, rules, now, besides)
    if found.faults:
        raise Invalid(found.faults)
    if not found.places:
        raise NoCapacity(TAKEN)
    return found


def look_ahead(session: Session, quota: Quota, ask: Ask, rules: BookingRules, now: datetime) -> None:
    """Turn those away who come too late before they wait for the lock. Raises Invalid, NoCapacity.

    A search that finds nothing is the longest. On SQLite the lock is held since the request began.
    """
    if session.get_bind().dialect.name != "sqlite":
        must_fit(session, quota, ask, rules, now)


def write(
    session: Session,
    actor: Actor,
    quota: Quota,
    ask: Ask,
    places: Sequence[Place],
    *,
    terms: Terms,
    rules: BookingRules,
    now: datetime,
) -> Booking:
    """The booking on these places with its reservation's row and its event. Raises NoCapacity."""
    earliest_at, latest_at = terms.window or (None, None)
    booking = Booking(
        quota=quota,
        cluster=quota.cluster,
        booked_by_id=terms.booked_by_id or actor.person_id,
        nodes=ask.nodes,
        gpus_per_node=ask.gpus_per_node,
        starts_at=ask.starts_at,
        ends_at=ask.ends_at,
        state=terms.state,
        kind=BookingKind.FLEXIBLE if terms.window else BookingKind.FIRM,
        earliest_at=earliest_at,
        latest_at=latest_at,
        held_until=terms.held_until,
        series_id=terms.series_id,
        created_at=now,
    )
    booking.slots = slots_for(places, ask.starts_at, ask.ends_at, rules)
    try:
        # a savepoint, so that a refusal leaves the caller's transaction alive to answer with
        with session.begin_nested():
            session.add(booking)
            session.flush()
            booking.reservation = Reservation(
                cluster_id=quota.cluster_id,
                name=booking.reservation_name,
                state=ReservationState.PENDING,
                state_since=now,
            )
    except IntegrityError as error:
        raise NoCapacity(TAKEN) from error
    after = {"state": booking.state, **_facts(booking, places)}
    events.record(session, actor, booking, f"booking.{booking.state.value}", now=now, after=after)
    return booking


def _facts(booking: Booking, places: Sequence[Place]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "quota": booking.quota.id,
        "gpu_seconds": booking.gpu_seconds,
        "starts_at": booking.starts_at,
        "ends_at": booking.ends_at,
        "nodes": [place.name for place in places],
        "gpus_per_node": booking.gpus_per_node,
    }
    if booking.held_until is not None:
        facts["held_until"] = booking.held_until
    return facts


def slots_for(
    places: Iterable[Place], starts_at: datetime, ends_at: datetime, rules: BookingRules
) -> list[NodeSlot]:
    """The slots of a booking; the time for cleaning is held with it, so that nobody can book it."""
    return [
        NodeSlot(
            node_id=place.node_id,
            gpu_from=place.gpu_from,
            gpu_to=place.gpu_to,
            starts_at=starts_at,
            ends_at=ends_at + rules.cleaning,
        )
        for place in places
    ]


def replace(session: Session, booking: Booking, found: Quote, *, rules: BookingRules, now: datetime) -> None:
    """Other slots in place of a booking's, as quoted. Raises NoCapacity, with the old ones still there."""
    slots = slots_for(found.places, found.ask.starts_at, found.ask.ends_at, rules)
    try:
        with session.begin_nested():
            # its own go first: others may get their new names there
            session.execute(delete(NodeSlot).where(NodeSlot.booking_id == booking.id))
            if found.rebinding and not rebinding.apply(session, booking.quota, found.rebinding, now):
                raise NoCapacity(TAKEN)
            for slot in slots:
                slot.booking_id = booking.id
            session.add_all(slots)
            session.flush()
    except IntegrityError as error:
        raise NoCapacity(TAKEN) from error
    finally:
        session.expire(booking, ["slots"])


def take(session: Session, booking: Booking, expected_version: int) -> Booking:
    """The booking as it stands, held with its cluster until the commit. Raises Stale if it has changed."""
    cluster: Cluster = booking.cluster
    capacity.lock(session, cluster)
    booking = hold(session, booking)
    session.refresh(booking.reservation)
    if booking.version != expected_version:
        raise Stale(
            N_("This booking has changed since you opened the page."),
            {"state": booking.state.value, "ends_at": booking.ends_at, "version": booking.version},
        )
    return booking
