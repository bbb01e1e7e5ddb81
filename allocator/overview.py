"""What a person sees first: what is theirs and needs them next, in a constant number of queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, not_, select
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator import capacity, ledger
from allocator.actors import Actor, Role
from allocator.authorization import Action, may, own_quotas
from allocator.binding import Binding, binding
from allocator.booking import line_limits
from allocator.booking.booking_checks import Opened
from allocator.dividing.grants import Room
from allocator.ledger import Balance
from allocator.models import Application, Booking, Cluster, Grant, Node, NodeState, Period, Quota
from allocator.policy import BookingRules
from allocator.states import OPEN_BOOKINGS, ApplicationState, PeriodState, QuotaState

MOST = 5  # of each kind; the lists have the rest


@dataclass(frozen=True)
class OwnWork:
    """The newest of each kind that is not over; ``balances``, ``rooms`` and ``bindings`` by quota id.

    A room is what the quota may spend in the period that runs, else in the next one that is published.
    """

    applications: Sequence[Application]
    quotas: Sequence[Quota]
    balances: dict[int, Balance]
    rooms: dict[int, Room]
    bindings: dict[int, Binding]
    bookings: Sequence[Booking]

    @property
    def is_empty(self) -> bool:
        return not (self.applications or self.quotas or self.bookings)


@dataclass(frozen=True)
class Waiting:
    """The operators' queue in two numbers."""

    count: int
    oldest: datetime | None


@dataclass(frozen=True)
class Offer:
    """What a cluster has: GPUs of one type in all that have come, and those of nodes that are up."""

    cluster: Cluster
    gpu_type: str
    nodes: int
    gpus: int
    gpus_up: int


def own_work(session: Session, actor: Actor, rules: BookingRules, now: datetime) -> OwnWork:
    """The actor's own applications in progress, active quotas and bookings that are not over."""
    in_progress = Application.state.in_((ApplicationState.DRAFT, ApplicationState.SUBMITTED))
    applications = session.scalars(
        select(Application)
        .where(Application.applicant_id == actor.person_id, in_progress)
        .order_by(Application.updated_at.desc(), Application.id.desc())
        .limit(MOST)
    ).all()
    quotas = session.scalars(
        select(Quota)
        .options(joinedload(Quota.application), joinedload(Quota.cluster))
        .where(own_quotas(actor), Quota.state == QuotaState.ACTIVE)
        .order_by(Quota.valid_until, Quota.id)
        .limit(MOST)
    ).all()
    bookings = session.scalars(
        select(Booking)
        .join(Booking.quota)
        .options(
            joinedload(Booking.quota).joinedload(Quota.application),
            joinedload(Booking.cluster),
            joinedload(Booking.reservation),
        )
        .where(own_quotas(actor), Booking.state.in_(OPEN_BOOKINGS))
        .order_by(Booking.starts_at, Booking.id)
        .limit(MOST)
    ).all()
    ids = [quota.id for quota in quotas]
    balances, rooms = ledger.balances(session, ids), _rooms(session, ids, now)
    opened = line_limits.opened_of(session, ids, now)
    bindings = {
        quota.id: binding(
            quota, balances[quota.id], rooms.get(quota.id), opened.get(quota.id, Opened()), rules
        )
        for quota in quotas
    }
    return OwnWork(applications, quotas, balances, rooms, bindings, bookings)


def _rooms(session: Session, quota_ids: Sequence[int], now: datetime) -> dict[int, Room]:
    """The first published period of each quota that is not over; three queries for each such period."""
    grants = session.scalars(
        select(Grant)
        .join(Grant.period)
        .where(Grant.quota_id.in_(quota_ids), Period.state == PeriodState.PUBLISHED, Period.ends_at > now)
        .options(joinedload(Grant.period), selectinload(Grant.changes))
        .order_by(Period.starts_at.desc())
    )
    nearest = {grant.quota_id: grant for grant in grants}
    charged: dict[int, dict[int, int]] = {}
    for period in {grant.period_id: grant.period for grant in nearest.values()}.values():
        charged[period.id] = ledger.charged_within(session, quota_ids, (period.starts_at, period.ends_at))
    return {
        quota_id: Room(grant.period, grant.current, charged[grant.period_id].get(quota_id, 0))
        for quota_id, grant in nearest.items()
    }


def undecided(session: Session, actor: Actor) -> Sequence[Period]:
    """Periods that operators still have to propose or publish, the next first; nothing for anybody else."""
    if not may(actor, Action.PERIOD_PROPOSE):
        return []
    return session.scalars(
        select(Period)
        .where(Period.state.in_((PeriodState.DRAFT, PeriodState.PROPOSED)))
        .options(joinedload(Period.cluster))
        .order_by(Period.starts_at, Period.id)
        .limit(MOST)
    ).all()


def waiting(session: Session, actor: Actor) -> Waiting | None:
    """The queue as those who decide see it; None for everybody else."""
    if Role.OPERATOR not in actor.roles or not may(actor, Action.APPLICATION_QUEUE):
        return None
    submitted = Application.state == ApplicationState.SUBMITTED
    count, oldest = session.execute(
        select(func.count(), func.min(Application.submitted_at)).where(submitted)
    ).one()
    return Waiting(count, oldest)


def offers(session: Session) -> list[Offer]:
    """What every cluster has, by GPU type; public."""
    up = func.coalesce(func.sum(Node.gpus).filter(Node.state == NodeState.UP), 0)
    rows = session.execute(
        select(Cluster, Node.gpu_type, func.count(), func.sum(Node.gpus), up)
        .join(Node.cluster)
        .where(Node.state != NodeState.GONE, not_(capacity.awaited()))
        .group_by(Cluster.id, Cluster.slug, Node.gpu_type)
        .order_by(Cluster.slug, Node.gpu_type)
    )
    return [Offer(*row) for row in rows]
