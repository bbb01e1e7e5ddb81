"""The calendar: nodes over time, what is taken, free, out of service, in demand; pointing chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from flask import Blueprint, render_template, request, url_for
from flask.typing import ResponseReturnValue

from allocator import capacity, cluster_queries
from allocator.authorization import Action, require
from allocator.booking import calendar_queries
from allocator.booking.booking_checks import grid_of
from allocator.booking.calendar_queries import Own
from allocator.capacity import GpuType
from allocator.models import Cluster, Outage, Quota
from allocator.upkeep import outage_queries
from config.clock import utcnow
from web.booking import (
    calendar_drawing,
    calendar_grid,
    calendar_tables,
    calendar_words,
    offer_words,
)
from web.booking.booking_forms import LOCAL
from web.booking.calendar_drawing import Drawing, Row
from web.booking.calendar_grid import Cell, Group, NodeLine
from web.booking.calendar_tables import RowFacts
from web.booking.calendar_time import Edge, Span, Stretch, read_day, read_hour, read_moment, stretch
from web.identity import current_actor
from web.paging import Page, here, paginate_list
from web.policy import policy
from web.session import db, settings

bp = Blueprint("calendar", __name__)


class Choice(NamedTuple):
    """GPUs of one type on one cluster; `slug` is how the address names them."""

    cluster: Cluster
    gpu_type: GpuType

    @property
    def slug(self) -> str:
        return f"{self.cluster.slug}/{self.gpu_type.name}"


@dataclass(frozen=True)
class Asked:
    """What the address asks for; what makes no sense in it counts as the default."""

    choices: Sequence[Choice]
    choice: Choice
    quotas: Sequence[Quota]
    quota: Quota | None
    stretch: Stretch
    start: datetime | None
    table: bool


class Link(NamedTuple):
    """Where pointing at a cell leads; `ends`: it chooses the end of the window, else its start."""

    url: str
    label: str
    ends: bool


class Pointing:
    """What pointing at a cell means: the start of a window first, then its end."""

    def __init__(self, asked: Asked, now: datetime) -> None:
        self.asked, self.now = asked, now
        self.rules, self.zone = policy().bookings, settings().zone

    def start_of(self, edge: Edge) -> datetime:
        """Where a booking begins that is to begin in the cell."""
        start = edge.starts_at
        if self.asked.stretch.span is Span.MONTH:
            start = self._day_start(edge)
        soonest = self.now + self.rules.lead_time
        return start if start >= soonest else grid_of(self.rules).ceil(soonest)

    def end_of(self, edge: Edge) -> datetime:
        """Where one ends that is to end in the cell: days of booking end where the next ones begin."""
        if self.asked.stretch.span is Span.MONTH:
            return self._day_start(edge, 1)
        return edge.ends_at

    def _day_start(self, edge: Edge, days: int = 0) -> datetime:
        local = datetime.combine(edge.day + timedelta(days=days), self.rules.day_starts_at, self.zone)
        return local.astimezone(UTC)

    def link(self, cell: Cell) -> Link | None:
        """Where the cell leads, or None where nothing can begin or end."""
        quota, start = self.asked.quota, self.asked.start
        if quota is None or not cell.free_gpus or cell.edge.ends_at <= self.now:
            return None
        if start is not None and (end := self.end_of(cell.edge)) > start:
            if end - start > self.rules.max_length:
                return None
            return Link(self.form_url(start, end - start), calendar_words.end_label(cell, end), True)
        begin = self.start_of(cell.edge)
        if begin >= cell.edge.ends_at or begin > self.now + self.rules.max_ahead:
            return None
        if not quota.valid_from <= begin < quota.valid_until:
            return None
        address = here(start=self._local(begin)) + "#choose"
        return Link(address, calendar_words.start_label(cell, begin), False)

    def form_url(self, start: datetime, length: timedelta) -> str:
        """The booking form with the window filled in, and the shape that was applied for."""
        quota = self.asked.quota
        assert quota is not None
        return url_for(
            "bookings.new",
            quota_id=quota.id,
            edit=1,
            starts_at=self._local(start),
            hours=offer_words.hours(length),
            nodes=quota.application.nodes,
            gpus_per_node=quota.application.gpus_per_node,
        )

    def _local(self, moment: datetime) -> str:
        return moment.astimezone(self.zone).strftime(LOCAL)


@dataclass(frozen=True)
class Found:
    """What the database said about the stretch."""

    lines: Mapping[int, NodeLine]
    groups: Sequence[Group]
    own: Mapping[int, Own]
    outages: Mapping[int, Outage]
    demand: calendar_queries.Demand | None
    cells: Sequence[Cell]


@bp.get("/calendar")
def show() -> ResponseReturnValue:
    """A day, a week or a month (`?span=`, `?day=`) of one kind of GPUs, as a drawing or as `?view=table`.

    Today begins with the hour that runs, other days at midnight, or at `?hour=`.
    """
    actor, now = current_actor(), utcnow()
    require(actor, Action.APPLICATION_CREATE)
    asked = _read(now)
    if asked is None:
        return render_template("calendar/nothing.html")
    found = _find(asked, now)
    rows, group = _rows(found)
    drawing = None
    if not asked.table:
        drawing = calendar_drawing.draw(
            asked.stretch, found.cells, rows, found.own, now=now, chosen=asked.start
        )
    return _page(asked, found, rows, group, drawing, now)


def _page(
    asked: Asked,
    found: Found,
    rows: Sequence[Row],
    group: Group | None,
    drawing: Drawing | None,
    now: datetime,
) -> str:
    span, first = asked.stretch.span, asked.stretch.first
    pointing = Pointing(asked, now)
    links = [pointing.link(cell) for cell in found.cells]
    return render_template(
        "calendar/show.html",
        asked=asked,
        found=found,
        rows=rows,
        group=group,
        drawing=drawing,
        links=links,
        pointed=list(zip(found.cells, links, strict=True)),
        row_page=_row_page(asked, found, rows) if asked.table else None,
        form_url=pointing.form_url,
        earlier=span.before(first),
        later=span.after(first),
        today=now.astimezone(settings().zone).date(),
        spans=list(Span),
        words=calendar_words,
        rules=policy().bookings,
        now=now,
    )


def _row_page(asked: Asked, found: Found, rows: Sequence[Row]) -> Page[RowFacts]:
    """The rows in words, a page at a time: each has many windows."""
    page = paginate_list(rows, name="rows")
    facts = calendar_tables.facts(page.items, found.own, asked.stretch)
    return replace(cast(Page[Any], page), items=facts)


def _read(now: datetime) -> Asked | None:
    """What the address asks for; None when no cluster has shown any GPU yet."""
    clusters = cluster_queries.list_clusters(db())
    types = capacity.gpu_types_of(db(), [cluster.id for cluster in clusters])
    choices = [Choice(cluster, kind) for cluster in clusters for kind in types.get(cluster.id, [])]
    if not choices:
        return None
    own = calendar_queries.quotas_to_book(db(), current_actor(), now)
    choice = _chosen(choices, own)
    quotas = [q for q in own if (q.cluster_id, q.gpu_type) == (choice.cluster.id, choice.gpu_type.name)]
    number = request.args.get("quota")
    zone = settings().zone
    local = now.astimezone(zone)
    first = read_day(request.args.get("day"), local.date())
    # what is over is of no use to who books: on a narrow screen it would be all that is seen
    hour = read_hour(request.args.get("hour"), local.hour if first == local.date() else 0)
    span = next((span for span in Span if span.value == request.args.get("span")), Span.WEEK)
    return Asked(
        choices,
        choice,
        quotas,
        next((quota for quota in quotas if str(quota.id) == number), quotas[0] if quotas else None),
        stretch(span, first, zone, hour),
        read_moment(request.args.get("start"), zone),
        request.args.get("view") == "table",
    )


def _chosen(choices: Sequence[Choice], own: Sequence[Quota]) -> Choice:
    """The GPUs that the address names, else those of the newest quota, else the first."""
    named = next((choice for choice in choices if choice.slug == request.args.get("gpus")), None)
    if named is not None:
        return named
    wanted = [(quota.cluster_id, quota.gpu_type) for quota in own]
    mine = [choice for choice in choices if (choice.cluster.id, choice.gpu_type.name) in wanted[:1]]
    return mine[0] if mine else choices[0]


def _find(asked: Asked, now: datetime) -> Found:
    """Five queries, however many nodes there are."""
    cluster, kind, window = asked.choice.cluster, asked.choice.gpu_type.name, asked.stretch.window
    nodes = calendar_queries.nodes(db(), cluster, kind)
    slots = calendar_queries.taken(db(), cluster, kind, window)
    own = calendar_queries.own_bookings(db(), current_actor(), cluster, kind, window)
    demand = calendar_queries.demand(db(), cluster, kind)
    lines = calendar_grid.lines(nodes, slots, asked.stretch, now)
    return Found(
        lines,
        calendar_grid.groups(nodes) if len(nodes) > calendar_grid.MOST_ROWS else (),
        own,
        {outage.id: outage for outage in outage_queries.coming(db(), cluster, *window)},
        demand,
        calendar_grid.cells(lines, asked.stretch, set(own), demand),
    )


def _rows(found: Found) -> tuple[list[Row], Group | None]:
    """A row a node; of very many nodes a row a group, until one is opened (`?nodes=`)."""
    number = request.args.get("nodes")
    opened = next((group for group in found.groups if str(group.number) == number), None)
    if opened is not None:
        return calendar_drawing.rows_of_nodes([found.lines[node.id] for node in opened.nodes]), opened
    if found.groups:
        return calendar_drawing.rows_of_groups(found.groups, found.lines), None
    return calendar_drawing.rows_of_nodes(list(found.lines.values())), None
