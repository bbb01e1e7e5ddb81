"""The contract of every cluster adapter: the same tests against the simulated cluster and real Slurms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from config.labs.errors import LabError
from scheduler.clusters.base import (
    Account,
    Capability,
    ClusterError,
    Conflict,
    Exists,
    InUse,
    Missing,
    NodeState,
    Refused,
    Reservation,
    Unreachable,
)
from scheduler.clusters.readback import as_shown, difference
from tests.contract.worlds import World, account

pytestmark = pytest.mark.timeout(900)
HOUR = timedelta(hours=1)
_numbers = count(1)
# Why a job beyond its account's GPUs waits; where the reservation itself counts GPUs, that may come first.
OVER_ITS_SHARE = ("QOSGrpGRES", "Resources")


def booked(
    world: World,
    starts_in: float = 1,
    hours: float = 1,
    nodes: int | tuple[str, ...] = 1,
    **changes: object,
) -> Reservation:
    """A reservation of the first nodes with a name that never was: accounting mixes up names used twice."""
    begin = world.now() + HOUR * starts_in
    name = f"kezek-{int(time.time()) % 1_000_000}{next(_numbers)}"
    names = tuple(world.nodes[:nodes]) if isinstance(nodes, int) else nodes
    reservation = Reservation(name, begin, begin + HOUR * hours, names, ("kezek-q1",))
    return replace(reservation, **changes)  # type: ignore[arg-type]


def held(world: World, name: str) -> Reservation:
    return next(one for one in world.cluster.reservations() if one.name == name)


def accounts(world: World) -> dict[str, Account]:
    return {one.name: one for one in world.cluster.accounts()}


def seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


# What it tells of itself


def test_health(world: World) -> None:
    health = world.cluster.health()
    assert health.version
    assert health.accounting
    assert abs(health.clock_skew) <= timedelta(seconds=1)
    assert abs(health.controller_time - world.now()) <= timedelta(seconds=2)
    assert health.controller_time.tzinfo is UTC


def test_nodes(world: World) -> None:
    nodes = world.cluster.nodes()
    assert [node.name for node in nodes] == world.nodes
    assert {(node.gpu_type, node.gpus, node.partitions, node.state) for node in nodes} == {
        ("h200", 8, ("gpu",), NodeState.UP)
    }


def test_leaf_switches(world: World) -> None:
    leaf_of = {name: leaf for leaf, names in world.leaves.items() for name in names}
    assert len(world.leaves) > 1
    assert {node.name: node.switch for node in world.cluster.nodes()} == leaf_of


def test_partitions(world: World) -> None:
    (partition,) = world.cluster.partitions()
    assert (partition.name, partition.nodes, partition.is_default) == ("gpu", len(world.nodes), True)


# Accounts


def test_account_saved_corrected_removed(world: World) -> None:
    first = account("kezek-q2", world, 600, people=2)
    world.cluster.save_accounts([first])
    assert accounts(world)["kezek-q2"] == first
    corrected = Account("kezek-q2", "another", None, frozenset(world.logins[1:3]))
    world.cluster.save_accounts([corrected])
    assert accounts(world)["kezek-q2"] == corrected
    world.cluster.save_accounts([corrected])
    world.cluster.remove_accounts(["kezek-q2", "kezek-never-there"])
    assert "kezek-q2" not in accounts(world)
    world.cluster.remove_accounts(["kezek-q2"])
    assert "kezek-q1" in accounts(world)


def test_account_shares_are_set_and_left_alone(world: World) -> None:
    plain = account("kezek-q9", world, 600, people=1)
    world.cluster.save_accounts([plain])
    assert accounts(world)["kezek-q9"].shares == 1
    world.cluster.save_accounts([replace(plain, shares=12_345)])
    assert accounts(world)["kezek-q9"].shares == 12_345
    # who says nothing about shares changes nothing about them
    world.cluster.save_accounts([plain])
    assert accounts(world)["kezek-q9"].shares == 12_345
    with pytest.raises(Refused, match="shares"):
        world.cluster.save_accounts([replace(plain, shares=0)])
    world.cluster.remove_accounts(["kezek-q9"])


def test_account_changed_by_hand_is_seen_and_corrected(world: World) -> None:
    wanted = account("kezek-q3", world, 600, people=1)
    world.cluster.save_accounts([wanted])
    world.add_login("kezek-q3", world.logins[2])
    assert accounts(world)["kezek-q3"] != wanted
    world.cluster.save_accounts([wanted])
    assert accounts(world)["kezek-q3"] == wanted
    world.cluster.remove_accounts(["kezek-q3"])


def test_accounts_in_a_batch_of_200(world: World) -> None:
    batch = [account(f"kezek-b{number}", world, 600 * (1 + number % 4), people=2) for number in range(200)]
    first = seconds(lambda: world.cluster.save_accounts(batch))
    found = accounts(world)
    assert [found[one.name] for one in batch] == batch
    # Everything is as it should be: saving again only looks, which costs less than making them did.
    again = seconds(lambda: world.cluster.save_accounts(batch))
    assert again < first or again < 1
    world.cluster.remove_accounts([one.name for one in batch])
    assert not accounts(world).keys() & {one.name for one in batch}


def test_account_with_unknown_login(world: World) -> None:
    stranger = Account("kezek-q4", "stranger", 60, frozenset({"stranger"}))
    if world.knows_logins:
        with pytest.raises(Refused, match="kezek-q4"):
            world.cluster.save_accounts([stranger])
        assert "kezek-q4" not in accounts(world)
    else:
        # slurmdbd takes any name; a job can come only from a login that the cluster's nodes know.
        world.cluster.save_accounts([stranger])
        assert accounts(world)["kezek-q4"] == stranger
        world.cluster.remove_accounts(["kezek-q4"])


@pytest.mark.parametrize("name", ["", "root", "kezek-", "kezek-a,root", "kezek-a b", "kezek-a=b", "kezek-A"])
def test_account_names_that_are_not_ours(world: World, name: str) -> None:
    with pytest.raises(ValueError):
        world.cluster.save_accounts([Account(name, "x", 1)])
    with pytest.raises(ValueError):
        world.cluster.remove_accounts([name])


@pytest.mark.parametrize("login", ["", "a,root", "a=b", "a b", "A", "a'b", "a:b", "é", "a" * 40])
def test_logins_that_cannot_be(world: World, login: str) -> None:
    with pytest.raises(Refused):
        world.cluster.save_accounts([Account("kezek-q5", "x", 1, frozenset({login}))])


def test_limit_holds_jobs_back_until_it_is_raised(world: World) -> None:
    limited = account("kezek-q6", world, 10)
    world.cluster.save_accounts([limited])
    # Eight GPUs for ten minutes are eighty GPU-minutes.
    job = world.submit("kezek-q6", 8, 600)
    assert world.wait(lambda: world.job(job)[1] == "QOSGrpGRESMinutes", 30), world.job(job)
    world.cluster.save_accounts([replace(limited, gpu_minutes=1000)])
    assert world.wait(lambda: world.running(job), 60), world.job(job)
    with pytest.raises(InUse):
        world.cluster.remove_accounts(["kezek-q6"])
    world.cancel(job)
    assert world.wait(lambda: _removed(world, "kezek-q6"), 30)


def _removed(world: World, name: str) -> bool:
    try:
        world.cluster.remove_accounts([name])
    except InUse:
        return False
    return True


# Reservations


def test_reservation_created_and_read_back(world: World) -> None:
    wanted = booked(world, nodes=3)
    world.cluster.create_reservation(wanted)
    assert difference(wanted, held(world, wanted.name)) == ""
    assert held(world, wanted.name).starts_at.tzinfo is UTC
    world.cluster.delete_reservation(wanted.name)
    assert wanted.name not in {one.name for one in world.cluster.reservations()}


def test_reservation_overlap_is_a_conflict(world: World) -> None:
    first = booked(world, nodes=2)
    world.cluster.create_reservation(first)
    with pytest.raises(Conflict):
        world.cluster.create_reservation(booked(world, nodes=1))
    # Windows that touch do not overlap.
    world.cluster.create_reservation(booked(world, starts_at=first.ends_at, ends_at=first.ends_at + HOUR))
    world.cluster.create_reservation(booked(world, nodes=(world.nodes[2],)))


def test_reservation_name_taken(world: World) -> None:
    first = booked(world)
    world.cluster.create_reservation(first)
    with pytest.raises(Exists):
        world.cluster.create_reservation(first)
    with pytest.raises(Exists):
        world.cluster.create_reservation(replace(first, nodes=(world.nodes[1],)))
    assert difference(first, held(world, first.name)) == ""


def test_reservation_missing(world: World) -> None:
    with pytest.raises(Missing):
        world.cluster.delete_reservation("kezek-404")
    with pytest.raises(Missing):
        world.cluster.update_reservation(booked(world, name="kezek-404"))


def test_reservation_refused(world: World) -> None:
    for wrong in (
        booked(world, starts_in=-0.25, hours=2),
        booked(world, starts_in=-2, hours=1),
        booked(world, accounts=("kezek-nobody",)),
        booked(world, nodes=("gpu9999",)),
        booked(world, nodes=("ALL=x",)),
        booked(world, nodes=()),
        booked(world, accounts=()),
        booked(world, hours=-1),
        booked(world, ends_at=datetime(9999, 1, 1, tzinfo=UTC)),
        booked(world, gpus_per_node=0),
    ):
        with pytest.raises(Refused):
            world.cluster.create_reservation(wrong)
    assert world.cluster.reservations() == []


def test_reservation_begun_minutes_ago(world: World) -> None:
    late = booked(world, starts_in=-0.1)
    world.cluster.create_reservation(late)
    assert difference(late, held(world, late.name)) == ""


def test_reservation_moved(world: World) -> None:
    first = booked(world, nodes=2)
    world.cluster.create_reservation(first)
    moved = replace(first, starts_at=first.starts_at + HOUR, ends_at=first.ends_at + 2 * HOUR)
    world.cluster.update_reservation(moved)
    elsewhere = replace(moved, nodes=(world.nodes[1], world.nodes[3]))
    world.cluster.update_reservation(elsewhere)
    assert difference(elsewhere, held(world, first.name)) == ""
    world.cluster.update_reservation(elsewhere)


def test_reservation_moved_into_another(world: World) -> None:
    first, second = booked(world), booked(world, nodes=(world.nodes[1],))
    world.cluster.create_reservation(first)
    world.cluster.create_reservation(second)
    with pytest.raises(Conflict):
        world.cluster.update_reservation(replace(second, nodes=first.nodes))
    assert difference(second, held(world, second.name)) == ""


def test_reservation_prolonged_while_it_runs(world: World) -> None:
    first = booked(world, starts_in=0)
    world.cluster.create_reservation(first)
    assert world.wait(lambda: world.now() > first.starts_at, 5)
    longer = replace(first, ends_at=first.ends_at + HOUR)
    world.cluster.update_reservation(longer)
    assert difference(longer, held(world, first.name)) == ""
    with pytest.raises(Refused):
        world.cluster.update_reservation(replace(longer, starts_at=first.starts_at + HOUR))


def test_reservation_in_the_way_of_foreign_job(world: World) -> None:
    job = world.submit("kezek-q1", 8, 3000)
    assert world.wait(lambda: world.running(job), 30), world.job(job)
    blocked = booked(world, starts_in=0.1, nodes=tuple(world.nodes))
    with pytest.raises(Conflict):
        world.cluster.create_reservation(blocked)
    assert world.running(job)
    world.cancel(job)


def test_reservation_with_jobs_in_it(world: World) -> None:
    mine = booked(world, starts_in=0)
    world.cluster.create_reservation(mine)
    jobs = [world.submit("kezek-q1", 8, 1800, reservation=mine.name) for _ in range(2)]
    assert world.wait(lambda: world.running(jobs[0]), 60), world.job(jobs[0])
    with pytest.raises(InUse):
        world.cluster.delete_reservation(mine.name)
    assert world.cluster.cancel_jobs(mine.name) == 2
    assert world.wait(lambda: _deleted(world, mine.name), 30)
    assert world.cluster.cancel_jobs(mine.name) == 0


def maintenance(world: World, **changes: object) -> Reservation:
    made = booked(world, accounts=(), maintenance=True, **changes)  # type: ignore[arg-type]
    return replace(made, name=made.name.replace("kezek-", "kezek-outage-"))


def test_maintenance_keeps_jobs_off_and_ends_none(world: World) -> None:
    running = world.submit("kezek-q1", 8, 3000)
    assert world.wait(lambda: world.running(running), 60), world.job(running)
    # Announced while a job runs that may last longer than until then.
    off = maintenance(world, starts_in=0.5, nodes=tuple(world.nodes))
    world.cluster.create_reservation(off)
    assert held(world, off.name) == off
    too_long, short = world.submit("kezek-q1", 8, 3000), world.submit("kezek-q1", 8, 600)
    assert world.wait(lambda: world.running(short), 60), world.job(short)
    assert world.running(running)
    assert world.job(too_long)[0] == "PENDING"
    begun = replace(off, starts_at=world.now() + timedelta(seconds=3), nodes=tuple(world.nodes[:3]))
    world.cluster.update_reservation(begun)
    assert held(world, off.name) == begun
    assert world.wait(lambda: world.now() > begun.starts_at + timedelta(seconds=5), 10)
    assert world.running(running), "what has begun is not ended"
    # The fourth node is left.
    assert world.wait(lambda: world.running(too_long), 60), world.job(too_long)
    assert {node.state for node in world.cluster.nodes()} == {NodeState.UP}
    world.cluster.delete_reservation(off.name)
    assert world.running(running)


def test_maintenance_lies_over_bookings_and_no_booking_over_it(world: World) -> None:
    before = booked(world)
    world.cluster.create_reservation(before)
    off = maintenance(world, nodes=2)
    world.cluster.create_reservation(off)
    assert difference(before, held(world, before.name)) == ""
    with pytest.raises(Conflict):
        world.cluster.create_reservation(booked(world, nodes=(world.nodes[1],)))
    for wrong in (
        replace(off, name="kezek-outage-9", accounts=("kezek-q1",)),
        replace(off, name="kezek-outage-9", gpus_per_node=4),
    ):
        with pytest.raises(Refused):
            world.cluster.create_reservation(wrong)
    with pytest.raises(ValueError):
        world.cluster.create_reservation(replace(off, name="outage-9"))


def _deleted(world: World, name: str) -> bool:
    try:
        world.cluster.delete_reservation(name)
    except InUse:
        return False
    return True


def test_foreign_reservation_is_shown_and_untouched(world: World) -> None:
    foreign = booked(world, name="maintenance")
    world.put_reservation(foreign)
    for refused in (
        lambda: world.cluster.delete_reservation("maintenance"),
        lambda: world.cluster.update_reservation(replace(foreign, nodes=(world.nodes[1],))),
        lambda: world.cluster.create_reservation(foreign),
        lambda: world.cluster.cancel_jobs("maintenance"),
    ):
        with pytest.raises(ValueError):
            refused()
    with pytest.raises(Conflict, match=r"maintenance|overlap"):
        world.cluster.create_reservation(booked(world))
    assert difference(foreign, held(world, "maintenance")) == ""


def test_part_of_a_node(world: World) -> None:
    half = booked(world, nodes=2, gpus_per_node=4)
    world.cluster.create_reservation(half)
    other = booked(world, nodes=1, gpus_per_node=4)
    world.cluster.create_reservation(other)
    shown = as_shown(half, world.cluster.capabilities)
    assert difference(shown, held(world, half.name)) == ""
    # Slurm itself would let this pass.
    with pytest.raises(Conflict):
        world.cluster.create_reservation(booked(world, nodes=1))
    if Capability.GPU_RESERVATIONS in world.cluster.capabilities:
        with pytest.raises(Conflict):
            world.cluster.create_reservation(booked(world, nodes=1, gpus_per_node=1))
        assert held(world, half.name).gpus_per_node == 4
        less = replace(half, gpus_per_node=2, nodes=(world.nodes[1],))
        world.cluster.update_reservation(less)
        assert difference(less, held(world, half.name)) == ""
    else:
        # Without the capability nodes are shared whole, and nobody counts their GPUs.
        assert held(world, half.name).gpus_per_node is None


def test_part_of_a_node_runs_jobs(world: World) -> None:
    half = booked(world, starts_in=0, gpus_per_node=4)
    world.cluster.create_reservation(half)
    # With its share of the cores: a reservation of GPUs alone would leave a job two.
    job = world.submit("kezek-q1", 4, 600, reservation=half.name, cpus=24)
    assert world.wait(lambda: world.running(job), 60), world.job(job)
    if Capability.GPU_RESERVATIONS in world.cluster.capabilities:
        more = world.submit("kezek-q1", 4, 600, reservation=half.name)
        assert not world.wait(lambda: world.running(more), 5)


def test_two_bookings_share_a_node_by_their_accounts_limits(world: World) -> None:
    teams = [replace(account(name, world), gpus=4) for name in ("kezek-q1", "kezek-q8")]
    world.cluster.save_accounts(teams)
    halves = [booked(world, starts_in=0, gpus_per_node=4, accounts=(team.name,)) for team in teams]
    for half in halves:
        world.cluster.create_reservation(half)
    jobs = [
        world.submit(team.name, 4, 600, reservation=half.name, cpus=24)
        for team, half in zip(teams, halves, strict=True)
    ]
    assert world.wait(lambda: all(world.running(job) for job in jobs), 60), [world.job(job) for job in jobs]
    world.cancel(jobs[1])
    # Its neighbour's GPUs are free now, and stay out of its reach all the same.
    more = world.submit("kezek-q1", 2, 600, reservation=halves[0].name)
    assert world.wait(lambda: world.job(more)[1] in OVER_ITS_SHARE, 30), world.job(more)
    assert not world.running(more)
    assert {name: one.gpus for name, one in accounts(world).items() if one.gpus} == {
        "kezek-q1": 4,
        "kezek-q8": 4,
    }
    world.cluster.save_accounts([replace(team, gpus=None) for team in teams])
    assert all(one.gpus is None for one in accounts(world).values())


# Usage


def test_usage_of_a_job_in_a_reservation(world: World) -> None:
    # Queued before it begins, as people do: then sacct itself often leaves the reservation's name out.
    mine = booked(world, starts_in=4 / 3600, nodes=2)
    world.cluster.create_reservation(mine)
    job = world.submit("kezek-q1", 4, 4, nodes=2, reservation=mine.name)
    assert world.wait(lambda: [run.state for run in world.runs(job)] == ["COMPLETED"], 60), world.runs(job)
    (run,) = world.runs(job)
    assert (run.account, run.login, run.reservation) == ("kezek-q1", world.logins[0], mine.name)
    assert run.gpus == 8
    assert run.started_at is not None
    assert run.ended_at is not None
    assert run.elapsed_seconds == (run.ended_at - run.started_at).total_seconds()
    assert 4 <= run.elapsed_seconds <= 12
    assert run.gpu_seconds == 8 * run.elapsed_seconds
    assert run.submitted_at <= mine.starts_at <= run.started_at < run.ended_at <= world.now()


def test_usage_of_a_running_job(world: World) -> None:
    job = world.submit("kezek-q1", 2, 600)
    assert world.wait(lambda: [run.state for run in world.runs(job)] == ["RUNNING"], 60), world.runs(job)
    (before,) = world.runs(job)
    assert world.wait(lambda: world.runs(job)[0].elapsed_seconds >= before.elapsed_seconds + 2, 20)
    (after,) = world.runs(job)
    assert (before.submitted_at, after.ended_at, after.gpus) == (after.submitted_at, None, 2)
    world.cancel(job)
    assert world.wait(lambda: world.runs(job)[0].state == "CANCELLED", 30)


def test_usage_of_a_requeued_job(world: World) -> None:
    job = world.submit("kezek-q1", 4, 600)
    assert world.wait(lambda: world.running(job), 60)
    assert world.wait(lambda: bool(world.runs(job)) and world.runs(job)[0].elapsed_seconds >= 2, 30)
    world.requeue(job)
    assert world.wait(lambda: len(world.runs(job)) == 2, 90), world.runs(job)
    assert world.wait(lambda: world.runs(job)[1].elapsed_seconds >= 2, 30), world.runs(job)
    world.cancel(job)
    assert world.wait(lambda: world.runs(job)[1].state == "CANCELLED", 30)
    first, second = world.runs(job)
    assert first.state == "REQUEUED"
    assert first.submitted_at < second.submitted_at
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.ended_at <= second.started_at
    assert {first.gpus, second.gpus} == {4}


def test_usage_windows(world: World) -> None:
    job = world.submit("kezek-q1", 1, 5)
    assert world.wait(lambda: [run.state for run in world.runs(job)] == ["COMPLETED"], 60)
    (run,) = world.runs(job)
    assert run.started_at is not None
    assert run.ended_at is not None
    # Three days at once, cut into days in the middle of the run: still told once.
    middle = run.started_at + timedelta(seconds=2)
    days = timedelta(days=2)
    assert _seen(world, job, middle - days, middle + timedelta(days=1)) == 1
    assert _seen(world, job, middle, middle + timedelta(seconds=1)) == 1
    assert _seen(world, job, run.ended_at + timedelta(seconds=1), run.ended_at + HOUR) == 0
    assert _seen(world, job, run.started_at - HOUR, run.started_at) == 0
    assert world.cluster.usage(middle, middle).jobs == []


def _seen(world: World, job: int, since: datetime, until: datetime) -> int:
    return [run.job_id for run in world.cluster.usage(since, until).jobs].count(job)


# When it fails


def test_controller_down(world: World) -> None:
    world.stop_controller()
    try:
        for work in (
            world.cluster.health,
            world.cluster.reservations,
            world.cluster.nodes,
            lambda: world.cluster.create_reservation(booked(world)),
            lambda: world.cluster.delete_reservation("kezek-1"),
        ):
            # The ping told it, within its own short time; the tools alone would have waited for the dead one.
            with pytest.raises(Unreachable, match=r"DOWN|no answer within [12] s"):
                work()
    finally:
        world.start_controller()
    # It answers; what it deleted in its last seconds may be back.
    assert all(held.name.startswith("kezek-") for held in world.cluster.reservations())


def test_controller_hangs(world: World) -> None:
    world.hang_controller()
    try:
        with pytest.raises(Unreachable, match=r"no answer within [12] s"):
            world.cluster.health()
    finally:
        world.start_controller()


def test_accounting_down(world: World) -> None:
    world.stop_accounting()
    try:
        assert not world.cluster.health().accounting
        now = world.now()
        for work in (
            world.cluster.accounts,
            lambda: world.cluster.save_accounts([account("kezek-q7", world)]),
            lambda: world.cluster.remove_accounts(["kezek-q7"]),
            lambda: world.cluster.usage(now - HOUR, now),
        ):
            with pytest.raises(Unreachable):
                work()
        mine = booked(world)
        world.cluster.create_reservation(mine)
        world.cluster.delete_reservation(mine.name)
        job = world.submit("kezek-q1", 1, 600)
        assert world.wait(lambda: world.running(job), 30)
    finally:
        world.start_accounting()
    assert world.wait(lambda: world.cluster.health().accounting, 30)
    # Accounting may not have heard of the job yet, and would let its account go.
    with pytest.raises(InUse):
        world.cluster.remove_accounts(["kezek-q1"])
    with pytest.raises(InUse):
        world.cluster.save_accounts([replace(account("kezek-q1", world), logins=frozenset())])
    assert world.logins[0] in accounts(world)["kezek-q1"].logins


def test_deleted_by_hand(world: World) -> None:
    mine = booked(world)
    world.cluster.create_reservation(mine)
    world.delete_reservation(mine.name)
    with pytest.raises(Missing):
        world.cluster.update_reservation(mine)
    world.cluster.create_reservation(mine)


def test_submit_needs_an_association(world: World) -> None:
    with pytest.raises((LabError, ClusterError), match="Invalid account"):
        world.submit("kezek-nobody", 1, 10)
