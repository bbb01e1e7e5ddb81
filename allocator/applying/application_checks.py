"""What an application must satisfy: a tuple of small pure checks, each a reason beside a field or None.

A draft answers only to what the database itself demands (``DRAFT_CHECKS``); submitting answers to everything.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from allocator.errors import Fault, Invalid
from allocator.inputs import Faults, check_email, email_key
from allocator.policy import Category, Identity, Policy
from config.i18n import N_

HOUR = 3600
DAY = timedelta(days=1)
MAX_TITLE = 200
MAX_PURPOSE = 5_000
MAX_REASON = 2_000
# Beyond this a number is a slip of the finger, whatever the policy says; it keeps arithmetic safe.
MAX_COUNT = 100_000
MAX_HOURS = Decimal(10) ** 9
LINE_BREAKS = "\n\r\t"


@dataclass(frozen=True)
class Proposal:
    """What an applicant filled in. ``gpu_hours`` is exact; the window is [earliest, latest)."""

    category: str
    organisation_id: int | None
    title: str
    purpose: str
    cluster: str  # its slug
    gpu_type: str
    nodes: int
    gpus_per_node: int
    gpu_hours: Decimal
    earliest: datetime
    latest: datetime
    team: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """What one cluster has of one GPU type: ``nodes_by_gpus`` counts nodes by the GPUs each has."""

    cluster_id: int
    cluster: str
    cluster_title: str
    gpu_type: str
    nodes_by_gpus: Mapping[int, int]
    shares_nodes: bool = True

    @property
    def most_gpus(self) -> int:
        """GPUs of the largest node."""
        return max(self.nodes_by_gpus, default=0)

    def nodes_with(self, gpus: int) -> int:
        """How many nodes have at least ``gpus`` GPUs."""
        return sum(count for size, count in self.nodes_by_gpus.items() if size >= gpus)

    @property
    def gpus(self) -> int:
        return sum(size * count for size, count in self.nodes_by_gpus.items())


@dataclass(frozen=True)
class Facts:
    """What the checks know besides the proposal; ``organisations`` are those the applicant speaks for."""

    policy: Policy
    now: datetime
    offer: Offer | None = None
    has_iin: bool = False
    organisations: frozenset[int] = field(default_factory=frozenset)
    applicant_email: str = ""

    def category(self, proposal: Proposal) -> Category | None:
        return self.policy.category(proposal.category)


Check = Callable[[Proposal, Facts], Fault | None]


def whole_seconds(gpu_hours: Decimal) -> int | None:
    """GPU-hours as integer GPU-seconds, or None when that would not be exact (or is no number at all)."""
    if not gpu_hours.is_finite() or abs(gpu_hours) > MAX_HOURS:
        return None
    seconds = gpu_hours * HOUR
    return int(seconds) if seconds == seconds.to_integral_value() else None


def most_gpu_seconds(nodes: int, gpus_per_node: int, start: datetime, end: datetime) -> int:
    """What nodes × GPUs can give in [start, end)."""
    return nodes * gpus_per_node * int((end - start) / timedelta(seconds=1))


def hours_text(gpu_seconds: int) -> str:
    """GPU-hours for a message, rounded down to hundredths so that typing the figure in again passes."""
    return amount_text(gpu_seconds * 100 // HOUR)


def amount_text(hundredths: int) -> str:
    """Hundredths as pages write numbers: `1 234,5` with no-break spaces; the forms read it back."""
    whole, rest = divmod(hundredths, 100)
    text = f"{whole:,}".replace(",", "\N{NO-BREAK SPACE}")
    return f"{text},{rest:02}".rstrip("0") if rest else text


def text_fault(text: str, most: int, *, lines: bool = False) -> Fault | None:
    """Too long, or with characters that no keyboard types; ``lines`` allows line breaks."""
    if len(text) > most:
        return Fault(
            N_("Shorten this to %(most)s characters; it has %(length)s."), {"most": most, "length": len(text)}
        )
    allowed = LINE_BREAKS if lines else ""
    # Cc are control characters, Cs lone surrogates that no database takes; bidi controls can make a text lie
    if any(unicodedata.category(sign) in ("Cc", "Cs") and sign not in allowed for sign in text):
        return Fault(N_("Remove the invisible control characters."))
    if any(unicodedata.bidirectional(sign) in BIDI_CONTROLS for sign in text):
        return Fault(N_("Remove the invisible control characters."))
    return None


BIDI_CONTROLS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def known_category(proposal: Proposal, facts: Facts) -> Fault | None:
    return None if facts.category(proposal) else Fault(N_("Choose one of the categories."))


def proved_identity(proposal: Proposal, facts: Facts) -> Fault | None:
    """A citizen needs an IIN in the profile (R-32)."""
    category = facts.category(proposal)
    if category and category.identity is Identity.IIN and not facts.has_iin:
        return Fault(N_("This category needs your IIN. Add it to your profile first."))
    return None


def own_organisation(proposal: Proposal, facts: Facts) -> Fault | None:
    """Ids of owners are never taken on trust: the organisation must be one that the applicant belongs to."""
    if proposal.organisation_id is not None and proposal.organisation_id not in facts.organisations:
        return Fault(N_("Choose an organisation that you belong to."))
    return None


def organisation_where_needed(proposal: Proposal, facts: Facts) -> Fault | None:
    category = facts.category(proposal)
    if category and category.identity is Identity.BIN and proposal.organisation_id is None:
        return Fault(
            N_("This category applies for an organisation. Choose yours, or add it by its BIN first.")
        )
    return None


def none_for_citizens(proposal: Proposal, facts: Facts) -> Fault | None:
    """Who applies as a citizen speaks for no organisation; dropping the choice unasked would hide that."""
    category = facts.category(proposal)
    if category and category.identity is Identity.IIN and proposal.organisation_id is not None:
        return Fault(N_("A citizen applies without an organisation: choose none here, or another category."))
    return None


def title_given(proposal: Proposal, _facts: Facts) -> Fault | None:
    if not proposal.title.strip():
        return Fault(N_("Give your work a short title."))
    return text_fault(proposal.title, MAX_TITLE)


def purpose_storable(proposal: Proposal, _facts: Facts) -> Fault | None:
    return text_fault(proposal.purpose, MAX_PURPOSE, lines=True)


def purpose_given(proposal: Proposal, _facts: Facts) -> Fault | None:
    return None if proposal.purpose.strip() else Fault(N_("Say what the hours are for."))


def known_hardware(_proposal: Proposal, facts: Facts) -> Fault | None:
    return None if facts.offer else Fault(N_("Choose a cluster and a GPU type from the list."))


def _count(number: int) -> Fault | None:
    if number < 1:
        return Fault(N_("Enter a whole number of 1 or more."))
    return Fault(N_("This is more than any cluster has.")) if number > MAX_COUNT else None


def nodes_counted(proposal: Proposal, _facts: Facts) -> Fault | None:
    return _count(proposal.nodes)


def gpus_counted(proposal: Proposal, _facts: Facts) -> Fault | None:
    return _count(proposal.gpus_per_node)


def gpus_in_a_node(proposal: Proposal, facts: Facts) -> Fault | None:
    if facts.offer is None or gpus_counted(proposal, facts):
        return None
    most = facts.offer.most_gpus
    if proposal.gpus_per_node > most:
        return Fault(N_("A node of this kind has %(most)s GPUs at most."), {"most": most})
    if not facts.offer.shares_nodes and proposal.gpus_per_node not in facts.offer.nodes_by_gpus:
        return Fault(N_("This cluster gives whole nodes only, with %(gpus)s GPUs each."), {"gpus": most})
    return None


def nodes_in_the_cluster(proposal: Proposal, facts: Facts) -> Fault | None:
    if facts.offer is None or nodes_counted(proposal, facts):
        return None
    # too many GPUs in a node is told beside that field; here it would only say "0 nodes"
    gpus = min(max(proposal.gpus_per_node, 1), facts.offer.most_gpus)
    most = facts.offer.nodes_with(gpus)
    if proposal.nodes > most:
        return Fault(N_("The cluster has %(most)s nodes of this kind."), {"most": most})
    return None


def hours_exact(proposal: Proposal, _facts: Facts) -> Fault | None:
    """More than zero, finite, and a whole number of GPU-seconds."""
    hours = proposal.gpu_hours
    if not hours.is_finite():
        return Fault(N_("Enter a number, for example 1 500 or 0,5."))
    if hours <= 0:
        return Fault(N_("Enter more than 0 GPU-hours."))
    if hours > MAX_HOURS:
        return Fault(N_("This is more than any cluster has."))
    return None if whole_seconds(hours) else Fault(N_("Use at most two decimals."))


def hours_within_policy(proposal: Proposal, facts: Facts) -> Fault | None:
    most = facts.policy.applications.max_gpu_hours
    if hours_exact(proposal, facts) or proposal.gpu_hours <= most:
        return None
    return Fault(
        N_("One application may ask for %(most)s GPU-hours at most."), {"most": hours_text(most * HOUR)}
    )


def hours_fit(proposal: Proposal, facts: Facts) -> Fault | None:
    """What nodes × GPUs cannot give between the dates even without a pause is impossible, whoever decides."""
    if any(check(proposal, facts) for check in (hours_exact, nodes_counted, gpus_counted, dates_in_order)):
        return None
    most = most_gpu_seconds(proposal.nodes, proposal.gpus_per_node, proposal.earliest, proposal.latest)
    if (whole_seconds(proposal.gpu_hours) or 0) <= most:
        return None
    return Fault(
        N_("%(nodes)s × %(gpus)s GPUs give %(most)s GPU-hours at most between these dates."),
        {"nodes": proposal.nodes, "gpus": proposal.gpus_per_node, "most": hours_text(most)},
    )


def dates_in_order(proposal: Proposal, _facts: Facts) -> Fault | None:
    if proposal.earliest < proposal.latest:
        return None
    return Fault(N_("The latest date comes before the earliest one."))


def earliest_to_come(proposal: Proposal, facts: Facts) -> Fault | None:
    """Today is allowed: a window begins with the day, which may be some hours old."""
    if proposal.earliest + DAY > facts.now:
        return None
    return Fault(N_("This day has passed. Choose today or a later day."))


def within_horizon(proposal: Proposal, facts: Facts) -> Fault | None:
    ahead = facts.policy.applications.max_ahead
    # the last moment of the last day still belongs to it
    if proposal.latest <= facts.now + ahead + DAY:
        return None
    return Fault(N_("Choose a day within the next %(days)s days."), {"days": ahead.days})


def window_not_too_long(proposal: Proposal, facts: Facts) -> Fault | None:
    longest = facts.policy.applications.max_window
    if dates_in_order(proposal, facts) or proposal.latest - proposal.earliest <= longest:
        return None
    return Fault(
        N_("From the earliest to the latest date it may be %(days)s days at most."), {"days": longest.days}
    )


def team_within_bounds(proposal: Proposal, facts: Facts) -> Fault | None:
    most = facts.policy.applications.max_team
    if len(proposal.team) <= most:
        return None
    return Fault(
        N_("A team has %(most)s people at most; this one has %(count)s."),
        {"most": most, "count": len(proposal.team)},
    )


def team_addresses(proposal: Proposal, facts: Facts) -> Fault | None:
    if team_within_bounds(proposal, facts):
        return None
    for email in proposal.team:
        found = Faults()
        check_email(found, "team", email)
        if found.fields:
            return Fault(N_("“%(email)s” is not an e-mail address."), {"email": email[:60]})
    return None


def team_once_each(proposal: Proposal, facts: Facts) -> Fault | None:
    seen: set[str] = set()
    for email in proposal.team:
        if email in seen:
            return Fault(N_("“%(email)s” stands here twice."), {"email": email[:60]})
        seen.add(email)
    if facts.applicant_email in seen:
        return Fault(N_("The applicant is in the team already; list only the others."))
    return None


Checks = tuple[tuple[str, Check], ...]

DRAFT_CHECKS: Checks = (
    ("category", known_category),
    ("organisation", own_organisation),
    ("organisation", none_for_citizens),
    ("title", title_given),
    ("purpose", purpose_storable),
    ("hardware", known_hardware),
    ("nodes", nodes_counted),
    ("gpus_per_node", gpus_counted),
    ("gpu_hours", hours_exact),
    ("latest", dates_in_order),
    ("team", team_within_bounds),
    ("team", team_addresses),
    ("team", team_once_each),
)

SUBMIT_CHECKS: Checks = (
    *DRAFT_CHECKS,
    ("category", proved_identity),
    ("organisation", organisation_where_needed),
    ("purpose", purpose_given),
    ("gpus_per_node", gpus_in_a_node),
    ("nodes", nodes_in_the_cluster),
    ("gpu_hours", hours_within_policy),
    ("gpu_hours", hours_fit),
    ("earliest", earliest_to_come),
    ("latest", within_horizon),
    ("latest", window_not_too_long),
)


# What a check reads besides the field that it stands beside.
READS: Mapping[Check, frozenset[str]] = {
    none_for_citizens: frozenset({"category"}),
    organisation_where_needed: frozenset({"category"}),
    gpus_in_a_node: frozenset({"hardware"}),
    nodes_in_the_cluster: frozenset({"hardware", "gpus_per_node"}),
    hours_fit: frozenset({"nodes", "gpus_per_node", "earliest", "latest"}),
    dates_in_order: frozenset({"earliest"}),
    window_not_too_long: frozenset({"earliest"}),
}


def faults(
    proposal: Proposal, facts: Facts, checks: Checks, unread: Collection[str] = ()
) -> dict[str, list[Fault]]:
    """Every fault at once, by the field it belongs to; nothing is said from fields that are ``unread``."""
    found: dict[str, list[Fault]] = {}
    for name, check in checks:
        if not READS.get(check, frozenset()).union((name,)).isdisjoint(unread):
            continue
        if fault := check(proposal, facts):
            found.setdefault(name, []).append(fault)
    return found


def require(proposal: Proposal, facts: Facts, checks: Checks) -> None:
    """Raise Invalid with every fault beside its field."""
    if found := faults(proposal, facts, checks):
        raise Invalid(found)


def normal_team(emails: Iterable[str], most: int) -> tuple[str, ...]:
    """Addresses as they are stored and compared, without empty ones.

    More than ``most`` are refused anyway and only counted: reading an address takes its time.
    """
    given = [email.strip() for email in emails if email.strip()]
    return tuple(email_key(email) for email in given) if len(given) <= most else tuple(given)
