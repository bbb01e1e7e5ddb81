"""Where somebody who waits stands: rank and date by the same line by which offers are made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from allocator.booking import line, planning, waitlist
from allocator.booking.line import Stand, Turn
from allocator.errors import WrongState
from allocator.models import WaitlistEntry
from allocator.policy import BookingRules
from allocator.states import WaitlistState
from config.i18n import N_


@dataclass(frozen=True)
class Standing:
    """An entry's place among those that want the same GPUs in the same days; rank 1 is next.

    ``expected_at``: the start that the line has for it, None while nobody can know; ``if_others_decline``: it
    is held as an offer to others. ``kept_at``: nothing suits yet, and what gets free from then on is kept
    together for it. ``makes_way``: something is kept for somebody before it.
    """

    rank: int
    of: int
    expected_at: datetime | None
    if_others_decline: bool = False
    kept_at: datetime | None = None
    makes_way: bool = False


def standing(session: Session, entry: WaitlistEntry, *, rules: BookingRules, now: datetime) -> Standing:
    """The entry's honest place and date. Raises WrongState when it does not wait."""
    if entry.state is not WaitlistState.WAITING:
        raise WrongState(N_("There is nothing to wait for."), {"state": entry.state.value})
    cluster = entry.quota.cluster
    queue = planning.queue(session, cluster, entry.gpu_type, now)
    # who rests gets nothing just now and keeps nobody waiting; it still may ask where it will stand
    everybody = queue if entry in queue else [*queue, entry]
    ordered = waitlist.in_order(session, cluster, entry.gpu_type, everybody)
    place = ordered.index(entry)
    # those behind it make no difference to it
    picture = planning.read(session, cluster, entry.gpu_type, ordered[: place + 1], rules=rules, now=now)
    stands = line.stand(picture)
    rank = 1 + sum(waits_for_same(entry, other) for other in ordered[:place])
    of = rank + sum(waits_for_same(entry, other) for other in ordered[place + 1 :])
    return _standing(stands, rank, of, now + rules.max_ahead)


def waits_for_same(entry: WaitlistEntry, other: WaitlistEntry) -> bool:
    """Whether both want a part of the same days."""
    return entry.earliest_at < other.latest_at and other.earliest_at < entry.latest_at


def _standing(stands: list[Stand], rank: int, of: int, opened: datetime) -> Standing:
    own = stands[-1]
    known = own.turn not in (Turn.UNKNOWN, Turn.TOGETHER)
    return Standing(
        rank=rank,
        of=of,
        expected_at=own.claim.starts_at if known else None,
        # beyond the days that are open nobody has been offered anything
        if_others_decline=own.turn is Turn.LATER and own.claim.starts_at <= opened,
        kept_at=own.claim.starts_at if own.turn is Turn.TOGETHER else None,
        makes_way=any(line.meet(own.claim, one.claim) for one in stands[:-1] if one.keeps),
    )
