"""The job that plans: bookings whose time is not fixed, offers to those who wait, prices of congestion.

A plan is looked for outside of any transaction and written only if nothing has changed meanwhile; if
something has, the next round looks again, and everything stays as it was, which keeps every promise too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.booking import cascade, flexible, plan_search, planning, replanning, waitlist
from allocator.booking.plan_search import Solution
from allocator.booking.planning import Picture
from allocator.db import Database
from allocator.errors import Stale
from allocator.models import Cluster
from allocator.policy import BookingRules
from scheduler.apply import GoOn

SECONDS = 3.0  # of looking for a plan, for each GPU type and round


def replan(
    database: Database,
    slug: str,
    *,
    rules: BookingRules,
    now: datetime,
    go_on: GoOn,
    seconds: float = SECONDS,
) -> Mapping[str, int]:
    """One round: what is over goes, room is found and offered, what is due is fixed, prices are kept."""
    done: Counter[str] = Counter(settled=0, replanned=0, offered=0, fixed=0, prices=0)
    with database.transaction() as session:
        cluster = session.scalars(select(Cluster).where(Cluster.slug == slug)).one_or_none()
        if cluster is None:  # no round of the inventory has been here yet
            return done
        done["settled"] = cascade.settle(session, cluster, rules=rules, now=now)
        gpu_types = replanning.gpu_types(session, cluster)
    for gpu_type in gpu_types:
        if not go_on():
            break
        done.update(_pool(database, slug, gpu_type, rules, now, seconds))
    with database.transaction() as session:
        cluster = _the(session, slug)
        done["fixed"] = flexible.fix_due(session, cluster, rules=rules, now=now)
    return done


def _the(session: Session, slug: str) -> Cluster:
    return session.scalars(select(Cluster).where(Cluster.slug == slug)).one()


def _pool(
    database: Database, slug: str, gpu_type: str, rules: BookingRules, now: datetime, seconds: float
) -> Counter[str]:
    """One GPU type: its plan, the offers that follow from it, and now and then its prices."""
    with database.reader() as session:
        cluster = _the(session, slug)
        queue = planning.queue(session, cluster, gpu_type, now)
        entries = waitlist.in_order(session, cluster, gpu_type, queue)
        picture = planning.read(session, cluster, gpu_type, entries, rules=rules, now=now)
        priced = not replanning.prices_are_due(session, cluster, gpu_type, now)
        # what a person is just deciding on is not changed under their hands
        contested = replanning.is_contested(session, cluster, gpu_type)
    # another seed each time: what one search has missed, the next may find
    seed = int(now.timestamp())
    solution = plan_search.solve(picture, seconds=0 if contested else seconds, seed=seed)
    done: Counter[str] = Counter()
    if solution.changes or solution.admitted:
        done.update(_write(database, slug, gpu_type, picture, solution, rules))
    if not priced:
        worth = planning.worth(picture)
        with database.transaction() as session:
            cluster = _the(session, slug)
            replanning.record(session, cluster, gpu_type, worth, now=now)
        done["prices"] = 1
    return done


def _write(
    database: Database, slug: str, gpu_type: str, picture: Picture, solution: Solution, rules: BookingRules
) -> Counter[str]:
    """The moves and the offers that they make room for, in one transaction, or nothing."""
    try:
        with database.transaction() as session:
            cluster = _the(session, slug)
            if solution.changes:
                replanning.check(session, cluster, gpu_type, picture, rules=rules)
                replanning.carry_out(session, solution.changes, rules=rules, now=picture.now)
            offered = cascade.offer_all(session, solution, rules=rules, now=picture.now)
    except Stale:
        return Counter(stale=1)
    return Counter(replanned=len(solution.changes), offered=len(offered))
