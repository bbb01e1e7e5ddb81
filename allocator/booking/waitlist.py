"""The waitlist: who wants what is taken now is offered it when it gets free, one after the other.

An offer is a held booking with time to answer (``cascade`` makes them). Whoever lets it pass makes way for
the next and rests before another one. The order is public: fewest offers let pass, then what is worth most
where it is crowded, then who came first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, contains_eager, joinedload

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, own_quotas, require, visible_quotas
from allocator.booking import bookings, calendar_queries, offers
from allocator.booking.congestion import Congestion, of_hours
from allocator.booking.offer_search import Search, Wish
from allocator.booking.windows import nearest_after
from allocator.errors import Fault, Invalid, NotFound, Stale, WrongState
from allocator.locks import hold
from allocator.models import Booking, Cluster, Quota, WaitlistEntry
from allocator.policy import BookingRules
from allocator.states import BookingState, WaitlistState, move
from config.i18n import N_

OPEN = (WaitlistState.WAITING, WaitlistState.OFFERED)
MOST_ENTRIES = 10  # open ones of one quota: whoever waits for everything holds everybody up


def join(
    session: Session, actor: Actor, quota: Quota, wish: Wish, *, rules: BookingRules, now: datetime
) -> WaitlistEntry:
    """Wait for any time of the wish's window. Raises Invalid; ``latest_at`` if something is free already."""
    require(actor, Action.BOOKING_CREATE, quota)
    if actor.person_id is None or wish.earliest_at is None or wish.latest_at is None:
        raise ValueError("a person waits, for a time in a window")
    capacity.lock(session, quota.cluster)
    session.refresh(quota)
    search = Search.read(session, quota, wish, rules, now)
    faults = {field: list(found) for field, found in search.faults.items()}
    first, last = search.span(wish.length)
    if first > last:
        faults["latest_at"] = [Fault(N_("In no part of this window can the quota be booked."))]
    elif not faults and _is_free(session, search, wish):
        faults["latest_at"] = [Fault(N_("Something is free in this window: you can book it now."))]
    if len(of_quota(session, actor, quota)) >= MOST_ENTRIES:
        fault = Fault(N_("A quota has at most %(most)s places on the waitlist."), {"most": MOST_ENTRIES})
        faults.setdefault("limit", []).append(fault)
    if faults:
        raise Invalid(faults)
    entry = WaitlistEntry(
        quota=quota,
        cluster_id=quota.cluster_id,
        gpu_type=quota.gpu_type,
        asked_by_id=actor.person_id,
        nodes=wish.nodes,
        gpus_per_node=wish.gpus_per_node,
        length_seconds=int(wish.length.total_seconds()),
        earliest_at=first,
        latest_at=last + wish.length,
        created_at=now,
    )
    session.add(entry)
    session.flush()
    after = {
        "quota": quota.id,
        "gpu_seconds": wish.gpu_seconds,
        "earliest_at": entry.earliest_at,
        "latest_at": entry.latest_at,
    }
    events.record(session, actor, entry, "waitlist_entry.joined", now=now, after=after)
    return entry


def _is_free(session: Session, search: Search, wish: Wish) -> bool:
    """Whether the wish can be booked now, if need be with other names of nodes for others."""
    if nearest_after(search.starts(), search.since, search.grid) is not None:
        return True
    start = nearest_after(search.starts(by_count=True), search.since, search.grid)
    return start is not None and search.possible(session, wish.at(start))


def withdraw(
    session: Session, actor: Actor, entry: WaitlistEntry, *, expected_version: int, now: datetime
) -> None:
    """Leave the list; an offer is given up with it. Raises Stale, WrongState."""
    require(actor, Action.BOOKING_CREATE, entry.quota)
    _take(session, entry, expected_version)
    if entry.state not in OPEN:
        raise WrongState(N_("You do not wait any more."), {"state": entry.state.value})
    _give_up(session, actor, entry, now)
    move(entry, WaitlistState.WITHDRAWN, actor=actor, now=now, columns=counted(entry))


def accept(
    session: Session, actor: Actor, entry: WaitlistEntry, *, expected_version: int, now: datetime
) -> Booking:
    """Take the offer: its booking is CONFIRMED. Raises Stale, WrongState when its time is over."""
    require(actor, Action.BOOKING_CREATE, entry.quota)
    _take(session, entry, expected_version)
    booking = _offer_of(entry)
    offers.accept(session, actor, booking, expected_version=booking.version, now=now)
    move(entry, WaitlistState.ACCEPTED, actor=actor, now=now, columns=counted(entry), booking=booking.id)
    return booking


def decline(
    session: Session,
    actor: Actor,
    entry: WaitlistEntry,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> None:
    """Let the offer go to the next one, and wait on after a rest. Raises Stale, WrongState."""
    require(actor, Action.BOOKING_CREATE, entry.quota)
    _take(session, entry, expected_version)
    _offer_of(entry)
    _give_up(session, actor, entry, now)
    pass_on(entry, actor, rules, now)


def _take(session: Session, entry: WaitlistEntry, expected_version: int) -> None:
    capacity.lock(session, entry.quota.cluster)
    hold(session, entry)
    if entry.version != expected_version:
        raise Stale(N_("Your place on the waitlist has changed since you opened the page."))


def _offer_of(entry: WaitlistEntry) -> Booking:
    if entry.state is not WaitlistState.OFFERED or entry.booking is None:
        raise WrongState(N_("There is no offer any more."), {"state": entry.state.value})
    return entry.booking


def _give_up(session: Session, actor: Actor, entry: WaitlistEntry, now: datetime) -> None:
    if entry.booking is not None:
        booking = hold(session, entry.booking)
        if booking.state is BookingState.HELD:
            bookings.end_now(session, actor, booking, "", now)


def counted(entry: WaitlistEntry) -> dict[str, object]:
    """The version counted up, for the columns of ``move()``: an open page turns stale."""
    return {"version": entry.version + 1}


def pass_on(
    entry: WaitlistEntry, actor: Actor, rules: BookingRules, now: datetime, *, passed: int = 1
) -> None:
    """The offer goes to the next one; who let it pass rests, and stands behind those who did not."""
    columns = {
        **counted(entry),
        "booking_id": None,
        "answer_until": None,
        "offers": entry.offers + passed,
        "rests_until": now + rules.waitlist_answer,
    }
    move(entry, WaitlistState.WAITING, actor=actor, now=now, columns=columns)


def in_order(
    session: Session, cluster: Cluster, gpu_type: str, entries: Sequence[WaitlistEntry]
) -> list[WaitlistEntry]:
    """The order in which offers are made: by congestion's prices, of which entries that wait are a part."""
    run = calendar_queries.demand(session, cluster, gpu_type)
    crowds = of_hours(run.starts_at, run.prices, planned=True) if run else None
    return sorted(entries, key=lambda entry: _place(entry, crowds))


def _place(entry: WaitlistEntry, crowds: Congestion | None) -> tuple[int, float, datetime, int]:
    gpu_seconds = entry.nodes * entry.gpus_per_node * entry.length_seconds
    price = crowds.mean(entry.earliest_at, entry.latest_at) if crowds else 0.0
    return entry.offers, -round(price * gpu_seconds, 3), entry.created_at, entry.id


def find(session: Session, actor: Actor, entry_id: int) -> WaitlistEntry:
    """One entry with its quota and offer, for whoever may see the quota. Raises NotFound."""
    entry = session.scalar(
        select(WaitlistEntry)
        .where(WaitlistEntry.id == entry_id)
        .options(joinedload(WaitlistEntry.quota).joinedload(Quota.cluster), joinedload(WaitlistEntry.booking))
    )
    if entry is None:
        raise NotFound()
    require(actor, Action.QUOTA_VIEW, entry.quota)
    return entry


def of_quota(session: Session, actor: Actor, quota: Quota) -> Sequence[WaitlistEntry]:
    """The quota's open entries, oldest first."""
    require(actor, Action.QUOTA_VIEW, quota)
    return session.scalars(
        select(WaitlistEntry)
        .where(WaitlistEntry.quota_id == quota.id, WaitlistEntry.state.in_(OPEN))
        .options(joinedload(WaitlistEntry.booking))
        .order_by(WaitlistEntry.id)
    ).all()


def own(actor: Actor, everybodys: bool = False) -> Select[WaitlistEntry]:
    """Open entries of one's own quotas: offers first, by their deadlines, then in order of arrival.

    ``everybodys``: of all the quotas that the actor's role shows.
    """
    require(actor, Action.APPLICATION_CREATE)
    return (
        select(WaitlistEntry)
        .join(WaitlistEntry.quota)
        .join(Quota.application)
        .options(
            contains_eager(WaitlistEntry.quota).contains_eager(Quota.application),
            joinedload(WaitlistEntry.booking),
        )
        .where(WaitlistEntry.state.in_(OPEN), visible_quotas(actor) if everybodys else own_quotas(actor))
        .order_by(WaitlistEntry.state, WaitlistEntry.answer_until, WaitlistEntry.id)
    )
