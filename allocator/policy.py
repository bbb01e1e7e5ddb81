"""The policy file as typed data: what a site decides, with a version that every decision records."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any


class Identity(StrEnum):
    """What an applicant of a category must have proved: a person's IIN or an organisation's BIN (R-32)."""

    IIN = "iin"
    BIN = "bin"


@dataclass(frozen=True)
class Category:
    """Who rents: ``titles`` and ``hints`` by language."""

    slug: str
    identity: Identity
    titles: Mapping[str, str]
    hints: Mapping[str, str]


@dataclass(frozen=True)
class ApplicationLimits:
    max_gpu_hours: int
    max_team: int
    max_ahead: timedelta
    max_window: timedelta


@dataclass(frozen=True)
class BookingRules:
    """Lengths of bookings, how far ahead one may book, and how soon before its start Slurm is told."""

    min_length: timedelta
    max_length: timedelta
    max_ahead: timedelta
    materialise: timedelta
    lead_time: timedelta


@dataclass(frozen=True)
class Policy:
    """One version of the rules; ``version`` is the file's date and the start of its SHA-256."""

    version: str
    categories: tuple[Category, ...]
    applications: ApplicationLimits
    bookings: BookingRules

    def category(self, slug: str) -> Category | None:
        return next((category for category in self.categories if category.slug == slug), None)


def load_policy(path: Path | None = None) -> Policy:
    """Read the policy at ``path``, or the shipped one."""
    content = path.read_bytes() if path else resources.files("config").joinpath("policy.toml").read_bytes()
    data = tomllib.loads(content.decode())
    effective: date = data["effective"]
    applications, bookings = data["applications"], data["bookings"]
    return Policy(
        version=f"{effective.isoformat()}-{hashlib.sha256(content).hexdigest()[:12]}",
        categories=tuple(_category(slug, values) for slug, values in data["categories"].items()),
        applications=ApplicationLimits(
            max_gpu_hours=applications["max_gpu_hours"],
            max_team=applications["max_team"],
            max_ahead=timedelta(days=applications["max_ahead_days"]),
            max_window=timedelta(days=applications["max_window_days"]),
        ),
        bookings=BookingRules(
            min_length=timedelta(minutes=bookings["min_minutes"]),
            max_length=timedelta(days=bookings["max_days"]),
            max_ahead=timedelta(days=bookings["max_ahead_days"]),
            materialise=timedelta(days=bookings["materialise_days"]),
            lead_time=timedelta(minutes=bookings["lead_minutes"]),
        ),
    )


def _category(slug: str, values: Mapping[str, Any]) -> Category:
    return Category(slug, Identity(values["identity"]), values["title"], values["hint"])
