"""The append-only record of every change of state, chained by hashes so that an edit shows (R-17, R-22)."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.actors import Actor
from allocator.errors import ChainBroken
from allocator.models.records import Event, EventChain
from config.i18n import N_

GENESIS = "0" * 64


def subject_type(subject: object) -> str:
    """``application`` for an Application: the first half of an event's kind, and its subject_type."""
    name = type(subject).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def record(
    session: Session,
    actor: Actor,
    subject: Any,
    kind: str,
    *,
    now: datetime,
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> Event:
    """Append an event for ``subject`` in the caller's transaction.

    The chain's head row is locked until the commit: call this late in a use case.
    """
    session.flush()  # the subject needs its id
    head = hold_chain(session)
    event = Event(
        seq=head.seq + 1,
        at=now,
        actor_id=actor.person_id,
        kind=kind,
        subject_type=subject_type(subject),
        subject_id=subject.id,
        reason=reason,
        before=_plain(before or {}),
        after=_plain(after or {}),
        previous_hash=head.hash,
    )
    event.hash = digest(event)
    head.seq, head.hash = event.seq, event.hash
    session.add(event)
    session.flush()
    return event


def hold_chain(session: Session) -> EventChain:
    """Lock the head of the chain until the commit: writers of events queue behind this one."""
    return session.get_one(EventChain, 1, with_for_update=True, populate_existing=True)


def digest(event: Event) -> str:
    """SHA-256 over the canonical JSON of everything in the event but the hash itself."""
    content = [
        event.seq,
        event.at.astimezone(UTC).isoformat(),
        event.actor_id,
        event.kind,
        event.subject_type,
        event.subject_id,
        event.reason,
        event.before,
        event.after,
        event.previous_hash,
    ]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def verify(session: Session, *, batch: int = 5_000) -> int:
    """Walk the whole chain; returns the number of events. Raises ChainBroken naming the first broken link."""
    previous, seq = GENESIS, 0
    for event in _walk(session, batch):
        seq += 1
        if event.seq != seq or event.previous_hash != previous or event.hash != digest(event):
            raise ChainBroken(N_("The chain of events is broken at link %(seq)s."), {"seq": seq})
        previous = event.hash
    head = session.get_one(EventChain, 1, populate_existing=True)
    if (head.seq, head.hash) != (seq, previous):
        raise ChainBroken(N_("The chain of events is broken at link %(seq)s."), {"seq": seq + 1})
    return seq


def _walk(session: Session, batch: int) -> Iterator[Event]:
    last = 0
    while events := session.scalars(
        select(Event).where(Event.seq > last).order_by(Event.seq).limit(batch)
    ).all():
        yield from events
        last = events[-1].seq
        session.expunge_all()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _scalar(value) for key, value in values.items()}


def _scalar(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Decimal):
        return str(value)
    return value
