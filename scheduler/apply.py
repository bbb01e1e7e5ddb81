"""Carrying out a plan, step after step and outside any transaction: one bad step never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from scheduler.clusters.base import (
    Account,
    Cluster,
    ClusterError,
    Conflict,
    Exists,
    InUse,
    Missing,
    Refused,
    Reservation,
    UnderDelivered,
    Unreachable,
)
from scheduler.plan import (
    CreateReservation,
    DeleteReservation,
    Plan,
    RemoveAccount,
    SaveAccount,
    UpdateReservation,
    in_the_way,
)

log = structlog.get_logger(__name__)

# One sacctmgr call costs half a second whatever is in it; much more than this makes one failure hard to find.
BATCH = 200

GoOn = Callable[[], bool]
Failures = dict[str, ClusterError]
ReservationStep = CreateReservation | UpdateReservation | DeleteReservation


def always() -> bool:
    """Nobody asks us to stop."""
    return True


@dataclass(frozen=True)
class Applied:
    """What could not be done, by name; ``finished`` is False when it was told to stop early."""

    failures: Mapping[str, ClusterError]
    finished: bool


def apply(cluster: Cluster, plan: Plan, go_on: GoOn = always) -> Applied:
    """Carry the plan out in its order; raises Unreachable when the whole cluster is away.

    ``go_on`` is asked before every step; once it says no, the rest is left to the next round.
    """
    failures: Failures = {}
    saves = [step.account for step in plan.steps if isinstance(step, SaveAccount)]
    removals = [step for step in plan.steps if isinstance(step, RemoveAccount)]
    finished = _in_batches(cluster, saves, cluster.save_accounts, failures, go_on)
    steps = [step for step in plan.steps if not isinstance(step, SaveAccount | RemoveAccount)]
    if not _reservations(cluster, steps, failures, go_on):
        return Applied(failures, False)
    finished = finished and _remove_accounts(cluster, removals, failures, go_on)
    return Applied(failures, finished)


def _reservations(
    cluster: Cluster, steps: Sequence[ReservationStep], failures: Failures, go_on: GoOn
) -> bool:
    """Every step, and those again that found their place taken, until nobody makes way any more."""
    waiting = list(steps)
    while waiting:
        conflicts: list[tuple[ReservationStep, Conflict]] = []
        for step in waiting:
            if not go_on():
                return False
            try:
                _step(cluster, step)
            except Conflict as error:
                conflicts.append((step, error))
            except ClusterError as error:
                _fail(cluster, failures, step.name, error)
                if isinstance(error, Unreachable):
                    # Each further step would wait for its own timeout; health answers at once, or raises.
                    cluster.health()
        stuck = [step for step, _ in conflicts]
        if len(stuck) == len(waiting) and not _make_way(cluster, stuck):
            for step, conflict in conflicts:
                _fail(cluster, failures, step.name, conflict)
            break
        waiting = stuck
    return True


def _make_way(cluster: Cluster, stuck: list[ReservationStep]) -> bool:
    """Break a circle: one of ours that stands where another is to go is given back, to be made anew."""
    for place, step in enumerate(stuck):
        others = [other.reservation for other in stuck if isinstance(other, UpdateReservation)]
        if not isinstance(step, UpdateReservation) or not _is_in_the_way(step, others):
            continue
        try:
            _give_back(cluster, step.name)
        except ClusterError as error:
            # Jobs run in it: it stays, and those behind it wait.
            log.info("stays in the way", cluster=cluster.slug, name=step.name, code=error.code)
            continue
        stuck[place] = CreateReservation(step.reservation)
        return True
    return False


def _is_in_the_way(step: UpdateReservation, wanted: Sequence[Reservation]) -> bool:
    return any(one.name != step.name and any(in_the_way(one, [step.actual])) for one in wanted)


def _step(cluster: Cluster, step: ReservationStep) -> None:
    if isinstance(step, CreateReservation):
        _create(cluster, step.reservation)
    elif isinstance(step, UpdateReservation):
        _update(cluster, step)
    else:
        _delete(cluster, step.name)
    log.info("cluster changed", cluster=cluster.slug, step=type(step).__name__, name=step.name)


def _create(cluster: Cluster, reservation: Reservation) -> None:
    try:
        _create_whole(cluster, reservation)
    except Exists:
        # Somebody was faster, perhaps we ourselves before a crash: make that one right.
        cluster.update_reservation(reservation)


def _create_whole(cluster: Cluster, reservation: Reservation) -> None:
    """Create; what was given short is given back and asked for once more, with the same named nodes."""
    try:
        cluster.create_reservation(reservation)
        return
    except UnderDelivered:
        _give_back(cluster, reservation.name)
    try:
        cluster.create_reservation(reservation)
    except UnderDelivered:
        # Half a promise would only hide that the whole one is broken.
        _give_back(cluster, reservation.name)
        raise


def _update(cluster: Cluster, step: UpdateReservation) -> None:
    try:
        cluster.update_reservation(step.reservation)
    except Missing:
        _create_whole(cluster, step.reservation)
    except (Refused, UnderDelivered) as error:
        if isinstance(error, Refused) and not step.moves_start:
            # What is refused here would be refused when made anew too (a node or an account is gone), and
            # then people would have lost what still holds.
            raise
        # The start of one that has begun cannot be changed in place.
        _give_back(cluster, step.name)
        _create_whole(cluster, step.reservation)


def _give_back(cluster: Cluster, name: str) -> None:
    """Delete to make it anew; raises InUse rather than ending the jobs of people who did nothing wrong."""
    with suppress(Missing):
        cluster.delete_reservation(name)


def _delete(cluster: Cluster, name: str) -> None:
    """Delete what is over: jobs that still run in it have no right to these nodes any more."""
    with suppress(Missing):
        try:
            cluster.delete_reservation(name)
        except InUse:
            stopped = cluster.cancel_jobs(name)
            log.info("jobs cancelled", cluster=cluster.slug, reservation=name, jobs=stopped)
            cluster.delete_reservation(name)


def _remove_accounts(
    cluster: Cluster, steps: Sequence[RemoveAccount], failures: Failures, go_on: GoOn
) -> bool:
    """Remove; where jobs still run, the limit goes to nothing instead, so that no more start meanwhile.

    A removed account's usage stays readable: accounting keeps its name in every job's record.
    """
    done = _in_batches(
        cluster,
        [step.actual for step in steps],
        lambda accounts: cluster.remove_accounts([account.name for account in accounts]),
        failures,
        go_on,
    )
    stuck = [step.actual for step in steps if step.name in failures and step.actual.gpu_minutes != 0]
    closed = [replace(account, gpu_minutes=0, logins=_plain(account.logins)) for account in stuck]
    return _in_batches(cluster, closed, cluster.save_accounts, {}, go_on) and done


def _plain(logins: Iterable[str]) -> frozenset[str]:
    """Logins without what accounts() adds to those whose association somebody has changed."""
    return frozenset(login.partition(" ")[0] for login in logins)


def _in_batches(
    cluster: Cluster,
    accounts: Sequence[Account],
    change: Callable[[Sequence[Account]], None],
    failures: Failures,
    go_on: GoOn,
) -> bool:
    """Change many at once; a batch that fails is halved until the bad ones stand alone."""
    waiting = [accounts[start : start + BATCH] for start in range(0, len(accounts), BATCH)]
    while waiting:
        if not go_on():
            return False
        batch = waiting.pop(0)
        try:
            change(batch)
        except ClusterError as error:
            if isinstance(error, Unreachable) and not cluster.health().accounting:
                # Each further batch would wait for its own timeout, and the reservations behind them too.
                batch = [*batch, *(account for rest in waiting for account in rest)]
                waiting = []
            if len(batch) == 1 or isinstance(error, Unreachable):
                for account in batch:
                    _fail(cluster, failures, account.name, error)
            else:
                half = len(batch) // 2
                waiting[:0] = [batch[:half], batch[half:]]
    return True


def _fail(cluster: Cluster, failures: Failures, name: str, error: ClusterError) -> None:
    """Remember the failure."""
    failures[name] = error
    log.warning("cluster step failed", cluster=cluster.slug, name=name, code=error.code, problem=str(error))
