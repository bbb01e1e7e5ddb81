"""Crashes against a real Slurm 22.05 and a real PostgreSQL: what is killed, and how long until it is healed.

A real scheduler process does the healing, with a round each second; KEZEK_TEST_CRASH_TABLE names a
file for the table of times.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from allocator import events
from allocator.db import Database
from allocator.migrate import upgrade
from allocator.models import Booking, Cluster, JobHealth, JobRecord, Quota, Reservation
from allocator.states import BookingState, QuotaState, ReservationState
from config.clock import utcnow
from config.labs import native
from config.labs.native import NativeLab
from config.settings import ClusterSettings
from scheduler.clusters import connect
from scheduler.clusters.base import Cluster as ClusterProtocol
from scheduler.reconcile import look
from tests import factories, postgres
from tests.e2e.processes import environment, note, scheduler, seconds_until
from tests.scheduling import WEEK

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("crashes-slurm")]

NODES = 4


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLab]:
    """A Slurm of our own: others' would not like what happens to it here."""
    native.install()
    with NativeLab(tmp_path_factory.mktemp("crash-lab"), nodes=NODES) as running:
        yield running


class World:
    """One site on one real Slurm: `kezek` starts its scheduler, the rest looks at both sides."""

    def __init__(self, lab: NativeLab, url: str, folder: Path) -> None:
        self.lab = lab
        self.database = Database(url)
        given = {"slug": "alem", "adapter": "slurm_cli", "env": lab.env, "command_prefix": lab.client_prefix}
        self.env = environment(url, folder, given)
        self.cluster: ClusterProtocol = connect(ClusterSettings.model_validate(given))
        self.quota_id = self._rows()

    def _rows(self) -> int:
        now = utcnow()
        with self.database.transaction() as session:
            row = factories.cluster(session, slug="alem", nodes=NODES, now=now, shares_nodes=False)
            for node, name in zip(row.nodes, self.lab.node_names, strict=True):
                node.name = name
            person = factories.person(session, cluster_login=self.lab.job_user)
            application = factories.application(session, person, row)
            begin, end = now - timedelta(days=1), now + timedelta(days=60)
            quota = factories.quota(
                session, application, gpu_hours=5_000, valid_from=begin, valid_until=end, now=now
            )
            return quota.id

    def kezek(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return scheduler(self.env)

    def book(self, node: int = 0, *, starts_at: datetime | None = None, hours: int = 2, **given: Any) -> int:
        """A whole node, by default in two hours; returns the booking's id."""
        begin = (starts_at or utcnow() + timedelta(hours=2)).replace(second=0, microsecond=0)
        with self.database.transaction() as session:
            quota = session.get_one(Quota, self.quota_id)
            on = [sorted(quota.cluster.nodes, key=lambda one: one.name)[node]]
            return factories.booking(session, quota, on=on, starts_at=begin, hours=hours, **given).id

    def change(self, booking_id: int, **values: Any) -> None:
        with self.database.transaction() as session:
            booking = session.get_one(Booking, booking_id)
            for name, value in values.items():
                setattr(booking, name, value)

    def row(self, booking_id: int) -> Reservation:
        with self.database.reader() as session:
            row = session.scalars(select(Reservation).where(Reservation.booking_id == booking_id)).one()
            session.expunge_all()
            return row

    def is_in(self, booking_id: int, state: ReservationState) -> Callable[[], bool]:
        return lambda: self.row(booking_id).state is state

    def problem(self, job: str) -> str:
        with self.database.reader() as session:
            return session.scalar(select(JobHealth.problem).where(JobHealth.name == job)) or ""

    def cluster_problem(self) -> str | None:
        with self.database.reader() as session:
            return session.scalar(select(Cluster.problem_code))

    def works(self, pid: int) -> bool:
        """The process has begun a round of reconcile."""
        with self.database.reader() as session:
            leader = session.scalar(select(JobHealth.leader).where(JobHealth.name == "reconcile:alem"))
        return (leader or "").endswith(f":{pid}")

    def settled(self) -> bool:
        """The cluster holds exactly what is booked, and the rows say so."""
        with self.database.reader() as session:
            states = ReservationState.PENDING, ReservationState.BLOCKED
            if session.scalar(select(func.count(Reservation.id)).where(Reservation.state.in_(states))):
                return False
        return not look(self.database, self.cluster, WEEK).plan.steps

    def held(self) -> set[str]:
        """What `scontrol show reservation` has: looked at without any of our own code."""
        said = self.lab.run("scontrol", "-o", "show", "reservation")
        lines = [line for line in said.splitlines() if line.startswith("ReservationName=")]
        return {line.split()[0].removeprefix("ReservationName=") for line in lines}

    def leave(self) -> None:
        """Take jobs and reservations along: a later test's site must not remove those of this one."""
        if jobs := self.lab.run("squeue", "-h", "-o", "%A").split():
            self.lab.run("scancel", *jobs)
        seconds_until(lambda: not self.lab.run("squeue", "-h").strip())
        for name in self.held():
            self.lab.run("scontrol", "delete", f"ReservationName={name}")
        self.database.dispose()

    def healed(self, booking_id: int, times: int = 1) -> Callable[[], bool]:
        return lambda: self.row(booking_id).healed >= times and self.settled()


@contextmanager
def a_world(lab: NativeLab, url: str, folder: Path) -> Iterator[World]:
    made = World(lab, url, folder)
    try:
        yield made
    finally:
        made.leave()


@pytest.fixture
def world(lab: NativeLab, postgres_url: str, tmp_path: Path) -> Iterator[World]:
    with a_world(lab, postgres_url, tmp_path) as made:
        yield made


def test_slurmctld_killed_right_after_it_acknowledged(world: World) -> None:
    with world.kezek():
        first = world.book(0)
        seconds_until(world.is_in(first, ReservationState.RESERVED))
        time.sleep(6)  # the first one is on disk by now
        bookings = [world.book(node, starts_at=utcnow() + timedelta(hours=6)) for node in range(NODES)]
        for booking in bookings:
            seconds_until(world.is_in(booking, ReservationState.RESERVED))
        world.lab.kill_slurmctld()
        start = time.monotonic()
        world.lab.start_slurmctld()
        back = time.monotonic() - start
        lost = len({f"kezek-{booking}" for booking in bookings} - world.held())
        seconds_until(world.settled)
        healed = time.monotonic() - start
        what = f"slurmctld killed -9 right after acknowledging ({lost} of {NODES} lost, up in {back:.1f} s)"
        note(what, healed)
        seconds_until(lambda: sum(world.row(booking).healed for booking in bookings) >= lost)
    assert world.held() >= {f"kezek-{booking}" for booking in (first, *bookings)}


def test_slurmctld_away_for_a_while(world: World) -> None:
    with world.kezek():
        before = world.book(0)
        seconds_until(world.is_in(before, ReservationState.RESERVED))
        world.lab.kill_slurmctld()
        seconds_until(lambda: "Unreachable" in world.problem("reconcile:alem"))
        meanwhile = world.book(1)
        time.sleep(5)
        # That it cannot be asked says nothing about what it holds.
        assert world.row(before).state is ReservationState.RESERVED
        assert world.row(meanwhile).state is ReservationState.PENDING
        seconds_until(lambda: world.cluster_problem() == "cluster_unreachable")
        world.lab.start_slurmctld()
        healed = seconds_until(
            lambda: world.is_in(meanwhile, ReservationState.RESERVED)() and world.settled()
        )
        note("slurmctld away for 5 s and more, a booking made meanwhile", healed)
        seconds_until(lambda: not world.problem("reconcile:alem"))


def test_slurmdbd_away_for_a_while(world: World) -> None:
    with world.kezek():
        booking = world.book(0)
        seconds_until(world.is_in(booking, ReservationState.RESERVED))
        world.lab.kill_slurmdbd()
        seconds_until(lambda: "Unreachable" in world.problem("usage:alem"))
        world.lab.run("scontrol", "delete", f"reservation=kezek-{booking}")
        kept = seconds_until(lambda: world.row(booking).healed == 1)
        note("slurmdbd away: a reservation deleted meanwhile is made again", kept)
        with world.database.transaction() as session:
            quota = session.get_one(Quota, world.quota_id)
            quota.gpu_seconds = 3_600 * 77
        time.sleep(3)
        world.lab.start_slurmdbd()
        healed = seconds_until(world.settled)
        note("slurmdbd away for 5 s and more, a limit changed meanwhile", healed)
        seconds_until(lambda: not world.problem("usage:alem"))
    (account,) = world.cluster.accounts()
    assert account.gpu_minutes == 77 * 60


def test_the_database_away_for_a_while(lab: NativeLab, tmp_path: Path) -> None:
    binaries = postgres.binaries()
    assert binaries, "PostgreSQL's server is not installed (apt-get install postgresql-15)"
    server = postgres.start(binaries)
    try:
        server.create("kezek")
        upgraded = Database(server.url("kezek"))
        upgrade(upgraded.engine)
        upgraded.dispose()
        with a_world(lab, server.url("kezek"), tmp_path) as world, world.kezek() as process:
            booking = world.book(0)
            seconds_until(world.is_in(booking, ReservationState.RESERVED))
            server.process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.process.wait(timeout=30)
            world.lab.run("scontrol", "delete", f"reservation=kezek-{booking}")
            time.sleep(5)
            assert process.poll() is None, "the scheduler must outlive its database"
            again = subprocess.Popen(server.process.args, cwd=server.root, stdout=subprocess.DEVNULL)
            server = postgres.PostgresServer(server.root, again)
            healed = seconds_until(tolerant(world.healed(booking)))
            note("PostgreSQL away for 5 s and more, a reservation deleted meanwhile", healed)
    finally:
        server.stop()


def tolerant(condition: Callable[[], bool]) -> Callable[[], bool]:
    """A condition that cannot be asked while the database starts does not hold yet."""

    def asked() -> bool:
        try:
            return condition()
        except OperationalError:
            return False

    return asked


def test_the_scheduler_killed_at_any_point(world: World) -> None:
    chance = random.Random(2205)
    begin = utcnow() + timedelta(hours=2)
    bookings: list[int] = []
    for kill in range(5):
        bookings += [world.book(node, starts_at=begin + timedelta(hours=3 * kill)) for node in range(NODES)]
        with world.kezek() as process:
            seconds_until(partial(world.works, process.pid))
            time.sleep(chance.uniform(0, 1.0))
            process.send_signal(signal.SIGKILL)
        world.change(bookings.pop(0), state=BookingState.CANCELLED, slots=[])
    with world.kezek():
        healed = seconds_until(world.settled)
        note("scheduler killed -9 five times while it worked, last start", healed)
    assert {name for name in world.held() if name.startswith("kezek-")} == {
        f"kezek-{one}" for one in bookings
    }
    with world.database.reader() as session:
        assert events.verify(session) > 0


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("deleted by hand", "delete reservation={name}"),
        ("nodes changed by hand", "update reservation={name} nodes={other}"),
        ("accounts changed by hand", "update reservation={name} accounts=root"),
        ("end changed by hand", "update reservation={name} duration=30"),
        ("start changed by hand", "update reservation={name} starttime=now+1hour"),
    ],
)
def test_somebody_changes_our_reservation(world: World, what: str, command: str) -> None:
    with world.kezek():
        booking = world.book(0)
        seconds_until(world.is_in(booking, ReservationState.RESERVED))
        seconds_until(world.settled)
        other = world.lab.node_names[-1]
        world.lab.run("scontrol", *command.format(name=f"kezek-{booking}", other=other).split())
        healed = seconds_until(world.healed(booking))
        note(f"our reservation {what} (scontrol)", healed)


def test_a_running_one_is_corrected_without_ending_its_job(world: World) -> None:
    with world.kezek():
        booking = world.book(0, starts_at=utcnow() - timedelta(minutes=2), state=BookingState.STARTED)
        seconds_until(world.is_in(booking, ReservationState.RESERVED))
        job = submit(world, booking)
        world.lab.run("scontrol", "update", f"reservation=kezek-{booking}", "duration=500")
        healed = seconds_until(world.healed(booking))
        note("a running reservation's end changed by hand, a job inside", healed)
        assert state_of(world, job) == "RUNNING"
        world.lab.run("scancel", str(job))


def test_a_cancelled_one_goes_with_its_running_job(world: World) -> None:
    with world.kezek():
        booking = world.book(1, starts_at=utcnow() - timedelta(minutes=2), state=BookingState.STARTED)
        seconds_until(world.is_in(booking, ReservationState.RESERVED))
        job = submit(world, booking)
        world.change(booking, state=BookingState.ENDED, ends_at=utcnow().replace(microsecond=0))
        gone = seconds_until(world.is_in(booking, ReservationState.RELEASED))
        note("a booking given back while its job runs: reservation gone", gone)
        assert f"kezek-{booking}" not in world.held()
        seconds_until(lambda: state_of(world, job).startswith("CANCELLED"))
        counted = select(JobRecord.booking_id).where(JobRecord.job_id == job, JobRecord.ended_at.is_not(None))

        def is_counted() -> bool:
            with world.database.reader() as session:
                return session.scalar(counted) == booking

        note("… and its use is counted", seconds_until(is_counted))


def test_a_foreign_reservation_in_the_way(world: World) -> None:
    node = world.lab.node_names[2]
    world.lab.run(
        "scontrol", "create", "reservation=physics", "starttime=now+90minutes", "duration=600",
        f"nodes={node}", "users=root",
    )  # fmt: skip
    before = world.lab.run("scontrol", "-o", "show", "reservation", "physics")
    with world.kezek():
        booking = world.book(2)
        told = seconds_until(world.is_in(booking, ReservationState.BLOCKED))
        note("a foreign reservation in the way: said by name", told)
        row = world.row(booking)
        assert row.problem_code == "foreign_in_the_way"
        assert "physics" in (row.problem or "")
        time.sleep(3)
        assert world.lab.run("scontrol", "-o", "show", "reservation", "physics") == before
        world.lab.run("scontrol", "delete", "reservation=physics")
        healed = seconds_until(world.is_in(booking, ReservationState.RESERVED))
        note("… and reserved once its owners took it away", healed)


def test_a_closed_quotas_account_goes(world: World) -> None:
    with world.kezek():
        seconds_until(lambda: world.settled() and len(world.cluster.accounts()) == 1)
        with world.database.transaction() as session:
            session.get_one(Quota, world.quota_id).state = QuotaState.CLOSED
        gone = seconds_until(lambda: world.cluster.accounts() == [])
        note("a closed quota's account removed", gone)


def submit(world: World, booking: int) -> int:
    """A job of one GPU inside the booking's reservation, once it runs."""
    account = f"--account=kezek-q{world.quota_id}"
    job = world.lab.sbatch(
        [account, f"--reservation=kezek-{booking}", "--gres=gpu:h200:1"], "#!/bin/sh\nsleep 300\n"
    )
    seconds_until(lambda: state_of(world, job) == "RUNNING")
    return job


def state_of(world: World, job: int) -> str:
    return world.lab.run("sacct", "-a", "-X", "-P", "-n", "-j", str(job), "-o", "state").strip()
