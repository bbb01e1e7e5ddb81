"""What the pages about clusters read: capacity for everybody, health for staff."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session, joinedload

from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.errors import NotFound
from allocator.models import Booking, Cluster, JobHealth, JobRecord, Node, NodeState, Reservation
from allocator.states import ReservationState


def list_clusters(session: Session) -> list[Cluster]:
    return list(session.scalars(select(Cluster).order_by(Cluster.title, Cluster.id)))


def find_cluster(session: Session, actor: Actor, slug: str) -> Cluster:
    """A cluster for whoever operates or audits it. Raises Forbidden, or NotFound for an unknown slug."""
    require(actor, Action.CLUSTER_OPERATE)
    cluster = session.scalar(select(Cluster).where(Cluster.slug == slug))
    if cluster is None:
        raise NotFound()
    return cluster


def nodes_of(cluster: Cluster) -> Select[Node]:
    """Every node ever seen, those that need somebody first."""
    return (
        select(Node)
        .where(Node.cluster_id == cluster.id)
        .order_by(Node.state == NodeState.GONE, Node.state == NodeState.UP, Node.name, Node.id)
    )


def troubled_reservations(cluster: Cluster) -> Select[Reservation]:
    """Reservations of this cluster that are refused or have a problem written down, longest first."""
    return (
        select(Reservation)
        .options(joinedload(Reservation.booking).joinedload(Booking.quota))
        .where(
            Reservation.cluster_id == cluster.id,
            Reservation.state != ReservationState.RELEASED,
            or_(Reservation.state == ReservationState.BLOCKED, Reservation.problem_code.is_not(None)),
        )
        .order_by(Reservation.state_since, Reservation.id)
    )


def unknown_accounts(cluster: Cluster) -> Select[str, int, int, datetime]:
    """Use that belongs to no quota of ours, by ``account``, the largest first.

    Rows with the number of ``jobs``, their ``gpu_seconds`` and when the ``last`` of them was submitted.
    """
    gpu_seconds = func.sum(JobRecord.gpu_seconds)
    return (
        select(
            JobRecord.account,
            func.count().label("jobs"),
            gpu_seconds.label("gpu_seconds"),
            func.max(JobRecord.submitted_at).label("last"),
        )
        .where(JobRecord.cluster_id == cluster.id, JobRecord.quota_id.is_(None))
        .group_by(JobRecord.account)
        .order_by(gpu_seconds.desc(), JobRecord.account)
    )


def job_health(session: Session, cluster: Cluster) -> Sequence[JobHealth]:
    """The scheduler's jobs that serve this cluster: its own and those for all clusters."""
    return session.scalars(
        select(JobHealth)
        .where(or_(JobHealth.name.not_like("%:%"), JobHealth.name.like(f"%:{cluster.slug}")))
        .order_by(JobHealth.name)
    ).all()
