"""What `kezek doctor` asks of the clusters."""

from __future__ import annotations

from collections.abc import Iterator

from config.doctor import Check
from config.settings import ClusterSettings, Settings
from scheduler.clusters import connect
from scheduler.clusters.base import ClusterError, NodeState
from scheduler.reconcile import MOST_SKEW


def cluster(settings: Settings) -> Iterator[Check]:
    """Each cluster answers, with nodes, accounting, and a clock that agrees with ours."""
    for one in settings.clusters:
        yield from _check(one)


def _check(settings: ClusterSettings) -> Iterator[Check]:
    name = f"cluster {settings.slug}"
    try:
        connection = connect(settings)
        health = connection.health()
        nodes = connection.nodes()
    except ClusterError as error:
        advice = "Check that slurmctld runs, and that `scontrol ping` works for the user that runs Kezek."
        yield Check(name, False, str(error), advice)
        return
    except ImportError as error:
        yield Check(name, False, f"{settings.adapter}: {error}", "Install what this adapter needs.")
        return
    gpus = sum(node.gpus for node in nodes)
    missing = sum(node.state is not NodeState.UP for node in nodes)
    out = f", {missing} of them down or drained" if missing else ""
    yield Check(
        name,
        bool(nodes),
        f"{settings.adapter}, Slurm {health.version}, {len(nodes)} nodes with {gpus} GPUs{out}",
        "No node has GPUs: check Gres in slurm.conf.",
    )
    yield Check(
        f"{name} accounting",
        health.accounting,
        "answers" if health.accounting else "does not answer",
        "Check slurmdbd and its database: limits and usage wait for it.",
    )
    seconds = health.clock_skew.total_seconds()
    yield Check(
        f"{name} clock",
        abs(health.clock_skew) <= MOST_SKEW,
        f"{seconds:+.0f} s from ours",
        "Set both clocks by NTP: reservations are made by the cluster's time.",
    )
