"""Slurm's texts made into data: what Slurm 22.05.8 and 26.05.5 printed (`slurm/*.txt`), and broken ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.clusters import slurm_text as text
from scheduler.clusters.base import (
    ClusterError,
    Conflict,
    Exists,
    InUse,
    Missing,
    NodeState,
    Partition,
    Refused,
    Unreachable,
    UsageReading,
)
from scheduler.clusters.slurm_tools import error_for

OUTPUTS = Path(__file__).with_name("slurm")
NODE_22, RESERVATION_22, RESERVATION_26, PARTITION = (
    (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")
    for name in ("node-22.05", "reservation-22.05", "reservation-26.05", "partition-26.05")
)
TRES = "billing=1,cpu=1,gres/gpu:h200=4,gres/gpu=4,mem=1000M,node=1"
REQUEUED = f"1|1795303978|games|kezek-c2|REQUEUED|1795303979|1795303983|4|{TRES}||"
AGAIN = f"1|1795303983|games|kezek-c2|RUNNING|1795304105|Unknown|24|{TRES}|kezek-7|7"
CANCELLED = f"2|1795303978|games|kezek-c2|CANCELLED by 0|1795303979|1795304058|79|{TRES}||5"
PENDING = "3|1795303978|games|kezek-c2|PENDING|Unknown|Unknown|0|||"


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# Hosts


@pytest.mark.parametrize(
    ("packed", "names"),
    [
        ("gpu0001", ["gpu0001"]),
        ("gpu[0001-0003]", ["gpu0001", "gpu0002", "gpu0003"]),
        ("gpu[0001,0004],login1", ["gpu0001", "gpu0004", "login1"]),
        ("gpu[0008-0011,0020]", ["gpu0008", "gpu0009", "gpu0010", "gpu0011", "gpu0020"]),
        ("gpu[9-11]", ["gpu9", "gpu10", "gpu11"]),
        ("rack[1-2]node[1-2]", ["rack1node1", "rack1node2", "rack2node1", "rack2node2"]),
        ("gpu[1-2]-ib", ["gpu1-ib", "gpu2-ib"]),
        ("(null)", []),
        ("", []),
    ],
)
def test_hosts(packed: str, names: list[str]) -> None:
    assert text.expand_hosts(packed) == names


@pytest.mark.parametrize(
    "broken",
    ["gpu[1", "gpu1]", "gpu[[1]]", "gpu[a-b]", "gpu[3-1]", "gpu[]", "a,,b", "gpu[1-999999999]", ",", "]["],
)
def test_hosts_that_are_none(broken: str) -> None:
    with pytest.raises(text.Unreadable):
        text.expand_hosts(broken)


@given(
    st.lists(st.integers(0, 300), min_size=1, unique=True), st.integers(1, 5), st.sampled_from(["", "-ib"])
)
def test_hosts_packed_anyhow_come_back(numbers: list[int], width: int, tail: str) -> None:
    numbers.sort()
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [
        f"{run[0]:0{width}}-{run[-1]:0{width}}" if len(run) > 1 else f"{run[0]:0{width}}" for run in runs
    ]
    expected = [f"gpu{number:0{width}}{tail}" for number in numbers]
    assert text.expand_hosts(f"gpu[{','.join(parts)}]{tail}") == expected
    assert text.expand_hosts(",".join(expected)) == expected


@given(st.text(alphabet="gpu01[]-, ", max_size=20))
@example("gpu[1-2],")
def test_hosts_never_fail_otherwise(packed: str) -> None:
    try:
        names = text.expand_hosts(packed)
    except text.Unreadable:
        return
    assert all("[" not in name and "," not in name for name in names)


# Nodes and partitions


def test_node() -> None:
    (node,) = text.nodes(NODE_22 + "\n")
    assert (node.name, node.partitions, node.gpu_type, node.gpus) == ("gpu0001", ("gpu", "all"), "h200", 8)
    # The reason cannot pretend to be the state.
    assert node.state is NodeState.DRAINED
    assert node.reason.startswith("fan failed")


def test_node_without_gpus_is_none_of_ours() -> None:
    assert text.nodes(NODE_22.replace("Gres=gpu:h200:8", "Gres=(null)")) == []


def test_node_without_state() -> None:
    with pytest.raises(text.Unreadable):
        text.nodes("NodeName=gpu0001 Gres=gpu:h200:8")


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:h200:8", ("h200", 8)),
        ("gpu:h200:8(S:0-1)", ("h200", 8)),
        ("gpu:h200:4(S:0,2),gpu:a100:2(S:1),nvme:1", ("h200", 4)),
        ("gpu:4", ("gpu", 4)),
        ("gpu", ("gpu", 1)),
        ("nvme:1", ("", 0)),
        ("(null)", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_gres(gres: str, found: tuple[str, int]) -> None:
    assert text.gpus_of_gres(gres) == found


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("IDLE", NodeState.UP),
        ("MIXED", NodeState.UP),
        ("ALLOCATED", NodeState.UP),
        ("IDLE+PLANNED", NodeState.UP),
        ("IDLE+CLOUD+POWERED_DOWN", NodeState.UP),
        ("IDLE+DRAIN", NodeState.DRAINED),
        ("ALLOCATED+DRAIN", NodeState.DRAINED),
        ("DOWN+DRAIN", NodeState.DOWN),
        ("DOWN*", NodeState.DOWN),
        ("IDLE*", NodeState.DOWN),
        ("IDLE*+DRAIN", NodeState.DOWN),
        ("IDLE+NOT_RESPONDING", NodeState.DOWN),
        ("INVAL", NodeState.DOWN),
        ("UNKNOWN", NodeState.DOWN),
        ("FUTURE", NodeState.DOWN),
    ],
)
def test_node_state(words: str, state: NodeState) -> None:
    assert text.node_state(words) is state


def test_partition() -> None:
    assert text.partitions(PARTITION) == [Partition("gpu", 4, True)]


# Reservations


def test_reservation_of_whole_nodes() -> None:
    (held,) = text.reservations(RESERVATION_22)
    found = held.reservation
    assert (found.name, found.nodes, found.accounts) == ("kezek-1", ("gpu0001", "gpu0002"), ("kezek-a1",))
    assert (found.starts_at, found.ends_at) == (at(1795307699), at(1795311299))
    assert found.gpus_per_node is None
    assert not held.shared


def test_reservation_of_parts_of_nodes() -> None:
    (held,) = text.reservations(RESERVATION_26)
    assert held.reservation.gpus_per_node == 4
    assert held.reservation.accounts == ("kezek-c1", "kezek-c2")
    assert held.shared


def test_no_reservations() -> None:
    assert text.reservations("No reservations in the system\n") == []


@pytest.mark.parametrize("wrong", ["2026-11-22T00:00:00", "yesterday", "-5", "99999999999999"])
def test_reservation_with_another_kind_of_time(wrong: str) -> None:
    with pytest.raises(text.Unreadable):
        text.reservations(RESERVATION_22.replace("1795307699", wrong))


def test_reservation_lines_that_are_none() -> None:
    with pytest.raises(text.Unreadable):
        text.reservations("slurm_load_reservations error: something new")


# Usage


def test_usage_of_runs() -> None:
    reading = UsageReading()
    first, again, cancelled = text.usage("\n".join([REQUEUED, AGAIN, CANCELLED, PENDING, ""]), reading)
    assert reading.bad_lines == 0
    assert (first.job.submitted_at, again.job.submitted_at) == (at(1795303978), at(1795303983))
    assert (first.job.gpus, first.job.gpu_seconds) == (4, 16)
    assert (again.job.ended_at, again.job.reservation) == (None, "kezek-7")
    assert cancelled.job.state == "CANCELLED"


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        REQUEUED + "|more",
        REQUEUED.replace("1795303978", "2026-11-21T23:32:58"),
        REQUEUED.replace("gres/gpu=4", "gres/gpu=many"),
        REQUEUED.replace("|4|", "|-4|"),
        REQUEUED.replace("1795303983", "1795303970"),
        REQUEUED.replace("REQUEUED", ""),
        "\ufffd" + REQUEUED,
    ],
)
def test_usage_lines_that_cannot_be_read_are_counted(line: str) -> None:
    reading = UsageReading()
    (kept,) = text.usage(f"{line}\n{AGAIN}", reading)
    assert kept.job.job_id == 1
    assert (reading.bad_lines, reading.samples) == (1, [line[:200]])


def test_samples_are_few() -> None:
    reading = UsageReading()
    text.usage("x\n" * 100, reading)
    assert (reading.bad_lines, len(reading.samples)) == (100, text.SAMPLES)


@given(st.text(max_size=60))
def test_usage_never_fails(line: str) -> None:
    reading = UsageReading()
    runs = text.usage(line, reading)
    lines = [one for one in line.splitlines() if one.strip()]
    assert len(runs) + reading.bad_lines <= len(lines)


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [(TRES, 4), ("cpu=1,mem=1G", 0), ("gres/gpu:h200=2,gres/gpu:a100=1", 3), ("", 0), ("gres/gpu=0", 0)],
)
def test_gpus_are_counted_once(tres: str, gpus: int) -> None:
    assert text.gpus_of_tres(tres) == gpus


def test_names_that_sacct_leaves_out() -> None:
    runs = text.usage("\n".join([REQUEUED, AGAIN, CANCELLED]), UsageReading())
    assert text.any_unnamed(runs)
    known = text.periods(
        "4|kezek-4|1795303000|1795304000\n"
        "5|kezek-5|1795303979|1795304979\n"
        # The number was used before, long ago.
        "5|kezek-old|1790000000|1790001000\n"
    )
    assert [job.reservation for job in text.named(runs, known)] == [None, "kezek-7", "kezek-5"]


def test_names_are_not_guessed() -> None:
    runs = text.usage(CANCELLED, UsageReading())
    known = text.periods("5|kezek-5|1795303979|1795304979\n5|kezek-6|1795303979|1795304979\n")
    assert text.named(runs, known)[0].reservation is None
    assert text.named(runs, [])[0].reservation is None


def test_table_of_other_columns() -> None:
    with pytest.raises(text.Unreadable):
        text.table("a|b\na|b|c\n", 2)


# What the tools say when they fail


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error creating the reservation: Requested reservation overlaps with another reservation", Conflict),
        ("Error creating the reservation: Requested nodes are busy", Conflict),
        ("Error creating the reservation: Duplicate reservation name", Exists),
        ("delete_reservation kezek-1: Requested reservation is in use", InUse),
        ("Error with request: Job(s) active, cancel job(s) before remove", InUse),
        ("delete_reservation reservation: Requested reservation is invalid", Missing),
        ("Reservation kezek-99 not found", Missing),
        ("Invalid account or account/partition combination specified", Refused),
        ("Error creating the reservation: Invalid node name specified", Refused),
        ("Error creating the reservation: Invalid time specified", Refused),
        ("slurm_update error: Reservation already started", Refused),
        ("slurm_update error: Access/permission denied", Refused),
        ("scontrol: error: TRES type 'gres/gpu' not supported with reservations", Refused),
        ("slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)", Unreachable),
        ("scontrol: error: Unexpected message received", Unreachable),
        ("Slurmctld(primary) at vm is DOWN", Unreachable),
        (
            "sacctmgr: error: failed to open persistent connection to host:127.0.0.1: Connection refused",
            Unreachable,
        ),
        ("sacct: error: Protocol authentication error", Unreachable),
        ("ssh: Could not resolve hostname login1: Name or service not known", Unreachable),
    ],
)
def test_errors(said: str, kind: type[ClusterError]) -> None:
    error = error_for("alem", said)
    assert type(error) is kind
    assert error.details == {"cluster": "alem", "output": said}
    assert "alem" in str(error)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2058, Conflict),
        (2016, Conflict),
        (2082, Exists),
        (2053, Missing),
        (2055, InUse),
        (1001, Unreachable),
        (1800, Unreachable),
        (2045, Refused),
        (2054, Refused),
        (9, Refused),
    ],
)
def test_errors_by_number(number: int, kind: type[ClusterError]) -> None:
    assert type(error_for("alem", "", number)) is kind


def test_the_leaf_switch_of_each_node_is_read() -> None:
    """A switch of switches is no leaf; blocks are; and no topology is none, however that is said."""
    tree = (
        "SwitchName=s0 Level=0 LinkSpeed=1 Nodes=gpu[0001-0002]\n"
        "SwitchName=s1 Level=0 LinkSpeed=1 Nodes=gpu0003 \n"
        "SwitchName=top Level=1 LinkSpeed=1 Nodes=gpu[0001-0003] Switches=s[0-1]\n"
    )
    assert text.leaves(tree) == {"gpu0001": "s0", "gpu0002": "s0", "gpu0003": "s1"}
    assert text.leaves("BlockName=b1 BlockIndex=0 Nodes=n[1-2] BlockSize=2\n") == {"n1": "b1", "n2": "b1"}
    for nothing in ("", "No topology information available\n", "SwitchName=x Level=0 LinkSpeed=1 Nodes=\n"):
        assert text.leaves(nothing) == {}
