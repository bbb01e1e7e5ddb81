"""The job that works repairs out: one a round, so that nobody waits for it in a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from time import monotonic

from sqlalchemy.exc import DBAPIError

from allocator.db import Database, is_passing
from allocator.errors import Stale
from allocator.models import RepairStep
from allocator.policy import BookingRules
from allocator.upkeep import working_out
from allocator.upkeep.working_out import Task
from scheduler.apply import GoOn

# So often is written down how far it is: a page that waits asks not much more often.
NOTE_SECONDS = 2.0


class Stopped(Exception):
    """The scheduler ends, or does not lead any more: the next one begins the repair again."""


def work_out(
    database: Database,
    *,
    rules: BookingRules,
    now: datetime,
    go_on: GoOn,
    alive: Callable[[], None] = lambda: None,
) -> Mapping[str, int]:
    """Work out the repair that has waited longest; nothing is open or locked while it is computed.

    ``alive`` is called now and then: a large cluster takes minutes. Raises what went wrong, once that is
    written down and told on the repair's page.
    """
    with database.transaction() as session:
        task = working_out.take(session, now=now)
    if task is None:
        return {"worked_out": 0}
    try:
        return {"worked_out": _work_out(database, task, rules, _Notes(database, task, go_on, alive))}
    except (Stopped, Stale):  # given up by somebody, or the bookings have changed and it waits on
        return {"worked_out": 0, "cut_off": 1}
    except DBAPIError as error:  # the next round begins it again
        if is_passing(error):  # and nothing is wrong with the repair
            with suppress(DBAPIError), database.transaction() as session:
                working_out.uncount(session, task)
        raise
    except Exception as error:
        with database.transaction() as session:
            working_out.fail(session, task, f"{type(error).__name__}: {error}")
        raise


def _work_out(database: Database, task: Task, rules: BookingRules, notes: _Notes) -> int:
    with database.reader() as session:
        world = working_out.read(session, task, rules=rules)
    found = working_out.answer(world, task, notes)
    with database.transaction() as session:
        working_out.keep(session, task, world, found)
    return 1


class _Notes:
    """How far it is: each step when it begins, and then every few seconds."""

    def __init__(self, database: Database, task: Task, go_on: GoOn, alive: Callable[[], None]) -> None:
        self._database, self._task, self._go_on, self._alive = database, task, go_on, alive
        self._told: tuple[RepairStep, bool] | None = None
        self._at = 0.0

    def __call__(self, step: RepairStep, percent: int | None) -> None:
        told = step, percent is None
        if told == self._told and monotonic() - self._at < NOTE_SECONDS:
            return
        self._told, self._at = told, monotonic()
        if not self._go_on():
            raise Stopped
        self._alive()
        with self._database.transaction() as session:
            working_out.reach(session, self._task, step, percent)
