"""What the planner is asked: bookings as columns over nodes of one GPU type, and what is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[Any]

GPUS_PER_NODE = 8


class BadDemand(ValueError):
    """The demand contradicts itself; the message says which booking and why."""


class Asked(Protocol):
    """The least a demand must have. Columns are of equal length n; times are slots.

    A booking wants ``nodes`` nodes with ``gpus`` GPUs on each (8, or fewer on a single node) for ``duration``
    slots inside [earliest, latest). Its value is nodes · gpus · duration · weight.
    """

    @property
    def nodes_total(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def slot_hours(self) -> float: ...
    @property
    def nodes(self) -> Column: ...
    @property
    def gpus(self) -> Column: ...
    @property
    def duration(self) -> Column: ...
    @property
    def earliest(self) -> Column: ...
    @property
    def latest(self) -> Column: ...
    @property
    def weight(self) -> Column: ...


@dataclass(frozen=True, slots=True)
class Pin:
    """A booking whose start is settled, and its nodes too unless ``nodes`` is empty."""

    start: int
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Bookings with all that may surround them; several GPU types are several demands (see ``by_pool``).

    capacity: GPUs usable on each node at each slot, nodes × slots, int8; None: all 8 always. Maintenance,
    failure and growth are all edits of it. groups: the leaf switch of each node, by number.
    """

    nodes_total: int
    slots: int
    slot_hours: float
    nodes: Column
    gpus: Column
    duration: Column
    earliest: Column
    latest: Column
    weight: Column
    capacity: NDArray[np.int8] | None = None
    pinned: Mapping[int, Pin] = field(default_factory=dict)
    groups: tuple[int, ...] | None = None

    @classmethod
    def of(cls, asked: Asked) -> Demand:
        """Anything with the columns, checked. Raises BadDemand."""
        demand = asked if isinstance(asked, Demand) else cls(**{name: getattr(asked, name) for name in NAMES})
        _check(demand)
        return demand

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def value(self) -> NDArray[np.float64]:
        """Weighted GPU-slots of each booking."""
        import numpy as np

        return np.asarray(self.nodes * self.gpus * self.duration * self.weight, dtype=np.float64)


NAMES = (
    "nodes_total", "slots", "slot_hours", "nodes", "gpus", "duration", "earliest", "latest", "weight",
)  # fmt: skip
COLUMNS = NAMES[3:]


def by_pool(demand: Asked, pool: Column) -> dict[Any, tuple[Column, dict[str, Column]]]:
    """Split columns by the pool (GPU type) of each booking: pool -> (places in the demand, its columns)."""
    import numpy as np

    split = {}
    for name in np.unique(pool):
        places = np.flatnonzero(pool == name)
        split[name] = places, {column: getattr(demand, column)[places] for column in COLUMNS}
    return split


def _check(demand: Demand) -> None:
    import numpy as np

    if demand.nodes_total < 1 or demand.slots < 1:
        raise BadDemand("a demand needs at least one node and one slot")
    count = len(demand)
    for name in COLUMNS:
        if np.shape(getattr(demand, name)) != (count,):
            raise BadDemand(f"column {name} has not {count} entries")
    wrong = {
        "asks for no node": demand.nodes < 1,
        "asks for less than one or more than eight GPUs": (demand.gpus < 1) | (demand.gpus > GPUS_PER_NODE),
        "asks for parts of several nodes": (demand.nodes > 1) & (demand.gpus < GPUS_PER_NODE),
        "lasts no slot": demand.duration < 1,
        "has a window beyond the horizon": (demand.earliest < 0) | (demand.latest > demand.slots),
        "has a weight below nought": ~(demand.weight >= 0),
    }
    for reason, where in wrong.items():
        if np.any(where):
            raise BadDemand(f"booking {int(np.argmax(where))} {reason}")
    shape = (demand.nodes_total, demand.slots)
    if demand.capacity is not None and (
        demand.capacity.shape != shape or demand.capacity.min() < 0 or demand.capacity.max() > GPUS_PER_NODE
    ):
        raise BadDemand(f"capacity must be nodes × slots = {shape}, from 0 to {GPUS_PER_NODE}")
    if demand.groups is not None and len(demand.groups) != demand.nodes_total:
        raise BadDemand("groups must name a leaf switch for every node")
    for j, pin in demand.pinned.items():
        _check_pin(demand, j, pin)


def _check_pin(demand: Demand, j: int, pin: Pin) -> None:
    if not 0 <= j < len(demand):
        raise BadDemand(f"pinned booking {j} does not exist")
    # A pin may lie outside the window: what has been settled is settled.
    if pin.start < 0 or pin.start + demand.duration[j] > demand.slots:
        raise BadDemand(f"booking {j} is pinned beyond the horizon")
    if pin.nodes and len(set(pin.nodes)) != demand.nodes[j]:
        raise BadDemand(
            f"booking {j} is pinned to {len(set(pin.nodes))} nodes and asks for {demand.nodes[j]}"
        )
    if any(not 0 <= node < demand.nodes_total for node in pin.nodes):
        raise BadDemand(f"booking {j} is pinned to a node that does not exist")
