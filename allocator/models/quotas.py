"""Quotas: GPU-hours approved by a decision, and who may spend them."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.applications import Application
from allocator.models.base import Base, Key, enum_type
from allocator.models.clusters import Cluster
from allocator.models.people import Person
from allocator.states import QuotaState


class Quota(Base):
    """GPU-seconds on one cluster and GPU type, valid in [valid_from, valid_until)."""

    __tablename__ = "quotas"
    __table_args__ = (
        CheckConstraint("gpu_seconds > 0", name="gpu_seconds_positive"),
        CheckConstraint("valid_from < valid_until", name="dates_in_order"),
        Index(None, "cluster_id", "state"),
        Index(None, "state", "valid_until"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id"), unique=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    gpu_type: Mapped[str] = mapped_column(String(40))
    gpu_seconds: Mapped[int] = mapped_column(BigInteger)
    valid_from: Mapped[datetime]
    valid_until: Mapped[datetime]
    state: Mapped[QuotaState] = mapped_column(enum_type(QuotaState, "state"), default=QuotaState.ACTIVE)
    created_at: Mapped[datetime]
    # when reconcile last read the account, its users and its limit back from the cluster as they should be
    limits_seen_at: Mapped[datetime | None]
    limits_problem: Mapped[str | None] = mapped_column(String(500))

    application: Mapped[Application] = relationship()
    cluster: Mapped[Cluster] = relationship()
    members: Mapped[list["QuotaMember"]] = relationship(back_populates="quota", cascade="all, delete-orphan")

    @property
    def account(self) -> str:
        """Name of the Slurm account and of its QOS."""
        return self.account_name(self.id)

    @staticmethod
    def account_name(quota_id: int) -> str:
        """``account`` where only the id is at hand; lower case, because Slurm makes it so."""
        return f"kezek-q{quota_id}"


class QuotaMember(Base):
    __tablename__ = "quota_members"

    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id", ondelete="CASCADE"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True, index=True)
    is_lead: Mapped[bool] = mapped_column(default=False)

    quota: Mapped[Quota] = relationship(back_populates="members")
    person: Mapped[Person] = relationship()
