"""The policy: what a site decides, as typed data with a version that every decision and period records.

`load_policy(path)` reads `config/policy.toml` or the site's own file, `Policy` answers questions about it.
"""

from allocator.policy.difference import Change, differences, document_differences
from allocator.policy.errors import PolicyError, PolicyFault, PolicyGap
from allocator.policy.loading import load_policy, policy_of
from allocator.policy.policy import Policy, Price, Weight
from allocator.policy.rules import (
    ApplicationLimits,
    Body,
    BookingRules,
    Category,
    Clocks,
    CreditRules,
    DecisionPath,
    Funding,
    FundingMode,
    GpuType,
    Identity,
    MeritBand,
    PeriodLength,
    PeriodRules,
    PoolRules,
    RepairGoal,
    Sector,
    SectorList,
    Tariff,
    Texts,
    Tier,
    UseOrLose,
    UseStep,
)

__all__ = [
    "ApplicationLimits",
    "Body",
    "BookingRules",
    "Category",
    "Change",
    "Clocks",
    "CreditRules",
    "DecisionPath",
    "Funding",
    "FundingMode",
    "GpuType",
    "Identity",
    "MeritBand",
    "PeriodLength",
    "PeriodRules",
    "Policy",
    "PolicyError",
    "PolicyFault",
    "PolicyGap",
    "PoolRules",
    "Price",
    "RepairGoal",
    "Sector",
    "SectorList",
    "Tariff",
    "Texts",
    "Tier",
    "UseOrLose",
    "UseStep",
    "Weight",
    "differences",
    "document_differences",
    "load_policy",
    "policy_of",
]
