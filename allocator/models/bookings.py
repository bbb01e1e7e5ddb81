"""Bookings, the GPUs they hold on named nodes, and the reservations that the cluster keeps for them."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.clusters import Cluster, Node
from allocator.models.people import Person
from allocator.models.quotas import Quota
from allocator.states import BookingState, ReservationState


class Booking(Base):
    """``nodes`` × ``gpus_per_node`` GPUs for [starts_at, ends_at), on the named nodes of its ``slots``."""

    __tablename__ = "bookings"
    __table_args__ = (
        CheckConstraint("nodes > 0", name="nodes_positive"),
        CheckConstraint("gpus_per_node > 0", name="gpus_positive"),
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        Index(None, "quota_id", "starts_at"),
        Index(None, "cluster_id", "state", "starts_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"))
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    booked_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    nodes: Mapped[int]
    gpus_per_node: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    state: Mapped[BookingState] = mapped_column(
        enum_type(BookingState, "state"), default=BookingState.CONFIRMED
    )
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    quota: Mapped[Quota] = relationship()
    cluster: Mapped[Cluster] = relationship()
    booked_by: Mapped[Person] = relationship()
    slots: Mapped[list["BookingSlot"]] = relationship(back_populates="booking", cascade="all, delete-orphan")
    reservation: Mapped["Reservation"] = relationship(back_populates="booking")

    __mapper_args__ = {"version_id_col": version}

    @property
    def reservation_name(self) -> str:
        return f"kezek-{self.id}"

    @property
    def gpu_seconds(self) -> int:
        return self.nodes * self.gpus_per_node * int((self.ends_at - self.starts_at).total_seconds())


class BookingSlot(Base):
    """GPUs [gpu_from, gpu_to) of one node for one window.

    The database itself refuses two slots that share a node, a GPU and a moment: an exclusion constraint on
    PostgreSQL, a trigger on SQLite (both in the migration). A cancelled booking
    gives its slots up by deleting them.
    """

    __tablename__ = "booking_slots"
    __table_args__ = (
        CheckConstraint("gpu_from >= 0 AND gpu_from < gpu_to", name="gpus_in_order"),
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        Index(None, "node_id", "ends_at", "starts_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id", ondelete="CASCADE"), index=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    gpu_from: Mapped[int]
    gpu_to: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]

    booking: Mapped[Booking] = relationship(back_populates="slots")
    node: Mapped[Node] = relationship()


class Reservation(Base):
    """What is known of a booking on its cluster; desired state stays in the booking."""

    __tablename__ = "reservations"
    __table_args__ = (UniqueConstraint("cluster_id", "name"), Index(None, "cluster_id", "state"))

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"), unique=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[ReservationState] = mapped_column(
        enum_type(ReservationState, "state"), default=ReservationState.PENDING
    )
    state_since: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime | None]
    healed: Mapped[int] = mapped_column(default=0)  # how often it had to be created or corrected again
    problem_code: Mapped[str | None] = mapped_column(String(40))
    problem: Mapped[str | None] = mapped_column(String(500))

    booking: Mapped[Booking] = relationship(back_populates="reservation")
    cluster: Mapped[Cluster] = relationship()
