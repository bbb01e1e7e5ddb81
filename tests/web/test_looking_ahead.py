"""What takes long to work out stops nobody who writes meanwhile: neither a page nor the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from allocator.models import Cluster, Repair
from allocator.policy import load_policy
from allocator.states import RepairState
from allocator.upkeep import repairs
from config.clock import utcnow
from scheduler import inventory
from tests.browsing import Site, submit, text_of
from tests.outage_pages import make_outage_scene

NEXT_MONTH = "%Y-%m-%dT10:00"


@dataclass(frozen=True)
class World:
    site: Site
    operator: FlaskClient
    repair: int


@pytest.fixture
def world(site: Site, monkeypatch: pytest.MonkeyPatch) -> World:
    """A site where somebody writes whenever a repair is being worked out."""
    with site.data() as data:
        scene = make_outage_scene(data, utcnow())
        repair, operator = scene.fill(2)["repair"], scene.operator
    work_out = repairs.work_out

    def slowly(*args: object, **kwargs: object) -> object:
        with site.database.transaction() as other:
            other.scalars(select(Cluster)).one().checked_at = utcnow()
        return work_out(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(repairs, "work_out", slowly)
    return World(site, site.browser_of(operator), repair)


def test_pages_work_repairs_out_without_a_lock(world: World) -> None:
    start = utcnow() + timedelta(days=25)
    plan = {
        "kind": "maintenance",
        "nodes": "grid[001-002]",
        "starts_at": start.strftime(NEXT_MONTH),
        "ends_at": (start + timedelta(days=1)).strftime(NEXT_MONTH),
        "reason": "Cables.",
    }
    made = submit(world.operator, "/clusters/grid/outages/new", plan)
    assert made.status_code == 303, text_of(made)
    leave = {"nodes": "grid004", "leaves_at": start.strftime(NEXT_MONTH)}
    for path, page, fields in (
        (f"{made.location}/edit", f"{made.location}/edit", plan),
        (f"{made.location}/prepare", made.location, {}),
        (f"/repairs/{world.repair}/again", f"/repairs/{world.repair}", {}),
        ("/clusters/grid/capacity/leave", "/clusters/grid/capacity/leave", leave),
    ):
        done = submit(world.operator, page, fields, action=path)
        assert done.status_code == 303, text_of(done)


def test_the_scheduler_works_repairs_out_without_a_lock(world: World) -> None:
    with world.site.data() as data:
        repair = data.get_one(Repair, world.repair)
        repair.details = {**repair.details, "affected": {}}
    assert inventory.watch(world.site.database, "grid", load_policy().bookings, utcnow()) == 1
    with world.site.data() as data:
        assert data.get_one(Repair, world.repair).state is RepairState.DISCARDED
