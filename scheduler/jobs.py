"""What runs when: the jobs, and the process that runs them while it is the leader.

The jobs stand in code and in memory only; what they know between two rounds is in the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from time import monotonic

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError

from allocator.accounts import sign_in
from allocator.applying import quotas
from allocator.booking import bookings, no_shows
from allocator.db import Database
from allocator.dividing import period_opening, periods, reclaim
from allocator.dividing.period_inputs import pseudonym_key
from allocator.models import SubmittedForm
from allocator.policy import BookingRules, Policy, load_policy
from allocator.upkeep import outages
from config.clock import utcnow
from config.errors import KezekError
from config.i18n import N_
from config.settings import ClusterSettings, Settings
from scheduler import inventory, job_health, outbox, repairs
from scheduler.apply import GoOn
from scheduler.clusters import connect
from scheduler.clusters.base import Cluster
from scheduler.job_health import Job
from scheduler.leader import Leadership, identity, leadership
from scheduler.reconcile import reconcile
from scheduler.replan import replan
from scheduler.usage import import_usage
from scheduler.warming import warming

log = structlog.get_logger(__name__)

STANDBY_SECONDS = 1.0
# Who has not been told for so long that the lock is theirs must act as if it were not.
LEASE_SECONDS = 10.0
# A long plan is carried out in portions: each is read back and told to people, and none goes by an old look
# at the cluster.
RECONCILE_SECONDS = 60
# A long history is read in portions: a job that never ends looks like one that hangs.
USAGE_SECONDS = 60
FORMS_KEPT = timedelta(days=7)
MOST_ROUNDS = 100


class StepsFailed(KezekError):
    """Some steps of a round failed; the others were done."""

    code = "steps_failed"


def make_jobs(database: Database, settings: Settings, go_on: GoOn) -> list[Job]:
    """Every job of this site; ``go_on`` says between two steps whether to take another."""
    jobs = [job for cluster in settings.clusters for job in _cluster_jobs(database, settings, cluster, go_on)]
    jobs.append(Job("expiry", settings.expiry_seconds, partial(expire, database)))
    policy = load_policy(settings.policy_file)
    jobs.append(Job("no-shows", settings.expiry_seconds, partial(watch_no_shows, database, policy.bookings)))
    jobs.append(Job("repairs", settings.repairs_seconds, partial(mend, database, policy.bookings, go_on)))
    key = pseudonym_key(settings.secret_key.get_secret_value())
    jobs.append(Job("periods", settings.expiry_seconds, partial(watch_periods, database, policy, key)))
    send = partial(outbox.send_due, database, settings, go_on=go_on)
    jobs.append(Job("outbox", settings.outbox_seconds, send))
    return jobs


def mend(database: Database, rules: BookingRules, go_on: GoOn, now: datetime) -> Mapping[str, int]:
    """Work out the repair that has waited longest."""
    alive = partial(job_health.alive, database, "repairs")
    return repairs.work_out(database, rules=rules, now=now, go_on=go_on, alive=alive)


def _cluster_jobs(
    database: Database, settings: Settings, cluster_settings: ClusterSettings, go_on: GoOn
) -> Iterator[Job]:
    slug = cluster_settings.slug
    rules = load_policy(settings.policy_file).bookings

    @cache
    def cluster() -> Cluster:
        # On first use: a cluster that cannot be connected to is its own jobs' problem and stops no others.
        return connect(cluster_settings, autopilot=settings.demo)

    def look(now: datetime) -> Mapping[str, int]:
        inventory.declare(database, settings, now)
        nodes = inventory.take(database, cluster(), now, cluster_settings.whole_nodes)
        return {"nodes": nodes, "repairs": inventory.watch(database, slug, now)}

    def correct(now: datetime) -> Mapping[str, int]:
        end = monotonic() + RECONCILE_SECONDS
        may = partial(_until, end, go_on)
        outcome = reconcile(database, cluster(), rules.materialise, now, may)
        if outcome.failures:
            name, error = next(iter(outcome.failures.items()))
            details = {"count": len(outcome.failures), "name": name, "problem": str(error)}
            raise StepsFailed(N_("%(count)s steps failed, the first: %(name)s: %(problem)s"), details)
        return outcome.summary

    def read(now: datetime) -> Mapping[str, int]:
        end = monotonic() + USAGE_SECONDS
        outcome = import_usage(database, cluster(), now, go_on=partial(_until, end, go_on))
        return outcome.summary

    def plan(now: datetime) -> Mapping[str, int]:
        return replan(database, slug, rules=rules, now=now, go_on=go_on)

    yield Job(f"inventory:{slug}", settings.inventory_seconds, look)
    yield Job(f"reconcile:{slug}", settings.reconcile_seconds, correct)
    yield Job(f"usage:{slug}", settings.usage_seconds, read)
    yield Job(f"plan:{slug}", settings.plan_seconds, plan)


def _until(end: float, go_on: GoOn) -> bool:
    return go_on() and monotonic() < end


def expire(database: Database, now: datetime) -> dict[str, int]:
    """Let time pass: bookings start and end, offers lapse, quotas expire, what is old is forgotten."""
    counts = {"bookings": 0, "quotas": 0, "outages": 0, "forgotten": 0}
    # Each use case takes a batch at most, so that no transaction holds the chain of events for long.
    for _ in range(MOST_ROUNDS):
        with database.transaction() as session:
            moved = sum(bookings.advance(session, now).values())
        with database.transaction() as session:
            expired = quotas.expire_due(session, now)
        counts["bookings"] += moved
        with database.transaction() as session:
            ended = outages.end_due(session, now)
        counts["quotas"] += expired
        counts["outages"] += ended
        if not moved and not expired and not ended:
            break
    with database.transaction() as session:
        counts["forgotten"] = sign_in.forget_old(session, now=now)
        old = delete(SubmittedForm).where(SubmittedForm.at < now - FORMS_KEPT)
        counts["forgotten"] += session.execute(old).rowcount  # type: ignore[attr-defined]
    return counts


def watch_no_shows(database: Database, rules: BookingRules, now: datetime) -> dict[str, int]:
    """Release bookings that were warned and still run nothing, then warn those that run nothing yet."""
    with database.transaction() as session:
        released = no_shows.release_due(session, rules=rules, now=now)
    with database.transaction() as session:
        warned = no_shows.warn_due(session, rules=rules, now=now)
    return {"released": released, "warned": warned}


def watch_periods(database: Database, policy: Policy, key: bytes, now: datetime) -> dict[str, int]:
    """Open the next draft and keep it fresh, remind operators, warn of hours that may be lost, propose to
    take back what nobody answered for, close what is over."""
    with database.transaction() as session:
        opened = period_opening.open_due(session, policy=policy, key=key, now=now)
    with database.transaction() as session:
        refreshed = period_opening.refresh_due(session, policy=policy, key=key, now=now)
    with database.transaction() as session:
        reminded = period_opening.remind_due(session, policy=policy, now=now)
    with database.transaction() as session:
        warned = reclaim.warn_due(session, policy=policy, now=now)
    with database.transaction() as session:
        proposed = reclaim.propose_due(session, policy=policy, now=now)
    with database.transaction() as session:
        closed = periods.close_due(session, now)
    prepared = {"opened": opened, "refreshed": refreshed, "reminded": reminded}
    return {**prepared, "warned": warned, "proposed": proposed, "closed": closed}


class Scheduler:
    """Waits for the leadership, runs the jobs while it lasts, ends when ``stop`` is set.

    The main thread only watches, so that a signal or a lost lock is seen at once; the jobs run beside it.
    """

    def __init__(self, settings: Settings, stop: threading.Event, lock: Leadership | None = None) -> None:
        self._settings = settings
        self._stop = stop
        self._database = Database(settings.database_url)
        self._lock = lock or leadership(settings.database_url)
        self._name = identity()
        self._confirmed = 0.0

    def run(self) -> None:
        """Until ``stop``: stand by, lead, stand by again when the lock is lost."""
        log.info("scheduler started", leader=self._name)
        try:
            with warming():
                while not self._stop.is_set():
                    if self._lock.acquire():
                        self._lead()
                    else:
                        self._stop.wait(STANDBY_SECONDS)
        finally:
            self._lock.release()
            self._database.dispose()
            log.info("scheduler stopped", leader=self._name)

    def run_once(self) -> bool:
        """Every job once, in order, without the lock; returns whether all went well."""
        jobs = make_jobs(self._database, self._settings, self._may_go_on)
        done = [job_health.run(self._database, job, self._name) for job in jobs]
        self._database.dispose()
        return all(done)

    def _lead(self) -> None:
        lost = threading.Event()
        self._confirmed = monotonic()
        jobs = make_jobs(self._database, self._settings, partial(self._may_lead, lost))
        if not self._forget_others(jobs):
            self._stop.wait(STANDBY_SECONDS)
            return
        log.info("leading", leader=self._name)
        clock = self._clock(jobs, lost)
        clock.start()
        try:
            while not self._stop.is_set() and not lost.is_set():
                self._stop.wait(STANDBY_SECONDS)
                asked = monotonic()
                if self._lock.holds():
                    self._confirmed = asked
                else:
                    lost.set()
        finally:
            lost.set()
            # Running jobs finish the step they are at; nothing new begins.
            clock.shutdown(wait=True)
        if not self._stop.is_set():
            log.warning("leadership lost", leader=self._name)

    def _clock(self, jobs: Sequence[Job], lost: threading.Event) -> BackgroundScheduler:
        clock = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max(len(jobs), 1))},
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
            timezone="UTC",
        )
        now = utcnow()
        for place, job in enumerate(jobs):
            clock.add_job(
                self._guarded(job, lost),
                "interval",
                seconds=job.interval_seconds,
                id=job.name,
                name=job.name,
                # The first round begins at once, in order: inventory goes before those who need it.
                next_run_time=now + timedelta(milliseconds=200 * place),
            )
        return clock

    def _guarded(self, job: Job, lost: threading.Event) -> Callable[[], None]:
        def guarded() -> None:
            # The old leader learns that it is none at its next question: so it asks before every round.
            if lost.is_set() or not self._lock.holds():
                lost.set()
                return
            job_health.run(self._database, job, self._name)

        return guarded

    def _forget_others(self, jobs: Sequence[Job]) -> bool:
        try:
            job_health.forget_others(self._database, jobs)
        except DBAPIError as error:
            log.warning("database away", problem=str(error.orig))
            return False
        return True

    def _may_go_on(self) -> bool:
        return not self._stop.is_set()

    def _may_lead(self, lost: threading.Event) -> bool:
        fresh = monotonic() - self._confirmed < LEASE_SECONDS
        return fresh and not self._stop.is_set() and not lost.is_set()
