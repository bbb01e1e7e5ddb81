"""Versions of the policy that something was decided or divided under."""

from datetime import date, datetime

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from allocator.models.base import Base, Key


class PolicyVersion(Base):
    """One version of the rules, kept whole from its first use, so that what came of it can be recomputed.

    ``document`` is the canonical JSON of ``Policy.document()``: text, because the order of categories is
    content and ``sha256`` is that of exactly these bytes.
    """

    __tablename__ = "policy_versions"
    __table_args__ = (CheckConstraint("length(sha256) = 64", name="sha256_length"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    version: Mapped[str] = mapped_column(String(80), unique=True)
    effective: Mapped[date]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    document: Mapped[str] = mapped_column(Text)
    recorded_at: Mapped[datetime]
