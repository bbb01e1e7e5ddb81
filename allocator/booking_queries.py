"""What the pages about quotas and bookings read; every list is narrowed to what the actor may see."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, or_, select
from sqlalchemy.orm import Session, contains_eager, joinedload, lazyload, selectinload
from sqlalchemy.orm.strategy_options import _AbstractLoad

from allocator.actors import Actor
from allocator.authorization import Action, require, visible_bookings, visible_quotas
from allocator.errors import NotFound
from allocator.events import subject_type
from allocator.models import Application, Booking, BookingSlot, Event, Person, Quota, QuotaMember
from allocator.states import BookingState, QuotaState

LIVE = (BookingState.CONFIRMED, BookingState.STARTED)


@dataclass(frozen=True)
class Change:
    """One event as people read it; ``who`` None: the system itself."""

    kind: str
    at: datetime
    who: str | None
    reason: str
    after: dict[str, Any]


def _plain_person(path: _AbstractLoad) -> _AbstractLoad:
    """A person's name without its roles and memberships: nobody looks at these here."""
    return path.options(lazyload(Person.role_grants), lazyload(Person.memberships))


def find_quota(session: Session, actor: Actor, quota_id: int) -> Quota:
    """One quota with all that its page shows. Raises NotFound for what the actor may not see."""
    quota = session.scalar(
        select(Quota)
        .where(Quota.id == quota_id)
        .options(
            joinedload(Quota.cluster),
            _plain_person(joinedload(Quota.application).joinedload(Application.applicant)),
            joinedload(Quota.application).joinedload(Application.organisation),
            joinedload(Quota.application).joinedload(Application.decision),
            selectinload(Quota.members),
        )
    )
    if quota is None:
        require(actor, Action.APPLICATION_CREATE)  # a visitor learns to sign in, and nothing else
        raise NotFound()
    require(actor, Action.QUOTA_VIEW, quota)
    return quota


def find_booking(session: Session, actor: Actor, booking_id: int) -> Booking:
    """One booking with all that its page shows. Raises NotFound for what the actor may not see."""
    booking = session.scalar(
        select(Booking)
        .where(Booking.id == booking_id)
        .options(
            joinedload(Booking.cluster),
            joinedload(Booking.reservation),
            _plain_person(joinedload(Booking.booked_by)),
            joinedload(Booking.quota).joinedload(Quota.application),
            joinedload(Booking.quota).selectinload(Quota.members),
            selectinload(Booking.slots).joinedload(BookingSlot.node),
        )
    )
    if booking is None:
        require(actor, Action.APPLICATION_CREATE)
        raise NotFound()
    require(actor, Action.BOOKING_VIEW, booking)
    return booking


def members(quota: Quota) -> Select[QuotaMember]:
    """Who may spend a quota: the lead, then by name."""
    return (
        select(QuotaMember)
        .join(QuotaMember.person)
        .options(_plain_person(contains_eager(QuotaMember.person)))
        .where(QuotaMember.quota_id == quota.id)
        .order_by(QuotaMember.is_lead.desc(), Person.name, Person.id)
    )


def list_quotas(actor: Actor, state: QuotaState | None = None, everybodys: bool = False) -> Select[Quota]:
    """One's own quotas, or all that the actor's role lets it see; active ones first, then the newest."""
    require(actor, Action.APPLICATION_CREATE)
    statement = (
        select(Quota)
        .join(Quota.application)
        .options(
            contains_eager(Quota.application).options(
                _plain_person(joinedload(Application.applicant)), joinedload(Application.organisation)
            ),
            joinedload(Quota.cluster),
        )
        .where(visible_quotas(_as(actor, everybodys)))
    )
    if state is not None:
        statement = statement.where(Quota.state == state)
    return statement.order_by(case((Quota.state == QuotaState.ACTIVE, 0), else_=1), Quota.id.desc())


def list_bookings(
    actor: Actor, everybodys: bool = False, quota: Quota | None = None, past: bool | None = None
) -> Select[Booking]:
    """Bookings of one's own quotas, or all one may see: the coming ones first, then the past, latest first.

    ``past`` narrows to those that are over (True) or not (False).
    """
    require(actor, Action.APPLICATION_CREATE)
    live = Booking.state.in_(LIVE)
    statement = (
        select(Booking)
        .options(
            joinedload(Booking.quota).joinedload(Quota.application),
            joinedload(Booking.cluster),
            joinedload(Booking.reservation),
        )
        .where(visible_bookings(_as(actor, everybodys)))
    )
    if quota is not None:
        statement = statement.where(Booking.quota_id == quota.id)
    if past is not None:
        statement = statement.where(~live if past else live)
    return statement.order_by(
        case((live, 0), else_=1),
        case((live, Booking.starts_at), else_=None),
        Booking.starts_at.desc(),
        Booking.id.desc(),
    )


def _as(actor: Actor, everybodys: bool) -> Actor:
    """The actor without its staff roles, unless the list is to show what these let it see."""
    return actor if everybodys else replace(actor, roles=frozenset())


def changes(session: Session, subject: Quota | Booking, limit: int = 50) -> list[Change]:
    """What happened to a quota, or to a booking and its reservation, the latest first."""
    subjects: list[Any] = [subject] if isinstance(subject, Quota) else [subject, subject.reservation]
    which = [(Event.subject_type == subject_type(one)) & (Event.subject_id == one.id) for one in subjects]
    rows = session.execute(
        select(Event, Person.name)
        .outerjoin(Person, Person.id == Event.actor_id)
        .where(or_(*which))
        .order_by(Event.seq.desc())
        .limit(limit)
    )
    return [Change(event.kind, event.at, name, event.reason, event.after) for event, name in rows]
