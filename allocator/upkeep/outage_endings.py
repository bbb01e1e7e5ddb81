"""How an outage ends before its time: given up, called off, ended early; and what the moved hear then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, joinedload

from allocator import capacity, events
from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.booking import booking_letters
from allocator.errors import Stale, WrongState
from allocator.locks import hold
from allocator.models import Booking, BookingMove, NodeSlot, Outage, Quota, Repair
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import BookingState, MoveState, OutageState, move
from allocator.upkeep import outage_queries, repairs
from allocator.upkeep.outage_checks import OVER, STALE


def call_off(
    session: Session,
    actor: Actor,
    outage: Outage,
    *,
    reason: str,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> int:
    """Give a draft up, call a published outage off, or end one early. Raises Invalid, Stale, WrongState.

    What was moved for it stays where it is: people have planned by that. But they hear that their old time
    is free, and may answer once more; returns how many.
    """
    require(actor, Action.CLUSTER_CHANGE)
    why = given(reason)
    capacity.lock(session, outage.cluster)
    hold(session, outage)
    if outage.version != expected_version:
        raise Stale(STALE)
    columns: dict[str, object] = {"version": outage.version + 1}
    target = OutageState.CANCELLED
    if outage.state is OutageState.DRAFT:
        for repair in outage_queries.proposals(session, outage):
            repairs.give_up(session, actor, repair, why, now=now)
    elif outage.starts_at < now < outage.ends_at:
        target, columns["ends_at"] = OutageState.ENDED, _free(session, outage, now)
    elif outage.ends_at <= now:
        raise WrongState(OVER)
    else:
        session.execute(delete(NodeSlot).where(NodeSlot.outage_id == outage.id))
    move(outage, target, actor=actor, now=now, reason=why, columns=columns)
    session.expire(outage, ["slots"])
    return sum(
        _ask_again(session, actor, moved, why, rules, now) for moved in _made_for(session, outage, now)
    )


def _made_for(session: Session, outage: Outage, now: datetime) -> Sequence[BookingMove]:
    """The moves that were made for it whose old time is still to come."""
    return session.scalars(
        select(BookingMove)
        .join(BookingMove.repair)
        .where(Repair.outage_id == outage.id, BookingMove.from_starts_at > now)
        .options(joinedload(BookingMove.booking).joinedload(Booking.quota).joinedload(Quota.application))
        .order_by(BookingMove.id)
    ).all()


def _ask_again(
    session: Session, actor: Actor, moved: BookingMove, reason: str, rules: BookingRules, now: datetime
) -> bool:
    """Tell people that the old time is free; a booking that stayed where it was put may go back there."""
    booking = moved.booking
    if moved.to_starts_at is None:
        booking_letters.time_free(session, moved, reason, now=now)
        return True
    asked = moved.state in (MoveState.TOLD, MoveState.ACCEPTED)
    stayed = booking.state is BookingState.CONFIRMED and booking.starts_at == moved.to_starts_at
    if not asked or not stayed or booking.starts_at <= now:
        return False
    until = min(now + rules.move_answer, moved.from_starts_at, moved.to_starts_at)
    before = {"answer_until": moved.answer_until}
    if moved.state is MoveState.ACCEPTED:
        columns = {"answered_by_id": None, "answered_at": None}
        move(moved, MoveState.TOLD, actor=actor, now=now, reason=reason, columns=columns)
    moved.answer_until = until
    after = {"answer_until": until}
    events.record(
        session, actor, moved, "booking_move.reopened", now=now, reason=reason, before=before, after=after
    )
    booking_letters.time_free(session, moved, reason, now=now)
    return True


def _free(session: Session, outage: Outage, now: datetime) -> datetime:
    """Cut its slots off now; returns the moment."""
    moment = max(now.replace(microsecond=0), outage.starts_at + timedelta(seconds=1))
    mine = NodeSlot.outage_id == outage.id
    session.execute(delete(NodeSlot).where(mine, NodeSlot.starts_at >= moment))
    session.execute(update(NodeSlot).where(mine, NodeSlot.ends_at > moment).values(ends_at=moment))
    return moment
