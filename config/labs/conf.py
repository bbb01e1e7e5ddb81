"""The configuration files of a lab, as text; both Slurm releases share all but a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "lab"
PARTITION = "gpu"
GPU_TYPE = "h200"


@dataclass(frozen=True)
class Layout:
    """Where things are, as the daemons see them.

    `run` is short and readable by all (sockets, configuration, job scripts; a unix socket's path ends at
    107 bytes); `state` outlives the lab (database, slurmctld's state, logs) and is the owner's alone.
    """

    run: Path
    state: Path

    @property
    def munge_socket(self) -> Path:
        return self.run / "munge.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.run / "mysql.sock"

    @property
    def database(self) -> Path:
        return self.state / "db"

    @property
    def logs(self) -> Path:
        return self.state / "log"


NODES_PER_LEAF = 2


@dataclass(frozen=True)
class Plan:
    """What a lab is made of: ports[0] is slurmctld's, ports[1] slurmdbd's, the rest one per node.

    `local`: the host's name resolves to the loopback `address`, so that the daemons can bind to it alone.
    """

    ports: range
    nodes: int
    gpus: int
    host: str
    address: str
    local: bool
    owner: str
    slurmd_timeout: int

    @property
    def node_names(self) -> list[str]:
        return [f"gpu{i:04d}" for i in range(1, self.nodes + 1)]

    @property
    def leaves(self) -> dict[str, list[str]]:
        """The nodes under each leaf switch."""
        names = self.node_names
        firsts = range(0, len(names), NODES_PER_LEAF)
        return {f"leaf{n}": names[first : first + NODES_PER_LEAF] for n, first in enumerate(firsts, 1)}


def lines(settings: Mapping[str, object]) -> str:
    """`key=value` lines, as every file of Slurm's wants them."""
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def slurm_conf(plan: Plan, at: Layout, auth: Mapping[str, object]) -> str:
    """slurm.conf: accounting with limits enforced, fast scheduling, four hundred CPUs of pretence."""
    settings: dict[str, object] = {
        "ClusterName": CLUSTER,
        "SlurmctldHost": f"{plan.host}({plan.address})",
        "SlurmctldPort": plan.ports[0],
        "SlurmUser": plan.owner,
        "SlurmdUser": plan.owner,
        **auth,
        **_listening(plan),
        "StateSaveLocation": at.state / "ctld",
        "SlurmdSpoolDir": at.run / "spool/%n",
        "SlurmctldPidFile": at.run / "slurmctld.pid",
        "SlurmdPidFile": at.run / "slurmd.%n.pid",
        "SlurmctldLogFile": at.logs / "slurmctld.log",
        "SlurmdLogFile": at.logs / "slurmd.%n.log",
        "MailProg": "/bin/true",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "ReturnToService": 2,
        "SlurmdTimeout": plan.slurmd_timeout,
        "SlurmctldTimeout": 30,
        "InactiveLimit": 0,
        "KillWait": 2,
        "MinJobAge": 300,
        "SchedulerType": "sched/backfill",
        # A reservation's start is noticed by the periodic pass, a minute apart by default.
        "SchedulerParameters": "bf_interval=2,sched_interval=2,sched_min_interval=100000,batch_sched_delay=0",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SlurmdParameters": "config_overrides",
        "PriorityType": "priority/multifactor",
        # Limits in GPU-minutes must not fade: usage is what was used.
        "PriorityDecayHalfLife": 0,
        "PriorityUsageResetPeriod": "NONE",
        "PriorityCalcPeriod": 1,
        "PriorityWeightFairshare": 100000,
        "PriorityWeightQOS": 10000,
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": plan.address,
        "AccountingStoragePort": plan.ports[1],
        "AccountingStorageTRES": f"gres/gpu,gres/gpu:{GPU_TYPE}",
        "AccountingStorageEnforce": "associations,limits,qos,safe",
        "AccountingStoreFlags": "job_comment",
        "GresTypes": "gpu",
        "TopologyPlugin": "topology/tree",
        "MaxArraySize": 10001,
        "MaxJobCount": 100000,
    }
    return lines(settings) + _nodes(plan)


def _listening(plan: Plan) -> dict[str, object]:
    """Listen on the loopback address only; Slurm finds it through the host's name and dies if it cannot."""
    return {"CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny"} if plan.local else {}


def _nodes(plan: Plan) -> str:
    hardware = "CPUs=64 Boards=1 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=2000000"
    text = f"NodeName=DEFAULT {hardware} Gres=gpu:{GPU_TYPE}:{plan.gpus}\n"
    for name, port in zip(plan.node_names, plan.ports[2:], strict=True):
        text += f"NodeName={name} NodeHostname={plan.host} NodeAddr={plan.address} Port={port}\n"
    return text + (
        f"PartitionName={PARTITION} Nodes=ALL Default=YES "
        "MaxTime=7-0 DefaultTime=60 DefMemPerCPU=1000 State=UP\n"
    )


def topology_conf(plan: Plan) -> str:
    """topology.conf: a tree of two levels, a pair of nodes under each leaf."""
    leaves = [f"SwitchName={leaf} Nodes={','.join(names)}\n" for leaf, names in plan.leaves.items()]
    return "".join(leaves) + f"SwitchName=spine Switches={','.join(plan.leaves)}\n"


def slurmdbd_conf(plan: Plan, at: Layout, auth: Mapping[str, object]) -> str:
    """slurmdbd.conf; the database knows its user by the login on the socket, so there is no password."""
    return lines(
        {
            "DbdHost": plan.host,
            "DbdAddr": plan.address,
            "DbdPort": plan.ports[1],
            "SlurmUser": plan.owner,
            **auth,
            **_listening(plan),
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "localhost",
            "StorageUser": plan.owner,
            "StorageLoc": "slurm_acct_db",
            "PidFile": at.run / "slurmdbd.pid",
            "LogFile": at.logs / "slurmdbd.log",
            "DebugLevel": "info",
        }
    )


def gres_conf(devices: Sequence[Path]) -> str:
    """gres.conf: a GPU is a file; a count without files leaves the node invalid."""
    return "".join(f"Name=gpu Type={GPU_TYPE} File={device}\n" for device in devices)


def mariadbd(at: Layout, owner: str, extra: Sequence[str] = ()) -> list[str]:
    """mariadbd's command line: a socket only, sized and relaxed for a throw-away database."""
    return [
        "mariadbd",
        "--no-defaults",
        f"--user={owner}",
        f"--datadir={at.database}",
        f"--socket={at.mysql_socket}",
        f"--pid-file={at.run / 'mysqld.pid'}",
        "--skip-networking",
        "--skip-log-bin",
        "--innodb-buffer-pool-size=128M",
        "--innodb-log-file-size=32M",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-doublewrite=0",
        "--performance-schema=0",
        "--max-allowed-packet=64M",
        *extra,
    ]
