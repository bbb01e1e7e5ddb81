"""What happened (events), what is still to be told (outbox), and the small memories of the machinery."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from allocator.models.base import Base, Document, Key, enum_type


class Event(Base):
    """One change of state: who, what, when, why, before, after.

    Append-only by trigger, hash-chained by ``seq``.
    """

    __tablename__ = "events"
    __table_args__ = (Index(None, "subject_type", "subject_id", "seq"),)

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(index=True)
    actor_id: Mapped[int | None] = mapped_column(
        ForeignKey("people.id"), index=True
    )  # None: the system itself
    kind: Mapped[str] = mapped_column(String(60), index=True)
    subject_type: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text, default="")
    before: Mapped[dict[str, Any]] = mapped_column(Document)
    after: Mapped[dict[str, Any]] = mapped_column(Document)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)


class EventChain(Base):
    """The head of the chain, one row: locking it makes writers queue, and a cut-off tail shows."""

    __tablename__ = "event_chain"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))


class OutboxState(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"


class OutboxItem(Base):
    """A letter to be sent: written in the transaction that gives cause, sent at least once afterwards."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "state", "due_at", "id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    letter: Mapped[str] = mapped_column(String(60))
    recipient_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(Document)
    state: Mapped[OutboxState] = mapped_column(enum_type(OutboxState, "state"), default=OutboxState.WAITING)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(500))


class SubmittedForm(Base):
    """A form that was acted on.

    Its token makes a repeated POST do nothing and lead to the first one's result.
    """

    __tablename__ = "submitted_forms"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    token: Mapped[str] = mapped_column(String(64), unique=True)
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    path: Mapped[str] = mapped_column(String(500))
    location: Mapped[str] = mapped_column(String(500))
    at: Mapped[datetime] = mapped_column(index=True)


class JobHealth(Base):
    """The scheduler's jobs: when each last began, succeeded and failed.

    ``name`` may carry a cluster: ``reconcile:alem``.
    """

    __tablename__ = "job_health"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    leader: Mapped[str] = mapped_column(String(120))
    interval_seconds: Mapped[int]
    started_at: Mapped[datetime]
    succeeded_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    failed_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(500))
