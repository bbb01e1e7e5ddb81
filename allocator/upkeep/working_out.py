"""Working repairs out: the slow part, done by the scheduler while a page shows how far it is.

Nothing is locked while it is computed; `keep` writes the answer only if the bookings that it touches are
still as they were read. Each attempt has its number: one that was cut off is begun again by whoever comes
next, and should the old one answer after all, nobody listens to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from allocator import capacity
from allocator.actors import SYSTEM
from allocator.booking.booking_checks import grid_of
from allocator.booking.windows import Grid, Held, NodeHeld, Place
from allocator.errors import Stale
from allocator.locks import hold
from allocator.models import Booking, NodeSlot, Repair, RepairStep
from allocator.planner.cache import is_warm
from allocator.policy import BookingRules
from allocator.states import RepairState, move
from allocator.upkeep import repairs
from allocator.upkeep.mending import Change, Claim, Loss, Variant, mend
from allocator.upkeep.mending_search import search, worth_it
from allocator.upkeep.repair_documents import affected_to_json, variants_to_json
from allocator.upkeep.repair_inputs import LIVE, affected, read_claims, read_nodes
from config.i18n import N_

SECONDS = 3.0  # of search, where one at a time moves or drops much
MOST_ATTEMPTS = 5
LONGEST = 500
Reached = Callable[[RepairStep, "int | None"], None]  # the step, and how much of it is done in per cent
NEVER_DONE = N_(
    "It was begun several times and never finished: each time the bookings changed meanwhile, or the "
    "scheduler was stopped."
)


@dataclass(frozen=True)
class Task:
    """A repair that is being worked out, for the ``attempt``-th time, as of ``now``."""

    repair_id: int
    attempt: int
    losses: tuple[Loss, ...]
    now: datetime


@dataclass(frozen=True)
class World:
    """All that the answer depends on; ``hit``: who lost GPUs, with their versions."""

    hit: Mapping[int, int]
    nodes: Sequence[NodeHeld]
    claims: Sequence[Claim]
    whole: bool
    grid: Grid


@dataclass(frozen=True)
class Answer:
    """Both ways to mend; ``simple``: a search might find better ones, but was not compiled yet."""

    variants: Mapping[str, Variant]
    simple: bool


def take(session: Session, *, now: datetime) -> Task | None:
    """The repair that has waited longest, begun; None: nothing waits. One that never ends is given up."""
    repair = session.scalars(
        select(Repair).where(Repair.state == RepairState.WAITING).order_by(Repair.id).limit(1)
    ).one_or_none()
    if repair is None:
        return None
    task = Task(repair.id, repair.attempts + 1, tuple(repairs.losses_of(repair)), now)
    if task.attempt > MOST_ATTEMPTS:
        fail(session, task, NEVER_DONE)
        return take(session, now=now)
    begun = _note(
        session, repair.id, repair.attempts, attempts=task.attempt, step=RepairStep.COUNTING, percent=None
    )
    return task if begun else None


def reach(session: Session, task: Task, step: RepairStep, percent: int | None) -> None:
    """Note how far it is. Raises Stale when nobody waits for it any more."""
    if not _note(session, task.repair_id, task.attempt, step=step, percent=percent):
        raise Stale(repairs.CHANGED)


def _note(session: Session, repair_id: int, attempt: int, **values: object) -> bool:
    """Change the row while it is that attempt's; its version stays, as no open page gets stale by that."""
    mine = update(Repair).where(
        Repair.id == repair_id, Repair.state == RepairState.WAITING, Repair.attempts == attempt
    )
    return bool(session.execute(mine.values(**values)).rowcount == 1)  # type: ignore[attr-defined]


def uncount(session: Session, task: Task) -> None:
    """The attempt was cut off by the database, and says nothing about the repair: it waits on."""
    _note(session, task.repair_id, task.attempt, attempts=task.attempt - 1, step=None, percent=None)


def read(session: Session, task: Task, *, rules: BookingRules) -> World:
    """Read what the answer depends on, as it is now."""
    repair = session.get_one(Repair, task.repair_id)
    cluster, gpu_type, now = repair.cluster, repair.gpu_type, task.now
    hit = affected(session, task.losses, now)
    claims = read_claims(session, cluster, gpu_type, rules=rules, now=now)
    nodes = read_nodes(session, cluster, gpu_type, {claim.id for claim in claims}, now=now)
    return World(hit, nodes, claims, not cluster.shares_nodes, grid_of(rules))


def answer(world: World, task: Task, reached: Reached) -> Answer:
    """The two ways to mend: pure, and slow. ``reached`` hears all the time how far it is, and may end it."""

    def tick(saving: bool, done: int, total: int) -> None:
        reached(RepairStep.SEARCHING if saving else RepairStep.MENDING, 100 * done // total)

    reached(RepairStep.MENDING, None)
    nodes, claims, losses = world.nodes, world.claims, task.losses
    variants = mend(nodes, claims, losses, whole=world.whole, grid=world.grid, tick=tick)
    if not worth_it(variants):
        return Answer(variants, simple=False)
    if not is_warm():  # compiling may take minutes, and a simple answer can be worked out again
        return Answer(variants, simple=True)
    reached(RepairStep.SEARCHING, None)
    better = search(
        nodes,
        claims,
        losses,
        variants,
        whole=world.whole,
        grid=world.grid,
        now=task.now,
        seconds=SECONDS,
        tick=tick,
    )
    return Answer(better, simple=False)


def keep(session: Session, task: Task, world: World, found: Answer) -> None:
    """Propose the answer. Raises Stale when it is not wanted any more or the bookings have changed."""
    repair = session.get_one(Repair, task.repair_id)
    capacity.lock(session, repair.cluster)
    hold(session, repair)
    if repair.state is not RepairState.WAITING or repair.attempts != task.attempt:
        raise Stale(repairs.CHANGED)
    _check(session, task, world, found)
    details = {**repair.details, "affected": affected_to_json(world.hit)}
    columns = {
        "details": {**details, "simple": True} if found.simple else details,
        "variants": variants_to_json(found.variants),
        "step": None,
        "percent": None,
        "proposed_at": task.now,
        "version": repair.version + 1,
    }
    counts: dict[str, Any] = {name: _counts(one) for name, one in found.variants.items()}
    move(repair, RepairState.PROPOSED, actor=SYSTEM, now=task.now, columns=columns, **counts)


def _check(session: Session, task: Task, world: World, found: Answer) -> None:
    """The same bookings are hit, whoever would be moved is as they were, and where they would go is free."""
    changes = {change.booking_id: change for one in found.variants.values() for change in one.changes}
    rows = session.execute(
        select(Booking.id, Booking.version).where(Booking.id.in_(changes), Booking.state.in_(LIVE))
    )
    versions = {number: version for number, version in rows}  # noqa: C416 - a Row is no pair to mypy
    known = {number: change.version for number, change in changes.items()}
    if versions != known or affected(session, task.losses, task.now) != world.hit:
        raise Stale(repairs.CHANGED)
    _check_places(session, world, found)


def _check_places(session: Session, world: World, found: Answer) -> None:
    """Nobody has been put where one of the variants would move somebody else. One query."""
    gaps = {claim.id: claim.gap for claim in world.claims}
    moved = [change for one in found.variants.values() for change in one.changes if change.to_starts_at]
    if not moved:
        return
    rows = session.execute(
        capacity.slots().where(
            NodeSlot.node_id.in_({place.node_id for change in moved for place in change.places}),
            NodeSlot.ends_at > min(change.to_starts_at for change in moved if change.to_starts_at),
        )
    )
    held: dict[int, list[tuple[int | None, Held]]] = {}
    for booking_id, node_id, gpu_from, gpu_to, starts_at, ends_at in rows:
        held.setdefault(node_id, []).append((booking_id, Held(gpu_from, gpu_to, starts_at, ends_at)))
    for variant in found.variants.values():
        movers = {change.booking_id for change in variant.changes}
        for change in variant.changes:
            if any(
                holder not in movers and _collide(slot, place, change, gaps[change.booking_id])
                for place in change.places
                for holder, slot in held.get(place.node_id, ())
            ):
                raise Stale(repairs.CHANGED)


def _collide(slot: Held, place: Place, change: Change, gap: timedelta) -> bool:
    if change.to_starts_at is None or change.to_ends_at is None:
        return False
    same_gpus = slot.gpu_from < place.gpu_to and slot.gpu_to > place.gpu_from
    return same_gpus and slot.starts_at < change.to_ends_at + gap and slot.ends_at > change.to_starts_at


def _counts(variant: Variant) -> dict[str, int]:
    counts: dict[str, int] = {}
    for change in variant.changes:
        counts[change.kind.value] = counts.get(change.kind.value, 0) + 1
    return {**counts, "stuck": len(variant.stuck)}


def fail(session: Session, task: Task, problem: str) -> None:
    """Give the attempt up for good: a person may ask again. Nothing happens when nobody waits for it."""
    repair = session.get_one(Repair, task.repair_id)
    capacity.lock(session, repair.cluster)
    hold(session, repair)
    if repair.state is not RepairState.WAITING or repair.attempts > task.attempt:
        return
    problem = problem[:LONGEST]
    columns = {"problem": problem, "step": None, "percent": None, "version": repair.version + 1}
    move(repair, RepairState.FAILED, actor=SYSTEM, now=task.now, reason=problem, columns=columns)


def at_once(session: Session, *, rules: BookingRules, now: datetime) -> int:
    """Work out all that waits in this one transaction; returns how many. For data that is being loaded."""
    done = 0
    while (task := take(session, now=now)) is not None:
        world = read(session, task, rules=rules)
        keep(session, task, world, answer(world, task, lambda step, percent: None))
        done += 1
    return done
