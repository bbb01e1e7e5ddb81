"""Bookings, the GPUs they hold on named nodes, and the reservations that the cluster keeps for them."""

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.clusters import Cluster, Node
from allocator.models.people import Person
from allocator.models.quotas import Quota
from allocator.states import BookingState, MoveState, ReservationState

if TYPE_CHECKING:
    from allocator.models.outages import Outage, Repair


class BookingKind(StrEnum):
    FIRM = "firm"
    FLEXIBLE = "flexible"


class BookingSeries(Base):
    """A repeated booking (nights, weekends): on each of ``weekdays`` from ``first_day`` to ``last_day``.

    ``weekdays`` is a sum of 1 (Monday) to 64 (Sunday); ``start_minute`` counts from local midnight.
    """

    __tablename__ = "booking_series"
    __table_args__ = (
        CheckConstraint("weekdays BETWEEN 1 AND 127", name="weekdays_are_days"),
        CheckConstraint("start_minute BETWEEN 0 AND 1439", name="start_within_a_day"),
        CheckConstraint("length_seconds > 0", name="length_positive"),
        CheckConstraint("first_day <= last_day", name="days_in_order"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"), index=True)
    weekdays: Mapped[int]
    start_minute: Mapped[int]
    length_seconds: Mapped[int]
    first_day: Mapped[date]
    last_day: Mapped[date]
    created_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[datetime]

    quota: Mapped[Quota] = relationship()


class Booking(Base):
    """``nodes`` × ``gpus_per_node`` GPUs for [starts_at, ends_at), on the named nodes of its ``slots``.

    A flexible one was asked for any time of [earliest_at, latest_at); while it is PLANNED its start and its
    nodes are only the plan of the moment. ``held_until`` is how long an offer (HELD) waits for a yes. A
    ``pin`` is an operator's reason why no machine may move it.
    """

    __tablename__ = "bookings"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'flexible') = (earliest_at IS NOT NULL AND latest_at IS NOT NULL)",
            name="flexible_has_a_window",
        ),
        CheckConstraint("earliest_at <= starts_at AND ends_at <= latest_at", name="inside_its_window"),
        CheckConstraint("state <> 'planned' OR kind = 'flexible'", name="only_flexible_are_planned"),
        CheckConstraint("state <> 'held' OR held_until IS NOT NULL", name="held_until_some_time"),
        CheckConstraint("nodes > 0", name="nodes_positive"),
        CheckConstraint("gpus_per_node > 0", name="gpus_positive"),
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        Index(None, "quota_id", "starts_at"),
        Index(None, "cluster_id", "state", "starts_at"),
        Index(None, "state", "held_until"),
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
    kind: Mapped[BookingKind] = mapped_column(enum_type(BookingKind, "kind"), default=BookingKind.FIRM)
    earliest_at: Mapped[datetime | None]
    latest_at: Mapped[datetime | None]
    held_until: Mapped[datetime | None]
    series_id: Mapped[int | None] = mapped_column(ForeignKey("booking_series.id"), index=True)
    pin: Mapped[str | None] = mapped_column(String(500))
    no_show_warned_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    quota: Mapped[Quota] = relationship()
    series: Mapped[BookingSeries | None] = relationship()
    moves: Mapped[list["BookingMove"]] = relationship(back_populates="booking", order_by="BookingMove.id")
    cluster: Mapped[Cluster] = relationship()
    booked_by: Mapped[Person] = relationship()
    slots: Mapped[list["NodeSlot"]] = relationship(back_populates="booking", cascade="all, delete-orphan")
    reservation: Mapped["Reservation"] = relationship(back_populates="booking")

    __mapper_args__ = {"version_id_col": version}

    @property
    def reservation_name(self) -> str:
        return f"kezek-{self.id}"

    @property
    def gpu_seconds(self) -> int:
        return self.nodes * self.gpus_per_node * int((self.ends_at - self.starts_at).total_seconds())


class NodeSlot(Base):
    """GPUs [gpu_from, gpu_to) of one node for one window, held by a booking or by an outage.

    The database itself refuses two slots that share a node, a GPU and a moment: an exclusion constraint on
    PostgreSQL, a trigger on SQLite (both in the migration). What is cancelled gives its slots up by
    deleting them.
    """

    __tablename__ = "node_slots"
    __table_args__ = (
        CheckConstraint("(booking_id IS NULL) <> (outage_id IS NULL)", name="one_holder"),
        CheckConstraint("gpu_from >= 0 AND gpu_from < gpu_to", name="gpus_in_order"),
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        Index(None, "node_id", "ends_at", "starts_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id", ondelete="CASCADE"), index=True)
    outage_id: Mapped[int | None] = mapped_column(ForeignKey("outages.id", ondelete="CASCADE"), index=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    gpu_from: Mapped[int]
    gpu_to: Mapped[int]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]

    booking: Mapped[Booking | None] = relationship(back_populates="slots")
    outage: Mapped["Outage | None"] = relationship(back_populates="slots")
    node: Mapped[Node] = relationship()


class BookingMove(Base):
    """A confirmed booking got another window, or lost its time (``to_starts_at`` None): why, and the answer.

    ``answer_until``: until then the person may accept, choose another time or be refunded.
    """

    __tablename__ = "booking_moves"
    __table_args__ = (
        CheckConstraint("(to_starts_at IS NULL) = (to_ends_at IS NULL)", name="both_or_none"),
        Index(None, "state", "answer_until"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    booking_id: Mapped[int] = mapped_column(ForeignKey("bookings.id"), index=True)
    repair_id: Mapped[int | None] = mapped_column(ForeignKey("repairs.id"), index=True)
    from_starts_at: Mapped[datetime]
    from_ends_at: Mapped[datetime]
    to_starts_at: Mapped[datetime | None]
    to_ends_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text)
    state: Mapped[MoveState] = mapped_column(enum_type(MoveState, "state"), default=MoveState.TOLD)
    answer_until: Mapped[datetime]
    answered_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    answered_at: Mapped[datetime | None]
    moved_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    moved_at: Mapped[datetime]

    booking: Mapped[Booking] = relationship(back_populates="moves")
    repair: Mapped["Repair | None"] = relationship()


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
