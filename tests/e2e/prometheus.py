"""A real Prometheus on a private port that scrapes one site every second."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30
CONFIGURATION = """\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: kezek
    authorization: {{credentials: "{token}"}}
    static_configs: [{{targets: ["{target}"]}}]
"""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, promql: str) -> dict[frozenset[tuple[str, str]], float]:
        """The instant vector that an expression gives now: labels (with __name__) to value."""
        address = f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
        with _direct.open(address, timeout=10) as answer:
            data = json.load(answer)["data"]
        assert data["resultType"] == "vector", data
        return {frozenset(item["metric"].items()): float(item["value"][1]) for item in data["result"]}

    def scalar(self, promql: str) -> float | None:
        """The value of an expression that gives one sample, or None while it gives none."""
        values = list(self.query(promql).values())
        assert len(values) <= 1, values
        return values[0] if values else None

    def wait_for(self, promql: str, at_least: float, seconds: float) -> float:
        """The value of the expression once it has reached ``at_least``; fails after ``seconds``."""
        deadline, value = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            value = self.scalar(promql)
            if value is not None and value >= at_least:
                return value
            time.sleep(0.5)
        raise AssertionError(f"{promql} is {value} after {seconds} s, not {at_least}")


@contextmanager
def prometheus(folder: Path, target: str, token: str) -> Iterator[Prometheus]:
    """Debian's Prometheus, scraping ``target`` (host:port) until the block ends."""
    program = shutil.which("prometheus")
    assert program, "Prometheus is not installed (apt-get install prometheus)"
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(target=target, token=token))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")
            _wait_until_ready(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "Prometheus ended at once: see prometheus.log"
        try:
            with _direct.open(f"{server.url}/-/ready", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Prometheus was not ready in time")
