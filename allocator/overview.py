"""What a person sees first: what is theirs and needs them next, in a constant number of queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from allocator import ledger
from allocator.actors import Actor, Role
from allocator.authorization import Action, may, own_quotas
from allocator.ledger import Balance
from allocator.models import Application, Booking, Cluster, Node, NodeState, Quota
from allocator.states import OPEN_BOOKINGS, ApplicationState, QuotaState

MOST = 5  # of each kind; the lists have the rest


@dataclass(frozen=True)
class OwnWork:
    """The newest of each kind that is not over; ``balances`` by quota id."""

    applications: Sequence[Application]
    quotas: Sequence[Quota]
    balances: dict[int, Balance]
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
    """What a cluster has: GPUs of one type in all, and those of nodes that are up."""

    cluster: Cluster
    gpu_type: str
    nodes: int
    gpus: int
    gpus_up: int


def own_work(session: Session, actor: Actor, now: datetime) -> OwnWork:
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
    return OwnWork(applications, quotas, ledger.balances(session, [quota.id for quota in quotas]), bookings)


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
        .where(Node.state != NodeState.GONE)
        .group_by(Cluster.id, Cluster.slug, Node.gpu_type)
        .order_by(Cluster.slug, Node.gpu_type)
    )
    return [Offer(*row) for row in rows]
