"""Usage as the clusters' accounting tells it, one row per run of a job."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from allocator.models.base import Base, Key

OPEN = text("ended_at IS NULL")


class JobRecord(Base):
    """One run of one job; a requeued job has a row per submission.

    Upserted by (cluster, job id, submitted at).
    """

    __tablename__ = "job_records"
    __table_args__ = (
        UniqueConstraint("cluster_id", "job_id", "submitted_at"),
        CheckConstraint("gpus >= 0", name="gpus_not_negative"),
        CheckConstraint("elapsed_seconds >= 0", name="elapsed_not_negative"),
        Index(None, "quota_id", "booking_id", "gpu_seconds"),  # sums are read from the index alone
        Index(None, "cluster_id", "started_at"),
        # the few that still run, among the millions that ended
        Index("ix_job_records_open", "cluster_id", sqlite_where=OPEN, postgresql_where=OPEN),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    job_id: Mapped[int] = mapped_column(BigInteger)
    submitted_at: Mapped[datetime]
    login: Mapped[str] = mapped_column(String(64))
    account: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    elapsed_seconds: Mapped[int] = mapped_column(BigInteger)
    gpus: Mapped[int]
    gpu_seconds: Mapped[int] = mapped_column(BigInteger)
    reservation: Mapped[str | None] = mapped_column(String(64))
    quota_id: Mapped[int | None] = mapped_column(ForeignKey("quotas.id"))
    booking_id: Mapped[int | None] = mapped_column(ForeignKey("bookings.id"), index=True)
    read_at: Mapped[datetime]
