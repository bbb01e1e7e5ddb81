"""Calendar feeds: a secret address for one's bookings or for those of one quota, until it is revoked.

The address is all that a calendar program has, so it is random, shown once and kept only as a hash. What it
shows is decided anew at every reading: who leaves a quota sees nothing of it any more, whatever they kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator import events
from allocator.accounts.people import load_actor
from allocator.accounts.tokens import MAX_TOKEN_LENGTH, new_token, token_hash
from allocator.actors import Actor
from allocator.authorization import Action, may, own_quotas, require
from allocator.errors import Fault, Invalid, NotFound
from allocator.events import subject_type
from allocator.models import (
    Booking,
    CalendarFeed,
    Event,
    Outage,
    Person,
    Quota,
)
from allocator.models.base import Base
from allocator.states import BookingState, OutageState, QuotaState
from config.i18n import N_

# What is over for longer is history, which the pages keep.
KEPT = timedelta(days=90)
MOST = 20
# An offer is not on anybody's calendar before it is taken.
SHOWN = (
    BookingState.PLANNED,
    BookingState.CONFIRMED,
    BookingState.STARTED,
    BookingState.ENDED,
    BookingState.CANCELLED,
)


@dataclass(frozen=True)
class NewFeed:
    """A feed with the secret of its address, which nobody can be told again."""

    feed: CalendarFeed
    token: str


@dataclass(frozen=True)
class Content:
    """What a feed shows, and when it last changed: each subject ("booking", 7), and the whole."""

    feed: CalendarFeed
    bookings: Sequence[Booking]
    outages: Sequence[Outage]
    changed: dict[tuple[str, int], datetime]
    changed_at: datetime


def create(session: Session, actor: Actor, quota: Quota | None, *, now: datetime) -> NewFeed:
    """A new address: of the actor's own bookings, or of one quota's. Raises Invalid beyond twenty of them."""
    require(actor, Action.APPLICATION_CREATE)
    if quota is not None:
        require(actor, Action.QUOTA_VIEW, quota)
    assert actor.person_id is not None
    living = select(func.count()).select_from(CalendarFeed).where(_own(actor))
    if (session.scalar(living) or 0) >= MOST:
        raise Invalid(
            {"quota": [Fault(N_("You have %(most)s addresses already. Revoke one first."), {"most": MOST})]}
        )
    token = new_token()
    feed = CalendarFeed(
        token_hash=token_hash(token),
        person_id=actor.person_id,
        quota_id=quota.id if quota else None,
        created_at=now,
    )
    session.add(feed)
    session.flush()
    events.record(session, actor, feed, "calendar_feed.created", now=now, after={"quota_id": feed.quota_id})
    return NewFeed(feed, token)


def list_own(actor: Actor) -> Select[CalendarFeed]:
    """The actor's addresses that work, the newest first."""
    require(actor, Action.APPLICATION_CREATE)
    return (
        select(CalendarFeed)
        .options(joinedload(CalendarFeed.quota).joinedload(Quota.application))
        .where(_own(actor))
        .order_by(CalendarFeed.id.desc())
    )


def find_own(session: Session, actor: Actor, feed_id: int) -> CalendarFeed:
    """One of the actor's own addresses that work. Raises NotFound for everybody else's."""
    require(actor, Action.APPLICATION_CREATE)
    feed = session.scalar(list_own(actor).where(CalendarFeed.id == feed_id))
    if feed is None:
        raise NotFound()
    return feed


def revoke(session: Session, actor: Actor, feed: CalendarFeed, *, now: datetime) -> None:
    """End an address for good; a second time changes nothing. Raises NotFound for somebody else's."""
    if feed.person_id != actor.person_id:
        raise NotFound()
    ended = session.execute(
        update(CalendarFeed)
        .where(CalendarFeed.id == feed.id, CalendarFeed.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    if ended.rowcount == 1:  # type: ignore[attr-defined]
        events.record(session, actor, feed, "calendar_feed.revoked", now=now)


def read(session: Session, token: str, *, now: datetime) -> Content:
    """What a calendar program gets; seven queries at most, however many bookings there are.

    Raises NotFound for an address that is unknown or revoked, or whose person lost the right to look.
    """
    feed = _living(session, token)
    actor = load_actor(session, feed.person) if feed else None
    if feed is None or actor is None or (feed.quota and not may(actor, Action.QUOTA_VIEW, feed.quota)):
        raise NotFound()
    quotas = Quota.id == feed.quota_id if feed.quota_id else own_quotas(actor)
    bookings = _bookings(session, quotas, now)
    outages = _outages(session, quotas, now)
    changed = _changes(session, [*bookings, *outages])
    return Content(feed, bookings, outages, changed, max([feed.created_at, *changed.values()]))


def _own(actor: Actor) -> ColumnElement[bool]:
    return (CalendarFeed.person_id == actor.person_id) & CalendarFeed.revoked_at.is_(None)


def _living(session: Session, token: str) -> CalendarFeed | None:
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    return session.scalar(
        select(CalendarFeed)
        .join(CalendarFeed.person)
        .options(
            joinedload(CalendarFeed.person),
            joinedload(CalendarFeed.quota).joinedload(Quota.application),
            joinedload(CalendarFeed.quota).selectinload(Quota.members),
        )
        .where(
            CalendarFeed.token_hash == token_hash(token),
            CalendarFeed.revoked_at.is_(None),
            Person.disabled_at.is_(None),
        )
    )


def _bookings(session: Session, quotas: ColumnElement[bool], now: datetime) -> Sequence[Booking]:
    return session.scalars(
        select(Booking)
        .join(Booking.quota)
        .options(
            joinedload(Booking.quota).joinedload(Quota.application),
            joinedload(Booking.cluster),
            joinedload(Booking.reservation),
        )
        .where(quotas, Booking.state.in_(SHOWN), Booking.ends_at > now - KEPT)
        .order_by(Booking.starts_at, Booking.id)
    ).all()


def _outages(session: Session, quotas: ColumnElement[bool], now: datetime) -> Sequence[Outage]:
    """What was announced on the clusters of these quotas; called off ones too, so that they go away."""
    clusters = select(Quota.cluster_id).where(quotas, Quota.state == QuotaState.ACTIVE)
    return session.scalars(
        select(Outage)
        .options(joinedload(Outage.cluster), selectinload(Outage.nodes))
        .where(
            Outage.cluster_id.in_(clusters),
            Outage.published_at.is_not(None),
            Outage.state != OutageState.DRAFT,
            Outage.ends_at > now - KEPT,
        )
        .order_by(Outage.starts_at, Outage.id)
    ).all()


def _changes(session: Session, subjects: Iterable[Booking | Outage]) -> dict[tuple[str, int], datetime]:
    """When each last changed: its latest event, or its beginning."""
    found = {_key(subject): subject.created_at for subject in subjects}
    numbers: dict[str, list[int]] = {}
    for kind, number in found:
        numbers.setdefault(kind, []).append(number)
    if not numbers:
        return found
    of_these = or_(
        *((Event.subject_type == kind) & Event.subject_id.in_(ids) for kind, ids in numbers.items())
    )
    rows = session.execute(
        select(Event.subject_type, Event.subject_id, func.max(Event.at))
        .where(of_these)
        .group_by(Event.subject_type, Event.subject_id)
    )
    found.update({(kind, number): at for kind, number, at in rows})
    return found


def _key(subject: Base) -> tuple[str, int]:
    return subject_type(subject), subject.id  # type: ignore[attr-defined]
