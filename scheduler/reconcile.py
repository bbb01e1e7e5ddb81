"""Making a cluster hold what was promised: look, compare, correct, look again, write down; for ever.

An acknowledged reservation is not yet safe (Slurm saves asynchronously), so nothing that Slurm said once is
trusted: every round starts from what the cluster shows now. It may be killed anywhere; the next goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from allocator.db import Database
from config.i18n import N_
from scheduler.apply import GoOn, always, apply
from scheduler.clusters.base import Cluster, ClusterError, Health, Unreachable
from scheduler.desired import Desired, read_desired
from scheduler.plan import Actual, Plan, make_plan
from scheduler.record import Tally, record

# Bookings are in whole minutes; beyond two, munge is about to refuse us anyway and "now" means nothing.
MOST_SKEW = timedelta(seconds=120)


class ClocksApart(Unreachable):
    """The controller's clock differs too much from ours for any time to mean the same to both."""

    code = "clocks_apart"
    summary = N_("Cluster %(cluster)s: the clocks are too far apart: %(output)s")


class NotKnown(ClusterError):
    """The settings name a cluster of which the database has no row yet."""

    code = "cluster_not_known"
    summary = N_("Cluster %(cluster)s is not in the database yet: %(output)s")


@dataclass(frozen=True)
class Round:
    """One look at a cluster: what should be, what is, and what lies between."""

    desired: Desired
    actual: Actual
    plan: Plan


@dataclass(frozen=True)
class Outcome:
    """What one round did; ``failures`` by name of account or reservation."""

    plan: Plan
    failures: Mapping[str, ClusterError] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    finished: bool = True

    @property
    def summary(self) -> dict[str, int]:
        """For logs and the command line."""
        return {"steps": len(self.plan.steps), "failed": len(self.failures), **vars(self.tally)}


def check_clock(cluster: Cluster) -> Health:
    """The cluster's health; raises Unreachable when it is away, ClocksApart when times would mean nothing."""
    health = cluster.health()
    if abs(health.clock_skew) > MOST_SKEW:
        raise ClocksApart.said(cluster.slug, f"{health.clock_skew.total_seconds():+.0f} s")
    return health


def observe(cluster: Cluster) -> Actual:
    """What the cluster holds now. Raises Unreachable; accounting alone being away is part of the answer."""
    health = check_clock(cluster)
    reservations = {found.name: found for found in cluster.reservations()}
    accounts = None
    if health.accounting:
        try:
            accounts = {found.name: found for found in cluster.accounts()}
        except Unreachable:
            # It went away between the two questions; reservations matter more.
            accounts = None
    return Actual(health.controller_time, accounts, reservations)


def look(database: Database, cluster: Cluster, materialise: timedelta) -> Round:
    """Read the cluster, then the database, and compare; changes nothing."""
    # In this order: whatever the cluster holds was wanted before we read what is wanted, so nothing that
    # another process has just made can look unknown.
    actual = observe(cluster)
    with database.reader() as session:
        shown = [*actual.reservations, *(actual.accounts or ())]
        desired = read_desired(session, cluster.slug, materialise, actual.now, shown)
    if desired is None:
        raise NotKnown.said(cluster.slug, "the scheduler's inventory adds it")
    return Round(desired, actual, make_plan(desired.wanted, actual))


def reconcile(
    database: Database, cluster: Cluster, materialise: timedelta, now: datetime, go_on: GoOn = always
) -> Outcome:
    """One round. ``now`` is our clock, for events; everything about reservations goes by the controller's.

    Raises Unreachable and leaves every row as it was when the cluster is away: that it cannot be asked says
    nothing about what it holds.
    """
    found = look(database, cluster, materialise)
    if not found.plan.steps:
        tally = record(database, found.desired, found.plan, {}, found.actual, now)
        return Outcome(found.plan, tally=tally)
    applied = apply(cluster, found.plan, go_on)
    after = observe(cluster)
    tally = record(database, found.desired, found.plan, applied.failures, after, now)
    return Outcome(found.plan, applied.failures, tally, applied.finished)
