"""Clusters: capacity and how booked it is, for everybody; nodes, health and loose ends, for staff."""

from __future__ import annotations

from typing import NamedTuple

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from allocator import capacity, cluster_queries, problems
from allocator.authorization import Action, may
from allocator.capacity import GpuType
from allocator.health import scheduler_health
from allocator.models import Cluster
from config.clock import utcnow
from web import charts
from web.identity import current_actor
from web.paging import paginate, paginate_rows
from web.session import db, settings

bp = Blueprint("clusters", __name__)
DAYS = 14
DAY_SECONDS = 24 * 3600


class Offer(NamedTuple):
    """One GPU type of one cluster with the bars of the coming days."""

    cluster: Cluster
    gpu_type: GpuType
    chart: charts.Chart


@bp.get("/clusters")
def index() -> str:
    """What there is and how much of the next two weeks is booked; public, as the rules are."""
    clusters = cluster_queries.list_clusters(db())
    offers = _offers(clusters)
    return render_template(
        "clusters/index.html", offers=offers, may_operate=may(current_actor(), Action.CLUSTER_OPERATE)
    )


def _offers(clusters: list[Cluster]) -> list[Offer]:
    zone = settings().zone
    today = utcnow().astimezone(zone).date()
    booked = capacity.booked_by_window(db(), clusters, charts.days(today, DAYS, zone))
    types = capacity.gpu_types_of(db(), [cluster.id for cluster in clusters])
    return [
        Offer(
            cluster,
            kind,
            charts.chart(today, booked.get((cluster.id, kind.name), [0] * DAYS), kind.gpus_up * DAY_SECONDS),
        )
        for cluster in clusters
        for kind in types.get(cluster.id, [])
    ]


@bp.get("/clusters/<slug>")
def show(slug: str) -> ResponseReturnValue:
    """A cluster as its operators need to see it."""
    cluster = cluster_queries.find_cluster(db(), current_actor(), slug)
    now = utcnow()
    return render_template(
        "clusters/show.html",
        cluster=cluster,
        now=now,
        nodes=paginate(db(), cluster_queries.nodes_of(cluster), name="nodes"),
        jobs=cluster_queries.job_health(db(), cluster),
        health=scheduler_health(db(), now),
        problem_sentence=problems.sentence,
        troubled=paginate(db(), cluster_queries.troubled_reservations(cluster), name="troubled"),
        unknown=paginate_rows(db(), cluster_queries.unknown_accounts(cluster), limit=10, name="unknown"),
        offers=_offers([cluster]),
    )
