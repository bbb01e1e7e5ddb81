"""The waitlist's machine: offers for those who wait as GPUs get free, and what becomes of the unanswered.

The scheduler runs it in every round, so that whatever freed GPUs (a booking given back, cut short, released,
an offer that lapsed, new nodes) is offered on without anybody having to think of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager

from allocator import capacity, events
from allocator.actors import SYSTEM
from allocator.booking import bookings, placing, planning, waitlist_letters
from allocator.booking.offer_search import Search, Wish
from allocator.booking.placing import Terms
from allocator.booking.plan_search import Solution
from allocator.booking.waitlist import OPEN, counted, pass_on
from allocator.booking.windows import Place, nearest_after
from allocator.errors import Invalid, NoCapacity
from allocator.locks import hold
from allocator.models import Booking, Cluster, Event, WaitlistEntry
from allocator.policy import BookingRules
from allocator.states import BookingState, QuotaState, WaitlistState, move
from allocator.upkeep.mending import Claim
from config.i18n import N_

MOST_PASSED = 3  # offers without an answer before an entry leaves the list
RETRY = timedelta(hours=1)  # whose quota does not carry it is asked again after that
TOO_LATE = N_("Your window is over, and nothing became free in it.")
NO_ANSWER = N_("Several offers passed without an answer.")
QUOTA_OVER = N_("The quota is closed: nothing can be booked on it any more.")


def settle(session: Session, cluster: Cluster, *, rules: BookingRules, now: datetime) -> int:
    """Let time pass: offers without an answer go on, entries without a future end. The count of changes."""
    capacity.lock(session, cluster)
    entries = session.scalars(
        select(WaitlistEntry)
        .join(WaitlistEntry.quota)
        .options(contains_eager(WaitlistEntry.quota))
        .where(WaitlistEntry.cluster_id == cluster.id, WaitlistEntry.state.in_(OPEN))
        .order_by(WaitlistEntry.id)
        .with_for_update(key_share=True, of=WaitlistEntry)
        .execution_options(populate_existing=True)
    ).all()
    offered = _hold(session, [entry.booking_id for entry in entries if entry.booking_id is not None])
    return sum(_settle(session, entry, offered, rules, now) for entry in entries)


def _hold(session: Session, ids: Sequence[int]) -> dict[int, Booking]:
    """The offers, all before the first event: whoever lets time pass may have one, and wait for the chain."""
    rows = session.scalars(
        select(Booking)
        .where(Booking.id.in_(ids))
        .order_by(Booking.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {booking.id: booking for booking in rows}


def _settle(
    session: Session,
    entry: WaitlistEntry,
    offered: Mapping[int, Booking],
    rules: BookingRules,
    now: datetime,
) -> bool:
    if entry.state is WaitlistState.OFFERED and entry.booking_id is not None:
        booking = offered[entry.booking_id]
        if booking.state is BookingState.HELD and booking.held_until and booking.held_until > now:
            return False
        if booking.state is BookingState.HELD:
            bookings.end_now(session, SYSTEM, booking, "", now)
        if booking.state is not BookingState.LAPSED:  # it was accepted on the booking's own page
            move(entry, WaitlistState.ACCEPTED, actor=SYSTEM, now=now, columns=counted(entry))
            return True
        taken_away = _taken_away(session, entry, booking, now)
        pass_on(entry, SYSTEM, rules, now, passed=0 if taken_away or _was_short(booking, rules) else 1)
        if taken_away:
            entry.rests_until = None
        if not (why := _over(entry, rules, now)):
            tell = waitlist_letters.lost if taken_away else waitlist_letters.passed
            tell(session, entry, booking, now=now)
            return True
    elif not (why := _over(entry, rules, now)):
        return False
    move(entry, WaitlistState.LAPSED, actor=SYSTEM, now=now, reason=why, columns=counted(entry))
    waitlist_letters.over(session, entry, why, now=now)
    return True


def _was_short(booking: Booking, rules: BookingRules) -> bool:
    """Whether there was less time to answer than is due: silence then says nothing."""
    if booking.held_until is None:
        return False
    # offers are made for whole minutes ahead, and the round that makes them takes a moment
    return booking.held_until - booking.created_at < rules.waitlist_answer


def _taken_away(session: Session, entry: WaitlistEntry, booking: Booking, now: datetime) -> bool:
    """Whether others ended the offer before its time, as a repair does, and not who was asked."""
    if booking.held_until is None or booking.held_until <= now:
        return False
    ended_by = session.scalar(
        select(Event.actor_id)
        .where(
            Event.subject_type == "booking",
            Event.subject_id == booking.id,
            Event.kind == "booking.lapsed",
        )
        .order_by(Event.seq.desc())
        .limit(1)
    )
    if ended_by is None:  # time did, by a clock that is ahead of ours
        return False
    return ended_by not in {entry.asked_by_id, *(member.person_id for member in entry.quota.members)}


def _over(entry: WaitlistEntry, rules: BookingRules, now: datetime) -> str:
    """Why the entry has nothing to wait for any more, a msgid, or nothing."""
    if entry.quota.state is not QuotaState.ACTIVE:
        return QUOTA_OVER
    if entry.offers >= MOST_PASSED:
        return NO_ANSWER
    last = entry.latest_at - timedelta(seconds=entry.length_seconds)
    return TOO_LATE if last < now + rules.lead_time else ""


def offer(
    session: Session, found: Claim, *, kept: Sequence[Claim] = (), rules: BookingRules, now: datetime
) -> WaitlistEntry | None:
    """Hold the place that was found for an entry, with a letter; None when it cannot be.

    ``kept`` is for others who are first in line: if anything else has to be looked for, it is not taken.
    """
    entry = session.get_one(WaitlistEntry, -found.id)
    capacity.lock(session, entry.quota.cluster)
    hold(session, entry)
    if entry.state is not WaitlistState.WAITING:
        return None
    try:
        booking = _hold_for(session, entry, found, kept, rules, now)
    except NoCapacity:
        return None
    except Invalid as error:
        # the quota has spent its hours, or has too many bookings: others come first until that changes
        entry.rests_until = now + RETRY
        after = {"rests_until": entry.rests_until, "faults": sorted(error.fields)}
        events.record(session, SYSTEM, entry, "waitlist_entry.skipped", now=now, after=after)
        return None
    columns = {
        **counted(entry),
        "booking_id": booking.id,
        "answer_until": booking.held_until,
        "rests_until": None,
    }
    move(entry, WaitlistState.OFFERED, actor=SYSTEM, now=now, columns=columns, booking=booking.id)
    waitlist_letters.offered(session, entry, booking, now=now)
    return entry


def _hold_for(
    session: Session,
    entry: WaitlistEntry,
    found: Claim,
    kept: Sequence[Claim],
    rules: BookingRules,
    now: datetime,
) -> Booking:
    """That place, or the first that the grants carry too, where they have changed since it was found."""
    claim = planning.waiting(entry, rules, now)
    latest = claim.last + claim.length
    wish = Wish(entry.nodes, entry.gpus_per_node, claim.length, claim.first, latest)

    def held(start: datetime, places: Sequence[Place]) -> Booking:
        until = min(now + rules.waitlist_answer, start)
        terms = Terms(
            BookingState.HELD, held_until=until, booked_by_id=entry.asked_by_id, places=tuple(places)
        )
        with session.begin_nested():
            exact = wish.at(start)
            return placing.make(session, SYSTEM, entry.quota, exact, terms=terms, rules=rules, now=now)

    try:
        return held(found.starts_at, found.places)
    except Invalid:
        search = Search.read(session, entry.quota, wish, rules, now).without(kept)
        start = None if search.faults else nearest_after(search.starts(), search.since, search.grid)
        if start is None:
            raise
        return held(start, search.ground.places(wish.shape, start, start + wish.length))


def offer_all(
    session: Session, solution: Solution, *, rules: BookingRules, now: datetime
) -> list[WaitlistEntry]:
    """Offers for those that a plan has found room for, in its order."""
    made = (offer(session, claim, kept=solution.kept, rules=rules, now=now) for claim in solution.admitted)
    return [entry for entry in made if entry is not None]
