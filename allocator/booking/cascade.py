"""The waitlist's machine: offers for those who wait as GPUs get free, and what becomes of the unanswered.

The scheduler runs it in every round, so that whatever freed GPUs (a booking given back, cut short, released,
an offer that lapsed, new nodes) is offered on without anybody having to think of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, events
from allocator.actors import SYSTEM
from allocator.booking import bookings, placing, waitlist_letters
from allocator.booking.placing import Terms
from allocator.booking.waitlist import OPEN, counted, pass_on
from allocator.errors import Invalid, NoCapacity
from allocator.locks import hold
from allocator.models import Cluster, WaitlistEntry
from allocator.policy import BookingRules
from allocator.states import BookingState, QuotaState, WaitlistState, move
from allocator.upkeep.mending import Claim
from config.i18n import N_

MOST_PASSED = 3  # offers without an answer before an entry leaves the list
RETRY = timedelta(hours=1)  # whose quota does not carry it is asked again after that
TOO_LATE = N_("Your window is over, and nothing got free in it.")
NO_ANSWER = N_("Several offers passed without an answer.")
QUOTA_OVER = N_("The quota is closed: nothing can be booked on it any more.")


def settle(session: Session, cluster: Cluster, *, rules: BookingRules, now: datetime) -> int:
    """Let time pass: offers without an answer go on, entries without a future end. The count of changes."""
    capacity.lock(session, cluster)
    entries = session.scalars(
        select(WaitlistEntry)
        .where(WaitlistEntry.cluster_id == cluster.id, WaitlistEntry.state.in_(OPEN))
        .order_by(WaitlistEntry.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    return sum(_settle(session, entry, rules, now) for entry in entries)


def _settle(session: Session, entry: WaitlistEntry, rules: BookingRules, now: datetime) -> bool:
    if entry.state is WaitlistState.OFFERED and entry.booking is not None:
        booking = hold(session, entry.booking)
        if booking.state is BookingState.HELD and booking.held_until and booking.held_until > now:
            return False
        if booking.state is BookingState.HELD:
            bookings.end_now(session, SYSTEM, booking, "", now)
        if booking.state is not BookingState.LAPSED:  # it was accepted on the booking's own page
            move(entry, WaitlistState.ACCEPTED, actor=SYSTEM, now=now, columns=counted(entry))
            return True
        pass_on(entry, SYSTEM, rules, now)
        if not (why := _over(entry, rules, now)):
            waitlist_letters.passed(session, entry, booking, now=now)
            return True
    elif not (why := _over(entry, rules, now)):
        return False
    move(entry, WaitlistState.LAPSED, actor=SYSTEM, now=now, reason=why, columns=counted(entry))
    waitlist_letters.over(session, entry, why, now=now)
    return True


def _over(entry: WaitlistEntry, rules: BookingRules, now: datetime) -> str:
    """Why the entry has nothing to wait for any more, a msgid, or nothing."""
    if entry.quota.state is not QuotaState.ACTIVE:
        return QUOTA_OVER
    if entry.offers >= MOST_PASSED:
        return NO_ANSWER
    last = entry.latest_at - timedelta(seconds=entry.length_seconds)
    return TOO_LATE if last < now + rules.lead_time else ""


def offer(
    session: Session, entry_id: int, starts_at: datetime, *, rules: BookingRules, now: datetime
) -> WaitlistEntry | None:
    """Hold that time for an entry, with a letter; None when it cannot be, or the entry waits no more."""
    entry = session.get_one(WaitlistEntry, entry_id)
    capacity.lock(session, entry.quota.cluster)
    hold(session, entry)
    if entry.state is not WaitlistState.WAITING:
        return None
    length = timedelta(seconds=entry.length_seconds)
    exact = bookings.Ask(entry.nodes, entry.gpus_per_node, starts_at, starts_at + length)
    until = min(now + rules.waitlist_answer, starts_at)
    terms = Terms(BookingState.HELD, held_until=until, booked_by_id=entry.asked_by_id)
    try:
        with session.begin_nested():
            booking = placing.make(session, SYSTEM, entry.quota, exact, terms=terms, rules=rules, now=now)
    except NoCapacity:
        return None
    except Invalid as error:
        # the quota has spent its hours, or has too many bookings: others come first until that changes
        entry.rests_until = now + RETRY
        after = {"rests_until": entry.rests_until, "faults": sorted(error.fields)}
        events.record(session, SYSTEM, entry, "waitlist_entry.skipped", now=now, after=after)
        return None
    columns = {**counted(entry), "booking_id": booking.id, "answer_until": until, "rests_until": None}
    move(entry, WaitlistState.OFFERED, actor=SYSTEM, now=now, columns=columns, booking=booking.id)
    waitlist_letters.offered(session, entry, booking, now=now)
    return entry


def offer_all(
    session: Session, admitted: Sequence[Claim], *, rules: BookingRules, now: datetime
) -> list[WaitlistEntry]:
    """Offers for those that a plan has found room for (``plan_search.Solution.admitted``), in its order."""
    made = (offer(session, -claim.id, claim.starts_at, rules=rules, now=now) for claim in admitted)
    return [entry for entry in made if entry is not None]
