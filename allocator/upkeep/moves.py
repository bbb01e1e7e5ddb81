"""Single bookings and people: pins, moves by hand, and the answer to a move that others made (R-15).

Whoever's booking was moved may accept the new time, choose another, or have all of it back. Silence accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator import capacity, events, ledger
from allocator.actors import Actor
from allocator.authorization import Action, may, require
from allocator.booking import booking_letters, windows
from allocator.booking.booking_checks import Ask, check, grid_of, overlap
from allocator.booking.windows import NodeFree, Place, Shape, nearest_after, nearest_before, pick
from allocator.dividing import grants
from allocator.errors import Fault, Forbidden, Invalid, NoCapacity, NotFound, Stale, WrongState
from allocator.locks import hold
from allocator.models import Booking, BookingMove, Node, NodeSlot, NodeState, Quota
from allocator.policy import BookingRules
from allocator.reasons import given
from allocator.states import BookingState, MoveState, move
from allocator.upkeep.repair_inputs import has_begun, soonest
from allocator.upkeep.repair_steps import Why, move_to
from config.i18n import N_

LONGEST_PIN = 500
NEARBY = timedelta(days=14)  # so far around its new time other starts are looked for
MOVABLE = (BookingState.PLANNED, BookingState.CONFIRMED)
TAKEN = N_("These GPUs are not free in that window.")


@dataclass(frozen=True)
class Placement:
    """Where an operator wants a booking: its start, and the nodes by name (none: any that are free)."""

    starts_at: datetime
    nodes: tuple[str, ...] = ()


def pin(
    session: Session, actor: Actor, booking: Booking, *, reason: str, expected_version: int, now: datetime
) -> None:
    """Keep machines from moving it, with a reason. Raises Invalid, Stale, WrongState."""
    require(actor, Action.BOOKING_PLACE, booking)
    why = given(reason, most=LONGEST_PIN)
    _take(session, booking, expected_version, now)
    before, booking.pin = booking.pin, why
    events.record(
        session,
        actor,
        booking,
        "booking.pinned",
        now=now,
        reason=why,
        before={"pin": before},
        after={"pin": why},
    )


def unpin(session: Session, actor: Actor, booking: Booking, *, expected_version: int, now: datetime) -> None:
    """Let machines move it again. Raises Stale, WrongState."""
    require(actor, Action.BOOKING_PLACE, booking)
    _take(session, booking, expected_version, now)
    if booking.pin is None:
        raise WrongState(N_("This booking is not pinned."))
    before, booking.pin = booking.pin, None
    events.record(
        session, actor, booking, "booking.unpinned", now=now, before={"pin": before}, after={"pin": None}
    )


def by_hand(
    session: Session,
    actor: Actor,
    booking: Booking,
    wanted: Placement,
    *,
    reason: str,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> BookingMove | None:
    """An operator moves it; the person is told and may answer. Other nodes alone are told to nobody.

    Raises Invalid, NoCapacity, Stale, WrongState.
    """
    require(actor, Action.BOOKING_PLACE, booking)
    why = Why(given(reason), actor, rules, now)
    _take(session, booking, expected_version, now)
    same_time = wanted.starts_at == booking.starts_at
    ends_at = wanted.starts_at + (booking.ends_at - booking.starts_at)
    if not same_time:
        _give_notice(booking, wanted.starts_at, rules, now)
        _check(session, booking, wanted.starts_at, rules, now)
    places = _relocate(session, booking, wanted.starts_at, wanted.nodes)
    if not same_time and booking.state is not BookingState.PLANNED:
        return move_to(session, booking, wanted.starts_at, ends_at, why)
    before = {"starts_at": booking.starts_at, "ends_at": booking.ends_at}
    booking.starts_at, booking.ends_at = wanted.starts_at, ends_at
    after = {"starts_at": wanted.starts_at, "ends_at": ends_at, "nodes": [place.name for place in places]}
    events.record(
        session, actor, booking, "booking.rebound", now=now, reason=why.reason, before=before, after=after
    )
    return None


def _give_notice(booking: Booking, starts_at: datetime, rules: BookingRules, now: datetime) -> None:
    """An operator is no machine, but whoever is moved needs the same time to hear of it. Raises Invalid."""
    if starts_at < soonest(booking, rules, now):
        problem = N_("People hear of an earlier start at least %(hours)s hours ahead: choose a later one.")
        raise Invalid({"starts_at": [Fault(problem, {"hours": rules.move_notice // timedelta(hours=1)})]})


def accept(session: Session, actor: Actor, moved: BookingMove, *, now: datetime) -> None:
    """The new time is fine. Raises WrongState when it was answered or the time to answer is over."""
    _take_move(session, actor, moved, now)
    _answer(moved, MoveState.ACCEPTED, actor, now)


def choose(
    session: Session,
    actor: Actor,
    moved: BookingMove,
    starts_at: datetime,
    *,
    expected_version: int,
    rules: BookingRules,
    now: datetime,
) -> Booking:
    """Another time of one's own choice, free of the rule of how long ahead one books.

    Raises Invalid, NoCapacity, Stale, WrongState.
    """
    booking = _take_move(session, actor, moved, now)
    _take(session, booking, expected_version, now)
    _check(session, booking, starts_at, rules, now)
    ends_at = starts_at + (booking.ends_at - booking.starts_at)
    _relocate(session, booking, starts_at, ())
    before = {"starts_at": booking.starts_at, "ends_at": booking.ends_at}
    booking.starts_at, booking.ends_at = starts_at, ends_at
    after = {"starts_at": starts_at, "ends_at": ends_at}
    events.record(session, actor, booking, "booking.moved", now=now, before=before, after=after)
    _answer(moved, MoveState.CHANGED, actor, now)
    booking_letters.booked(session, booking, now=now)
    return booking


def refund(
    session: Session, actor: Actor, moved: BookingMove, *, expected_version: int, now: datetime
) -> int:
    """All of it back, and the booking is cancelled; returns the GPU-seconds. Raises Stale, WrongState."""
    booking = _take_move(session, actor, moved, now)
    _take(session, booking, expected_version, now)
    given_back = booking.gpu_seconds
    session.execute(delete(NodeSlot).where(NodeSlot.booking_id == booking.id))
    session.expire(booking, ["slots"])
    move(
        booking,
        BookingState.CANCELLED,
        actor=actor,
        now=now,
        reason=moved.reason,
        columns={"version": booking.version + 1},
        given_back=given_back,
        charged=0,
    )
    _answer(moved, MoveState.REFUNDED, actor, now)
    booking_letters.cancelled(session, booking, given_back, actor, now=now)
    return given_back


def may_answer(actor: Actor, moved: BookingMove, now: datetime) -> bool:
    """Whether there is still something to answer, and by this person."""
    return (
        moved.state is MoveState.TOLD
        and moved.answer_until > now
        and moved.booking.state in MOVABLE
        and may(actor, Action.BOOKING_ANSWER, moved.booking)
    )


def find(session: Session, actor: Actor, move_id: int) -> BookingMove:
    """One move with all that its page shows. Raises NotFound for what the actor may not see."""
    moved = session.scalar(
        select(BookingMove)
        .where(BookingMove.id == move_id)
        .options(
            joinedload(BookingMove.booking).options(
                joinedload(Booking.cluster),
                joinedload(Booking.quota).options(
                    joinedload(Quota.application), joinedload(Quota.cluster), selectinload(Quota.members)
                ),
            )
        )
    )
    if moved is None:
        require(actor, Action.APPLICATION_CREATE)  # a visitor learns to sign in, and nothing else
        raise NotFound()
    require(actor, Action.BOOKING_VIEW, moved.booking)
    return moved


def open_moves(actor: Actor, now: datetime) -> Select[BookingMove]:
    """Moves that wait for an answer of whoever got a letter about them, the most urgent first."""
    require(actor, Action.APPLICATION_CREATE)
    return (
        select(BookingMove)
        .join(BookingMove.booking)
        .where(
            or_(
                Booking.booked_by_id == actor.person_id,
                Booking.quota.has(Quota.application.has(applicant_id=actor.person_id)),
            ),
            BookingMove.state == MoveState.TOLD,
            BookingMove.answer_until > now,
            Booking.state.in_(MOVABLE),
        )
        .order_by(BookingMove.answer_until, BookingMove.id)
    )


def free_starts(
    session: Session, moved: BookingMove, *, rules: BookingRules, now: datetime
) -> list[datetime]:
    """Starts that would do, for a page that offers them: the old one, and the nearest to the new one."""
    booking, grid = moved.booking, grid_of(rules)
    length, quota = booking.ends_at - booking.starts_at, booking.quota
    gap = _gap(booking)
    first = grid.ceil(max(now, quota.valid_from, booking.starts_at - NEARBY))
    last = min(now + rules.max_ahead, quota.valid_until - length, booking.starts_at + NEARBY)
    if first > last:
        return []
    shape = Shape(booking.nodes, booking.gpus_per_node)
    nodes = capacity.held(
        session, booking.cluster, quota.gpu_type, first, last + length + gap, besides=booking.id
    )
    whole = not booking.cluster.shares_nodes
    starts = windows.free_starts(nodes, shape, length + gap, first, last, whole=whole)
    found = {
        nearest_before(starts, booking.starts_at - grid.step, grid),
        nearest_after(starts, booking.starts_at + grid.step, grid),
    }
    old = moved.from_starts_at
    if old != booking.starts_at and grid.holds(old) and any(since <= old <= until for since, until in starts):
        found.add(old)
    return sorted(start for start in found if start is not None)


def _gap(booking: Booking) -> timedelta:
    """What stays free behind it."""
    return max((slot.ends_at for slot in booking.slots), default=booking.ends_at) - booking.ends_at


def _take(session: Session, booking: Booking, expected_version: int, now: datetime) -> None:
    """Hold the cluster and the booking. Raises Stale, WrongState for what has begun or is over."""
    capacity.lock(session, booking.cluster)
    hold(session, booking)
    if booking.version != expected_version:
        raise Stale(
            N_("This booking has changed since you opened the page."),
            {"state": booking.state.value, "ends_at": booking.ends_at, "version": booking.version},
        )
    if booking.state not in MOVABLE or has_begun(booking, now):
        raise WrongState(N_("Only a booking that has not begun can be moved."))


def _take_move(session: Session, actor: Actor, moved: BookingMove, now: datetime) -> Booking:
    require(actor, Action.BOOKING_ANSWER, moved.booking)
    if actor.person_id is None:
        raise Forbidden()
    booking = moved.booking
    capacity.lock(session, booking.cluster)
    hold(session, booking)
    hold(session, moved)
    if moved.state is not MoveState.TOLD:
        raise WrongState(N_("This was answered already."), {"state": moved.state.value})
    if moved.answer_until <= now:
        raise WrongState(N_("The time to answer is over; the new time stays. You can still give it back."))
    if booking.state not in MOVABLE or has_begun(booking, now):
        raise WrongState(N_("This booking has begun, or is over: there is nothing left to answer."))
    return booking


def _answer(moved: BookingMove, state: MoveState, actor: Actor, now: datetime) -> None:
    columns = {"answered_by_id": actor.person_id, "answered_at": now}
    move(moved, state, actor=actor, now=now, columns=columns)


def _check(
    session: Session, booking: Booking, starts_at: datetime, rules: BookingRules, now: datetime
) -> None:
    """All rules but those of how long ahead one books; its own hours are its own. Raises Invalid."""
    quota = booking.quota
    length = booking.ends_at - booking.starts_at
    ask = Ask(booking.nodes, booking.gpus_per_node, starts_at, starts_at + length)
    own = Ask(booking.nodes, booking.gpus_per_node, booking.starts_at, booking.ends_at)
    balance = ledger.balance(session, quota)
    balance = replace(balance, booked_ahead=balance.booked_ahead - booking.gpu_seconds)
    rooms = [
        replace(
            room,
            charged=room.charged
            - booking.nodes
            * booking.gpus_per_node
            * overlap(own, room.period.starts_at, room.period.ends_at),
        )
        for room in grants.rooms(session, quota, ask.starts_at, ask.ends_at)
    ]
    relaxed = replace(
        rules,
        lead_time=timedelta(),
        min_length=min(rules.min_length, length),
        max_length=max(rules.max_length, length),
    )
    types = capacity.gpu_types(session, booking.cluster)
    faults = check(ask, quota, balance, types.get(quota.gpu_type), relaxed, now, rooms)
    earliest, latest = booking.earliest_at or ask.starts_at, booking.latest_at or ask.ends_at
    if ask.starts_at < earliest or ask.ends_at > latest:
        faults.setdefault("starts_at", []).append(
            Fault(N_("This lies outside of the window that was asked for."))
        )
    if faults:
        raise Invalid(faults)


def _relocate(session: Session, booking: Booking, starts_at: datetime, names: Sequence[str]) -> list[Place]:
    """Give its slots up and take others for the window. Raises NoCapacity, and then nothing has changed."""
    length = booking.ends_at - booking.starts_at
    ends_at = starts_at + length + _gap(booking)
    cluster = booking.cluster
    try:
        with session.begin_nested():
            session.execute(delete(NodeSlot).where(NodeSlot.booking_id == booking.id))
            free = capacity.free(session, cluster, booking.quota.gpu_type, starts_at, ends_at)
            shape = Ask(booking.nodes, booking.gpus_per_node, starts_at, ends_at).shape
            _must_work(session, booking, set(names) - {node.name for node in free})
            places = pick(_named(free, names), shape, whole=not cluster.shares_nodes)
            if places is None:
                raise NoCapacity(TAKEN)
            session.add_all(
                NodeSlot(
                    booking_id=booking.id,
                    node_id=place.node_id,
                    gpu_from=place.gpu_from,
                    gpu_to=place.gpu_to,
                    starts_at=starts_at,
                    ends_at=ends_at,
                )
                for place in places
            )
    except IntegrityError as error:
        raise NoCapacity(TAKEN) from error
    session.expire(booking, ["slots"])
    return places


def _must_work(session: Session, booking: Booking, unknown: set[str]) -> None:
    """Raises Invalid for names that no bookable node has: there is none, or it does not work."""
    if not unknown:
        return
    here = select(Node.name).where(
        Node.cluster_id == booking.cluster_id,
        Node.gpu_type == booking.quota.gpu_type,
        Node.state != NodeState.GONE,
        Node.name.in_(unknown),
    )
    down = set(session.scalars(here))
    problem = N_("No such nodes here: %(names)s.") if unknown - down else N_("Not working now: %(names)s.")
    names = {"names": ", ".join(sorted(unknown - down or down))}
    raise Invalid({"nodes": [Fault(problem, names)]})


def _named(free: Sequence[NodeFree], names: Sequence[str]) -> Sequence[NodeFree]:
    """Those nodes that were asked for; all of them, if none was named."""
    if not names:
        return free
    return [node for node in free if node.name in set(names)]
