"""Applications in words: what happened, what comes next, what is told of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask_babel import gettext

from allocator.history import Change
from allocator.models import Application, Organisation
from config.i18n import N_
from web.days import first_day, last_day
from web.formats import gpu_hours, number, when
from web.policy import category_title
from web.states import Happening

WHAT: Mapping[str, tuple[str, str]] = {
    "application.draft": (N_("Draft saved"), "neutral"),
    "application.revised": (N_("Draft changed"), "neutral"),
    "application.submitted": (N_("Submitted"), "waiting"),
    "application.approved": (N_("Approved"), "good"),
    "application.refused": (N_("Refused"), "bad"),
    "application.withdrawn": (N_("Withdrawn"), "ended"),
}
FEWER_HOURS = N_("Approved for fewer hours")
FIELDS: Mapping[str, str] = {
    "category": N_("Who applies"),
    "organisation_id": N_("Organisation"),
    "title": N_("Title"),
    "purpose": N_("What the hours are for"),
    "cluster_id": N_("Cluster and GPU type"),
    "gpu_type": N_("Cluster and GPU type"),
    "nodes": N_("Nodes at a time"),
    "gpus_per_node": N_("GPUs per node"),
    "gpu_seconds": N_("GPU-hours in all"),
    "earliest": N_("Earliest day"),
    "latest": N_("Latest day"),
    "team_size": N_("Team"),
}
KINDS: Mapping[str, str] = {
    "approved": N_("Approved"),
    "reduced": FEWER_HOURS,
    "refused": N_("Refused"),
}


def happenings(changes: Iterable[Change]) -> list[Happening]:
    """A timeline, newest first."""
    told = [
        Happening(_what(change), change.at, change.by or "Kezek", _why(change), _tone(change))
        for change in changes
    ]
    return told[::-1]


def _what(change: Change) -> str:
    if change.after.get("kind") == "reduced":
        return str(gettext(FEWER_HOURS))
    known = WHAT.get(change.kind)
    return str(gettext(known[0])) if known else change.kind


def _tone(change: Change) -> str:
    return WHAT[change.kind][1] if change.kind in WHAT else "neutral"


def _why(change: Change) -> str:
    """The reason that was given, or for a changed draft, which answers changed."""
    if change.reason or change.kind != "application.revised":
        return change.reason
    return ", ".join(dict.fromkeys(gettext(FIELDS[name]) for name in change.after if name in FIELDS))


def shape(application: Application) -> str:
    """`2 × 8 GPUs (H200)`."""
    text: str = gettext(
        N_("%(nodes)s × %(gpus)s GPUs (%(type)s)"),
        nodes=number(application.nodes),
        gpus=number(application.gpus_per_node),
        type=application.gpu_type.upper(),
    )
    return text


def window(application: Application) -> Any:
    """The first and the last day."""
    first, last = when(first_day(application.earliest)), when(last_day(application.latest))
    return first + " – " + last


def organisation_name(organisation: Organisation | None) -> str:
    """Name and BIN, or a dash for a citizen."""
    return f"{organisation.name} ({organisation.bin})" if organisation else "—"


def facts(application: Application) -> list[tuple[str, Any]]:
    """What was asked for, line by line."""
    team = [member.email for member in application.team]
    return [
        (gettext("Who applies"), category_title(application.category)),
        (gettext("Organisation"), organisation_name(application.organisation)),
        (gettext("What the hours are for"), application.purpose or "—"),
        (gettext("Cluster"), application.cluster.title),
        (gettext("At a time"), shape(application)),
        (gettext("GPU-hours in all"), gpu_hours(application.gpu_seconds)),
        (gettext("Between"), window(application)),
        (gettext("Team"), "\n".join(sorted(team)) or gettext("The applicant alone")),
    ]


HEADER = (
    N_("Number"),
    N_("State"),
    N_("Submitted (UTC)"),
    N_("Title"),
    N_("Who applies"),
    N_("Applicant"),
    N_("Organisation"),
    N_("BIN"),
    N_("Cluster"),
    N_("GPU type"),
    N_("Nodes"),
    N_("GPUs per node"),
    N_("GPU-hours asked for"),
    N_("GPU-hours approved"),
    N_("Earliest day"),
    N_("Latest day"),
)


def table_row(application: Application) -> list[object]:
    """One application as a row of a CSV file, in the order of `HEADER`; hours with two decimals and a dot."""
    organisation, decision = application.organisation, application.decision
    submitted = application.submitted_at
    return [
        application.id,
        application.state.value,
        submitted.isoformat(timespec="seconds") if submitted else "",
        application.title,
        category_title(application.category),
        application.applicant.name,
        organisation.name if organisation else "",
        organisation.bin if organisation else "",
        application.cluster.title,
        application.gpu_type,
        application.nodes,
        application.gpus_per_node,
        _plain_hours(application.gpu_seconds),
        _plain_hours(decision.gpu_seconds) if decision and decision.gpu_seconds else "",
        first_day(application.earliest).isoformat(),
        last_day(application.latest).isoformat(),
    ]


def _plain_hours(gpu_seconds: int) -> str:
    hundredths = (gpu_seconds * 100 + 1800) // 3600
    return f"{hundredths // 100}.{hundredths % 100:02}"
