"""Outages, repairs and moves in words: what they are, and what happened to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from flask_babel import gettext

from allocator.history import Change
from allocator.models import Outage, OutageKind, Repair
from allocator.states import RepairState
from allocator.upkeep.node_names import fold
from config.i18n import N_
from web.states import FACES, Happening

KINDS = {OutageKind.MAINTENANCE: N_("Maintenance"), OutageKind.OUTAGE: N_("Outage")}
EVENTS = {
    "outage.drafted": (N_("Planned"), "neutral"),
    "outage.changed": (N_("Changed"), "neutral"),
    "outage.published": (N_("Published"), "good"),
    "outage.ended": (N_("Ended"), "ended"),
    "outage.cancelled": (N_("Called off"), "ended"),
    "repair.waiting": (N_("Asked for"), "waiting"),
    "repair.failed": (N_("Could not be worked out"), "bad"),
    "repair.proposed": (N_("Proposed"), "waiting"),
    "repair.applied": (N_("Applied"), "good"),
    "repair.discarded": (N_("Given up or replaced"), "ended"),
    "cluster.frozen": (N_("Frozen"), "attention"),
    "cluster.unfrozen": (N_("No longer frozen"), "good"),
    "cluster.nodes_announced": (N_("Nodes were announced"), "good"),
}


def kind_text(outage: Outage) -> str:
    """Maintenance or outage."""
    return str(gettext(KINDS[outage.kind]))


def nodes_text(outage: Outage) -> str:
    """Its nodes as a short list."""
    return fold(one.node.name for one in outage.nodes)


def repair_nodes(repair: Repair) -> str:
    """The nodes that a repair is about, where it is not an outage's."""
    return fold(repair.details.get("nodes", ()))


def title(outage: Outage) -> str:
    """How links call it."""
    return str(gettext("%(kind)s %(number)s", kind=kind_text(outage), number=outage.id))


def timeline(changes: Iterable[Change]) -> list[Happening]:
    """Events as the timeline macro takes them."""
    return [_happening(change) for change in changes]


def _happening(change: Change) -> Happening:
    label, tone = EVENTS.get(change.kind, (change.kind, "neutral"))
    if change.kind == "repair.discarded":
        label, tone = FACES[discarded(change.after, change.by is not None)]
    who = change.by or gettext("Kezek itself")
    return Happening(gettext(label), change.at, who, gettext(change.reason) if change.reason else "", tone)


def repair_state(repair: Repair) -> str:
    """The state that a repair is shown in: one that was discarded says whether anybody gave it up."""
    if repair.state is not RepairState.DISCARDED:
        return repair.state.value
    return discarded(repair.details, repair.decided_by_id is not None)


def discarded(facts: Mapping[str, Any], by_a_person: bool) -> str:
    """What became of a repair that was discarded, by its details or its event."""
    if facts.get("replaced_by"):
        return "replaced"
    return RepairState.DISCARDED.value if by_a_person else "unneeded"


def expected_until(repair: Repair) -> datetime | None:
    """When failed nodes are taken to be back."""
    text = repair.details.get("until")
    return datetime.fromisoformat(text) if text else None
