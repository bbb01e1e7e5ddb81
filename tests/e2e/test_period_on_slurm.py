"""Grants of a period on a real Slurm 22.05: Fair Tree shares and GrpTRESMins, and what comes when it ends.

Two periods of an hour follow each other; the first ends while the test watches. A real scheduler process
does everything, with a round each second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.db import Database
from allocator.dividing import period_limits, periods, publication
from allocator.dividing.period_plans import set_plan
from allocator.models import Cluster, Grant, Period, Quota
from allocator.policy import load_policy
from allocator.states import PeriodState
from config.clock import utcnow
from config.labs.native import NativeLab
from tests import factories
from tests.dividing import KEY
from tests.e2e.processes import environment, note, scheduler, seconds_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]

POLICY = load_policy()
HOUR = timedelta(hours=1)
# GPU-hours that the holders plan in the two periods: what is left of an hour's 31 goes to who wants it all.
PLANS = ({"small": 5, "large": 100}, {"small": 12, "large": 100})


@dataclass
class World:
    """A site with two quotas of 100 GPU-hours for the login that runs jobs in the lab."""

    lab: NativeLab
    database: Database
    quotas: dict[str, int]

    def account(self, name: str) -> str:
        return Quota.account_name(self.quotas[name])

    def minutes(self, name: str) -> int:
        """GrpTRESMins of the quota's QOS as sacctmgr shows it."""
        shown = self.lab.run(
            "sacctmgr", "-n", "-P", "show", "qos", self.account(name), "format=grptresmins"
        ).strip()
        return int(shown.removeprefix("gres/gpu=") or -1)

    def shares(self, name: str) -> int:
        """Fair Tree's raw shares of the account as sshare shows them; 0 before slurmctld knows it."""
        shown = self.lab.run("sshare", "-n", "-P", "-A", self.account(name), "-o", "account,user,rawshares")
        rows = [line.strip().split("|") for line in shown.splitlines()]
        return next((int(shares) for account, user, shares in rows if account.strip() and not user), 0)

    def shown(self) -> dict[str, tuple[int, int]]:
        return {name: (self.shares(name), self.minutes(name)) for name in self.quotas}

    def submit(self, name: str, gpus: int, minutes: int) -> int:
        options = [f"--account={self.account(name)}", f"--gres=gpu:{gpus}", f"--time={minutes}", "--nodes=1"]
        return self.lab.sbatch(options, f"#!/bin/sh\nexec sleep {60 * minutes}\n")

    def job(self, job_id: int) -> str:
        return self.lab.run("squeue", "-h", "-j", str(job_id), "-o", "%T %r", "--states=all").strip()

    def granted(self, period_id: int) -> dict[str, int]:
        """GPU-hours by quota as published."""
        with self.database.reader() as session:
            rows = session.query(Grant).filter(Grant.period_id == period_id)
            names = {quota_id: name for name, quota_id in self.quotas.items()}
            return {names[row.quota_id]: row.gpu_seconds // 3600 for row in rows}


def fill(session: Session, lab: NativeLab) -> tuple[Cluster, dict[str, Quota], list[Actor]]:
    now = utcnow()
    cluster = factories.cluster(session, slug="alem", nodes=4, now=now, shares_nodes=False)
    for node, name in zip(cluster.nodes, lab.node_names, strict=True):
        node.name = name
    person = factories.person(session, cluster_login=lab.job_user)
    month = (now - timedelta(days=1), now + timedelta(days=30))
    quotas = {
        name: factories.quota(
            session,
            factories.application(session, person, cluster, category="science", gpu_hours=100),
            gpu_hours=100,
            valid_from=month[0],
            valid_until=month[1],
            now=now,
        )
        for name in ("small", "large")
    }
    operators = [factories.person(session, roles=[Role.OPERATOR]) for _ in range(2)]
    return cluster, quotas, [factories.actor_of(one) for one in operators]


def publish(
    session: Session,
    cluster: Cluster,
    quotas: dict[str, Quota],
    who: list[Actor],
    starts_at: datetime,
    plan: dict[str, int],
) -> Period:
    """An hour from ``starts_at``: opened, planned, proposed by one, published by the other."""
    now = utcnow()
    opening = periods.Opening(cluster.id, "h200", starts_at, starts_at + HOUR)
    period = periods.open_period(session, who[0], opening, policy=POLICY, key=KEY, now=now)
    for name, hours in plan.items():
        holder = factories.actor_of(quotas[name].application.applicant)
        set_plan(session, holder, period, quotas[name], hours, 0, now=now)
    periods.collect(session, who[0], period, policy=POLICY, key=KEY, now=now)
    proposal = periods.propose(session, who[0], period, now=now)
    return publication.publish(session, who[1], proposal, expected_version=period.version, now=now)


def test_grants_become_shares_and_limits_until_the_next_period(
    own_lab: NativeLab, postgres_database: Database, postgres_url: str, tmp_path: Path
) -> None:
    database = postgres_database
    with database.transaction() as session:
        cluster, quotas, who = fill(session, own_lab)
        world = World(own_lab, database, {name: quota.id for name, quota in quotas.items()})
    given = {"slug": "alem", "adapter": "slurm_cli", "slurm_conf": str(own_lab.slurm_conf)}
    env = environment(postgres_url, tmp_path, {**given, "env": dict(own_lab.env)})
    with scheduler(env):
        # Without a period the quota alone limits, and everybody's share is Slurm's own one.
        seconds_until(lambda: {world.minutes(name) for name in world.quotas} == {6_000}, 90)

        turn = utcnow().replace(microsecond=0) + timedelta(seconds=120)
        with database.transaction() as session:
            cluster = session.merge(cluster)
            quotas = {name: session.merge(quota) for name, quota in quotas.items()}
            first, second = (
                publish(session, cluster, quotas, who, starts_at, plan).id
                for starts_at, plan in zip((turn - HOUR, turn), PLANS, strict=True)
            )
        assert world.granted(first) == {"small": 5, "large": 26}
        assert world.granted(second) == {"small": 12, "large": 19}
        wanted = {name: (hours, 60 * hours) for name, hours in world.granted(first).items()}
        note("a published period is in Slurm", seconds_until(lambda: world.shown() == wanted, 60))

        beyond, within = world.submit("small", 8, 60), world.submit("small", 8, 2)
        seconds_until(lambda: world.job(beyond) == "PENDING QOSGrpGRESMinutes", 30)
        seconds_until(lambda: world.job(within).startswith("RUNNING"), 30)
        own_lab.run("scancel", str(within))

        seconds_until(lambda: utcnow() >= turn, 150)
        took = seconds_until(lambda: _is_second(world, database, second), 60)
        note("the next period is in Slurm", took)
        # What was used before counts on top: Slurm's counter knows no periods.
        assert 60 * 12 <= world.minutes("small") <= 60 * 12 + 8 * 2
        assert world.minutes("large") == 60 * 19
        # 480 GPU-minutes were beyond the first grant and are within the second one.
        seconds_until(lambda: world.job(beyond).startswith("RUNNING"), 60)
        own_lab.run("scancel", str(beyond))
    with database.reader() as session:
        states = [session.get_one(Period, one).state for one in (first, second)]
    assert states == [PeriodState.CLOSED, PeriodState.PUBLISHED]


def _is_second(world: World, database: Database, period_id: int) -> bool:
    """Whether Slurm shows the second period's shares, and its grants beside what had been used before."""
    granted = world.granted(period_id)
    with database.reader() as session:
        cluster_id = session.get_one(Period, period_id).cluster_id
        limits = period_limits.current_limits(session, cluster_id, utcnow())
    minutes = {name: sum(limits[quota_id]) // 60 for name, quota_id in world.quotas.items()}
    return world.shown() == {name: (granted[name], minutes[name]) for name in granted}
