"""Mapped classes by subject; importing this package maps them all."""

from allocator.models.applications import Application, Decision, DecisionKind, TeamMember
from allocator.models.base import Base
from allocator.models.bookings import (
    Booking,
    BookingKind,
    BookingMove,
    BookingSeries,
    NodeSlot,
    Reservation,
)
from allocator.models.clusters import Cluster, Node, NodeState
from allocator.models.grants import Credit, CreditCause, Grant, GrantChange, GrantChangeKind, Reclaim
from allocator.models.outages import (
    Outage,
    OutageKind,
    OutageNode,
    PlanRun,
    Repair,
    RepairCause,
    RepairStep,
)
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
from allocator.models.waitlist import CalendarFeed, WaitlistEntry

__all__ = [
    "Adjustment",
    "Application",
    "Base",
    "Booking",
    "BookingKind",
    "BookingMove",
    "BookingSeries",
    "CalendarFeed",
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
    "NodeSlot",
    "NodeState",
    "OneTimeToken",
    "Organisation",
    "Outage",
    "OutageKind",
    "OutageNode",
    "OutboxItem",
    "OutboxState",
    "Period",
    "PeriodClaim",
    "PeriodPlan",
    "PeriodPool",
    "Person",
    "PlanRun",
    "PolicyVersion",
    "Proposal",
    "ProposalKind",
    "ProposalShare",
    "Quota",
    "QuotaMember",
    "Reclaim",
    "Repair",
    "RepairCause",
    "RepairStep",
    "Reservation",
    "RoleGrant",
    "SignInAttempt",
    "SignInSession",
    "SubmittedForm",
    "TeamMember",
    "TokenPurpose",
    "WaitlistEntry",
]
