"""Which Debian mirror this machine uses, from its own apt sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from config.labs.errors import LabError


def debian_mirror(apt: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> str:
    """The URI from which the machine's own release comes; raises LabError when no source names one."""
    found = re.search(r'^VERSION_CODENAME="?(\w+)', os_release.read_text(encoding="utf-8"), re.MULTILINE)
    # The release's main suite alone: its security suite and third parties are other archives.
    suites = {found[1] if found else "", "stable", "oldstable"}
    for uri, suite, components in _sources(apt):
        if suite in suites and "main" in components:
            return uri.rstrip("/")
    raise LabError("No Debian mirror in %(apt)s: a source of this machine's release is needed.", {"apt": apt})


def _sources(apt: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(URI, suite, components) of every enabled binary source, in apt's order."""
    parts = apt / "sources.list.d"
    for file in (apt / "sources.list", *sorted(parts.glob("*.list"))):
        if file.exists():
            yield from _one_line(file.read_text(encoding="utf-8"))
    for file in sorted(parts.glob("*.sources")):
        yield from _deb822(file.read_text(encoding="utf-8"))


def _one_line(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[[^]]*]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if found:
            yield found[1], found[2], found[3].split()


def _deb822(text: str) -> Iterator[tuple[str, str, list[str]]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        # A line that starts with a blank continues the field above it.
        joined = re.sub(r"\n[ \t]+", " ", stanza)
        pairs = (line.split(":", 1) for line in joined.splitlines() if ":" in line)
        fields = {key.strip().lower(): value.split() for key, value in pairs}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield uri, suite, fields.get("components", [])
