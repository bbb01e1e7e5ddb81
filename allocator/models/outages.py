"""What changes a cluster's capacity for a while, how the plan is mended then, and what a plan was worth."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.bookings import NodeSlot
from allocator.models.clusters import Cluster, Node
from allocator.states import OutageState, RepairState


class OutageKind(StrEnum):
    MAINTENANCE = "maintenance"
    OUTAGE = "outage"


class Outage(Base):
    """Nodes that cannot be booked in [starts_at, ends_at): planned maintenance, or an outage (R-8).

    Published, it holds them by ``slots`` of its own, so that the database refuses a booking there.
    ``reserved_at`` is when the cluster was first seen to keep jobs off them, ``problem`` why it does not.
    """

    __tablename__ = "outages"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        Index(None, "cluster_id", "state", "starts_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    kind: Mapped[OutageKind] = mapped_column(enum_type(OutageKind, "kind"))
    state: Mapped[OutageState] = mapped_column(enum_type(OutageState, "state"), default=OutageState.DRAFT)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text)
    created_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[datetime]
    published_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    published_at: Mapped[datetime | None]
    reserved_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(500))
    version: Mapped[int] = mapped_column(default=1)

    cluster: Mapped[Cluster] = relationship()
    nodes: Mapped[list["OutageNode"]] = relationship(back_populates="outage", cascade="all, delete-orphan")
    slots: Mapped[list[NodeSlot]] = relationship(back_populates="outage", cascade="all, delete-orphan")

    __mapper_args__ = {"version_id_col": version}


class OutageNode(Base):
    """One node of an outage, also while it is a draft."""

    __tablename__ = "outage_nodes"

    outage_id: Mapped[int] = mapped_column(ForeignKey("outages.id", ondelete="CASCADE"), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)

    outage: Mapped[Outage] = relationship(back_populates="nodes")
    node: Mapped[Node] = relationship()


class RepairCause(StrEnum):
    OUTAGE = "outage"
    NODES_DOWN = "nodes_down"
    NODES_LEAVE = "nodes_leave"


class RepairStep(StrEnum):
    """How far the scheduler is with a repair that it works out."""

    COUNTING = "counting"
    MENDING = "mending"
    SEARCHING = "searching"


class Repair(Base):
    """Two ways to mend the plan after its capacity changed, and the one that a person chose.

    Asked for, it waits for the scheduler; ``step`` and ``percent`` of it are how far that is (None: it has
    not begun), ``attempts`` how often it has begun, ``problem`` why it has given up. ``variants``: by name
    (``fewest_moves``, ``fewest_drops``) the moves and drops with bookings, their versions, windows, nodes
    and reasons, as they were proposed.
    """

    __tablename__ = "repairs"
    __table_args__ = (
        CheckConstraint(
            "state NOT IN ('proposed', 'applied') OR proposed_at IS NOT NULL", name="worked_out_first"
        ),
        CheckConstraint("state <> 'failed' OR problem IS NOT NULL", name="failed_for_a_reason"),
        Index(None, "cluster_id", "state"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    gpu_type: Mapped[str] = mapped_column(String(40))
    cause: Mapped[RepairCause] = mapped_column(enum_type(RepairCause, "cause"))
    outage_id: Mapped[int | None] = mapped_column(ForeignKey("outages.id"), index=True)
    details: Mapped[dict[str, Any]]
    variants: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[RepairState] = mapped_column(enum_type(RepairState, "state"), default=RepairState.WAITING)
    asked_at: Mapped[datetime]
    step: Mapped[RepairStep | None] = mapped_column(enum_type(RepairStep, "step"))
    percent: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(500))
    proposed_at: Mapped[datetime | None]
    chosen: Mapped[str | None] = mapped_column(String(40))
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    decided_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    cluster: Mapped[Cluster] = relationship()
    outage: Mapped[Outage | None] = relationship()

    __mapper_args__ = {"version_id_col": version}


class PlanRun(Base):
    """The latest plan of one GPU type: how good it is, and what an hour costs in congestion.

    ``prices``: a number for each hour from ``starts_at``; 0 is free, 1 about as much as an average booking is
    worth. ``value`` and ``bound`` are weighted GPU-hours.
    """

    __tablename__ = "plan_runs"
    __table_args__ = (Index(None, "cluster_id", "gpu_type", "made_at"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    gpu_type: Mapped[str] = mapped_column(String(40))
    made_at: Mapped[datetime]
    starts_at: Mapped[datetime]
    prices: Mapped[dict[str, Any]]
    bookings: Mapped[int]
    value: Mapped[float]
    bound: Mapped[float]

    cluster: Mapped[Cluster] = relationship()
