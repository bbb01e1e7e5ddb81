"""Pools as horizontal bars: the geometry of an SVG 1000 units wide. The table beside it says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from allocator.dividing.period_queries import PoolRow

WIDTH = 1000


@dataclass(frozen=True)
class PoolBar:
    """One pool: the demand behind, the share before it; what is above the guarantee was lent by others."""

    row: PoolRow
    demand: int
    own: int
    borrowed: int
    guarantee: int


def pool_bars(rows: Sequence[PoolRow]) -> list[PoolBar]:
    """All pools on one scale, so that their bars can be compared."""
    scale = max((max(row.demand, row.share, row.guarantee) for row in rows), default=0) or 1

    def units(hours: int) -> int:
        # what is there at all must be seen, however little it is
        return max(hours * WIDTH // scale, 4) if hours else 0

    return [
        PoolBar(
            row,
            demand=units(row.demand),
            own=units(min(row.share, row.guarantee)),
            borrowed=units(max(row.share - row.guarantee, 0)),
            guarantee=min(row.guarantee * WIDTH // scale, WIDTH - 4),
        )
        for row in rows
    ]
