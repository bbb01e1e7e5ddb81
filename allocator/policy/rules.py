"""The rules as types: what a policy says, section by section, as plain values.

Percentages are whole numbers, factors exact fractions, money Decimal tenge, titles texts by language.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

Texts = Mapping[str, str]  # by language: kk, ru, en, every one of them there


class Identity(StrEnum):
    """What an applicant of a category must have proved: a person's IIN or an organisation's BIN (R-32)."""

    IIN = "iin"
    BIN = "bin"


class FundingMode(StrEnum):
    """Who pays: nobody, the state a part, the applicant all, or as an order says."""

    FREE = "free"
    SUBSIDY = "subsidy"
    TARIFF = "tariff"
    ORDER = "order"


class DecisionPath(StrEnum):
    """Who decides on an application, in growing order."""

    OPERATOR = "operator"
    OPERATOR_TECHNICAL = "operator_technical"
    TWO_OPERATORS_EXPERT = "two_operators_expert"
    COUNCIL = "council"


class PeriodLength(StrEnum):
    """How long the stretch is whose capacity is divided."""

    MONTH = "month"


@dataclass(frozen=True)
class Funding:
    """How a category pays.

    ``free_hours_a_year`` GPU-hours come before any price; ``subsidy_percent`` of the price is paid by the
    state for at most ``subsidy_months`` (None: without end).
    """

    mode: FundingMode
    free_hours_a_year: int = 0
    subsidy_percent: int = 0
    subsidy_months: int | None = None


@dataclass(frozen=True)
class Category:
    """Who rents; ``least_path`` is a path that no application of theirs stays below."""

    slug: str
    pool: str
    identity: Identity
    titles: Texts
    hints: Texts
    evidence: Texts
    funding: Funding
    least_path: DecisionPath | None = None


@dataclass(frozen=True)
class PoolRules:
    """A part of each period's capacity: ``percent`` is guaranteed, ``cap_percent`` never passed, and what
    others leave is lent by ``weight``."""

    slug: str
    percent: int
    cap_percent: int | None
    weight: Fraction
    titles: Texts


@dataclass(frozen=True)
class Tier:
    """Applications up to these sizes go this way; None is without limit. One of the two deadlines is set."""

    slug: str
    path: DecisionPath
    titles: Texts
    max_gpu_hours: int | None
    max_gpus: int | None
    max_days: int | None
    working_days: int | None
    calendar_days: int | None

    def holds(self, gpu_hours: int | Decimal | Fraction, gpus: int, days: int) -> bool:
        """Whether an application of this size is within the tier's limits."""
        asked = ((gpu_hours, self.max_gpu_hours), (gpus, self.max_gpus), (days, self.max_days))
        return all(most is None or value <= most for value, most in asked)


@dataclass(frozen=True)
class Clocks:
    """Deadlines of a decision's steps, in working days: completeness check, the applicant's clarification."""

    completeness_days: int
    clarification_days: int


@dataclass(frozen=True)
class SectorList:
    """Of which year the list is, and the decision that it rests on (R-13)."""

    year: int
    decision: Texts


@dataclass(frozen=True)
class Sector:
    """A priority sector: organisations whose OKED code begins with one of ``oked`` (R-12, R-38)."""

    slug: str
    weight: Fraction
    oked: tuple[str, ...]
    titles: Texts


@dataclass(frozen=True)
class MeritBand:
    """What the work is worth beside others of its pool, as a factor of the weight; ``meanings`` say when."""

    slug: str
    factor: Fraction
    titles: Texts
    meanings: Texts


@dataclass(frozen=True)
class CreditRules:
    """The factor that repays an earlier shortfall.

    ``decay`` is what stays of a credit from one period to the next, ``strength`` how much of a shortfall goes
    into the factor, ``returned`` which part of hours given back of one's own will counts as a shortfall.
    """

    minimum: Fraction
    maximum: Fraction
    decay: Fraction
    strength: Fraction
    returned: Fraction

    def bounded(self, credit: Fraction) -> Fraction:
        """The credit as it may count."""
        return min(max(credit, self.minimum), self.maximum)


@dataclass(frozen=True)
class PeriodRules:
    """How capacity is divided into periods.

    Shares are whole multiples of ``unit_hours`` GPU-hours; ``reserve_percent`` stays for late approvals and
    outages. A proposal is due ``proposal_days`` before the period begins, publication ``publication_days``.
    The draft is opened by itself ``open_days`` before; 0 leaves that to people.
    """

    length: PeriodLength
    unit_hours: int
    reserve_percent: int
    proposal_days: int
    publication_days: int
    open_days: int


@dataclass(frozen=True)
class GpuType:
    """What one GPU of a type (Slurm's name) can do, in TFLOPS: only shown, nothing is divided by it."""

    slug: str
    tflops: int


@dataclass(frozen=True)
class UseStep:
    """Who used less than ``below_percent`` of the own plan gives ``take_percent`` of what is left back."""

    below_percent: int
    take_percent: int


@dataclass(frozen=True)
class UseOrLose:
    """The published table, lowest step first.

    It is looked at from ``check_percent`` of the period on; a warning goes ``warning_days`` ahead.
    """

    steps: tuple[UseStep, ...]
    check_percent: int
    warning_days: int

    def taken_back(self, used: int, planned: int) -> Fraction:
        """The part (0 … 1) of the unused hours that is taken back; nothing planned, nothing taken.

        ``used`` and ``planned`` are amounts in one unit, both up to the same moment.
        """
        # compared as integers: 699 of 1,000 is below 70 %, 700 is not
        step = next((step for step in self.steps if used * 100 < step.below_percent * planned), None)
        return Fraction(step.take_percent, 100) if step else Fraction(0)


@dataclass(frozen=True)
class Tariff:
    """What a GPU-hour costs in tenge before VAT (R-34); ``placeholder`` as long as nobody has set it."""

    tenge_per_gpu_hour: Decimal
    vat_percent: int
    placeholder: bool


@dataclass(frozen=True)
class Body:
    """A body that decides or advises. Names change, so they are data (R-27)."""

    slug: str
    titles: Texts


@dataclass(frozen=True)
class ApplicationLimits:
    max_gpu_hours: int
    max_team: int
    max_ahead: timedelta
    max_window: timedelta


class RepairGoal(StrEnum):
    """Which variant of a repair is shown first: moves against drops is the site's choice."""

    FEWEST_MOVES = "fewest_moves"
    FEWEST_DROPS = "fewest_drops"


@dataclass(frozen=True)
class BookingRules:
    """What every booking keeps to; lengths of time, and whole numbers where the name says so."""

    boundary: timedelta  # bookings begin and end on multiples of it, by the site's clock
    day_starts_at: time  # where a booking of whole days begins
    min_length: timedelta
    max_length: timedelta
    max_ahead: timedelta
    lead_time: timedelta
    cleaning: timedelta  # stays free on a GPU after each booking
    hold: timedelta  # how long an offer is kept
    max_open: int  # bookings of one quota that are not over
    max_open_percent: int  # of a quota's GPU-hours in bookings that have not begun
    fix_ahead: timedelta  # a flexible booking is fixed so long before the start that is planned for it
    extend_within: timedelta  # a booking may be extended in the last so many hours before its end
    no_show: timedelta  # without a job for so long after the start, a warning
    no_show_grace: timedelta  # and so long after the warning the rest is released
    waitlist_answer: timedelta
    move_answer: timedelta
    move_notice: timedelta  # nobody is moved by others to an earlier start that is nearer than this
    materialise: timedelta  # only what starts so soon is told to Slurm
    repair: RepairGoal
