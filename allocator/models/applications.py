"""Applications from draft to decision."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.models.base import Base, Key, enum_type
from allocator.models.clusters import Cluster
from allocator.models.people import Organisation, Person
from allocator.states import ApplicationState


class Application(Base):
    """A request for GPU-hours.

    ``gpu_seconds`` may be less than nodes × GPUs × window: hours can be used in parts.
    """

    __tablename__ = "applications"
    __table_args__ = (
        CheckConstraint("nodes > 0", name="nodes_positive"),
        CheckConstraint("gpus_per_node > 0", name="gpus_positive"),
        CheckConstraint("gpu_seconds > 0", name="gpu_seconds_positive"),
        CheckConstraint("earliest < latest", name="dates_in_order"),
        CheckConstraint(
            "(state = 'draft') = (submitted_at IS NULL) OR state = 'withdrawn'", name="submitted_when"
        ),
        Index(None, "state", "submitted_at", "id"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    applicant_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    organisation_id: Mapped[int | None] = mapped_column(ForeignKey("organisations.id"), index=True)
    category: Mapped[str] = mapped_column(String(40))
    title: Mapped[str] = mapped_column(String(200))
    purpose: Mapped[str] = mapped_column(Text)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"), index=True)
    gpu_type: Mapped[str] = mapped_column(String(40))
    nodes: Mapped[int]
    gpus_per_node: Mapped[int]
    gpu_seconds: Mapped[int] = mapped_column(BigInteger)
    earliest: Mapped[datetime]
    latest: Mapped[datetime]
    state: Mapped[ApplicationState] = mapped_column(
        enum_type(ApplicationState, "state"), default=ApplicationState.DRAFT
    )
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    applicant: Mapped[Person] = relationship()
    organisation: Mapped[Organisation | None] = relationship()
    cluster: Mapped[Cluster] = relationship()
    team: Mapped[list["TeamMember"]] = relationship(
        back_populates="application", cascade="all, delete-orphan"
    )
    decision: Mapped["Decision | None"] = relationship(back_populates="application")

    __mapper_args__ = {"version_id_col": version}


class TeamMember(Base):
    """Somebody who will run jobs; invited by e-mail, linked to an account once there is one."""

    __tablename__ = "team_members"
    __table_args__ = (UniqueConstraint("application_id", "email"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id", ondelete="CASCADE"))
    email: Mapped[str] = mapped_column(String(254), index=True)

    application: Mapped[Application] = relationship(back_populates="team")


class DecisionKind(StrEnum):
    APPROVED = "approved"
    REDUCED = "reduced"
    REFUSED = "refused"


class Decision(Base):
    """What was decided, by whom, why, and under which version of the policy (R-14, R-17)."""

    __tablename__ = "decisions"
    __table_args__ = (
        CheckConstraint("(kind = 'refused') = (gpu_seconds IS NULL)", name="hours_unless_refused"),
        CheckConstraint("kind = 'approved' OR reason <> ''", name="reason_given"),
        CheckConstraint("gpu_seconds IS NULL OR gpu_seconds > 0", name="gpu_seconds_positive"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id"), unique=True)
    kind: Mapped[DecisionKind] = mapped_column(enum_type(DecisionKind, "kind"))
    gpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text, default="")
    decided_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    decided_at: Mapped[datetime]
    policy_version: Mapped[str] = mapped_column(String(80))
    # what the work is worth beside others of its pool, by the operator until experts score it; the server's
    # default is for decisions taken before there were bands
    merit_band: Mapped[str] = mapped_column(String(40), default="ordinary", server_default="ordinary")
    merit_reason: Mapped[str] = mapped_column(Text, default="", server_default="")

    application: Mapped[Application] = relationship(back_populates="decision")
    decided_by: Mapped[Person] = relationship()
