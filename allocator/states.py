"""Every lifecycle in one place: an enum, a table of transitions, and ``move()``, the only step there is."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import update
from sqlalchemy.orm import Session, object_session

from allocator.actors import Actor
from allocator.errors import WrongState
from config.i18n import N_


class ApplicationState(StrEnum):
    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class QuotaState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    CLOSED = "closed"


class BookingState(StrEnum):
    """HELD: an offer that waits for a yes. PLANNED: a flexible one whose start may still move."""

    HELD = "held"
    PLANNED = "planned"
    CONFIRMED = "confirmed"
    STARTED = "started"
    ENDED = "ended"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


# These hold GPUs and are charged; those never took place and cost nothing; what is left is over.
OPEN_BOOKINGS = (BookingState.HELD, BookingState.PLANNED, BookingState.CONFIRMED, BookingState.STARTED)
VOID_BOOKINGS = (BookingState.CANCELLED, BookingState.LAPSED)


class ReservationState(StrEnum):
    """How far the cluster has come with a booking: what reconcile last read back, not what it asked for."""

    PENDING = "pending"
    RESERVED = "reserved"
    BLOCKED = "blocked"
    RELEASED = "released"


class OutageState(StrEnum):
    """A draft moves nobody; a published one holds its nodes until it ends or is called off."""

    DRAFT = "draft"
    PUBLISHED = "published"
    ENDED = "ended"
    CANCELLED = "cancelled"


class RepairState(StrEnum):
    """How bookings that lost their nodes are mended: worked out by the scheduler, decided by a person."""

    WAITING = "waiting"
    FAILED = "failed"
    PROPOSED = "proposed"
    APPLIED = "applied"
    DISCARDED = "discarded"


# what a person has not decided on yet
OPEN_REPAIRS = (RepairState.WAITING, RepairState.FAILED, RepairState.PROPOSED)


class MoveState(StrEnum):
    """A move of a confirmed booking: told with a reason, and the person's answer; silence accepts."""

    TOLD = "told"
    ACCEPTED = "accepted"
    CHANGED = "changed"
    REFUNDED = "refunded"


class WaitlistState(StrEnum):
    WAITING = "waiting"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    LAPSED = "lapsed"
    WITHDRAWN = "withdrawn"


class PeriodState(StrEnum):
    """From what is collected to what was granted; a draft that nobody needs is discarded."""

    DRAFT = "draft"
    PROPOSED = "proposed"
    PUBLISHED = "published"
    CLOSED = "closed"
    DISCARDED = "discarded"


class ProposalState(StrEnum):
    KEPT = "kept"
    PUBLISHED = "published"


class ReclaimState(StrEnum):
    """Nothing is taken back silently: a warning, time to answer, a proposal, a person's decision."""

    WARNED = "warned"
    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    DROPPED = "dropped"


TRANSITIONS: Mapping[type[StrEnum], Mapping[StrEnum, frozenset[StrEnum]]] = {
    ApplicationState: {
        ApplicationState.DRAFT: frozenset({ApplicationState.SUBMITTED, ApplicationState.WITHDRAWN}),
        ApplicationState.SUBMITTED: frozenset(
            {ApplicationState.APPROVED, ApplicationState.REFUSED, ApplicationState.WITHDRAWN}
        ),
    },
    QuotaState: {
        QuotaState.ACTIVE: frozenset({QuotaState.EXPIRED, QuotaState.CLOSED}),
    },
    BookingState: {
        BookingState.HELD: frozenset({BookingState.PLANNED, BookingState.CONFIRMED, BookingState.LAPSED}),
        BookingState.PLANNED: frozenset({BookingState.CONFIRMED, BookingState.CANCELLED}),
        BookingState.CONFIRMED: frozenset({BookingState.STARTED, BookingState.CANCELLED}),
        BookingState.STARTED: frozenset({BookingState.ENDED, BookingState.CANCELLED}),
    },
    ReservationState: {
        ReservationState.PENDING: frozenset(
            {ReservationState.RESERVED, ReservationState.BLOCKED, ReservationState.RELEASED}
        ),
        ReservationState.RESERVED: frozenset(
            {ReservationState.PENDING, ReservationState.BLOCKED, ReservationState.RELEASED}
        ),
        ReservationState.BLOCKED: frozenset(
            {ReservationState.PENDING, ReservationState.RESERVED, ReservationState.RELEASED}
        ),
    },
    OutageState: {
        OutageState.DRAFT: frozenset({OutageState.PUBLISHED, OutageState.CANCELLED}),
        OutageState.PUBLISHED: frozenset({OutageState.ENDED, OutageState.CANCELLED}),
    },
    RepairState: {
        RepairState.WAITING: frozenset({RepairState.PROPOSED, RepairState.FAILED, RepairState.DISCARDED}),
        # tried again by another one
        RepairState.FAILED: frozenset({RepairState.DISCARDED}),
        RepairState.PROPOSED: frozenset({RepairState.APPLIED, RepairState.DISCARDED}),
    },
    MoveState: {
        MoveState.TOLD: frozenset({MoveState.ACCEPTED, MoveState.CHANGED, MoveState.REFUNDED}),
        # the outage was called off: whoever agreed because of it is asked once more
        MoveState.ACCEPTED: frozenset({MoveState.TOLD}),
    },
    WaitlistState: {
        WaitlistState.WAITING: frozenset(
            {WaitlistState.OFFERED, WaitlistState.LAPSED, WaitlistState.WITHDRAWN}
        ),
        WaitlistState.OFFERED: frozenset(
            {WaitlistState.ACCEPTED, WaitlistState.WAITING, WaitlistState.LAPSED, WaitlistState.WITHDRAWN}
        ),
    },
    PeriodState: {
        PeriodState.DRAFT: frozenset({PeriodState.PROPOSED, PeriodState.DISCARDED}),
        PeriodState.PROPOSED: frozenset({PeriodState.PUBLISHED, PeriodState.DISCARDED}),
        PeriodState.PUBLISHED: frozenset({PeriodState.CLOSED}),
    },
    ProposalState: {
        ProposalState.KEPT: frozenset({ProposalState.PUBLISHED}),
    },
    ReclaimState: {
        ReclaimState.WARNED: frozenset({ReclaimState.PROPOSED, ReclaimState.DROPPED}),
        ReclaimState.PROPOSED: frozenset({ReclaimState.CONFIRMED, ReclaimState.DROPPED}),
    },
}


class Stateful(Protocol):
    id: Any
    state: Any


def may_move(current: StrEnum, target: StrEnum) -> bool:
    return target in TRANSITIONS[type(current)].get(current, frozenset())


def move(
    subject: Stateful,
    target: StrEnum,
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
    columns: Mapping[str, Any] | None = None,
    **after: Any,
) -> None:
    """Compare-and-set ``subject.state`` and write the event; WrongState when the table or a rival says no.

    ``columns`` change in the same statement, for what the database ties to the state. ``after`` are further
    facts for the event (amounts, dates). The caller commits.
    """
    from allocator import events  # events imports the models, which import the enums above

    current: StrEnum = subject.state
    session = object_session(subject)
    if session is None:
        raise ValueError("move() needs a subject that belongs to a session")
    session.flush()
    if not may_move(current, target) or not _swap(session, subject, current, target, columns or {}):
        raise WrongState(
            N_("This step is no longer possible: somebody changed it meanwhile."),
            {"current": current.value, "target": target.value},
        )
    events.record(
        session,
        actor,
        subject,
        f"{events.subject_type(subject)}.{target.value}",
        now=now,
        reason=reason,
        before={"state": current.value},
        after={"state": target.value, **after},
    )


def _swap(
    session: Session, subject: Stateful, current: StrEnum, target: StrEnum, columns: Mapping[str, Any]
) -> bool:
    model: Any = type(subject)
    unchanged = update(model).where(model.id == subject.id, model.state == current)
    statement = unchanged.values(state=target, **columns)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    swapped: bool = result.rowcount == 1  # type: ignore[attr-defined]
    if swapped:
        session.refresh(subject)
    return swapped
