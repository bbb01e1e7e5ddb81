"""Booking on a real Slurm 22.05: a flexible booking, parts of a node, a dead node, nodes that come and go.

A scheduler process of its own does everything that nobody does by hand here; KEZEK_TEST_CRASH_TABLE names a
file for the times.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor, Role
from allocator.booking import bookings, flexible
from allocator.booking.booking_checks import Ask
from allocator.booking.offer_search import Wish
from allocator.db import Database
from allocator.errors import NoCapacity
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    Event,
    JobHealth,
    JobRecord,
    Node,
    NodeState,
    Outage,
    OutageKind,
    OutboxItem,
    Person,
    Quota,
    Repair,
)
from allocator.policy import BookingRules, load_policy
from allocator.states import BookingState, OutageState, RepairState, ReservationState
from allocator.upkeep import outages, phases, repair_steps, repairs
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.phases import Announcement
from config.clock import utcnow
from config.labs import native
from config.labs.native import NativeLab
from config.settings import ClusterSettings, Settings
from scheduler.clusters import connect
from scheduler.clusters.base import Cluster as ClusterProtocol
from scheduler.clusters.base import Reservation
from tests import factories, upkeep
from tests.browsing import Site
from tests.conftest import TEST_SECRET
from tests.e2e.processes import environment, note, scheduler, seconds_until
from web.app import create_app
from web.session import DATABASE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("booking-slurm"),
]

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
NODES = 4
# Minutes instead of hours, and a single day ahead that is told to Slurm.
SHORT = {
    "boundary_minutes = 60": "boundary_minutes = 1",
    "min_minutes = 60": "min_minutes = 1",
    "lead_minutes = 1": "lead_minutes = 0",
    "materialise_days = 7": "materialise_days = 1",
}
T = TypeVar("T")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeLab]:
    native.install()
    with NativeLab(tmp_path_factory.mktemp("booking-lab"), nodes=NODES) as running:
        yield running


@dataclass
class World:
    """A site with two quotas of 1,000 GPU-hours; the holder of each runs jobs by a login of their own."""

    lab: NativeLab
    database: Database
    env: dict[str, str]
    rules: BookingRules
    cluster: ClusterProtocol
    browse: Site
    operator: int = 0
    quotas: list[int] = field(default_factory=list)

    def kezek(self) -> AbstractContextManager[object]:
        return scheduler(self.env)

    def ask(self, question: Callable[[Session], T]) -> T:
        with self.database.reader() as session:
            answer = question(session)
            session.expunge_all()
            return answer

    def do(self, work: Callable[[Session, Actor], T]) -> T:
        """What an operator does, committed."""
        with self.database.transaction() as session:
            return work(session, factories.actor_of(session.get_one(Person, self.operator)))

    def _holder(self, session: Session, team: int) -> tuple[Quota, Actor]:
        quota = session.get_one(Quota, self.quotas[team])
        return quota, factories.actor_of(quota.application.applicant)

    def book(self, starts_at: datetime, minutes: int, nodes: int = 1, gpus: int = 8, team: int = 0) -> int:
        """A firm booking; its id."""
        ask = Ask(nodes, gpus, starts_at, starts_at + minutes * MINUTE)
        with self.database.transaction() as session:
            quota, who = self._holder(session, team)
            return bookings.book(session, who, quota, ask, rules=self.rules, now=utcnow()).id

    def wish(self, earliest: datetime, latest: datetime, minutes: int, nodes: int) -> int:
        """A flexible booking of whole nodes; its id."""
        wanted = Wish(nodes, 8, minutes * MINUTE, earliest, latest)
        with self.database.transaction() as session:
            quota, who = self._holder(session, 0)
            made = flexible.ask(session, who, quota, wanted, rules=self.rules, now=utcnow())
            assert made.state is BookingState.PLANNED
            return made.id

    def booking(self, booking_id: int) -> Booking:
        return self.ask(lambda session: session.get_one(Booking, booking_id))

    def nodes_of(self, booking_id: int) -> set[str]:
        return self.ask(lambda session: {s.node.name for s in session.get_one(Booking, booking_id).slots})

    def state(self, booking_id: int) -> ReservationState:
        return self.ask(lambda session: session.get_one(Booking, booking_id).reservation.state)

    def names(self) -> set[str]:
        """What `scontrol show reservation` has: looked at without any of our own code."""
        said = self.lab.run("scontrol", "-o", "show", "reservation")
        return set(re.findall(r"^ReservationName=(\S+)", said, re.MULTILINE))

    def held(self, name: str) -> Reservation:
        return next(one for one in self.cluster.reservations() if one.name == name)

    def is_held(self, booking_id: int) -> bool:
        """Slurm has the booking's window and nodes, and the row says so."""
        row, nodes = self.booking(booking_id), self.nodes_of(booking_id)
        if (
            row.reservation_name not in self.names()
            or self.state(booking_id) is not ReservationState.RESERVED
        ):
            return False
        found = self.held(row.reservation_name)
        return (found.starts_at, found.ends_at, set(found.nodes)) == (row.starts_at, row.ends_at, nodes)

    def line(self, booking_id: int) -> list[str]:
        """The options of the sbatch line on the booking's page, as its holder sees it."""
        with self.browse.data() as session:
            person = session.get_one(Booking, booking_id).booked_by
        page = self.browse.browser_of(person).get(f"/bookings/{booking_id}").get_data(as_text=True)
        shown = [unescape(re.sub("<[^>]*>", "", text)) for text in re.findall("<pre.*?</pre>", page)]
        assert len(shown) == 1, page
        command, *options, script = shlex.split(shown[0])
        assert (command, script) == ("sbatch", "job.sh")
        return options

    def submit(self, booking_id: int, *more: str, seconds: int = 20) -> int:
        """The page's line, with more behind it; the job's id."""
        team = self.quotas.index(self.booking(booking_id).quota_id)
        script = f"#!/bin/sh\nexec sleep {seconds}\n"
        return self.lab.sbatch(
            [*self.line(booking_id), *more, "--mem=100M"], script, user=self.lab.job_users[team]
        )

    def job(self, job_id: int) -> str:
        return self.lab.run("squeue", "-h", "-j", str(job_id), "-o", "%T %r", "--states=all").strip()

    def is_running(self, *job_ids: int) -> Callable[[], bool]:
        return lambda: all(self.job(job_id).startswith("RUNNING") for job_id in job_ids)

    def gpu_seconds(self, job_id: int) -> int:
        """What has been counted for a job that is over; 0 before."""
        over = select(JobRecord).where(JobRecord.job_id == job_id, JobRecord.ended_at.is_not(None))
        return self.ask(lambda session: sum(one.gpu_seconds for one in session.scalars(over)))

    def node(self, name: str) -> Node | None:
        return self.ask(lambda session: session.scalar(select(Node).where(Node.name == name)))

    def node_state(self, name: str) -> NodeState | None:
        node = self.node(name)
        return node.state if node else None

    def letters(self, letter: str) -> int:
        count = select(func.count()).select_from(OutboxItem).where(OutboxItem.letter == letter)
        return self.ask(lambda session: session.scalar(count) or 0)

    def leave(self) -> None:
        """Take jobs and reservations along: a later test's site must not meet those of this one."""
        self.lab.cancel_jobs()
        for name in self.names():
            self.lab.run("scontrol", "delete", f"ReservationName={name}")


@pytest.fixture
def world(lab: NativeLab, postgres_database: Database, postgres_url: str, tmp_path: Path) -> Iterator[World]:
    text = (Path(__file__).parents[2] / "config" / "policy.toml").read_text(encoding="utf-8")
    for rule, shorter in SHORT.items():
        assert rule in text
        text = text.replace(rule, shorter)
    policy = tmp_path / "policy.toml"
    policy.write_text(text, encoding="utf-8")
    given = {"slug": "alem", "adapter": "slurm_cli", "slurm_conf": str(lab.slurm_conf), "env": dict(lab.env)}
    extra = {"KEZEK_POLICY_FILE": str(policy), "KEZEK_PLAN_SECONDS": "2"}
    app = create_app(
        Settings(
            data_dir=tmp_path, database_url=postgres_url, secret_key=TEST_SECRET, policy_file=policy,
            log_json=False,
        )
    )  # fmt: skip
    made = World(
        lab,
        postgres_database,
        environment(postgres_url, tmp_path, given) | extra,
        load_policy(policy).bookings,
        connect(ClusterSettings.model_validate(given)),
        Site(app),
    )
    _fill(made)
    try:
        yield made
    finally:
        app.extensions[DATABASE].dispose()
        made.leave()


def _fill(world: World) -> None:
    now = utcnow()
    with world.database.transaction() as session:
        # No nodes: the inventory finds them.
        cluster = factories.cluster(session, slug="alem", nodes=0, now=now)
        for login in world.lab.job_users[:2]:
            person = factories.person(session, cluster_login=login)
            application = factories.application(session, person, cluster, gpu_hours=1_000)
            until = now + timedelta(days=60)
            quota = factories.quota(session, application, valid_from=now - DAY, valid_until=until, now=now)
            world.quotas.append(quota.id)
        world.operator = factories.person(session, roles=[Role.OPERATOR]).id


def the_cluster(session: Session) -> Cluster:
    return session.scalars(select(Cluster)).one()


def next_minute(minutes: int = 1) -> datetime:
    """So many minutes ahead, on a minute, with time enough to book what begins then."""
    return (utcnow() + MINUTE / 4).replace(second=0, microsecond=0) + minutes * MINUTE


def all_up(world: World, count: int) -> Callable[[], bool]:
    up = select(func.count()).select_from(Node).where(Node.state == NodeState.UP)
    return lambda: world.ask(lambda session: session.scalar(up)) == count


def test_two_teams_share_a_node_at_the_same_time(world: World) -> None:
    with world.kezek():
        seconds_until(all_up(world, NODES), 90)
        # All other nodes are taken: only halves of the last one are left.
        begin = next_minute(2)
        rest = world.book(begin, 10, nodes=NODES - 1, team=1)
        halves = [world.book(begin, 10, gpus=4, team=team) for team in (0, 1)]
        assert world.nodes_of(halves[0]) == world.nodes_of(halves[1])
        for booking in (rest, *halves):
            seconds_until(lambda number=booking: world.is_held(number), 90)  # type: ignore[misc]
        jobs = [world.submit(half, seconds=40) for half in halves]
        beyond = world.submit(halves[0], seconds=5)
        seconds_until(lambda: utcnow() >= begin, 180)
        note("two teams' jobs run on halves of one node", seconds_until(world.is_running(*jobs), 90))
        where = {world.lab.run("squeue", "-h", "-j", str(job), "-o", "%N").strip() for job in jobs}
        assert where == world.nodes_of(halves[0])
        # The first team's half is full; the waiting job says why, and gets its turn.
        seconds_until(lambda: world.job(beyond) == "PENDING QOSGrpGRES", 60)
        assert {one.gpus for one in world.cluster.accounts()} == {4, 4 + 8 * (NODES - 1)}
        for job in (*jobs, beyond):
            seconds_until(lambda number=job: world.gpu_seconds(number) > 0, 150)  # type: ignore[misc]
        assert world.gpu_seconds(jobs[0]) >= 4 * 40
    problems = world.ask(lambda session: set(session.scalars(select(JobHealth.problem))))
    assert problems <= {None, ""}


def test_a_flexible_booking_is_fixed_reserved_moved_off_a_dead_node_and_used(world: World) -> None:
    with world.kezek():
        seconds_until(all_up(world, NODES), 90)
        zero = next_minute(1)
        later = zero + 5 * MINUTE
        started = world.book(zero, 5, nodes=3)
        # The plan's job fixes what is near and writes.
        flex = world.wish(later, later + 10 * MINUTE, 5, 2)
        took = seconds_until(lambda: world.booking(flex).state is BookingState.CONFIRMED, 90)
        note("a flexible booking is fixed", took)
        assert world.letters("booking_fixed") == 1
        # Its start was chosen by what an hour costs: the others go by it, and all nodes are taken then.
        begin = world.booking(flex).starts_at
        short = world.book(begin, 2, team=1)
        steady = world.book(begin, 5, team=1)
        beyond = world.book(zero + DAY + 3 * MINUTE, 10)
        planned = world.wish(zero + 5 * DAY, zero + 6 * DAY, 60, 2)

        for booking in (started, flex, short, steady):
            seconds_until(lambda number=booking: world.is_held(number), 90)  # type: ignore[misc]
        # What begins later than a day from now is unknown to Slurm, and so is a plan that may still change.
        assert utcnow() < zero + 2 * MINUTE
        assert f"kezek-{beyond}" not in world.names()
        assert world.state(beyond) is ReservationState.PENDING

        seconds_until(lambda: world.booking(started).state is BookingState.STARTED, 120)
        dead = min(world.nodes_of(started) & world.nodes_of(flex))
        alive = max(world.nodes_of(started) - {dead})
        running = world.submit(started, "--nodes=1", f"--nodelist={alive}", seconds=900)
        seconds_until(world.is_running(running), 90)
        before = {number: world.held(f"kezek-{number}") for number in (started, steady)}

        world.lab.kill_slurmd(dead)
        try:
            note(
                "a killed slurmd is seen",
                seconds_until(lambda: world.node_state(dead) == NodeState.DOWN, 180),
            )
            note("a repair is proposed", seconds_until(lambda: _proposed(world) is not None, 300))
            assert world.letters("repair_proposed") == 1
            assert world.is_held(flex), "nobody moves before a person decides"
            moves = apply_repair(world)
            told = {move.booking_id for move in moves}
            assert told in ({flex}, {short})
            assert world.letters("booking_moved") == len(told)
            for booking in (flex, short):
                seconds_until(lambda number=booking: world.is_held(number), 90)  # type: ignore[misc]
                assert dead not in world.nodes_of(booking)
            # Three nodes cannot be four: one of them got another time.
            starts = [world.booking(number).starts_at for number in (flex, short)]
            assert starts.count(begin) == 1
            assert all(begin <= start <= begin + 5 * MINUTE for start in starts)
            assert {number: world.held(f"kezek-{number}") for number in before} == before
            assert world.is_running(running)()

            seconds_until(lambda: world.is_held(beyond), 240)
            assert dead not in world.nodes_of(beyond)
            assert world.booking(planned).state is BookingState.PLANNED
            assert f"kezek-{planned}" not in world.names()

            # People queue before their time begins, with the very line of the page.
            job = world.submit(flex)
            begins = world.booking(flex).starts_at
            seconds_until(lambda: utcnow() >= begins, 900)
            took = seconds_until(world.is_running(job), 90)
            note("a job in the moved reservation runs", took)
            listed = world.lab.run("squeue", "-h", "-j", str(job), "-o", "%N").strip()
            where = world.lab.run("scontrol", "show", "hostnames", listed).split()
            assert set(where) == world.nodes_of(flex)
            took = seconds_until(lambda: world.gpu_seconds(job) > 0, 120)
            note("… and its use is counted", took)
            assert world.gpu_seconds(job) >= 16 * 20
            record = select(JobRecord.booking_id).where(JobRecord.job_id == job)
            assert world.ask(lambda session: session.scalar(record)) == flex
        finally:
            world.lab.start_slurmd(dead)
    kinds = select(Event.kind).where(Event.subject_type == "booking", Event.subject_id == started)
    assert "booking.moved" not in world.ask(lambda session: session.scalars(kinds).all())
    assert world.ask(events.verify) > 0


def _proposed(world: World) -> Repair | None:
    waiting = select(Repair).where(Repair.state == RepairState.PROPOSED).order_by(Repair.id.desc())
    return world.ask(lambda session: session.scalars(waiting).first())


def apply_repair(world: World) -> list[BookingMove]:
    """An operator takes the way that drops least."""
    proposed = _proposed(world)
    assert proposed is not None

    def apply(session: Session, operator: Actor) -> list[BookingMove]:
        repair = repairs.find(session, operator, proposed.id)
        made = repair_steps.apply(
            session, operator, repair, "fewest_drops", reason="A node has failed.",
            expected_version=proposed.version, rules=world.rules, now=utcnow(),
        )  # fmt: skip
        session.flush()
        session.expunge_all()
        return made

    return world.do(apply)


def test_nodes_that_join_are_taken_out_and_leave(world: World) -> None:
    *stay, coming = world.lab.node_names
    # Slurm does not show it, and takes it for one that is not configured yet.
    world.lab.run("scontrol", "update", f"NodeName={coming}", "State=FUTURE")
    try:
        with world.kezek():
            seconds_until(all_up(world, NODES - 1), 90)
            joins = next_minute(2)
            world.do(
                lambda session, operator: phases.announce(
                    session, operator, the_cluster(session),
                    Announcement(coming, "gpu", "h200", 8, joins), now=utcnow(),
                )
            )  # fmt: skip
            with pytest.raises(NoCapacity):
                world.book(joins - MINUTE, 10, nodes=NODES)
            everything = world.book(joins + MINUTE, 15, nodes=NODES)
            near = world.book(joins + 20 * MINUTE, 5, nodes=1)
            seconds_until(lambda: world.is_held(near), 90)
            # Slurm would refuse a node that it does not have: until then the booking waits, without a fault.
            assert world.state(everything) is ReservationState.PENDING
            assert world.booking(everything).reservation_name not in world.names()

            world.lab.run("scontrol", "update", f"NodeName={coming}", "State=RESUME")
            note("a node that joins is seen", seconds_until(lambda: world.node_state(coming) == NodeState.UP))
            note("… and reserved", seconds_until(lambda: world.is_held(everything), 90))

            maintained(world, stay[0])
            leaving(world, coming)
    finally:
        if coming not in world.lab.run("sinfo", "-h", "-N", "-o", "%N").split():
            world.lab.run("scontrol", "update", f"NodeName={coming}", "State=RESUME")


def maintained(world: World, name: str) -> None:
    """Maintenance is published, and Slurm starts no job that would run into it."""
    begin = next_minute(40)
    account = Quota.account_name(world.quotas[0])

    def publish(session: Session, operator: Actor) -> int:
        node = session.scalars(select(Node).where(Node.name == name)).one()
        plan = OutagePlan(OutageKind.MAINTENANCE, begin, begin + 20 * MINUTE, "New firmware.", (node.id,))
        outage = upkeep.draft(session, operator, node.cluster, plan, rules=world.rules, now=utcnow())
        outages.publish(
            session, operator, outage, "fewest_moves", expected_version=outage.version, rules=world.rules,
            now=utcnow(),
        )  # fmt: skip
        return outage.id

    number = world.do(publish)

    def row() -> Outage:
        return world.ask(lambda session: session.get_one(Outage, number))

    took = seconds_until(lambda: row().reserved_at is not None, 60)
    note("published maintenance is in Slurm", took)
    found = world.held(f"kezek-outage-{number}")
    assert (found.starts_at, found.ends_at, found.nodes) == (begin, begin + 20 * MINUTE, (name,))
    assert found.maintenance
    options = [f"--account={account}", "--gres=gpu:h200:1", f"--nodelist={name}", "--mem=100M"]
    into = world.lab.sbatch([*options, "--time=60"], "#!/bin/sh\nexec sleep 3600\n")
    seconds_until(lambda: world.job(into).startswith("PENDING ReqNodeNotAvail"), 60)

    # Somebody deletes it by hand: made again.
    world.lab.run("scontrol", "delete", f"ReservationName={found.name}")
    seconds_until(lambda: found.name in world.names(), 60)
    world.do(
        lambda session, operator: outages.call_off(
            session, operator, session.get_one(Outage, number), reason="Done before.",
            expected_version=row().version, rules=world.rules, now=utcnow(),
        )
    )  # fmt: skip
    note("… and gone when it is called off", seconds_until(lambda: found.name not in world.names(), 60))
    assert row().state is OutageState.CANCELLED
    world.lab.cancel_jobs()


def leaving(world: World, name: str) -> None:
    """A node leaves at a date: nothing is booked there beyond it, and it is gone when Slurm drops it."""
    leaves = next_minute(30)

    def leave(session: Session, operator: Actor) -> None:
        node = session.scalars(select(Node).where(Node.name == name)).one()
        made = upkeep.leave(session, operator, node.cluster, [node], leaves, rules=world.rules, now=utcnow())
        for repair in made:
            repair_steps.apply(
                session, operator, repair, "fewest_moves", reason="Returned to its owner.",
                expected_version=repair.version, rules=world.rules, now=utcnow(),
            )  # fmt: skip

    world.do(leave)
    with pytest.raises(NoCapacity):
        world.book(leaves, 10, nodes=NODES)
    node = world.node(name)
    assert node is not None
    assert node.leaves_at == leaves
    world.lab.run("scontrol", "update", f"NodeName={name}", "State=FUTURE")
    seconds_until(lambda: world.node_state(name) == NodeState.GONE, 60)
