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
from allocator.booking.windows import Shape
from allocator.capacity import GpuType
from allocator.models import Cluster, Outage, Quota
from allocator.upkeep import outage_queries
from config.clock import utcnow
from web.booking import (
    calendar_drawing,
    calendar_grid,
    calendar_tables,
    calendar_through,
    calendar_words,
    offer_words,
)
from web.booking.booking_forms import LOCAL
from web.booking.calendar_drawing import Drawing, Row
from web.booking.calendar_grid import MOST_ROWS, Cell, Group, NodeLine, Room
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
        self.soonest = now + self.rules.lead_time

    def start_of(self, cell: Cell) -> datetime:
        """Where a booking begins that is to begin in the cell."""
        start = cell.edge.starts_at
        if cell.part:
            start = cell.part.starts_at
        elif self.asked.stretch.span is Span.MONTH:
            start = self._day_start(cell.edge)
        return grid_of(self.rules).ceil(max(start, self.soonest))

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
        if quota is None or cell.edge.ends_at <= self.now:
            return None
        if start is not None and cell.rooms is not None:
            end = self.end_of(cell.edge)
            shape = self.fit(cell.rooms)
            if shape is None or end - start > self.rules.max_length:
                return None
            return Link(self.form_url(start, end - start, shape), calendar_words.end_label(cell, end), True)
        begin = self.start_of(cell)
        ends_at = cell.part.ends_at if cell.part else cell.edge.ends_at
        if not (cell.free_gpus or cell.part) or begin >= ends_at or begin > self.latest:
            return None
        if not quota.valid_from <= begin < quota.valid_until:
            return None
        changes = {"start": self._local(begin)}
        if self.asked.stretch.span is not Span.DAY:
            # from its day on: on a narrow screen too the start is in sight and the ends are beside it
            changes["day"] = begin.astimezone(self.zone).date().isoformat()
        return Link(here(**changes) + "#choose", calendar_words.start_label(cell, begin), False)

    @property
    def latest(self) -> datetime:
        """The last moment at which a booking may begin now."""
        return self.now + self.rules.max_ahead

    def fit(self, rooms: Sequence[Room]) -> Shape | None:
        """What of the shape that was applied for finds room."""
        quota = self.asked.quota
        assert quota is not None
        wanted = Shape(quota.application.nodes, quota.application.gpus_per_node)
        return calendar_through.fit(rooms, wanted, whole=not quota.cluster.shares_nodes)

    def through(self, found: Found) -> Found:
        """The same with what stays free from the chosen start on, in the cells that may end a booking."""
        stretch, start = self.asked.stretch, self.asked.start
        if start is None or start <= self.now:
            return found
        ends = [self.end_of(edge) for edge in stretch.cells]
        first = next((n for n, end in enumerate(ends) if end > start), len(ends))
        until = [end + self.rules.cleaning for end in ends[first:]]
        rooms = calendar_through.rooms(found.lines.values(), stretch, start, until)
        return replace(found, cells=calendar_through.after(found.cells, first, rooms))

    def form_without_end(self, found: Found) -> str:
        """The form with the start alone pointed at: the shortest booking, and what is free for it."""
        start, length, stretch = self.asked.start, self.rules.min_length, self.asked.stretch
        assert start is not None
        since, until = _reach(self.asked)
        if not since <= start <= until - length:
            return self.form_url(start, length, None)  # nothing was read about that time
        end = start + length + self.rules.cleaning
        rooms = calendar_through.rooms(found.lines.values(), stretch, start, [end])
        return self.form_url(start, length, self.fit(rooms[0]))

    def form_url(self, start: datetime, length: timedelta, shape: Shape | None) -> str:
        """The booking form with the window filled in, and the shape that is free then."""
        quota = self.asked.quota
        assert quota is not None
        return url_for(
            "bookings.new",
            quota_id=quota.id,
            edit=1,
            starts_at=self._local(start),
            hours=offer_words.hours(length),
            nodes=shape.nodes if shape else quota.application.nodes,
            gpus_per_node=shape.gpus if shape else quota.application.gpus_per_node,
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
    pointing = Pointing(asked, now)
    found = pointing.through(_find(asked, now))
    rows, group = _rows(found)
    drawing = None
    if not asked.table:
        drawing = calendar_drawing.draw(
            asked.stretch, found.cells, rows, found.own, now=now, chosen=asked.start
        )
    return _page(pointing, found, rows, group, drawing)


def _page(
    pointing: Pointing, found: Found, rows: Sequence[Row], group: Group | None, drawing: Drawing | None
) -> str:
    asked, now = pointing.asked, pointing.now
    span, first = asked.stretch.span, asked.stretch.first
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
        pointing=pointing,
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
    slots = calendar_queries.taken(db(), cluster, kind, _reach(asked), window[0])
    own = calendar_queries.own_bookings(db(), current_actor(), cluster, kind, window)
    demand = calendar_queries.demand(db(), cluster, kind)
    lines = calendar_grid.lines(nodes, slots, asked.stretch, now)
    cells = calendar_grid.cells(lines, asked.stretch, set(own), demand)
    # a month of very many nodes would take too long: whoever looks for hours there opens the day
    if asked.stretch.span is not Span.MONTH or len(nodes) <= MOST_ROWS:
        soonest = now + policy().bookings.lead_time
        cells = calendar_through.with_parts(cells, lines, asked.stretch, soonest)
    return Found(
        lines,
        calendar_grid.groups(nodes) if len(nodes) > MOST_ROWS else (),
        own,
        {outage.id: outage for outage in outage_queries.coming(db(), cluster, *window)},
        demand,
        cells,
    )


def _reach(asked: Asked) -> tuple[datetime, datetime]:
    """The stretch, and with a chosen start all that a booking from there to one of its ends would meet."""
    since, until = asked.stretch.window
    if asked.start is None:
        return since, until
    longest = policy().bookings.max_length
    return max(min(since, asked.start), since - longest), until + timedelta(days=1)


def _rows(found: Found) -> tuple[list[Row], Group | None]:
    """A row a node; of very many nodes a row a group, until one is opened (`?nodes=`)."""
    number = request.args.get("nodes")
    opened = next((group for group in found.groups if str(group.number) == number), None)
    if opened is not None:
        return calendar_drawing.rows_of_nodes([found.lines[node.id] for node in opened.nodes]), opened
    if found.groups:
        return calendar_drawing.rows_of_groups(found.groups, found.lines), None
    return calendar_drawing.rows_of_nodes(list(found.lines.values())), None
