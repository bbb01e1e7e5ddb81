"""The table at the end: adapter × operation × result, gathered from every contract test that ran."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

COLUMNS = ("simulated", "slurm_cli-22.05", "slurm_cli-26.05", "pyslurm-26.05")
_TEST = re.compile(
    r"test_clusters\.py::test_(?P<operation>\w+)\[.*?(?P<adapter>"
    + "|".join(map(re.escape, COLUMNS))
    + r")\b"
)
# Results that a test brings along from another process: (adapter, operation, outcome, seconds).
PROPERTY = "contract"


def collect(reports: Iterable[pytest.TestReport]) -> dict[tuple[str, str], str]:
    """(operation, adapter) → result, in words."""
    found: dict[tuple[str, str], tuple[str, float]] = {}

    def add(operation: str, adapter: str, outcome: str, seconds: float) -> None:
        # One row for all the examples of a test: the worst outcome, the time of all.
        before, spent = found.get((operation, adapter), ("passed", 0.0))
        found[operation, adapter] = (outcome if before == "passed" else before, spent + seconds)

    for report in reports:
        for name, brought in report.user_properties if report.when == "call" else ():
            if name == PROPERTY and isinstance(brought, list | tuple):
                adapter, operation, outcome, seconds = brought
                add(str(operation), str(adapter), str(outcome), float(seconds))
        match = _TEST.search(report.nodeid)
        # Setting up and tearing down count only where they fail.
        if match and (report.when == "call" or report.outcome != "passed"):
            add(match["operation"], match["adapter"], report.outcome, report.duration)
    return {key: _words(*result) for key, result in found.items()}


def _words(outcome: str, seconds: float) -> str:
    return f"{'ok' if outcome == 'passed' else outcome.upper()} {seconds:.1f} s"


def render(results: dict[tuple[str, str], str]) -> list[str]:
    """Markdown, so that it reads well in a terminal and anywhere else."""
    # As they stand in the file, in whatever order several workers finished them.
    source = Path(__file__).with_name("test_clusters.py").read_text(encoding="utf-8")
    ran = {operation for operation, _ in results}
    operations = [name for name in re.findall(r"^def test_(\w+)", source, re.MULTILINE) if name in ran]
    width = max(len(operation) for operation in operations)
    lines = [
        f"| {'operation':{width}} | " + " | ".join(f"{column:15}" for column in COLUMNS) + " |",
        f"|{'-' * (width + 2)}|" + "|".join("-" * 17 for _ in COLUMNS) + "|",
    ]
    for operation in operations:
        cells = [f"{results.get((operation, column), '–'):15}" for column in COLUMNS]
        lines.append(f"| {operation.replace('_', ' '):{width}} | " + " | ".join(cells) + " |")
    return lines


def show(reporter: pytest.TerminalReporter) -> None:
    """Print the table and write it to the file that KEZEK_CONTRACT_TABLE names."""
    reports = [report for found in reporter.stats.values() for report in found]
    results = collect(report for report in reports if isinstance(report, pytest.TestReport))
    if not results:
        return
    lines = render(results)
    reporter.section("the cluster contract")
    for line in lines:
        reporter.write_line(line)
    if path := os.environ.get("KEZEK_CONTRACT_TABLE"):
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
