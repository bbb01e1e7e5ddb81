"""Who waits for time that is taken now, and the secret addresses of calendar feeds."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.bookings import Booking
from allocator.models.people import Person
from allocator.models.quotas import Quota
from allocator.states import WaitlistState


class WaitlistEntry(Base):
    """``nodes`` × ``gpus_per_node`` GPUs for ``length_seconds`` at any time of [earliest_at, latest_at).

    OFFERED, it has a held ``booking`` that waits for a yes until ``answer_until``. Who has let an offer pass
    gets none before ``rests_until``.
    """

    __tablename__ = "waitlist"
    __table_args__ = (
        CheckConstraint("nodes > 0", name="nodes_positive"),
        CheckConstraint("gpus_per_node > 0", name="gpus_positive"),
        CheckConstraint("length_seconds > 0", name="length_positive"),
        CheckConstraint("earliest_at < latest_at", name="dates_in_order"),
        CheckConstraint(
            "state <> 'offered' OR (booking_id IS NOT NULL AND answer_until IS NOT NULL)",
            name="an_offer_is_something",
        ),
        Index(None, "cluster_id", "state", "created_at"),
        Index(None, "state", "answer_until"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"), index=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    gpu_type: Mapped[str] = mapped_column(String(40))
    asked_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    nodes: Mapped[int]
    gpus_per_node: Mapped[int]
    length_seconds: Mapped[int]
    earliest_at: Mapped[datetime]
    latest_at: Mapped[datetime]
    state: Mapped[WaitlistState] = mapped_column(
        enum_type(WaitlistState, "state"), default=WaitlistState.WAITING
    )
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"), index=True)
    answer_until: Mapped[datetime | None]
    offers: Mapped[int] = mapped_column(default=0)  # how many it has let pass
    rests_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    quota: Mapped[Quota] = relationship()
    asked_by: Mapped[Person] = relationship()
    booking: Mapped[Booking | None] = relationship()

    __mapper_args__ = {"version_id_col": version}


class CalendarFeed(Base):
    """A secret address of an iCalendar feed: of one's bookings, or of one quota's; only a hash is kept."""

    __tablename__ = "calendar_feeds"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    quota_id: Mapped[int | None] = mapped_column(ForeignKey("quotas.id"), index=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship()
    quota: Mapped[Quota | None] = relationship()
