"""SHA-256 of what a period was divided by and of what came of it, for the chain of events to keep.

Each is of canonical text, so that anybody with the rows can compute it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC

from allocator.models import Grant, Period, Proposal


def of_inputs(period: Period) -> str:
    """Capacity, pools and claims: all that shares depend on, and what the claims came from."""
    content = [
        period.name,
        period.cluster_id,
        period.gpu_type,
        period.starts_at.astimezone(UTC).isoformat(),
        period.ends_at.astimezone(UTC).isoformat(),
        [period.calendar, period.maintenance, period.reserve, period.capacity],
        period.details,
        period.policy_version,
        sorted([pool.slug, pool.guarantee, pool.cap, str(pool.weight)] for pool in period.pools),
        [
            [
                claim.reference,
                claim.quota_id,
                claim.category,
                claim.pool,
                [claim.remaining, claim.planned, claim.pace, claim.request, claim.minimum],
                str(claim.weight),
                claim.factors,
                claim.rank,
            ]
            for claim in sorted(period.claims, key=lambda claim: claim.reference)
        ],
    ]
    return _sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def of_shares(proposal: Proposal) -> str:
    """Who gets how many GPU-hours in a proposal."""
    return _of_lines((share.claim.quota_id, share.gpu_hours) for share in proposal.shares)


def of_grants(grants: Iterable[Grant]) -> str:
    """What publishing granted, GPU-seconds; grants that were made later, from the reserve, are not in it."""
    return _of_lines((grant.quota_id, grant.gpu_seconds) for grant in grants if grant.claim_id is not None)


def _of_lines(amounts: Iterable[tuple[int, int]]) -> str:
    return _sha256("\n".join(f"{quota_id}:{amount}" for quota_id, amount in sorted(amounts)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
