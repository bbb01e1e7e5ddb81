"""What the pages about quotas and bookings read; every list is narrowed to what the actor may see."""

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Select, case, select
from sqlalchemy.orm import Session, contains_eager, joinedload, lazyload, selectinload
from sqlalchemy.orm.strategy_options import _AbstractLoad

from allocator import capacity, history
from allocator.actors import Actor
from allocator.authorization import Action, require, visible_bookings, visible_quotas
from allocator.booking.booking_checks import Ask
from allocator.booking.windows import Shape
from allocator.errors import NotFound
from allocator.history import Change
from allocator.models import Application, Booking, NodeSlot, Person, Quota, QuotaMember
from allocator.states import OPEN_BOOKINGS, VOID_BOOKINGS, BookingState, QuotaState

LIVE = OPEN_BOOKINGS


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
            selectinload(Booking.slots).joinedload(NodeSlot.node),
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

    ``past`` narrows to those that are over (True) or not (False). An offer that lapsed was never a booking.
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
        .where(visible_bookings(_as(actor, everybodys)), Booking.state != BookingState.LAPSED)
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


def usual_shape(session: Session, quota: Quota) -> Shape:
    """What a form may suggest: the shape booked last, else that applied for; no more nodes than work now."""
    last = session.execute(
        select(Booking.nodes, Booking.gpus_per_node)
        .where(Booking.quota_id == quota.id, Booking.state.not_in(VOID_BOOKINGS))
        .order_by(Booking.id.desc())
        .limit(1)
    ).first()
    application = quota.application
    nodes, gpus = last or (application.nodes, application.gpus_per_node)
    gpu_type = capacity.gpu_types(session, quota.cluster).get(quota.gpu_type)
    return Shape(max(min(nodes, gpu_type.up if gpu_type else nodes), 1), gpus)


def own_copies(session: Session, quota: Quota, person_id: int | None, asks: Iterable[Ask]) -> dict[Ask, int]:
    """Which of these the person has booked already, just so, with the number of the booking. One query."""
    rows = session.execute(
        select(Booking.id, Booking.starts_at, Booking.ends_at, Booking.nodes, Booking.gpus_per_node).where(
            Booking.quota_id == quota.id,
            Booking.booked_by_id == person_id,
            Booking.state.not_in((*VOID_BOOKINGS, BookingState.HELD)),
            Booking.starts_at.in_([ask.starts_at for ask in asks]),
        )
    )
    return {Ask(row.nodes, row.gpus_per_node, row.starts_at, row.ends_at): row.id for row in rows}


def _as(actor: Actor, everybodys: bool) -> Actor:
    """The actor without its staff roles, unless the list is to show what these let it see."""
    return actor if everybodys else replace(actor, roles=frozenset())


def changes(session: Session, subject: Quota | Booking, limit: int = 50) -> list[Change]:
    """What happened to a quota, or to a booking and its reservation, the latest first."""
    subjects = [subject] if isinstance(subject, Quota) else [subject, subject.reservation]
    return history.changes(session, *subjects, limit=limit)
