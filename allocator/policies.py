"""Versions of the policy in the database, each kept whole from its first use on."""

from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import SYSTEM
from allocator.errors import NotFound
from allocator.models import PolicyVersion
from allocator.policy import Policy, policy_of
from config.i18n import N_


def record(session: Session, policy: Policy, now: datetime) -> PolicyVersion:
    """The row of this version; its first use writes it and an event."""
    row = _find(session, policy.version)
    if row is not None:
        return row
    # Whoever writes an event holds the chain until the commit. Taking it before the row is written lets two
    # first uses queue here instead of each waiting for what the other one holds.
    events.hold_chain(session)
    row = _find(session, policy.version)
    if row is not None:
        return row
    row = PolicyVersion(
        version=policy.version,
        effective=policy.effective,
        sha256=policy.sha256,
        document=policy.document(),
        recorded_at=now,
    )
    session.add(row)
    events.record(
        session,
        SYSTEM,
        row,
        "policy_version.recorded",
        now=now,
        after={"version": row.version, "sha256": row.sha256},
    )
    return row


def find(session: Session, version: str) -> Policy:
    """The policy as it was recorded. Raises NotFound for a version that was never used here."""
    row = recorded(session, version)
    return policy_of(row.document, row.version)


def recorded(session: Session, version: str) -> PolicyVersion:
    """The row of a version. Raises NotFound for one that was never used here."""
    row = _find(session, version)
    if row is None:
        raise NotFound(N_("The version %(version)s of the policy was never used here."), {"version": version})
    return row


def used() -> Select[PolicyVersion]:
    """Every version that something was decided or divided under, the latest first use first."""
    return select(PolicyVersion).order_by(PolicyVersion.id.desc())


def before(session: Session, version: str) -> PolicyVersion | None:
    """The version that was used first before this one was; for one that has never been used, the latest."""
    row = _find(session, version)
    earlier = used() if row is None else used().where(PolicyVersion.id < row.id)
    return session.scalar(earlier.limit(1))


def _find(session: Session, version: str) -> PolicyVersion | None:
    return session.scalar(select(PolicyVersion).where(PolicyVersion.version == version))
