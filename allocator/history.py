"""What happened to a thing, as people read it: its events with the names of those who acted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from allocator.events import subject_type
from allocator.models import Event, Person
from allocator.models.base import Base


@dataclass(frozen=True)
class Change:
    """One event of a thing; ``by`` None: the system itself."""

    kind: str
    at: datetime
    by: str | None
    reason: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def as_details(self) -> dict[str, Any]:
        """For an error's details, which must survive JSON."""
        return {"kind": self.kind, "at": self.at.isoformat(), "by": self.by or "", "reason": self.reason}


def changes(session: Session, *subjects: Base, limit: int | None = None) -> list[Change]:
    """What happened to these things together, the latest first, ``limit`` of them. One query."""
    which = [
        (Event.subject_type == subject_type(one)) & (Event.subject_id == one.id)  # type: ignore[attr-defined]
        for one in subjects
    ]
    rows = session.execute(
        select(Event, Person.name)
        .outerjoin(Person, Person.id == Event.actor_id)
        .where(or_(*which))
        .order_by(Event.seq.desc())
        .limit(limit)
    )
    return [
        Change(event.kind, event.at, name, event.reason, event.before, event.after) for event, name in rows
    ]
