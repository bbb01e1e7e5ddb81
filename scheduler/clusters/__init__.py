"""The clusters that Kezek speaks to: one protocol, one adapter for each way of reaching a Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.settings import ClusterSettings
    from scheduler.clusters.base import Cluster


def connect(settings: ClusterSettings, *, autopilot: bool = False) -> Cluster:
    """The cluster that ``settings`` describe; nothing is asked of it yet.

    ``autopilot`` lets jobs appear by themselves on a simulated cluster (the demonstration); others ignore it.
    """
    # Imported on demand: a site with one adapter needs neither the others' libraries nor their time.
    if settings.adapter == "simulated":
        from scheduler.clusters.simulated import SimulatedCluster

        return SimulatedCluster(settings, autopilot=autopilot)
    if settings.adapter == "slurm_cli":
        from scheduler.clusters.slurm_cli import SlurmCliCluster

        return SlurmCliCluster(settings)
    from scheduler.clusters.pyslurm import PyslurmCluster

    return PyslurmCluster(settings)
