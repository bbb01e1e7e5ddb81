"""The only place that asks the machine what time it is; use cases are given `now`."""

from __future__ import annotations

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Now as an aware UTC datetime."""
    return datetime.now(UTC)
