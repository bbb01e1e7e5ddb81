"""People, what they may do, the organisations they belong to, and their signed-in sessions."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from allocator.actors import MembershipRole, Role
from allocator.models.base import Base, Key, enum_type

TWELVE_DIGITS = "length({0}) = 12"


class Person(Base):
    """Somebody with an account.

    The e-mail is stored lower-cased; the IIN (R-32) is optional until a category needs it.
    """

    __tablename__ = "people"
    __table_args__ = (
        CheckConstraint("iin IS NULL OR " + TWELVE_DIGITS.format("iin"), name="iin_length"),
        CheckConstraint("email = lower(email)", name="email_lower"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str] = mapped_column(String(120))
    iin: Mapped[str | None] = mapped_column(String(12), unique=True)
    phone: Mapped[str | None] = mapped_column(String(20))
    locale: Mapped[str] = mapped_column(String(2), default="kk")
    password_hash: Mapped[str] = mapped_column(String(200))
    cluster_login: Mapped[str | None] = mapped_column(String(32), unique=True)
    email_confirmed_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    role_grants: Mapped[list["RoleGrant"]] = relationship(
        back_populates="person", foreign_keys="RoleGrant.person_id", lazy="selectin"
    )
    memberships: Mapped[list["Membership"]] = relationship(back_populates="person", lazy="selectin")

    __mapper_args__ = {"version_id_col": version}

    @property
    def roles(self) -> frozenset[Role]:
        return frozenset(grant.role for grant in self.role_grants)


class RoleGrant(Base):
    __tablename__ = "role_grants"

    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    role: Mapped[Role] = mapped_column(enum_type(Role, "role"), primary_key=True)
    granted_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), index=True)
    granted_at: Mapped[datetime]

    person: Mapped[Person] = relationship(back_populates="role_grants", foreign_keys=[person_id])


class Organisation(Base):
    """A legal entity by BIN (R-32); KATO region and OKED activity are codes (R-38)."""

    __tablename__ = "organisations"
    __table_args__ = (
        CheckConstraint(TWELVE_DIGITS.format("bin"), name="bin_length"),
        CheckConstraint("region IS NULL OR length(region) = 9", name="region_length"),
        CheckConstraint("activity IS NULL OR length(activity) = 5", name="activity_length"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    bin: Mapped[str] = mapped_column(String(12), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    region: Mapped[str | None] = mapped_column(String(9))
    activity: Mapped[str | None] = mapped_column(String(5))
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    memberships: Mapped[list["Membership"]] = relationship(back_populates="organisation")

    __mapper_args__ = {"version_id_col": version}


class Membership(Base):
    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("organisation_id", "person_id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    organisation_id: Mapped[int] = mapped_column(ForeignKey("organisations.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    role: Mapped[MembershipRole] = mapped_column(enum_type(MembershipRole, "role"))
    created_at: Mapped[datetime]

    organisation: Mapped[Organisation] = relationship(back_populates="memberships")
    person: Mapped[Person] = relationship(back_populates="memberships")


class SignInSession(Base):
    """One browser that is signed in; only a hash of its token is stored."""

    __tablename__ = "sign_in_sessions"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    address: Mapped[str] = mapped_column(String(45))
    user_agent: Mapped[str] = mapped_column(String(200))

    person: Mapped[Person] = relationship()


class SignInAttempt(Base):
    """A failed sign-in, counted by account and by address.

    ``account`` is a keyed hash of the e-mail typed in.
    """

    __tablename__ = "sign_in_attempts"
    __table_args__ = (
        Index(None, "account", "at"),
        Index(None, "address", "at"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    account: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(45))
    at: Mapped[datetime]


class TokenPurpose(StrEnum):
    CONFIRM_EMAIL = "confirm_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - the name of a purpose, not a password


class OneTimeToken(Base):
    """A link sent by mail; single use, short-lived, only its hash is stored."""

    __tablename__ = "one_time_tokens"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    purpose: Mapped[TokenPurpose] = mapped_column(enum_type(TokenPurpose, "purpose"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship()
