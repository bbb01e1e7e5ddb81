"""A period's inputs and result for anybody to recompute: pseudonyms, no names, nothing of the work itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

from allocator.dividing.divisions import division_of
from allocator.fairshare import exporting
from allocator.models import Period, Proposal

COLUMNS = (
    "claim",
    "pool",
    "category",
    "request",
    "minimum",
    "weight",
    "sector",
    "merit",
    "credit",
    "share",
    "fixed",
    "set_aside",
)


def document(proposal: Proposal) -> dict[str, object]:
    """The JSON that the stand-alone checker reads, with what the capacity and the weights came from."""
    period = proposal.period
    return {
        **exporting.document(division_of(proposal)),
        "proposal": proposal.number,
        "policy_version": period.policy_version,
        "about": _about(period),
        "factors": {claim.reference: _factors(claim.factors) for claim in period.claims},
        "categories": {claim.reference: claim.category for claim in period.claims},
    }


def _about(period: Period) -> dict[str, object]:
    return {
        "cluster": period.cluster.slug,
        "gpu_type": period.gpu_type,
        "starts_at": period.starts_at.astimezone(UTC).isoformat(),
        "ends_at": period.ends_at.astimezone(UTC).isoformat(),
        "calendar": period.calendar,
        "maintenance": period.maintenance,
        "reserve": period.reserve,
        "state": period.state.value,
    }


def _factors(factors: list[Any]) -> dict[str, str]:
    return {factor["factor"]: factor["value"] for factor in factors}


def csv_rows(proposal: Proposal) -> Iterator[tuple[str, ...]]:
    """A header and a line for each claim, by its pseudonym; GPU-hours, exact fractions."""
    yield COLUMNS
    for share in sorted(proposal.shares, key=lambda share: share.claim.reference):
        claim = share.claim
        factors = _factors(claim.factors)
        yield (
            claim.reference,
            claim.pool,
            claim.category,
            str(claim.request),
            str(claim.minimum),
            str(claim.weight),
            factors["sector"],
            factors["merit"],
            factors["credit"],
            str(share.gpu_hours),
            "yes" if share.is_fixed else "",
            "yes" if share.is_set_aside else "",
        )
