"""Largest-remainder rounding (Hamilton's method) of exact amounts to whole hours, ties by public hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def round_up_which(
    remainders: Sequence[int], ups: int, digest_of: Callable[[int], str]
) -> tuple[list[int], int | None]:
    """Which positions are rounded up, and the last of them; larger remainders first, then lower hashes.

    ``remainders`` share one denominator; ``ups`` of them go up. Hashes are taken only where the cut falls.
    """
    if ups == 0:
        return [], None
    order = sorted(range(len(remainders)), key=remainders.__getitem__, reverse=True)
    edge = remainders[order[ups - 1]]
    above = [place for place in order[:ups] if remainders[place] > edge]
    tied = sorted((place for place in order if remainders[place] == edge), key=digest_of)
    last = tied[ups - len(above) - 1]
    return above + tied[: ups - len(above)], last


def apportion(total: int, weights: Sequence[int], digest_of: Callable[[int], str]) -> list[int]:
    """``total`` split in proportion to ``weights`` (not all zero unless total is), in whole numbers."""
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    remainders = [total * weight % whole for weight in weights]
    for place in round_up_which(remainders, total - sum(parts), digest_of)[0]:
        parts[place] += 1
    return parts
