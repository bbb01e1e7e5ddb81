"""The outsider's checker: it agrees with the divider on 1,000 random periods and finds what was changed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from allocator.fairshare import check_division, document
from tests.fairshare_cases import large_case, random_case

SCRIPT = Path(check_division.__file__)


def test_it_agrees_on_a_thousand_random_periods() -> None:
    set_aside = fixed = served = 0
    for seed in range(1000):
        division = random_case(seed, size=24).divide()
        told = json.loads(json.dumps(document(division)))
        assert check_division.differences(told) == [], seed
        set_aside += len(division.set_aside)
        fixed += len(division.fixed)
        served += sum(gone.served > 0 for gone in division.set_aside.values())
    # The random periods do visit every rule.
    assert min(set_aside, fixed) > 300
    assert served > 0


def test_it_agrees_on_a_real_size() -> None:
    division = large_case(400, minimums=True).divide()
    assert division.set_aside
    assert check_division.differences(json.loads(json.dumps(document(division)))) == []


def test_it_finds_what_was_changed(tmp_path: Path) -> None:
    told = json.loads(json.dumps(document(random_case(7).divide())))
    victim = max(told["shares"], key=told["shares"].get)
    told["shares"][victim] -= 1
    path = tmp_path / "division.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    answer = subprocess.run([sys.executable, "-I", SCRIPT, path], capture_output=True, text=True)
    assert answer.returncode == 1
    assert f"share of {victim}: published" in answer.stdout


def test_it_runs_alone_and_says_identical(tmp_path: Path) -> None:
    path = tmp_path / "division.json"
    path.write_text(json.dumps(document(random_case(7).divide())), encoding="utf-8")
    copy = tmp_path / "check.py"
    copy.write_bytes(SCRIPT.read_bytes())
    answer = subprocess.run([sys.executable, "-I", "-S", copy, path], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "identical\n")


def test_it_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    said: list[str] = []
    assert check_division.main([str(tmp_path / "none.json")], said.append) == 2
    (tmp_path / "empty.json").write_text("{}", encoding="utf-8")
    assert check_division.main([str(tmp_path / "empty.json")], said.append) == 2
    assert check_division.main([], said.append) == 2
    assert ["FileNotFoundError" in said[0], "KeyError" in said[1], "usage" in said[2]] == [True] * 3


def test_it_says_how_it_is_used() -> None:
    said: list[str] = []
    assert check_division.main(["--help"], said.append) == 0
    assert "check_division.py FILE.json" in said[0]


def test_it_needs_the_standard_library_only() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {str(name).partition(".")[0] for name in names} <= sys.stdlib_module_names
