"""Mapped classes by subject; importing this package maps them all."""

from allocator.models.applications import Application, Decision, DecisionKind, TeamMember
from allocator.models.base import Base
from allocator.models.bookings import Booking, BookingSlot, Reservation
from allocator.models.clusters import Cluster, Node, NodeState
from allocator.models.grants import Credit, CreditCause, Grant, GrantChange, GrantChangeKind, Reclaim
from allocator.models.people import (
    Membership,
    OneTimeToken,
    Organisation,
    Person,
    RoleGrant,
    SignInAttempt,
    SignInSession,
    TokenPurpose,
)
from allocator.models.periods import (
    Adjustment,
    Period,
    PeriodClaim,
    PeriodPlan,
    PeriodPool,
    Proposal,
    ProposalKind,
    ProposalShare,
)
from allocator.models.policies import PolicyVersion
from allocator.models.quotas import Quota, QuotaMember
from allocator.models.records import (
    Event,
    EventChain,
    JobHealth,
    OutboxItem,
    OutboxState,
    SubmittedForm,
)
from allocator.models.usage import JobRecord

__all__ = [
    "Adjustment",
    "Application",
    "Base",
    "Booking",
    "BookingSlot",
    "Cluster",
    "Credit",
    "CreditCause",
    "Decision",
    "DecisionKind",
    "Event",
    "EventChain",
    "Grant",
    "GrantChange",
    "GrantChangeKind",
    "JobHealth",
    "JobRecord",
    "Membership",
    "Node",
    "NodeState",
    "OneTimeToken",
    "Organisation",
    "OutboxItem",
    "OutboxState",
    "Period",
    "PeriodClaim",
    "PeriodPlan",
    "PeriodPool",
    "Person",
    "PolicyVersion",
    "Proposal",
    "ProposalKind",
    "ProposalShare",
    "Quota",
    "QuotaMember",
    "Reclaim",
    "Reservation",
    "RoleGrant",
    "SignInAttempt",
    "SignInSession",
    "SubmittedForm",
    "TeamMember",
    "TokenPurpose",
]
