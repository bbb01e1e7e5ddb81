"""The divider against its goals A1 to A5: `make bench NAME=fairshare`.

Properties run at 500 examples each, with BENCH_PROPERTIES=1 at 10,000 (about twenty minutes). Exits with 1
when a goal is missed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator.fairshare import check_division, document, recompute
from allocator.fairshare.credit import CreditRules
from allocator.fairshare.what_if import Columns, what_if
from tests.benchmarks import _helios, _lexicographic
from tests.fairshare_cases import Case, large_case, random_case, shuffled, useful

PLOT = Path(__file__).parents[2] / ".cache" / "bench" / "fairshare-helios.svg"
PERIODS = 12
SIZES = (1_000, 10_000, 100_000, 1_000_000)

Row = tuple[str, ...]
TABLES: list[tuple[str, list[Row]]] = []
GOALS: list[Row] = [("goal", "asked", "measured", "verdict")]


def figure(name: str, value: str) -> None:
    print(f"{name}: {value}", flush=True)


def goal(name: str, asked: str, measured: str, held: bool) -> None:
    """A line of the table of goals, which comes first after the figures."""
    GOALS.append((name, asked, measured, "reached" if held else "MISSED"))


def load() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def against_the_optimum() -> None:
    worst = before = 0.0
    for seed in range(60):
        case = replace(random_case(seed, size=14, minimums=seed % 2 == 0), fixed={})
        rounded, exact = _lexicographic.distances(case, case.divide())
        worst, before = max(worst, rounded), max(before, exact)
    figure("largest distance from the lexicographic optimum, 60 instances", f"{worst:.4f} GPU-hours")
    figure("the same before rounding", f"{before:.1e} GPU-hours")
    goal("A1", "at most 1 GPU-hour from the lexicographic optimum", f"{worst:.4f} GPU-hours", worst <= 1)


def under_permutation() -> None:
    case = large_case(2_000, minimums=True)
    first, dice = case.divide(), random.Random(2)
    same = sum(shuffled(case, dice).divide() == first for _ in range(100))
    figure("identical results under 100 permutations of 2,000 claims", f"{same} of 100")
    goal("A1", "identical under any order of input", f"{same} of 100 permutations", same == 100)


def outsider() -> None:
    divisions = [random_case(seed).divide() for seed in range(1000)]
    agreed = sum(not check_division.differences(json.loads(json.dumps(document(one)))) for one in divisions)
    figure("stand-alone checker says identical", f"{agreed} of 1000 random periods")
    explained = [(one.explain(id), share) for one in divisions for id, share in one.shares.items()]
    right = sum(recompute(explanation) == share for explanation, share in explained)
    figure("explanations that recompute to their share", f"{right} of {len(explained)}")
    goal("A5", "every explanation recomputes", f"{right} of {len(explained)}", right == len(explained))
    goal("A5", "the stand-alone checker agrees", f"{agreed} of 1000 periods", agreed == 1000)


def inflation() -> None:
    """The most useful hours that any claim of 150 random periods gains by asking for more (A3)."""
    most, tries = -(10**9), 0
    for seed in range(150):
        case = replace(random_case(seed), fixed={})
        honest = case.divide().shares
        for claim in case.claims:
            for request, minimum in (
                (2 * claim.request, claim.minimum),
                (10 * claim.request + 5, claim.minimum),
                (2 * claim.request, claim.request),
                (claim.request, claim.request),
            ):
                changed = case.with_claim(replace(claim, request=request, minimum=minimum)).divide()
                gain = useful(changed.shares[claim.id], claim.request) - honest[claim.id]
                most, tries = max(most, gain), tries + 1
    figure(f"largest gain from inflating, {tries} tries", f"{most} useful GPU-hours")
    goal("A3", "gain from inflating at most 1 hour", f"{most} GPU-hours in {tries} tries", most <= 1)


def columns(case: Case, *, minimums: bool) -> Columns:
    places = {pool.name: place for place, pool in enumerate(case.pools)}
    return Columns(
        np.array([places[claim.pool] for claim in case.claims], dtype=np.int64),
        np.array([float(claim.request) for claim in case.claims]),
        np.array([float(claim.weight) for claim in case.claims]),
        np.array([float(claim.minimum) for claim in case.claims]) if minimums else None,
        _places(case) if minimums else None,
    )


def _places(case: Case) -> NDArray[np.int64]:
    """Each claim's place by rank; ranks of large cases all differ."""
    order = sorted(range(len(case.claims)), key=lambda place: case.claims[place].rank)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


def _peak() -> float:
    """MiB that this process has held at most; unlike ru_maxrss it does not count the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _timed(count: int, minimums: bool, exact: bool) -> tuple[float, float, float, int]:
    """Best seconds and CPU seconds of three runs (a million: one), MiB added, claims set aside."""
    case = large_case(count, minimums=minimums)
    prepared = None if exact else columns(case, minimums=minimums)
    held = _peak()
    best = busy = float("inf")
    gone = 0
    for _ in range(3 if count < 1_000_000 else 1):
        began, worked = time.perf_counter(), time.process_time()
        if prepared is None:
            gone = len(case.divide().set_aside)
        else:
            gone = int(what_if(case.capacity, case.pools, prepared).set_aside.sum())
        best, busy = min(best, time.perf_counter() - began), min(busy, time.process_time() - worked)
    return best, busy, _peak() - held, gone


def time_and_memory() -> None:
    rows: list[Row] = [
        ("claims", "arithmetic", "minimums", "seconds", "CPU seconds", "MiB more", "set aside", "load")
    ]
    context = multiprocessing.get_context("spawn")
    for count in SIZES:
        for exact in (True, False):
            for minimums in (False, True):
                # Its own process each time, so that the memory is this run's alone.
                with context.Pool(1) as pool:
                    seconds, busy, memory, gone = pool.apply(_timed, (count, minimums, exact))
                kind, steps = "exact" if exact else "floats", "with" if minimums else "without"
                figure(f"{count} claims, {kind}, {steps} minimums", f"{seconds:.4f} s")
                figure(f"{count} claims, {kind}, {steps} minimums, CPU", f"{busy:.4f} s")
                figure(f"{count} claims, {kind}, {steps} minimums, memory", f"{memory:.0f} MiB")
                if minimums and (count, exact) in ((10_000, True), (1_000_000, False)):
                    # CPU time, since machines are busy; with one process on a core it is the time passed.
                    name = f"{count} claims, {kind}, with minimums, at most 1 s"
                    goal("A2", name, f"{busy:.3f} s CPU, {seconds:.3f} s passed", busy <= 1)
                numbers = (f"{seconds:.4f}", f"{busy:.4f}", f"{memory:.0f}", str(gone), load())
                rows.append((str(count), kind, steps, *numbers))
    TABLES.append(("Time and memory", rows))


def helios() -> None:
    if not _helios.DATA.is_dir():
        print(f"The Helios replay is left out: there is no {_helios.DATA}")
        GOALS.append(("A4", "worst served/entitled at least 0.88, Helios", "no data", "left out"))
        return
    asked = _helios.demand(PERIODS)
    rows: list[Row] = [("capacity", "rule", "worst served/entitled", "Jain's index", "total GPU-hours")]
    for percent in (50, 60, 70, 80):
        capacity = sum(map(sum, asked.values())) * percent // 100 // PERIODS
        ways = {
            "levels, no credit": _helios.replay(asked, capacity, None),
            "levels, credit": _helios.replay(asked, capacity, CreditRules()),
            "levels, credit fading 10 % a period": _helios.replay(
                asked, capacity, CreditRules(decay=Fraction(9, 10))
            ),
            "pro rata": _helios.replay_by(_helios.pro_rata, asked, capacity),
            "biggest first": _helios.replay_by(_helios.biggest_first, asked, capacity),
        }
        total = sum(map(sum, ways["levels, no credit"].values()))
        found = {}
        for label, served in ways.items():
            found[label] = _helios.ratios(asked, served, total)
            index = _helios.jain([sum(hours) for hours in served.values()])
            worst, given = min(found[label].values()), sum(map(sum, served.values()))
            rows.append((f"{percent} %", label, f"{worst:.3f}", f"{index:.3f}", str(given)))
            if percent == 60:
                figure(f"Helios, {PERIODS} periods, {label}, worst served/entitled", f"{worst:.3f} ratio")
                figure(f"Helios, {PERIODS} periods, {label}, Jain's index", f"{index:.3f} index")
                figure(f"Helios, {PERIODS} periods, {label}, total", f"{given} GPU-hours")
        if percent == 60:
            del found["levels, credit fading 10 % a period"]
            _helios.plot(found, PLOT)
            print(f"plot: {PLOT} file")
            worst = min(found["levels, credit"].values())
            same = len(
                {sum(map(sum, ways[name].values())) for name in ("levels, no credit", "levels, credit")}
            )
            goal("A4", "worst served/entitled at least 0.88, Helios", f"{worst:.3f}", worst >= 0.88)
            goal("A4", "total served unchanged by credit", f"{total} GPU-hours", same == 1)
    TABLES.append((f"Helios, {PERIODS} periods, by capacity in % of demand", rows))
    _helios_doubling(asked)


def _helios_doubling(asked: dict[str, list[int]]) -> None:
    """Who doubles its requests in all periods: useful hours more under each rule, at 60 % (worst case)."""
    capacity = sum(map(sum, asked.values())) * 60 // 100 // PERIODS
    ways: dict[str, Callable[[_helios.Demand], dict[str, list[int]]]] = {
        "levels, no credit": lambda demand: _helios.replay(demand, capacity, None),
        "levels, credit": lambda demand: _helios.replay(demand, capacity, CreditRules()),
        "pro rata": lambda demand: _helios.replay_by(_helios.pro_rata, demand, capacity),
    }
    for label, way in ways.items():
        honest, gains = way(asked), []
        for vc in asked:
            doubled = way({**asked, vc: [2 * hours for hours in asked[vc]]})[vc]
            got = sum(map(useful, doubled, asked[vc]))
            gains.append(100 * (got / max(1, sum(honest[vc])) - 1))
        figure(f"Helios, doubling every request, {label}, largest gain", f"{max(gains):.1f} %")


def properties() -> None:
    nightly = os.environ.get("BENCH_PROPERTIES") == "1"
    examples = "10,000" if nightly else "500"
    began = time.perf_counter()
    tests = "tests/unit/test_fairshare_properties.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=3000", tests]
    profile = "nightly" if nightly else "kezek"
    run = subprocess.run(
        command, env={**os.environ, "HYPOTHESIS_PROFILE": profile}, capture_output=True, text=True
    )
    held = run.returncode == 0
    took = f"{time.perf_counter() - began:.0f} s"
    figure(f"all properties at {examples} examples", f"{'hold' if held else 'FAIL'} in {took}")
    goal("A3", f"every property at {examples} examples", run.stdout.strip().splitlines()[-1], held)
    if not held:
        print(run.stdout)


def main() -> int:
    figure("load average before", load())
    for part in (against_the_optimum, under_permutation, outsider, inflation, helios, time_and_memory):
        part()
    properties()
    figure("load average after", load())
    for title, rows in [("Goals", GOALS), *TABLES]:
        print(f"\n{title}")
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        for row in rows:
            print(
                "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            )
    return int(any(row[-1] == "MISSED" for row in GOALS))


if __name__ == "__main__":
    sys.exit(main())
