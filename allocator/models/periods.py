"""Allocation periods: what was divided, the inputs it was divided by, and every proposal. Whole GPU-hours.

What is written once (inputs after the first proposal, shares, adjustments; in ``grants`` those and their
changes) is kept as it was by triggers in the migration.
"""

from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.clusters import Cluster
from allocator.models.people import Person
from allocator.models.quotas import Quota
from allocator.states import PeriodState, ProposalState

if TYPE_CHECKING:
    from allocator.models.grants import Grant

HOUR = 3600
# "all" but for refresh-expire: a step of the period would have every claim read anew, one by one
OWNED = "save-update, merge, delete, delete-orphan"
Documents = JSON().with_variant(JSONB, "postgresql")


class Ratio(TypeDecorator[Fraction]):
    """An exact fraction as text, ``3/2``: a weight must come back to the last digit to be recomputed."""

    impl = String(200)
    cache_ok = True

    def process_bind_param(self, value: Fraction | None, dialect: Dialect) -> str | None:
        return None if value is None else f"{value.numerator}/{value.denominator}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> Fraction | None:
        return None if value is None else Fraction(value)


class Period(Base):
    """[starts_at, ends_at) of one GPU type of one cluster; no two of them overlap (in the migration).

    ``capacity`` GPU-hours are divided: ``calendar`` (all GPUs, all hours) less ``maintenance`` less
    ``reserve``; ``details`` names what each came from. ``name`` is public and breaks ties (SHA-256).
    """

    __tablename__ = "periods"
    __table_args__ = (
        CheckConstraint("starts_at < ends_at", name="dates_in_order"),
        CheckConstraint("calendar >= 0 AND maintenance >= 0 AND reserve >= 0", name="amounts_not_negative"),
        CheckConstraint("capacity = calendar - maintenance - reserve", name="capacity_adds_up"),
        CheckConstraint("capacity >= 0", name="capacity_not_negative"),
        CheckConstraint(
            "(state IN ('published', 'closed')) = (published_at IS NOT NULL)", name="published_when"
        ),
        Index(None, "cluster_id", "gpu_type", "starts_at"),
        Index(None, "state", "starts_at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"))
    gpu_type: Mapped[str] = mapped_column(String(40))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    calendar: Mapped[int] = mapped_column(BigInteger)
    maintenance: Mapped[int] = mapped_column(BigInteger)
    reserve: Mapped[int] = mapped_column(BigInteger)
    capacity: Mapped[int] = mapped_column(BigInteger)
    details: Mapped[dict[str, Any]]
    policy_version: Mapped[str] = mapped_column(String(80))
    state: Mapped[PeriodState] = mapped_column(enum_type(PeriodState, "state"), default=PeriodState.DRAFT)
    opened_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    opened_at: Mapped[datetime]
    collected_at: Mapped[datetime | None]
    published_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    published_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    cluster: Mapped[Cluster] = relationship()
    opened_by: Mapped[Person | None] = relationship(foreign_keys=[opened_by_id])
    published_by: Mapped[Person | None] = relationship(foreign_keys=[published_by_id])
    pools: Mapped[list["PeriodPool"]] = relationship(
        back_populates="period", order_by="PeriodPool.position", cascade=OWNED
    )
    claims: Mapped[list["PeriodClaim"]] = relationship(
        back_populates="period", order_by="PeriodClaim.id", cascade=OWNED
    )
    proposals: Mapped[list["Proposal"]] = relationship(back_populates="period", order_by="Proposal.number")
    grants: Mapped[list["Grant"]] = relationship(back_populates="period", order_by="Grant.id")

    __mapper_args__ = {"version_id_col": version}


class PeriodPool(Base):
    """A pool as the policy had it: guarantee and cap in GPU-hours of this period."""

    __tablename__ = "period_pools"
    __table_args__ = (
        UniqueConstraint("period_id", "slug"),
        CheckConstraint("guarantee >= 0", name="guarantee_not_negative"),
        CheckConstraint("cap IS NULL OR cap >= guarantee", name="cap_above_guarantee"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id", ondelete="CASCADE"))
    slug: Mapped[str] = mapped_column(String(40))
    position: Mapped[int]
    guarantee: Mapped[int] = mapped_column(BigInteger)
    cap: Mapped[int | None] = mapped_column(BigInteger)
    weight: Mapped[Fraction] = mapped_column(Ratio)

    period: Mapped[Period] = relationship(back_populates="pools")


class PeriodPlan(Base):
    """What the holder of a quota plans for a period: the request, and the least that would be of use.

    The hours are to be used in [uses_from, uses_until), evenly; left out, from the period's beginning or to
    its end.
    """

    __tablename__ = "period_plans"
    __table_args__ = (
        UniqueConstraint("period_id", "quota_id"),
        CheckConstraint("request >= 0 AND minimum >= 0 AND minimum <= request", name="minimum_in_request"),
        CheckConstraint("uses_from < uses_until", name="days_in_order"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id"))
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"), index=True)
    request: Mapped[int] = mapped_column(BigInteger)
    minimum: Mapped[int] = mapped_column(BigInteger, default=0)
    uses_from: Mapped[datetime | None]
    uses_until: Mapped[datetime | None]
    set_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    set_at: Mapped[datetime]

    quota: Mapped[Quota] = relationship()


class PeriodClaim(Base):
    """A quota as it entered the division: frozen with the first proposal.

    ``reference`` is its pseudonym in public files and its id in the division. ``remaining`` is what the
    quota had left, ``planned`` what its holder planned, ``pace`` an even pace, which counts without a plan;
    ``request`` is that, but no more than remains.
    ``weight`` is the product of ``factors``: [{"factor": "sector", "name": slug or null, "value": "3/2"}, …].
    ``rank`` is [merit, submitted, hash]; lower is kept longer when minimums cannot all be met.
    """

    __tablename__ = "period_claims"
    __table_args__ = (
        UniqueConstraint("period_id", "quota_id"),
        UniqueConstraint("period_id", "reference"),
        CheckConstraint("request >= 0 AND remaining >= 0 AND pace >= 0", name="amounts_not_negative"),
        CheckConstraint("minimum >= 0 AND minimum <= request", name="minimum_in_request"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id", ondelete="CASCADE"))
    quota_id: Mapped[int] = mapped_column(ForeignKey("quotas.id"), index=True)
    reference: Mapped[str] = mapped_column(String(32))
    category: Mapped[str] = mapped_column(String(40))
    pool: Mapped[str] = mapped_column(String(40))
    remaining: Mapped[int] = mapped_column(BigInteger)
    planned: Mapped[int | None] = mapped_column(BigInteger)
    pace: Mapped[int] = mapped_column(BigInteger)
    request: Mapped[int] = mapped_column(BigInteger)
    minimum: Mapped[int] = mapped_column(BigInteger)
    weight: Mapped[Fraction] = mapped_column(Ratio)
    factors: Mapped[list[Any]] = mapped_column(Documents)
    rank: Mapped[list[Any]] = mapped_column(Documents)

    period: Mapped[Period] = relationship(back_populates="claims")
    quota: Mapped[Quota] = relationship()


class ProposalKind(StrEnum):
    PROPOSAL = "proposal"
    WHAT_IF = "what_if"


class Proposal(Base):
    """One result of dividing a period, kept as it was computed; a correction makes the next one.

    ``scenario`` is what a what-if changed (empty for a proposal), ``pools`` the division's levels by pool.
    """

    __tablename__ = "proposals"
    __table_args__ = (
        UniqueConstraint("period_id", "number"),
        CheckConstraint("kind = 'proposal' OR state = 'kept'", name="what_ifs_are_not_published"),
        CheckConstraint("kind = 'proposal' OR name <> ''", name="what_ifs_are_named"),
        Index(
            "uq_proposals_published",
            "period_id",
            unique=True,
            sqlite_where=text("state = 'published'"),
            postgresql_where=text("state = 'published'"),
        ),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    period_id: Mapped[int] = mapped_column(ForeignKey("periods.id"))
    number: Mapped[int]
    kind: Mapped[ProposalKind] = mapped_column(enum_type(ProposalKind, "kind"))
    name: Mapped[str] = mapped_column(String(120), default="")
    state: Mapped[ProposalState] = mapped_column(
        enum_type(ProposalState, "state"), default=ProposalState.KEPT
    )
    based_on_id: Mapped[int | None] = mapped_column(ForeignKey("proposals.id"), index=True)
    capacity: Mapped[int] = mapped_column(BigInteger)
    scenario: Mapped[dict[str, Any]]
    pools: Mapped[list[Any]] = mapped_column(Documents)
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[datetime]

    period: Mapped[Period] = relationship(back_populates="proposals")
    based_on: Mapped["Proposal | None"] = relationship(remote_side=[id])
    created_by: Mapped[Person | None] = relationship()
    shares: Mapped[list["ProposalShare"]] = relationship(
        back_populates="proposal", order_by="ProposalShare.claim_id"
    )
    adjustments: Mapped[list["Adjustment"]] = relationship(
        back_populates="proposal", order_by="Adjustment.id"
    )


class ProposalShare(Base):
    """GPU-hours that a proposal gives to a claim; ``set_aside`` says why it gets nothing useful."""

    __tablename__ = "proposal_shares"
    __table_args__ = (
        UniqueConstraint("proposal_id", "claim_id"),
        CheckConstraint("gpu_hours >= 0", name="gpu_hours_not_negative"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"))
    claim_id: Mapped[int] = mapped_column(ForeignKey("period_claims.id"), index=True)
    gpu_hours: Mapped[int] = mapped_column(BigInteger)
    is_fixed: Mapped[bool] = mapped_column(default=False)
    is_set_aside: Mapped[bool] = mapped_column(default=False)

    proposal: Mapped[Proposal] = relationship(back_populates="shares")
    # a share is nothing without its claim: one query brings both, however many there are
    claim: Mapped[PeriodClaim] = relationship(lazy="joined", innerjoin=True)


class Adjustment(Base):
    """A share that a person fixed (R-14); the rest of the proposal was recomputed around it."""

    __tablename__ = "adjustments"
    __table_args__ = (
        UniqueConstraint("proposal_id", "claim_id"),
        CheckConstraint("before >= 0 AND after >= 0", name="amounts_not_negative"),
        CheckConstraint("reason <> ''", name="reason_given"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"))
    claim_id: Mapped[int] = mapped_column(ForeignKey("period_claims.id"), index=True)
    before: Mapped[int] = mapped_column(BigInteger)
    after: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    adjusted_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    adjusted_at: Mapped[datetime]

    proposal: Mapped[Proposal] = relationship(back_populates="adjustments")
    claim: Mapped[PeriodClaim] = relationship()
    adjusted_by: Mapped[Person] = relationship()
