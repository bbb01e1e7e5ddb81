"""What the pages about outages read, and which outages everybody's calendar shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, case, func, or_, select
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.errors import NotFound
from allocator.models import Cluster, Outage, OutageNode, Repair
from allocator.states import OPEN_REPAIRS, OutageState, RepairState


def find(session: Session, actor: Actor, outage_id: int) -> Outage:
    """One outage with its nodes, for staff. Raises NotFound, Forbidden."""
    require(actor, Action.CLUSTER_OPERATE)
    outage = session.scalar(
        select(Outage)
        .where(Outage.id == outage_id)
        .options(joinedload(Outage.cluster), selectinload(Outage.nodes).joinedload(OutageNode.node))
    )
    if outage is None:
        raise NotFound()
    return outage


def list_outages(actor: Actor) -> Select[Outage]:
    """All outages: drafts and what is to come first, in order; then the past, latest first."""
    require(actor, Action.CLUSTER_OPERATE)
    open_ = Outage.state.in_((OutageState.DRAFT, OutageState.PUBLISHED))
    return (
        select(Outage)
        .options(joinedload(Outage.cluster), selectinload(Outage.nodes).joinedload(OutageNode.node))
        .order_by(
            case((open_, 0), else_=1),
            case((open_, Outage.starts_at), else_=None),
            Outage.starts_at.desc(),
            Outage.id.desc(),
        )
    )


def coming(session: Session, cluster: Cluster, since: datetime, until: datetime) -> Sequence[Outage]:
    """Published outages of a cluster that touch [since, until), for everybody's calendar."""
    return session.scalars(
        select(Outage)
        .where(
            Outage.cluster_id == cluster.id,
            or_(Outage.state == OutageState.PUBLISHED, Outage.state == OutageState.ENDED),
            Outage.starts_at < until,
            Outage.ends_at > since,
        )
        .options(selectinload(Outage.nodes).joinedload(OutageNode.node))
        .order_by(Outage.starts_at, Outage.id)
    ).all()


def proposals(session: Session, outage: Outage) -> Sequence[Repair]:
    """The repairs of the outage: open ones of a draft, worked out or not; the applied ones afterwards."""
    wanted = OPEN_REPAIRS if outage.state is OutageState.DRAFT else (RepairState.APPLIED,)
    return session.scalars(
        select(Repair)
        .where(Repair.outage_id == outage.id, Repair.state.in_(wanted))
        .order_by(Repair.gpu_type)
    ).all()


def repairs_waiting(session: Session) -> int:
    """How many repairs of failed or leaving nodes wait for a decision; not those that are worked out yet."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Repair)
            .where(Repair.state.in_((RepairState.PROPOSED, RepairState.FAILED)), Repair.outage_id.is_(None))
        )
        or 0
    )
