"""Stale pages: what was changed by whom since the reader's page was made."""

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.errors import Stale
from allocator.events import subject_type
from allocator.models import Event, Person
from config.i18n import N_


class Versioned(Protocol):
    """A row that counts its changes."""

    id: int
    version: int


def require_unchanged(session: Session, subject: Versioned, expected: int | None) -> None:
    """Raise Stale when the subject is not in the version that the page showed (None: unknown)."""
    if expected is None or subject.version == expected:
        return
    raise stale(session, subject)


def stale(session: Session, subject: Versioned) -> Stale:
    """The error about a subject that changed meanwhile, with who, when (ISO 8601, UTC) and which fields."""
    last = session.execute(
        select(Event, Person.name)
        .outerjoin(Person, Person.id == Event.actor_id)
        .where(Event.subject_type == subject_type(subject), Event.subject_id == subject.id)
        .order_by(Event.seq.desc())
        .limit(1)
    ).first()
    if last is None:
        return Stale(N_("This was changed meanwhile. Look at what stands here now and save again."))
    event, name = last
    fields = event.after.get("fields") or sorted(event.after)
    return Stale(
        N_("%(who)s changed this meanwhile. Look at what stands here now and save again."),
        {
            "who": name or "Kezek",
            "when": event.at.isoformat(),
            "fields": ", ".join(fields) or event.kind,
            "version": subject.version,
        },
    )
