"""Repairs are worked out by the scheduler, on both databases: step by step, unlocked, and never lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Event as Flag
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import Actor, Role
from allocator.booking import replanning
from allocator.db import Database
from allocator.errors import Stale, WrongState
from allocator.models import Booking, Cluster, Event, Node, Outage, OutageKind, Quota, Repair, RepairStep
from allocator.policy import load_policy
from allocator.states import OutageState, RepairState
from allocator.upkeep import failures, outage_queries, outages, phases, repairs, working_out
from allocator.upkeep.failures import MOMENT
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.working_out import MOST_ATTEMPTS, NEVER_DONE, Task, World
from scheduler import repairs as job
from tests import factories
from tests.factories import NOW

RULES = load_policy().bookings
SOON = NOW + timedelta(days=3)
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    """A cluster of four nodes with one booking, and an operator."""

    database: Database
    operator: Actor
    booking: int

    def draft(self, hours: int = 12) -> int:
        """Maintenance of all nodes is planned; returns its number."""
        with self.database.transaction() as session:
            nodes = session.scalars(select(Node)).all()
            numbers = tuple(node.id for node in nodes)
            plan = OutagePlan(OutageKind.MAINTENANCE, SOON, SOON + hours * HOUR, "Cables.", numbers)
            return outages.draft(session, self.operator, nodes[0].cluster, plan, now=NOW).id

    def work(self, meanwhile: Callable[[], None] = lambda: None, go_on: bool = True) -> Mapping[str, int]:
        """A round of the job; ``meanwhile`` happens at each step."""
        return job.work_out(self.database, rules=RULES, now=NOW + HOUR, go_on=lambda: go_on, alive=meanwhile)

    def repair(self) -> Repair:
        """The latest one, detached."""
        with self.database.reader() as session:
            row = session.scalars(select(Repair).order_by(Repair.id.desc()).limit(1)).one()
            session.expunge_all()
            return row

    def change(self) -> None:
        """Somebody changes the booking."""
        with self.database.transaction() as session:
            session.get_one(Booking, self.booking).no_show_warned_at = NOW

    def discard(self) -> None:
        with self.database.transaction() as session:
            repair = session.scalars(select(Repair).where(Repair.state == RepairState.WAITING)).one()
            version = repair.version
            repairs.discard(session, self.operator, repair, reason="No.", expected_version=version, now=NOW)

    def publish(self, outage: int) -> None:
        with self.database.transaction() as session:
            row = session.get_one(Outage, outage)
            version = row.version
            outages.publish(
                session, self.operator, row, "fewest_moves", expected_version=version, rules=RULES, now=NOW
            )


@pytest.fixture
def scene(database: Database) -> Scene:
    return make_scene(database)


def make_scene(database: Database) -> Scene:
    with database.transaction() as session:
        quota = factories.quota(session, gpu_hours=100_000)
        operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        booking = factories.booking(session, quota, on=quota.cluster.nodes, starts_at=SOON, hours=6)
        return Scene(database, operator, booking.id)


def leave(scene: Scene) -> None:
    """All nodes are to leave."""
    with scene.database.transaction() as session:
        nodes = session.scalars(select(Node)).all()
        phases.leave(session, scene.operator, nodes[0].cluster, nodes, SOON, now=NOW)


def test_asking_is_quick_and_the_scheduler_answers(scene: Scene) -> None:
    outage = scene.draft()
    asked = scene.repair()
    assert (asked.state, asked.step, asked.variants) == (RepairState.WAITING, None, {})
    assert repairs.affected_of(asked) == {scene.booking: 1}
    assert scene.work() == {"worked_out": 1}
    found = scene.repair()
    assert (found.state, found.step, found.proposed_at) == (RepairState.PROPOSED, None, NOW + HOUR)
    assert [c.booking_id for c in repairs.variants_of(found)["fewest_moves"].changes] == [scene.booking]
    assert scene.work() == {"worked_out": 0}
    scene.publish(outage)
    with scene.database.reader() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject_type == "repair")).all()
        assert kinds == ["repair.waiting", "repair.proposed", "repair.applied"]
        events.verify(session)


def test_others_write_while_it_is_worked_out_and_see_how_far_it_is(scene: Scene) -> None:
    scene.draft()
    seen = []

    def write() -> None:
        seen.append(scene.repair().step)
        with scene.database.transaction() as session:
            cluster = session.scalars(select(Cluster).with_for_update()).one()
            cluster.checked_at = NOW

    scene.work(write)
    # told before each step is noted
    assert seen == [RepairStep.COUNTING, RepairStep.MENDING]
    assert scene.repair().state is RepairState.PROPOSED


def test_one_a_round_and_the_oldest_first(scene: Scene) -> None:
    for hours in (12, 24):
        scene.draft(hours)
    scene.work()
    with scene.database.reader() as session:
        states = session.scalars(select(Repair.state).order_by(Repair.id)).all()
    assert states == [RepairState.PROPOSED, RepairState.WAITING]


def test_nothing_is_published_before_it_is_worked_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = scene.draft()
    with pytest.raises(WrongState, match="still being worked out"):
        scene.publish(outage)
    spoil(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        scene.work()
    with pytest.raises(WrongState, match="could not be worked out"):
        scene.publish(outage)
    with scene.database.reader() as session:
        assert session.get_one(Outage, outage).state is OutageState.DRAFT


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be worked out any more."""

    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(working_out, "mend", broken)


def test_an_error_is_told_and_it_can_be_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(scene)
    with monkeypatch.context() as context:
        spoil(context)
        with pytest.raises(ZeroDivisionError):
            scene.work()
        assert scene.work() == {"worked_out": 0}
    failed = scene.repair()
    assert (failed.state, failed.problem) == (RepairState.FAILED, "ZeroDivisionError: by zero")
    with scene.database.transaction() as session:
        row = session.get_one(Repair, failed.id)
        repairs.again(session, scene.operator, row, expected_version=row.version, now=NOW)
        assert row.state is RepairState.DISCARDED
    assert scene.work() == {"worked_out": 1}
    assert scene.repair().state is RepairState.PROPOSED


def test_given_up_in_the_middle_it_stays_given_up(scene: Scene) -> None:
    leave(scene)
    assert scene.work(scene.discard) == {"worked_out": 0, "cut_off": 1}
    assert scene.repair().state is RepairState.DISCARDED


def test_a_draft_that_is_changed_in_the_middle_is_worked_out_anew(scene: Scene) -> None:
    outage = scene.draft()

    def prepare() -> None:
        with scene.database.transaction() as session:
            outages.prepare(session, scene.operator, session.get_one(Outage, outage), now=NOW)

    assert scene.work(prepare)["worked_out"] == 0
    assert scene.work() == {"worked_out": 1}
    with scene.database.reader() as session:
        (repair,) = outage_queries.proposals(session, session.get_one(Outage, outage))
        assert repair.state is RepairState.PROPOSED


def test_bookings_that_change_meanwhile_are_looked_at_again(scene: Scene) -> None:
    scene.draft()
    assert scene.work(scene.change)["worked_out"] == 0
    waiting = scene.repair()
    assert (waiting.state, waiting.attempts) == (RepairState.WAITING, 1)
    assert scene.work() == {"worked_out": 1}
    assert repairs.affected_of(scene.repair()) == {scene.booking: 2}


def test_what_never_ends_is_given_up(scene: Scene) -> None:
    scene.draft()
    for _ in range(MOST_ATTEMPTS):
        with scene.database.transaction() as session:
            assert working_out.take(session, now=NOW) is not None
    assert scene.work() == {"worked_out": 0}
    assert (scene.repair().state, scene.repair().problem) == (RepairState.FAILED, NEVER_DONE)


def test_a_scheduler_that_stops_leaves_it_to_the_next(scene: Scene) -> None:
    scene.draft()
    assert scene.work(go_on=False) == {"worked_out": 0, "cut_off": 1}
    assert scene.repair().state is RepairState.WAITING
    assert scene.work() == {"worked_out": 1}


KILLED = """
import os, signal, sys
from datetime import datetime
from allocator.db import Database
from allocator.policy import load_policy
from allocator.upkeep import working_out
from scheduler import repairs

working_out.mend = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
now, rules = datetime.fromisoformat(sys.argv[2]), load_policy().bookings
repairs.work_out(Database(sys.argv[1]), rules=rules, now=now, go_on=lambda: True)
"""


def test_a_killed_scheduler_leaves_nothing_stuck(scene: Scene, database_url: str) -> None:
    scene.draft()
    killed = subprocess.run([sys.executable, "-c", KILLED, database_url, NOW.isoformat()], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = scene.repair()
    assert (left.state, left.step, left.attempts) == (RepairState.WAITING, RepairStep.MENDING, 1)
    assert scene.work() == {"worked_out": 1}
    assert (scene.repair().state, scene.repair().attempts) == (RepairState.PROPOSED, 2)


def test_nobody_listens_to_an_older_attempt(scene: Scene) -> None:
    scene.draft()

    def begin(session: Session) -> tuple[Task, World]:
        task = working_out.take(session, now=NOW)
        assert task is not None
        return task, working_out.read(session, task, rules=RULES)

    with scene.database.transaction() as session:
        old, new = begin(session), begin(session)
    found = working_out.answer(new[1], new[0], lambda step, percent: None)
    for task, world in (old, new):
        with scene.database.transaction() as session:
            if task is old[0]:
                with pytest.raises(Stale):
                    working_out.reach(session, task, RepairStep.SEARCHING, None)
                with pytest.raises(Stale):
                    working_out.keep(session, task, world, found)
                working_out.fail(session, task, "Too late.")
            else:
                working_out.keep(session, task, world, found)
    assert scene.repair().state is RepairState.PROPOSED


def test_the_simple_way_is_named_while_the_search_is_not_compiled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene.database.transaction() as session:
        # it can go nowhere else: a search would be worth it
        quota = session.scalars(select(Quota)).one()
        quota.valid_from, quota.valid_until = SOON, SOON + 12 * HOUR
    monkeypatch.setattr(working_out, "is_warm", lambda: False)
    scene.draft()
    scene.work()
    assert scene.repair().details["simple"] is True


def test_the_plan_is_left_alone_while_a_repair_is_worked_out(scene: Scene) -> None:
    leave(scene)
    with scene.database.reader() as session:
        assert replanning.is_contested(session, session.scalars(select(Cluster)).one(), "h200")


def test_what_a_person_gives_up_before_the_answer_is_not_asked_again(scene: Scene) -> None:
    def watch() -> int:
        with scene.database.transaction() as session:
            cluster = session.scalars(select(Cluster)).one()
            for node in cluster.nodes:
                node.state, node.seen_at = failures.FAILED[0], NOW
            return failures.watch(session, cluster, now=SOON - HOUR + MOMENT)

    assert (watch(), watch()) == (1, 0)
    scene.discard()
    assert watch() == 0


@pytest.mark.parametrize("ends", ["kept", "failed"])
@pytest.mark.parametrize("does", ["change", "prepare"])
def test_an_answer_and_a_change_of_the_draft_never_wait_for_each_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ends: str, does: str
) -> None:
    outage = scene.draft()
    with scene.database.transaction() as session:
        task = working_out.take(session, now=NOW)
        assert task is not None
        world = working_out.read(session, task, rules=RULES)
    found = working_out.answer(world, task, lambda step, percent: None)
    held, done, move = Flag(), Flag(), vars(working_out)["move"]

    def slow(*args: Any, **kwargs: Any) -> None:
        held.set()
        done.wait(1)  # the other one comes as far as it can
        move(*args, **kwargs)

    monkeypatch.setattr(working_out, "move", slow)

    def end() -> None:
        with scene.database.transaction() as session:
            if ends == "kept":
                working_out.keep(session, task, world, found)
            else:
                working_out.fail(session, task, "No.")

    def begin_anew() -> None:
        held.wait(30)
        with scene.database.transaction() as session:
            row = session.get_one(Outage, outage)
            if does == "prepare":
                outages.prepare(session, scene.operator, row, now=NOW)
            else:
                numbers = tuple(one.node_id for one in row.nodes)
                plan = OutagePlan(OutageKind.MAINTENANCE, SOON, SOON + 14 * HOUR, "Cables!", numbers)
                outages.change(session, scene.operator, row, plan, expected_version=row.version, now=NOW)
        done.set()

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(end), pool.submit(begin_anew)]:
            one.result()
    assert scene.repair().state is RepairState.WAITING


@pytest.mark.integration
def test_what_was_published_meanwhile_is_not_worked_out_again(postgres_database: Database) -> None:
    scene = make_scene(postgres_database)
    outage = scene.draft()
    scene.work()
    with scene.database.transaction() as session:
        row = session.get_one(Outage, outage)
        scene.publish(outage)
        with pytest.raises(WrongState):
            outages.prepare(session, scene.operator, row, now=NOW)
    assert scene.repair().state is RepairState.APPLIED


class _Cut(Exception):
    sqlstate = "40P01"


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OperationalError("x", {}, _Cut()), 0), (DataError("x", {}, Exception("too long")), 1)],
    ids=["a deadlock", "what will happen again"],
)
def test_an_attempt_that_the_database_cut_off_does_not_count(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    leave(scene)

    def lost(*args: object) -> None:
        raise error

    with monkeypatch.context() as context:
        context.setattr(working_out, "keep", lost)
        with pytest.raises(type(error)):
            scene.work()
    assert (scene.repair().state, scene.repair().attempts) == (RepairState.WAITING, attempts)
    assert scene.work() == {"worked_out": 1}


def test_a_place_that_was_taken_meanwhile_is_not_proposed(database: Database) -> None:
    with database.transaction() as session:
        quota = factories.quota(session, gpu_hours=100_000)
        operator = factories.actor_of(factories.person(session, roles=[Role.OPERATOR]))
        node = min(quota.cluster.nodes, key=lambda node: node.name)
        scene = Scene(
            database, operator, factories.booking(session, quota, on=[node], starts_at=SOON, hours=6).id
        )
        phases.leave(session, operator, quota.cluster, [node], SOON, now=NOW)
        task = working_out.take(session, now=NOW)
        assert task is not None
        world = working_out.read(session, task, rules=RULES)
        found = working_out.answer(world, task, lambda step, percent: None)
        (place,) = found.variants["fewest_moves"].changes[0].places
        taken = session.get_one(Node, place.node_id)
        factories.booking(session, quota, on=[taken], starts_at=SOON + 5 * HOUR, hours=6)
    with pytest.raises(Stale), database.transaction() as session:
        working_out.keep(session, task, world, found)
    assert scene.work() == {"worked_out": 1}
    (change,) = repairs.variants_of(scene.repair())["fewest_moves"].changes
    assert change.places != (place,)


def test_bookings_that_change_places_with_each_other_are_proposed(scene: Scene) -> None:
    # its own slots are on the very nodes to which it goes, only later
    scene.draft(hours=3)
    assert scene.work() == {"worked_out": 1}
    (change,) = repairs.variants_of(scene.repair())["fewest_moves"].changes
    assert change.to_starts_at is not None
    assert change.to_starts_at < SOON + 6 * HOUR
