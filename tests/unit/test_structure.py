"""The house holds together: who may import whom, how big things may get, what the README must say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from config.cli import GROUP
from config.settings import ClusterSettings, Settings

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "config": set[str](),
    "allocator": {"config"},
    "metrics": {"allocator", "config"},
    "scheduler": {"allocator", "metrics", "config"},
    "web": {"allocator", "metrics", "config"},
}
TOP_LEVEL = {*MAY_IMPORT, "tests", "setup.cfg", "README.md", "pyproject.toml", "Makefile", "LICENSE"}
LONGEST_FUNCTION = 60
LONGEST_MODULE = 500
USUAL_MODULE = 350


def modules(package: str) -> list[Path]:
    """A package's Python files, without migrations: those are records of what was done."""
    return sorted(path for path in (ROOT / package).rglob("*.py") if "versions" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays at home as long as it does not climb out of its package.
            assert node.level <= len(path.relative_to(ROOT).parts) - 1, path
            if node.level == 0 and node.module:
                yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_never_go_upward(package: str) -> None:
    forbidden = ({*MAY_IMPORT, "tests"} - MAY_IMPORT[package]) - {package}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in forbidden
    ]
    assert wrong == []


def test_the_domain_knows_no_web_and_no_slurm() -> None:
    outside = {"flask", "wtforms", "werkzeug", "apscheduler", "gunicorn", "pyslurm", "smtplib", "subprocess"}
    wrong = [(path.name, name) for path in modules("allocator") for name in imported(path) if name in outside]
    assert wrong == []


def test_pyslurm_is_imported_by_one_module_only() -> None:
    users = [path for package in MAY_IMPORT for path in modules(package) if "pyslurm" in set(imported(path))]
    assert len(users) <= 1


def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for package in MAY_IMPORT
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_modules_stay_small() -> None:
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for package in MAY_IMPORT
        for path in modules(package)
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_MODULE} == {}
    big = [name for name, count in lines.items() if count > USUAL_MODULE]
    assert len(big) <= len(lines) // 20, big


def test_every_function_says_what_it_returns() -> None:
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for package in MAY_IMPORT
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is None
    ]
    assert silent == []


def test_nothing_else_stands_at_the_top() -> None:
    tracked = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    # What runs and builds leave behind is ignored by git and no part of the house.
    assert tracked - TOP_LEVEL - {"var", "build", "dist", "kezek.egg-info"} == set()


def test_readme_documents_every_setting() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [*Settings.model_fields, *ClusterSettings.model_fields]
    assert [name for name in names if not re.search(rf"`{name}`|KEZEK_{name.upper()}\b", readme)] == []


def commands() -> Iterator[str]:
    """`kezek part` and `kezek part command`, as people type them."""
    for entry in entry_points(group=GROUP):
        command = entry.load()
        if isinstance(command, click.Group):
            yield from (f"kezek {entry.name} {name}" for name in command.commands)
        else:
            yield f"kezek {entry.name}"


def test_readme_documents_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in commands() if command not in readme] == []
