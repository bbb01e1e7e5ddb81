"""Slurm's answers as text, made into data: pure functions, the same for 22.05 and 26.05.

Times arrive as epoch seconds, because every command runs with ``SLURM_TIME_FORMAT=%s``; anything else is
Garbled
and never guessed at, since a time in an unknown zone would be wrong by hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from scheduler.clusters.base import JobUsage, Node, NodeState, Partition, Reservation, UsageReading
from scheduler.clusters.readback import Held

# A value may hold spaces (OS=Linux 6.1 #1 SMP, Reason=…), so the next key is what ends it.
_KEY = re.compile(r"(?:^| )([A-Z][A-Za-z_:]*)=")
_GRES = re.compile(r"gpu(?::(?P<type>[A-Za-z][\w.-]*))?(?::(?P<count>\d+))?(?:\(.*)?")
_HOST_RANGE = re.compile(r"(?P<low>\d+)(?:-(?P<high>\d+))?")
# What Slurm prints where there is nothing.
_NOTHING = frozenset({"", "(null)", "N/A", "none", "None", "Unknown"})
_MOST_HOSTS = 100_000
_AWAY = {"DOWN", "FAIL", "FAILING", "ERROR", "UNKNOWN", "INVAL", "INVALID", "INVALID_REG", "FUTURE"}
_SILENT = {"NOT_RESPONDING", "NO_RESPOND"}
SAMPLES = 5

USAGE_FIELDS = "jobidraw,submit,user,account,state,start,end,elapsedraw,alloctres,reservation,reservationid"


class Unreadable(ValueError):
    """A text that is not what Slurm prints; adapters make a Garbled of it."""


def expand_hosts(text: str) -> list[str]:
    """``gpu[0001-0003,7],login1`` as single names in their order; raises Unreadable."""
    if text in _NOTHING:
        return []
    names: list[str] = []
    for part in _split_outside_brackets(text):
        names += _expand(part)
        if len(names) > _MOST_HOSTS:
            raise Unreadable(f"too many hosts: {text[:80]}")
    return names


def _split_outside_brackets(text: str) -> Iterator[str]:
    depth, begin = 0, 0
    for index, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if not 0 <= depth <= 1:
            raise Unreadable(f"brackets: {text[:80]}")
        if char == "," and depth == 0:
            yield text[begin:index]
            begin = index + 1
    if depth:
        raise Unreadable(f"brackets: {text[:80]}")
    yield text[begin:]


def _expand(part: str) -> list[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        if not part:
            raise Unreadable("an empty host name")
        return [part]
    inside, _, tail = rest.partition("]")
    # The tail may have brackets of its own: rack[1-2]node[1-4].
    tails = _expand(tail) if tail else [""]
    return [f"{head}{number}{end}" for number in _numbers(inside) for end in tails]


def _numbers(inside: str) -> list[str]:
    numbers: list[str] = []
    for item in inside.split(","):
        match = _HOST_RANGE.fullmatch(item)
        if match is None:
            raise Unreadable(f"not a range of hosts: {item!r}")
        low, high = match["low"], match["high"] or match["low"]
        if not 0 <= int(high) - int(low) < _MOST_HOSTS:
            raise Unreadable(f"not a range of hosts: {item!r}")
        # Leading zeros belong to the name: 0008-0011 goes on as 0010.
        numbers += [f"{number:0{len(low)}}" for number in range(int(low), int(high) + 1)]
    return numbers


def fields(line: str) -> dict[str, str]:
    """One line of ``scontrol -o`` as its keys and values; of a key that comes twice the first counts.

    The first, because free text (a node's reason) stands behind what matters and could imitate it.
    """
    found: dict[str, str] = {}
    marks = list(_KEY.finditer(line))
    ends = [mark.start() for mark in marks[1:]] + [len(line)]
    for mark, end in zip(marks, ends, strict=False):
        found.setdefault(mark[1], line[mark.end() : end].strip())
    return found


def value(record: dict[str, str], key: str) -> str:
    """A value that must be there; raises Unreadable."""
    if key not in record:
        raise Unreadable(f"no {key} in {record}"[:300])
    return record[key]


def time_of(text: str) -> datetime | None:
    """Epoch seconds as a time, None where Slurm says that there is none; raises Unreadable."""
    if text in _NOTHING:
        return None
    if not text.isdecimal() or len(text) > 11:
        raise Unreadable(f"not a time in epoch seconds: {text[:40]!r}")
    return datetime.fromtimestamp(int(text), UTC)


def gpus_of_gres(text: str) -> tuple[str, int]:
    """``gpu:h200:8(S:0-1)`` as type and count: the commonest type of a node that has several; ("", 0)
    without GPUs."""
    counts: dict[str, int] = {}
    # Commas inside parentheses (S:0,2) do not separate.
    for item in re.split(r",(?![^(]*\))", text):
        match = _GRES.fullmatch(item)
        if match:
            kind = match["type"] or "gpu"
            counts[kind] = counts.get(kind, 0) + int(match["count"] or 1)
    return max(counts.items(), key=lambda item: item[1], default=("", 0))


def gpus_of_tres(text: str) -> int:
    """GPUs of ``cpu=8,gres/gpu=4,gres/gpu:h200=4``: the plain count, of which the typed ones are parts.

    Raises Unreadable for a count that is no number.
    """
    plain, typed = None, 0
    for item in text.split(","):
        name, _, count = item.partition("=")
        if name == "gres/gpu" or name.startswith("gres/gpu:"):
            if not count.isdecimal():
                raise Unreadable(f"not a number of GPUs: {item!r}")
            if name == "gres/gpu":
                plain = int(count)
            else:
                typed += int(count)
    return typed if plain is None else plain


def node_state(text: str) -> NodeState:
    """``IDLE+DRAIN``, ``DOWN*``, ``MIXED``: whether jobs can start on it."""
    words = set(text.rstrip("*~#!%$@^-").split("+"))
    if words & _AWAY or words & _SILENT or "*" in text:
        return NodeState.DOWN
    return NodeState.DRAINED if words & {"DRAIN", "DRAINED", "DRAINING"} else NodeState.UP


def nodes(output: str) -> list[Node]:
    """``scontrol -o show nodes``: those with GPUs, by name."""
    found = []
    for record in records(output, "NodeName"):
        kind, gpus = gpus_of_gres(record.get("Gres", ""))
        if gpus:
            partitions = tuple(filter(None, record.get("Partitions", "").split(",")))
            reason = record.get("Reason", "")
            state = node_state(value(record, "State"))
            found.append(Node(record["NodeName"], partitions, kind, gpus, state, reason))
    return sorted(found, key=lambda node: node.name)


def leaves(output: str) -> dict[str, str]:
    """``scontrol show topology``: the leaf switch (or the block) of each node that is under one.

    What is no line of such a switch is passed over: where there is no topology, releases say so differently.
    """
    found: dict[str, str] = {}
    for line in output.splitlines():
        record = fields(line) if "Name=" in line else {}
        leaf = record.get("SwitchName") if record.get("Level") == "0" else record.get("BlockName")
        if leaf:
            found |= dict.fromkeys(expand_hosts(record.get("Nodes", "")), leaf)
    return found


def partitions(output: str) -> list[Partition]:
    """``scontrol -o show partition``, by name."""
    found = []
    for record in records(output, "PartitionName"):
        total = value(record, "TotalNodes")
        if not total.isdecimal():
            raise Unreadable(f"not a number of nodes: {total!r}")
        found.append(Partition(record["PartitionName"], int(total), record.get("Default") == "YES"))
    return sorted(found, key=lambda partition: partition.name)


def reservation(record: dict[str, str]) -> Reservation:
    """One reservation; a GPU count where the cluster tells it (``TRES=…,gres/gpu=8``), spread over its
    nodes."""
    names = tuple(expand_hosts(value(record, "Nodes")))
    starts, ends = time_of(value(record, "StartTime")), time_of(value(record, "EndTime"))
    if starts is None or ends is None:
        raise Unreadable(f"no times: {record}"[:300])
    accounts = record.get("Accounts", "")
    flags = record.get("Flags", "").split(",")
    gpus = gpus_of_tres(record.get("TRES", ""))
    return Reservation(
        name=value(record, "ReservationName"),
        starts_at=starts,
        ends_at=ends,
        nodes=names,
        accounts=() if accounts in _NOTHING else tuple(accounts.split(",")),
        gpus_per_node=gpus // len(names) if gpus and names else None,
        maintenance="MAINT" in flags,
    )


def reservations(output: str) -> list[Held]:
    """``scontrol -o show reservation``, by name."""
    found = [
        Held(reservation(record), "OVERLAP" in record.get("Flags", "").split(","))
        for record in records(output, "ReservationName")
    ]
    return sorted(found, key=lambda held: held.reservation.name)


def shapes(output: str) -> list[tuple[int, int]]:
    """``scontrol -o show node``: how many CPUs and GPUs each has."""
    found = []
    for record in records(output, "NodeName"):
        cpus = value(record, "CPUTot")
        if not cpus.isdecimal():
            raise Unreadable(f"not a number of CPUs: {cpus!r}")
        found.append((int(cpus), gpus_of_gres(record.get("Gres", ""))[1]))
    return found


def records(output: str, key: str) -> list[dict[str, str]]:
    """Every line as a record that has ``key``; raises Unreadable for another, except where there is
    nothing."""
    found = []
    for line in output.splitlines():
        # "No reservations in the system" comes with rc 0 on standard output.
        if line.strip() and not line.startswith("No "):
            record = fields(line)
            value(record, key)
            found.append(record)
    return found


@dataclass(frozen=True)
class Run:
    """A run, and the number of its reservation, which has a name in ``job`` only where sacct found one."""

    job: JobUsage
    reservation_id: int


def usage(output: str, reading: UsageReading) -> list[Run]:
    """The runs of ``sacct -P -n -o USAGE_FIELDS`` that have GPUs and have begun; what cannot be read is
    counted."""
    runs = []
    for line in output.splitlines():
        if not line.strip():
            continue
        try:
            run = usage_line(line)
        except ValueError:
            reading.bad_lines += 1
            if len(reading.samples) < SAMPLES:
                reading.samples.append(line[:200])
            continue
        if run is not None and run.job.gpus and run.job.started_at is not None:
            runs.append(run)
    return runs


def usage_line(line: str) -> Run | None:
    """One run, or None for one that never had anything; raises ValueError."""
    parts = line.split("|")
    if len(parts) != USAGE_FIELDS.count(",") + 1:
        raise Unreadable("not the fields asked for")
    job, submit, login, account, state, start, end, elapsed, tres, held, held_id = parts
    submitted = time_of(submit)
    if submitted is None or not job.isdecimal() or not elapsed.isdecimal() or not state:
        raise Unreadable("no job, submission, state or time")
    if not tres:
        return None
    started, ended = time_of(start), time_of(end)
    if started and ended and ended < started:
        raise Unreadable("ends before it starts")
    usage = JobUsage(
        job_id=int(job),
        submitted_at=submitted,
        login=login,
        account=account,
        # "CANCELLED by 1000": who did it is not a state.
        state=state.split()[0],
        started_at=started,
        ended_at=ended,
        elapsed_seconds=int(elapsed),
        gpus=gpus_of_tres(tres),
        reservation=None if held in _NOTHING else held,
    )
    return Run(usage, int(held_id) if held_id.isdecimal() else 0)


@dataclass(frozen=True)
class Period:
    """A reservation as accounting has it; numbers are used again in time, so the times count too."""

    number: int
    name: str
    starts_at: datetime | None
    ends_at: datetime | None


def periods(output: str) -> list[Period]:
    """``sacctmgr show reservation format=id,name,start,end``."""
    found = []
    for number, name, start, end in table(output, 4):
        if not number.isdecimal():
            raise Unreadable(f"not a reservation's number: {number!r}")
        found.append(Period(int(number), name, time_of(start), time_of(end)))
    return found


def named(runs: Iterable[Run], known: Sequence[Period]) -> list[JobUsage]:
    """The runs with the names that sacct leaves out: of jobs that began in the second that their
    reservation did."""
    return [replace(run.job, reservation=_name(run, known)) if _unnamed(run) else run.job for run in runs]


def any_unnamed(runs: Iterable[Run]) -> bool:
    """Whether a run has a reservation's number but not its name."""
    return any(_unnamed(run) for run in runs)


def _unnamed(run: Run) -> bool:
    return run.job.reservation is None and run.reservation_id != 0


def _name(run: Run, known: Sequence[Period]) -> str | None:
    at = run.job.started_at
    fitting = [
        period.name
        for period in known
        if period.number == run.reservation_id
        and (period.starts_at is None or at is None or period.starts_at <= at)
        and (period.ends_at is None or at is None or at <= period.ends_at)
    ]
    # Two different names would be a guess.
    return fitting[0] if len(set(fitting)) == 1 else None


def table(output: str, columns: int) -> list[list[str]]:
    """``sacctmgr -n -P show …``: rows of exactly so many columns; raises Unreadable."""
    rows = [line.split("|") for line in output.splitlines() if line.strip()]
    for row in rows:
        if len(row) != columns:
            raise Unreadable(f"not {columns} columns: {'|'.join(row)[:200]}")
    return rows
