"""Looking at the record of events: for auditors and administrators, who look and change nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from allocator.actors import Actor
from allocator.authorization import Action, require
from allocator.models import Event, Person

BATCH = 1_000


@dataclass(frozen=True)
class EventFilter:
    """Which events: everything that is set must fit; [since, until)."""

    kind: str = ""
    subject_type: str = ""
    subject_id: int | None = None
    actor_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


def search(actor: Actor, wanted: EventFilter) -> Select[Event, str]:
    """Events with the name of who acted (None: Kezek itself), the latest first."""
    require(actor, Action.AUDIT_VIEW)
    statement = select(Event, Person.name).outerjoin(Person, Person.id == Event.actor_id)
    conditions = (
        (wanted.kind, Event.kind == wanted.kind),
        (wanted.subject_type, Event.subject_type == wanted.subject_type),
        (wanted.subject_id is not None, Event.subject_id == wanted.subject_id),
        (wanted.actor_id is not None, Event.actor_id == wanted.actor_id),
        (wanted.since, Event.at >= wanted.since if wanted.since else None),
        (wanted.until, Event.at < wanted.until if wanted.until else None),
    )
    for given, condition in conditions:
        if given and condition is not None:
            statement = statement.where(condition)
    return statement.order_by(Event.seq.desc())


def stream(session: Session, actor: Actor, wanted: EventFilter) -> Iterator[Row[Event, str]]:
    """The same events, the oldest first, a batch at a time: an export may be longer than memory."""
    statement = search(actor, wanted).order_by(None).order_by(Event.seq).limit(BATCH)
    last = 0
    while rows := session.execute(statement.where(Event.seq > last)).all():
        last = rows[-1][0].seq
        yield from rows
        session.expunge_all()


def kinds(session: Session, actor: Actor) -> Sequence[str]:
    """Every kind of event that has happened, for a list to choose from."""
    require(actor, Action.AUDIT_VIEW)
    # A loose index scan, one step a kind: a DISTINCT would read every event there is.
    step = select(func.min(Event.kind).label("kind")).cte("kinds", recursive=True)
    following = select(func.min(Event.kind)).where(Event.kind > step.c.kind).correlate(step).scalar_subquery()
    step = step.union_all(select(following).where(step.c.kind.is_not(None)))
    return session.scalars(select(step.c.kind).where(step.c.kind.is_not(None))).all()
