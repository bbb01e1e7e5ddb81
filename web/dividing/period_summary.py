"""A division's figures, computed once: a stored proposal never changes, and many claims take seconds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from flask import current_app

from allocator.dividing import fairness, period_queries
from allocator.dividing.fairness import Fairness
from allocator.dividing.period_queries import PoolRow
from allocator.models import Proposal

KEPT = 64
KEY = "kezek.period_summaries"
Key = tuple[int, str, datetime]


@dataclass(frozen=True)
class Summary:
    """What a board says above its list; GPU-hours."""

    pools: list[PoolRow]
    claims: int
    demand: int
    divided: int
    served: int
    figures: Fairness


def summary_of(proposal: Proposal) -> Summary:
    """The figures of a stored proposal, kept for the next reader: the public page must cost little."""
    known = cast("OrderedDict[Key, Summary]", current_app.extensions.setdefault(KEY, OrderedDict()))
    # the number alone is not enough: a database that was restored from a copy gives it to another one
    key = (proposal.id, proposal.period.name, proposal.created_at)
    found = known.get(key)
    if found is None:
        found = known[key] = _compute(proposal)
        while len(known) > KEPT:
            known.popitem(last=False)
    return found


def _compute(proposal: Proposal) -> Summary:
    return Summary(
        pools=period_queries.pool_rows(proposal),
        claims=len(proposal.shares),
        demand=sum(share.claim.request for share in proposal.shares),
        divided=sum(share.gpu_hours for share in proposal.shares),
        served=sum(share.gpu_hours > 0 for share in proposal.shares),
        figures=fairness.of_proposal(proposal),
    )
