"""Clusters as the domain knows them: their nodes and what was last heard from them (R-4, R-9)."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type


class NodeState(StrEnum):
    UP = "up"
    DOWN = "down"
    DRAINED = "drained"
    GONE = "gone"
    EXPECTED = "expected"  # announced by an operator, not seen on the cluster yet


class Cluster(Base):
    """One machine; its row is the lock that booking takes before it counts GPUs.

    No machine moves a booking that begins before ``frozen_until``. Where it cannot reserve some GPUs of a
    node by itself (``reserves_gpus``), parts are kept apart by limits of their accounts.
    """

    __tablename__ = "clusters"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    slug: Mapped[str] = mapped_column(String(40), unique=True)
    title: Mapped[str] = mapped_column(String(120))
    shares_nodes: Mapped[bool] = mapped_column(default=True)
    reserves_gpus: Mapped[bool] = mapped_column(default=True)
    frozen_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    # what the scheduler last heard
    checked_at: Mapped[datetime | None]
    reachable_at: Mapped[datetime | None]
    version: Mapped[str | None] = mapped_column(String(40))
    clock_skew_seconds: Mapped[int | None]
    problem_code: Mapped[str | None] = mapped_column(String(40))
    problem: Mapped[str | None] = mapped_column(String(500))
    usage_read_until: Mapped[datetime | None]

    nodes: Mapped[list["Node"]] = relationship(back_populates="cluster")


class Node(Base):
    """A node as last seen; it can be booked from ``joins_at`` and until ``leaves_at`` (R-8).

    ``switch`` is the leaf switch above it, where the cluster tells.
    """

    __tablename__ = "nodes"
    __table_args__ = (
        UniqueConstraint("cluster_id", "name"),
        CheckConstraint("gpus > 0", name="gpus_positive"),
        CheckConstraint("joins_at < leaves_at", name="joins_before_it_leaves"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    name: Mapped[str] = mapped_column(String(64))
    partition: Mapped[str] = mapped_column(String(64))
    gpu_type: Mapped[str] = mapped_column(String(40))
    gpus: Mapped[int]
    state: Mapped[NodeState] = mapped_column(enum_type(NodeState, "state"), default=NodeState.UP)
    reason: Mapped[str | None] = mapped_column(String(200))
    switch: Mapped[str | None] = mapped_column(String(64))
    joins_at: Mapped[datetime | None]
    leaves_at: Mapped[datetime | None]
    seen_at: Mapped[datetime]

    cluster: Mapped[Cluster] = relationship(back_populates="nodes")
