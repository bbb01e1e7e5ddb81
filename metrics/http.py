"""How long the web takes to answer, by view and status; counted in each web process, added up at a scrape."""

import os

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_registry = CollectorRegistry()
_seconds = Histogram(
    "kezek_http_request_duration_seconds",
    "How long answering took, by view, method and class of status.",
    ("view", "method", "status"),
    registry=_registry,
    buckets=BUCKETS,
)

METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"})


def observe(view: str | None, method: str, status: int, seconds: float) -> None:
    """Count one answer. Labels stay bounded: unknown addresses share a view, unknown methods a name."""
    _seconds.labels(view or "none", method if method in METHODS else "other", f"{status // 100}xx").observe(
        seconds
    )


def latencies() -> str:
    """The histogram of all web processes as text."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(_registry).decode()
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return generate_latest(together).decode()
