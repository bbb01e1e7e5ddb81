"""What only the simulated cluster can show: faults, its clock, its autopilot, several processes at once."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import ClusterSettings
from scheduler.clusters.base import (
    Account,
    Conflict,
    NodeState,
    Refused,
    Reservation,
    UnderDelivered,
    Unreachable,
)
from scheduler.clusters.simulated import SimulatedCluster
from scheduler.clusters.simulated_store import Fault

BEGIN = datetime(2026, 11, 20, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Site:
    """A cluster of four nodes, its clock, and one account with one person."""

    def __init__(self, folder: Path, autopilot: bool = False) -> None:
        self.time = BEGIN
        self.settings = ClusterSettings(slug="alem", database=folder / "alem.sqlite3", nodes=4, timeout=1)
        self.cluster = SimulatedCluster(self.settings, clock=lambda: self.time, autopilot=autopilot)
        self.cluster.save_accounts([Account("kezek-q1", "one", 100_000, frozenset({"aida"}))])

    def book(
        self, name: str = "kezek-1", starts_in: float = 1, nodes: tuple[str, ...] = ("gpu0001", "gpu0002")
    ) -> Reservation:
        begin = self.time + HOUR * starts_in
        reservation = Reservation(name, begin, begin + HOUR, nodes, ("kezek-q1",))
        self.cluster.create_reservation(reservation)
        return reservation

    def names(self) -> list[str]:
        return [held.name for held in self.cluster.reservations()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_topology_is_told_once_there_is_one(site: Site) -> None:
    assert {node.switch for node in site.cluster.nodes()} == {None}
    site.cluster.set_switches({"leaf1": ["gpu0001", "gpu0002"]})
    switches = {node.name: node.switch for node in site.cluster.nodes()}
    assert (switches["gpu0002"], switches["gpu0003"]) == ("leaf1", None)


def test_a_crash_loses_what_was_just_acknowledged(site: Site) -> None:
    site.book("kezek-1")
    site.time += timedelta(seconds=10)
    site.book("kezek-2", nodes=("gpu0003",))
    site.cluster.delete_reservation("kezek-1")
    site.cluster.crash(lose_recent_seconds=3)
    # The creation and the deletion are both undone, as from an older state file.
    assert site.names() == ["kezek-1"]


def test_a_crash_keeps_what_was_saved(site: Site) -> None:
    site.book()
    site.time += timedelta(seconds=5)
    site.cluster.crash(lose_recent_seconds=3)
    assert site.names() == ["kezek-1"]


@pytest.mark.parametrize("nodes", [("gpu0001", "gpu0002"), ("gpu0001",)])
def test_under_delivery_is_noticed(site: Site, nodes: tuple[str, ...]) -> None:
    site.cluster.set_fault(Fault.UNDER_DELIVERY, 1)
    with pytest.raises(UnderDelivered):
        site.book(nodes=nodes)
    # It is there, for reconcile to decide.
    assert site.names() == ["kezek-1"]


def test_a_lost_answer_leaves_the_deed_done(site: Site) -> None:
    site.cluster.set_fault(Fault.LOST_ANSWER)
    with pytest.raises(Unreachable):
        site.book()
    assert site.names() == ["kezek-1"]
    site.cluster.delete_reservation("kezek-1")


def test_skew(site: Site) -> None:
    site.cluster.set_fault(Fault.CLOCK_SKEW, 90)
    health = site.cluster.health()
    assert health.clock_skew == timedelta(seconds=90)
    assert health.controller_time == BEGIN + timedelta(seconds=90)


def test_garbled_lines_are_counted_not_guessed(site: Site) -> None:
    for _ in range(3):
        site.cluster.submit("aida", "kezek-q1", 1, seconds=60)
    site.time += HOUR
    site.cluster.set_fault(Fault.GARBLED, 2)
    reading = site.cluster.usage(BEGIN, site.time)
    assert (len(reading.jobs), reading.bad_lines, len(reading.samples)) == (1, 2, 2)


def test_a_foreign_reservation_is_in_the_way(site: Site) -> None:
    foreign = Reservation("maintenance", BEGIN, BEGIN + 5 * HOUR, ("gpu0001",), ("root",))
    site.cluster.put_by_hand(foreign)
    with pytest.raises(Conflict):
        site.book()


def test_a_node_fails_and_its_job_starts_elsewhere(site: Site) -> None:
    job = site.cluster.submit("aida", "kezek-q1", 8, seconds=600)
    site.time += timedelta(minutes=1)
    site.cluster.set_node("gpu0001", NodeState.DOWN, "power")
    site.time += timedelta(minutes=20)
    first, second = site.cluster.usage(BEGIN, site.time).jobs
    assert (first.job_id, first.state, first.elapsed_seconds) == (job, "NODE_FAIL", 60)
    assert (second.job_id, second.state, second.elapsed_seconds) == (job, "COMPLETED", 600)


def test_the_rest_of_the_cluster_is_not_given_to_jobs_that_would_reach_a_reservation(site: Site) -> None:
    site.book(nodes=("gpu0001", "gpu0002", "gpu0003", "gpu0004"))
    site.cluster.submit("aida", "kezek-q1", 8, seconds=7200)
    site.cluster.submit("aida", "kezek-q1", 8, seconds=1800)
    assert [(run.state, reason) for run, reason in site.cluster.jobs()] == [
        ("PENDING", "Resources"),
        ("RUNNING", ""),
    ]


def test_the_end_of_a_reservation_ends_its_jobs(site: Site) -> None:
    site.book()
    site.cluster.submit("aida", "kezek-q1", 16, 2, seconds=7200, reservation="kezek-1")
    site.time += 5 * HOUR
    (run,) = site.cluster.usage(BEGIN, site.time).jobs
    assert (run.state, run.elapsed_seconds, run.gpu_seconds) == ("TIMEOUT", 3600, 16 * 3600)
    assert site.names() == []


def test_strangers_cannot_use_a_reservation(site: Site) -> None:
    site.cluster.save_accounts([Account("kezek-q2", "two", None, frozenset({"bolat"}))])
    site.book()
    with pytest.raises(Refused, match="Access denied"):
        site.cluster.submit("bolat", "kezek-q2", 1, reservation="kezek-1")


def test_autopilot_fills_a_reservation_the_same_every_time(tmp_path: Path) -> None:
    stories = []
    for run, steps in (("a", [300]), ("b", [10] * 30)):
        site = Site(tmp_path / run, autopilot=True)
        site.book()
        # However rarely somebody looks, the story is the same.
        for minutes in steps:
            site.time += timedelta(minutes=minutes)
            site.cluster.nodes()
        stories.append([job for job, _ in site.cluster.jobs()])
    assert stories[0] == stories[1]
    (job,) = stories[0]
    assert (job.gpus, job.login, job.reservation, job.state) == (16, "aida", "kezek-1", "COMPLETED")
    assert 0.75 * 3600 <= job.elapsed_seconds <= 3600


def test_autopilot_respects_the_limit(tmp_path: Path) -> None:
    site = Site(tmp_path, autopilot=True)
    site.cluster.save_accounts([Account("kezek-q1", "one", 160, frozenset({"aida"}))])
    site.book()
    site.time += 3 * HOUR
    (job,) = site.cluster.usage(BEGIN, site.time).jobs
    assert job.gpu_seconds == 160 * 60


def test_speed(tmp_path: Path) -> None:
    file = tmp_path / "fast.sqlite3"
    fast = SimulatedCluster(ClusterSettings(slug="fast", database=file, speed=100_000))
    first = fast.now()
    while fast.now() < first + HOUR:
        pass
    # Another speed goes on from here; the clock neither jumps nor goes back.
    slow = SimulatedCluster(ClusterSettings(slug="fast", database=file, speed=1))
    assert slow.now() >= first + HOUR
    assert slow.now() - first < 100 * HOUR
    assert slow.health().clock_skew == timedelta(0)


OPEN = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from config.settings import ClusterSettings
from scheduler.clusters import connect
from scheduler.clusters.base import Conflict, Reservation
cluster = connect(ClusterSettings(slug="alem", database=Path(sys.argv[1]), nodes=4))
"""
LOOK = OPEN + "print(cluster.health().accounting, len(cluster.nodes()))"
BOOK = (
    OPEN
    + """
made = 0
for hour in range(20):
    begin = datetime(2090, 1, 1, hour, tzinfo=UTC)
    name = f"kezek-{sys.argv[2]}-{hour}"
    try:
        cluster.create_reservation(
            Reservation(name, begin, begin + timedelta(hours=1), ("gpu0001",), ("kezek-q1",))
        )
        made += 1
    except Conflict:
        pass
print(made)
"""
)


def test_another_process_sees_faults_and_state(site: Site) -> None:
    site.cluster.set_fault(Fault.ACCOUNTING_DOWN)
    command = [sys.executable, "-c", LOOK, str(site.settings.database)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["False", "4"]


def test_many_at_once(site: Site) -> None:
    command = [sys.executable, "-c", BOOK, str(site.settings.database)]
    running = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    made = [int(process.communicate(timeout=60)[0]) for process in running]
    # Each hour has exactly one owner, whoever came first.
    assert sum(made) == 20
    assert len(site.cluster.reservations()) == 20
