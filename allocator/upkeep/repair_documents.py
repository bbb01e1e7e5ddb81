"""A repair's losses, affected bookings and variants as the JSON that its row keeps, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from allocator.booking.windows import Place
from allocator.capacity import FOREVER
from allocator.upkeep.mending import Change, ChangeKind, Loss, Variant


def losses_to_json(losses: Iterable[Loss]) -> list[list[Any]]:
    """Each as [node's number, since, until]; None: for good."""
    return [
        [loss.node_id, _text(loss.starts_at), None if loss.ends_at >= FOREVER else _text(loss.ends_at)]
        for loss in losses
    ]


def losses_from_json(rows: Iterable[list[Any]]) -> list[Loss]:
    return [
        Loss(node_id, datetime.fromisoformat(since), datetime.fromisoformat(until) if until else FOREVER)
        for node_id, since, until in rows
    ]


def affected_to_json(versions: Mapping[int, int]) -> dict[str, int]:
    """Bookings with their versions; JSON knows no numbers as keys."""
    return {str(number): version for number, version in versions.items()}


def affected_from_json(document: Mapping[str, int]) -> dict[int, int]:
    return {int(number): version for number, version in document.items()}


def variants_to_json(variants: Mapping[str, Variant]) -> dict[str, Any]:
    return {
        name: {"changes": [_change(change) for change in one.changes], "stuck": list(one.stuck)}
        for name, one in variants.items()
    }


def variants_from_json(document: Mapping[str, Any]) -> dict[str, Variant]:
    return {
        name: Variant(tuple(_read(change) for change in one["changes"]), tuple(one["stuck"]))
        for name, one in document.items()
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "booking": change.booking_id,
        "version": change.version,
        "kind": change.kind.value,
        "starts_at": _text(change.starts_at),
        "ends_at": _text(change.ends_at),
        "to_starts_at": _text(change.to_starts_at),
        "to_ends_at": _text(change.to_ends_at),
        "places": [[place.node_id, place.name, place.gpu_from, place.gpu_to] for place in change.places],
        "saves": change.saves,
    }


def _read(row: Mapping[str, Any]) -> Change:
    return Change(
        row["booking"],
        row["version"],
        ChangeKind(row["kind"]),
        datetime.fromisoformat(row["starts_at"]),
        datetime.fromisoformat(row["ends_at"]),
        datetime.fromisoformat(row["to_starts_at"]) if row["to_starts_at"] else None,
        datetime.fromisoformat(row["to_ends_at"]) if row["to_ends_at"] else None,
        tuple(Place(*place) for place in row["places"]),
        row["saves"],
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
