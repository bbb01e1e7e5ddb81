"""The operator's pages about outages and repairs, and the page on which people answer a move."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from allocator.accounts import administration
from allocator.actors import SYSTEM, Role
from allocator.models import (
    Booking,
    BookingMove,
    Cluster,
    Node,
    NodeSlot,
    NodeState,
    Outage,
    OutboxItem,
    Repair,
    RepairStep,
)
from allocator.states import BookingState, MoveState, OutageState, RepairState
from config.clock import utcnow
from tests import factories
from tests.browsing import Site, hidden_fields, submit, text_of
from tests.outage_pages import make_outage_scene, work_out


@dataclass(frozen=True)
class World:
    site: Site
    ids: dict[str, int]
    operator: FlaskClient
    owner: FlaskClient


@pytest.fixture
def world(site: Site) -> World:
    with site.data() as data:
        scene = make_outage_scene(data, utcnow())
        ids = scene.fill(2)
        people = scene.operator, scene.owner
    return World(site, ids, site.browser_of(people[0]), site.browser_of(people[1]))


def test_planning_publishing_and_calling_off(world: World) -> None:
    start = (utcnow() + timedelta(days=25, hours=5)).strftime("%Y-%m-%dT10:00")
    end = (utcnow() + timedelta(days=25, hours=5)).strftime("%Y-%m-%dT18:00")
    path = "/clusters/grid/outages/new"
    plan = {
        "kind": "maintenance",
        "nodes": "grid[001-002]",
        "starts_at": start,
        "ends_at": end,
        "reason": "Cables.",
    }
    made = submit(world.operator, path, plan)
    assert made.status_code == 303, text_of(made)
    work_out(world.site.database)
    page = world.operator.get(made.location)
    assert "Nothing is booked there at that time" in text_of(page)
    assert "Draft" in text_of(page)
    asked = text_of(world.operator.get(f"{made.location}/publish?variant=fewest_moves"))
    assert "Nobody is moved and nobody gets a letter" in asked
    assert "move them" not in asked
    done = submit(world.operator, f"{made.location}/publish?variant=fewest_moves", {})
    assert done.status_code == 303, text_of(done)
    published = text_of(world.operator.get(made.location))
    assert "Published" in published
    assert "Nobody had to move" in published
    off = submit(world.operator, f"{made.location}/call-off", {"reason": "The cables did not come."})
    assert off.status_code == 303
    assert "The cables did not come." in text_of(world.operator.get(made.location))


def test_both_ways_stand_side_by_side_with_who_is_affected(world: World) -> None:
    page = world.operator.get("/outages/{outage}".format(**world.ids))
    text = text_of(page)
    assert "Whom it moves" in text
    assert "Bookings that move" in text
    assert "Speech recognition for village schools" in text
    assert re.search(r"\d+ (days?|hours?).* (later|earlier)", text)


def test_what_was_decided_stands_on_the_page(world: World) -> None:
    text = text_of(world.operator.get("/outages/{published}".format(**world.ids)))
    assert "What it moved" in text
    assert "Published" in text


def test_whether_the_cluster_keeps_jobs_off_stands_on_the_page(world: World) -> None:
    address, now = "/outages/{published}".format(**world.ids), utcnow()
    said: dict[str, dict[str, object]] = {
        "The cluster does not keep jobs off these nodes yet": {},
        "kezek-outage-1: Invalid node name": {"problem": "kezek-outage-1: Invalid node name"},
        "The cluster keeps jobs off these nodes": {"problem": None, "reserved_at": now},
    }
    for sentence, values in said.items():
        with world.site.data() as data:
            outage = data.get_one(Outage, world.ids["published"])
            for name, value in values.items():
                setattr(outage, name, value)
        assert sentence in text_of(world.operator.get(address))
    draft = text_of(world.operator.get("/outages/{outage}".format(**world.ids)))
    assert "keep jobs off" not in draft


def test_a_world_that_changed_is_told_and_nothing_published(world: World) -> None:
    address = "/outages/{outage}".format(**world.ids)
    fields = hidden_fields(world.operator.get(f"{address}/publish?variant=fewest_moves"))
    with world.site.data() as data:
        outage = data.get_one(Outage, world.ids["outage"])
        booking = data.scalars(
            select(Booking)
            .join(NodeSlot)
            .where(NodeSlot.node_id == outage.nodes[0].node_id, Booking.starts_at == outage.starts_at)
        ).one()
        booking.no_show_warned_at = utcnow()
    variant = {"variant": "fewest_moves"}
    answer = world.operator.post(f"{address}/publish", data=fields | variant)
    assert answer.status_code == 409
    assert "have changed since this repair was worked out" in text_of(answer)
    again = submit(world.operator, address, {}, action=f"{address}/prepare")
    assert again.status_code == 303
    work_out(world.site.database)
    done = submit(world.operator, f"{address}/publish?variant=fewest_moves", variant)
    assert done.status_code == 303, text_of(done)
    with world.site.data() as data:
        assert data.get_one(Outage, world.ids["outage"]).state is OutageState.PUBLISHED


def test_a_repair_is_applied_with_a_reason(world: World) -> None:
    address = "/repairs/{repair}".format(**world.ids)
    page = text_of(world.operator.get(address))
    assert "Nodes do not work" in page
    assert "grid004" in page
    empty = submit(world.operator, f"{address}/apply?variant=fewest_drops", {"reason": ""})
    assert empty.status_code == 422
    done = submit(
        world.operator, f"{address}/apply?variant=fewest_drops", {"reason": "A power supply failed."}
    )
    assert done.status_code == 303, text_of(done)
    with world.site.data() as data:
        assert data.get_one(Repair, world.ids["repair"]).state is RepairState.APPLIED
        letters = data.scalars(select(OutboxItem.letter)).all()
    assert "repair_proposed" in letters


def test_a_page_tells_how_far_it_is_until_the_answer_is_there(world: World) -> None:
    address = "/outages/{unfinished}".format(**world.ids)
    page = world.operator.get(address)
    assert '<noscript><meta http-equiv="refresh"' in page.text
    assert 'role="status" data-live' in page.text
    text = text_of(page)
    assert re.search(r"It will be worked out in a moment\. \d+ bookings lose GPUs\.", text)
    assert "Asked for on" in text
    assert "The scheduler has not run yet." in text
    assert "Continue" not in text
    step(world, RepairStep.SEARCHING, 40, attempts=2)
    text = text_of(world.operator.get(address))
    assert "It is being worked out. Step 3 of 3: Looking for a better one." in text
    assert "40 % of this step are done." in text
    assert "It was begun again" in text
    work_out(world.site.database)
    done = world.operator.get(address)
    assert "data-live" not in done.text
    assert "http-equiv" not in done.text
    assert "Bookings that move" in text_of(done)


def step(world: World, step: RepairStep, percent: int, attempts: int) -> None:
    """The scheduler is at that step of all that waits."""
    with world.site.data() as data:
        for repair in data.scalars(select(Repair).where(Repair.state == RepairState.WAITING)):
            repair.step, repair.percent, repair.attempts = step, percent, attempts


def test_nothing_can_be_published_before_it_is_worked_out(world: World) -> None:
    address = "/outages/{unfinished}".format(**world.ids)
    assert world.operator.get(f"{address}/publish").location == address
    fields = hidden_fields(world.operator.get("/outages/{outage}/publish".format(**world.ids)))
    answer = world.operator.post(
        f"{address}/publish", data=fields | {"variant": "fewest_moves", "version": "1"}
    )
    assert answer.status_code == 409
    assert "Whom it moves is still being worked out." in text_of(answer)
    repair = "/repairs/{asked}".format(**world.ids)
    assert world.operator.get(f"{repair}/apply").location == repair


def test_what_could_not_be_worked_out_is_told_and_tried_again(world: World) -> None:
    address, problem = "/repairs/{asked}".format(**world.ids), "ZeroDivisionError: by zero"
    with world.site.data() as data:
        for repair in data.scalars(select(Repair).where(Repair.state == RepairState.WAITING)):
            repair.state, repair.problem = RepairState.FAILED, problem
    for path in (address, "/outages/{unfinished}".format(**world.ids)):
        text = text_of(world.operator.get(path))
        assert "It could not be worked out." in text
        assert problem in text
        assert "Try again" in text
    assert "2 repairs to decide on" in text_of(world.operator.get("/"))
    again = submit(world.operator, address, {}, action=f"{address}/again")
    assert again.status_code == 303
    assert "being worked out again" in text_of(world.operator.get(again.location))
    work_out(world.site.database)
    assert "Whom it moves" in text_of(world.operator.get(again.location))


def test_an_error_is_told_word_for_word_and_escaped(world: World) -> None:
    with world.site.data() as data:
        for repair in data.scalars(select(Repair).where(Repair.state == RepairState.WAITING)):
            repair.state, repair.problem = RepairState.FAILED, "ValueError: cannot parse 100% <b>!"
    for path in ("/repairs/{asked}", "/outages/{unfinished}"):
        page = world.operator.get(path.format(**world.ids))
        assert page.status_code == 200
        assert "cannot parse 100% &lt;b&gt;!" in page.text


def test_a_repair_is_given_up_before_it_is_worked_out(world: World) -> None:
    address = "/repairs/{asked}".format(**world.ids)
    assert "Leave the bookings as they are" in text_of(world.operator.get(address))
    done = submit(world.operator, f"{address}/discard", {"reason": "They stay."})
    assert done.status_code == 303
    text = text_of(world.operator.get(address))
    assert "It had not been worked out by then." in text
    assert "Nothing is booked" not in text


def test_it_is_said_that_only_the_simple_way_was_looked_for(world: World) -> None:
    with world.site.data() as data:
        for repair in data.scalars(select(Repair).where(Repair.state == RepairState.PROPOSED)):
            repair.details = {**repair.details, "simple": True}
    for path in ("/outages/{outage}", "/repairs/{repair}"):
        assert "Only the simple way was looked for" in text_of(world.operator.get(path.format(**world.ids)))


def test_another_date_works_it_out_again(world: World) -> None:
    address = "/repairs/{repair}".format(**world.ids)
    until = (utcnow() + timedelta(days=8)).strftime("%Y-%m-%dT10:00")
    made = submit(world.operator, address, {"until": until}, action=f"{address}/again")
    assert made.status_code == 303, text_of(made)
    assert made.location != address
    assert "Expected back on" in text_of(world.operator.get(made.location))
    replaced = text_of(world.operator.get(address))
    assert "Replaced by repair " + made.location.rpartition("/")[2] in replaced
    assert "Given up" not in replaced
    assert "nobody has said when" in replaced
    assert "Replaced" in text_of(world.operator.get("/repairs"))


def test_leaving_the_bookings_as_they_are(world: World) -> None:
    address = "/repairs/{repair}".format(**world.ids)
    done = submit(world.operator, f"{address}/discard", {"reason": "It is up again."})
    assert done.status_code == 303
    with world.site.data() as data:
        assert data.get_one(Repair, world.ids["repair"]).state is RepairState.DISCARDED
    text = text_of(world.operator.get(address))
    assert "Given up" in text
    assert "Replaced" not in text


def test_who_is_touched_reads_that_another_operator_has_to_do_it(world: World) -> None:
    with world.site.data() as data:
        owner = data.get_one(BookingMove, world.ids["move"]).booking.booked_by
        administration.grant_role(data, SYSTEM, owner, Role.OPERATOR, now=utcnow())
    for path in ("/outages/{outage}", "/repairs/{repair}"):
        own, others = (
            world.owner.get(path.format(**world.ids)),
            world.operator.get(path.format(**world.ids)),
        )
        assert "another operator has to do it" in text_of(own)
        assert "variant=" not in own.text
        assert "another operator has to do it" not in text_of(others)
        assert "variant=" in others.text
    discarding = "/repairs/{repair}/discard".format(**world.ids)
    assert world.owner.get(discarding).status_code == 403
    assert world.operator.get(discarding).status_code == 200


def test_who_was_moved_agrees(world: World) -> None:
    address = "/moves/{move}".format(**world.ids)
    text = text_of(world.owner.get(address))
    assert "The reason: New firmware for the switches." in text
    done = submit(world.owner, address, {}, action=f"{address}/accept")
    assert done.status_code == 303
    assert "Accepted" in text_of(world.owner.get(address))


def test_who_was_moved_chooses_another_time(world: World) -> None:
    address = "/moves/{move}".format(**world.ids)
    start = (utcnow() + timedelta(days=16)).strftime("%Y-%m-%dT10:00")
    done = submit(world.owner, address, {"starts_at": start}, action=f"{address}/choose")
    assert done.status_code == 303, text_of(done)
    with world.site.data() as data:
        moved = data.get_one(BookingMove, world.ids["move"])
        assert moved.state is MoveState.CHANGED
        assert moved.booking.starts_at.strftime("%H:%M") == "05:00"
    late = submit(world.owner, address, {}, action=f"{address}/accept")
    assert late.status_code == 409


def test_a_move_is_shown_before_it_is_made(world: World) -> None:
    address, booking = "/moves/{move}".format(**world.ids), "/bookings/{moved}/place".format(**world.ids)
    start = (utcnow() + timedelta(days=16)).strftime("%Y-%m-%dT10:00")
    with world.site.data() as data:
        before = data.get_one(Booking, world.ids["moved"]).starts_at
    wish = {"starts_at": start, "look": "1"}
    looked = submit(world.owner, address, wish, action=f"{address}/choose")
    assert (looked.status_code, "As it would be" in text_of(looked)) == (200, True)
    placed = submit(world.operator, booking, wish | {"nodes": "", "reason": "Why."})
    assert "nobody else is moved" in text_of(placed)
    assert "is told by letter" in text_of(placed)
    with world.site.data() as data:
        row = data.get_one(Booking, world.ids["moved"])
        assert (row.starts_at, row.moves) == (before, [])
        assert data.get_one(BookingMove, world.ids["move"]).state is MoveState.TOLD
    done = world.operator.post(booking, data=hidden_fields(placed))
    assert done.status_code == 303, text_of(done)


def test_who_was_moved_has_the_hours_back(world: World) -> None:
    address = "/moves/{move}".format(**world.ids)
    done = submit(world.owner, f"{address}/refund", {})
    assert done.status_code == 303, text_of(done)
    with world.site.data() as data:
        moved = data.get_one(BookingMove, world.ids["move"])
        assert (moved.state, moved.booking.state) == (MoveState.REFUNDED, BookingState.CANCELLED)


def test_a_stranger_learns_nothing_of_a_move(world: World) -> None:
    with world.site.data() as data:
        stranger = factories.person(data)
    browser = world.site.browser_of(stranger)
    assert browser.get("/moves/{move}".format(**world.ids)).status_code == 404


def test_pinning_and_moving_by_hand(world: World) -> None:
    booking = "/bookings/{moved}".format(**world.ids)
    pinned = submit(world.operator, f"{booking}/pin", {"reason": "A minister comes."})
    assert pinned.status_code == 303, text_of(pinned)
    start = (utcnow() + timedelta(days=17)).strftime("%Y-%m-%dT10:00")
    wrong = submit(
        world.operator, f"{booking}/place", {"starts_at": start, "nodes": "nowhere", "reason": "Why."}
    )
    assert wrong.status_code == 422
    assert "No such nodes here: nowhere" in text_of(wrong)
    with world.site.data() as data:
        row = data.get_one(Booking, world.ids["moved"])
        broken = next(node for node in row.cluster.nodes if node.name == "grid003")
        broken.state = NodeState.DOWN
    down = submit(
        world.operator, f"{booking}/place", {"starts_at": start, "nodes": "grid003", "reason": "Why."}
    )
    assert "Not working now: grid003" in text_of(down)
    done = submit(
        world.operator, f"{booking}/place", {"starts_at": start, "nodes": "grid002", "reason": "Why."}
    )
    assert done.status_code == 303, text_of(done)
    with world.site.data() as data:
        row = data.get_one(Booking, world.ids["moved"])
        assert ([slot.node.name for slot in row.slots], row.pin) == (["grid002"], "A minister comes.")
        assert row.moves[-1].reason == "Why."


def test_capacity_over_time(world: World) -> None:
    base = "/clusters/grid/capacity"
    assert "new1" in text_of(world.operator.get(base))
    day = (utcnow() + timedelta(days=35)).strftime("%Y-%m-%dT10:00")
    coming = {"names": "big[01-03]", "partition": "gpu", "gpu_type": "h200", "gpus": "8", "joins_at": day}
    assert submit(world.operator, f"{base}/announce", coming).status_code == 303
    assert submit(world.operator, f"{base}/announce", coming).status_code == 422
    made = submit(world.operator, f"{base}/leave", {"nodes": "grid004", "leaves_at": day})
    assert made.status_code == 303
    work_out(world.site.database)
    applied = submit(
        world.operator, f"{made.location}/apply?variant=fewest_moves", {"reason": "It goes to another site."}
    )
    assert applied.status_code == 303, text_of(applied)
    frozen = submit(world.operator, f"{base}/freeze", {"until": day, "reason": "A visit."})
    assert frozen.status_code == 303
    assert "The plan is frozen" in text_of(world.operator.get(base))
    with world.site.data() as data:
        node = data.scalars(select(Node).where(Node.name == "grid004")).one()
        assert node.leaves_at is not None
        assert data.scalars(select(Cluster).where(Cluster.slug == "grid")).one().frozen_until is not None
        node_id = node.id
    assert submit(world.operator, base, {}, action=f"/nodes/{node_id}/stay").status_code == 303
    joined = submit(world.operator, f"/nodes/{world.ids['node']}/join", {"joins_at": day})
    assert joined.status_code == 303
    gone = submit(world.operator, f"/nodes/{world.ids['node']}/withdraw", {"reason": "Not bought."})
    assert gone.status_code == 303
    assert "not announced any more" in text_of(world.operator.get(base))
    assert "new1" not in text_of(world.operator.get(base))


def test_lists_say_when_there_is_nothing(site: Site) -> None:
    with site.data() as data:
        operator = factories.person(data, roles=[Role.OPERATOR])
        factories.cluster(data)
    browser = site.browser_of(operator)
    assert "No outage is planned" in text_of(browser.get("/outages"))
    assert "No repair has been needed" in text_of(browser.get("/repairs"))
    assert "No node is announced" in text_of(browser.get("/clusters/alem/capacity"))


def test_an_administrator_sees_how_much_moves_but_not_whose(world: World) -> None:
    with world.site.data() as data:
        admin = factories.person(data, roles=[Role.ADMINISTRATOR])
    browser = world.site.browser_of(admin)
    path = f"/outages/{world.ids['outage']}"
    assert "Speech recognition" in text_of(world.operator.get(path))
    assert "Arman Kairat" in text_of(world.operator.get(path))
    page = text_of(browser.get(path))
    assert "Bookings that move" in page
    assert "Speech recognition" not in page
    assert "Arman Kairat" not in page


def test_a_free_start_is_chosen_by_one_button(world: World) -> None:
    move = f"/moves/{world.ids['move']}"
    page = world.owner.get(move)
    starts = re.findall(r'name="starts_at" value="([^"]+)">\s*<button', page.text)
    assert starts, page.text
    done = world.owner.post(f"{move}/choose", data=hidden_fields(page) | {"starts_at": starts[-1]})
    assert done.status_code == 303, text_of(done)


def test_the_first_page_says_what_moved_and_what_waits(world: World) -> None:
    assert f"/moves/{world.ids['move']}" in world.owner.get("/").text
    assert "Repairs wait for a decision" in text_of(world.operator.get("/"))


def test_silence_is_told_as_silence(world: World) -> None:
    with world.site.data() as data:
        data.get_one(BookingMove, world.ids["move"]).answer_until = utcnow() - timedelta(hours=1)
    page = text_of(world.owner.get(f"/moves/{world.ids['move']}"))
    assert "There was no answer in time, so the new time stays." in page
    assert "You can answer until" not in page
