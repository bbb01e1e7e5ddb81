"""What a published period gave, how it changed afterwards, and what it makes owed to whom later."""

from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.people import Organisation, Person
from allocator.models.periods import Period, PeriodClaim, Ratio
from allocator.models.quotas import Quota
from allocator.states import ReclaimState


class Grant(Base):
    """GPU-seconds that a quota may book in a period as published; later changes are rows of their own.

    One with 0 is a quota that got nothing, or one that is served from the reserve (``claim`` None).
    """

    __tablename__ = "grants"
    __table_args__ = (
        UniqueConstraint("period_id", "quota_id"),
        CheckConstraint("gpu_seconds >= 0", name="gpu_seconds_not_negative"),
        CheckConstraint("claim_id IS NOT NULL OR gpu_seconds = 0", name="given_to_a_claim"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id"))
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"), index=True)
    claim_id: Mapped[int | None] = mapped_column(ForeignKey("period_claims.id"), index=True)
    gpu_seconds: Mapped[int] = mapped_column(BigInteger)
    granted_at: Mapped[datetime]

    period: Mapped[Period] = relationship(back_populates="grants")
    quota: Mapped[Quota] = relationship()
    claim: Mapped[PeriodClaim | None] = relationship()
    changes: Mapped[list["GrantChange"]] = relationship(back_populates="grant", order_by="GrantChange.id")

    @property
    def current(self) -> int:
        """GPU-seconds as they stand now, after all changes."""
        return self.gpu_seconds + sum(change.gpu_seconds for change in self.changes)


class GrantChangeKind(StrEnum):
    RETURNED = "returned"
    RECLAIMED = "reclaimed"
    REDIVIDED = "redivided"
    RESERVE = "reserve"


class GrantChange(Base):
    """A correction of a published grant: less by a return or reclaim, more by re-division or the reserve."""

    __tablename__ = "grant_changes"
    __table_args__ = (
        CheckConstraint(
            "(kind IN ('returned', 'reclaimed')) = (gpu_seconds < 0) AND gpu_seconds <> 0",
            name="sign_by_kind",
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    grant_id: Mapped[int] = mapped_column(ForeignKey("grants.id"), index=True)
    kind: Mapped[GrantChangeKind] = mapped_column(enum_type(GrantChangeKind, "kind"))
    gpu_seconds: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text, default="")
    changed_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    changed_at: Mapped[datetime]

    grant: Mapped[Grant] = relationship(back_populates="changes")


class CreditCause(StrEnum):
    DIVISION = "division"
    RETURNED = "returned"
    LATER = "later"


class Credit(Base):
    """One line of what a holder asked for and was served in a pool and period; GPU-hours.

    The holder is the organisation, or the applicant who applies alone. ``weight`` is without credit, of all
    its claims there. What was given back counts as served so much less, what came later as more.
    """

    __tablename__ = "credits"
    __table_args__ = (
        CheckConstraint("(organisation_id IS NULL) <> (person_id IS NULL)", name="one_holder"),
        CheckConstraint("requested >= 0", name="requested_not_negative"),
        CheckConstraint("(cause = 'returned') = (served < 0)", name="sign_by_cause"),
        CheckConstraint("(cause = 'division') = (weight IS NOT NULL)", name="weight_of_division"),
        Index(None, "organisation_id"),
        Index(None, "person_id"),
        Index(None, "period_id", "pool"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id"))
    organisation_id: Mapped[int | None] = mapped_column(ForeignKey("organisations.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    pool: Mapped[str] = mapped_column(String(40))
    cause: Mapped[CreditCause] = mapped_column(enum_type(CreditCause, "cause"))
    requested: Mapped[int] = mapped_column(BigInteger)
    served: Mapped[int] = mapped_column(BigInteger)
    weight: Mapped[Fraction | None] = mapped_column(Ratio)
    recorded_at: Mapped[datetime]

    period: Mapped[Period] = relationship()
    organisation: Mapped[Organisation | None] = relationship()
    person: Mapped[Person | None] = relationship()


class Reclaim(Base):
    """Hours that their holder does not use by its own plan: told first, taken back by a person's word only.

    GPU-seconds: ``planned`` and ``used`` until ``warned_at``; ``take_back`` by the published table, of what
    was then left.
    """

    __tablename__ = "reclaims"
    __table_args__ = (
        CheckConstraint("planned > 0 AND used >= 0 AND take_back > 0", name="amounts_make_sense"),
        CheckConstraint("warned_at < answer_until", name="time_to_answer"),
        Index(None, "state", "answer_until"),
        Index(
            "uq_reclaims_open",
            "grant_id",
            unique=True,
            sqlite_where=text("state IN ('warned', 'proposed')"),
            postgresql_where=text("state IN ('warned', 'proposed')"),
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    grant_id: Mapped[int] = mapped_column(ForeignKey("grants.id"), index=True)
    state: Mapped[ReclaimState] = mapped_column(enum_type(ReclaimState, "state"), default=ReclaimState.WARNED)
    planned: Mapped[int] = mapped_column(BigInteger)
    used: Mapped[int] = mapped_column(BigInteger)
    take_back: Mapped[int] = mapped_column(BigInteger)
    warned_at: Mapped[datetime]
    answer_until: Mapped[datetime]
    decided_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    decided_at: Mapped[datetime | None]
    policy_version: Mapped[str] = mapped_column(String(80))

    grant: Mapped[Grant] = relationship()
    decided_by: Mapped[Person | None] = relationship()
