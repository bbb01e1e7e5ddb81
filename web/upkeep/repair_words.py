"""Both ways to mend a plan, side by side: who is affected, and what it comes to in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flask_babel import gettext, ngettext

from allocator.models import Booking, Repair, RepairCause, RepairStep
from allocator.policy import RepairGoal
from allocator.states import RepairState
from allocator.upkeep.mending import FEWEST_MOVES, VARIANTS, Change, ChangeKind, Variant
from allocator.upkeep.repairs import affected_of, variants_of
from allocator.upkeep.working_out import NEVER_DONE
from config.i18n import N_
from web.applying.quotas import sees_everybodys
from web.formats import duration

MOST_LINES = 100

TITLES = {
    "fewest_moves": N_("Fewest moves"),
    "fewest_drops": N_("Fewest bookings lost"),
}
MEANINGS = {
    "fewest_moves": N_("Only bookings that lose their GPUs are touched."),
    "fewest_drops": N_("Others also make way where that saves a booking."),
}
CAUSES = {
    RepairCause.OUTAGE: N_("An outage"),
    RepairCause.NODES_DOWN: N_("Nodes do not work"),
    RepairCause.NODES_LEAVE: N_("Nodes leave"),
}


STEPS = {
    RepairStep.COUNTING: N_("Counting whom it hits"),
    RepairStep.MENDING: N_("Looking for the simplest way"),
    RepairStep.SEARCHING: N_("Looking for a better one"),
}


@dataclass(frozen=True)
class Line:
    """One booking that something happens to."""

    booking: Booking
    change: Change

    @property
    def named(self) -> bool:
        """Whether the reader may know whose it is: an administrator looks after the machine alone."""
        return sees_everybodys()

    @property
    def note(self) -> str:
        """How far it moves, or for whom it makes way."""
        if self.change.to_starts_at is None:
            return ""
        later = self.change.to_starts_at - self.change.starts_at
        words = (
            gettext("%(time)s later", time=duration(later))
            if later.total_seconds() > 0
            else gettext("%(time)s earlier", time=duration(-later))
        )
        if self.change.saves is None:
            return str(words)
        saves = gettext("saves booking %(number)s", number=self.change.saves)
        return f"{words}; {saves}"


@dataclass(frozen=True)
class Side:
    """One variant over all GPU types; GPU-seconds and people count what is told to somebody."""

    name: str
    moves: Sequence[Line]
    drops: Sequence[Line]
    rebound: int
    stuck: Sequence[Booking]

    @property
    def title(self) -> str:
        """Its name for people."""
        return str(gettext(TITLES[self.name]))

    @property
    def meaning(self) -> str:
        """What it is good for."""
        return str(gettext(MEANINGS[self.name]))

    @property
    def seconds_moved(self) -> int:
        """GPU-seconds that take place at another time."""
        return sum(line.booking.gpu_seconds for line in self.moves)

    @property
    def seconds_dropped(self) -> int:
        """GPU-seconds that do not take place."""
        return sum(line.booking.gpu_seconds for line in self.drops)

    @property
    def people(self) -> int:
        """How many people are told."""
        return len({line.booking.booked_by_id for line in (*self.moves, *self.drops)})

    @property
    def summary(self) -> str:
        """Moves and drops in words."""
        moves = ngettext("%(num)s booking moves", "%(num)s bookings move", len(self.moves))
        drops = ngettext("%(num)s is lost", "%(num)s are lost", len(self.drops))
        return f"{moves}, {drops}"


def sides(repairs: Iterable[Repair], bookings: Mapping[int, Booking], goal: RepairGoal) -> list[Side]:
    """Both variants, the site's choice first; repairs of several GPU types are added up."""
    read = [variants_of(repair) for repair in repairs]
    names = sorted(VARIANTS, key=lambda name: name != goal.value)
    return [_side(name, [one[name] for one in read if one], bookings) for name in names]


def _side(name: str, variants: Sequence[Variant], bookings: Mapping[int, Booking]) -> Side:
    def lines(kind: ChangeKind) -> list[Line]:
        changes = [change for one in variants for change in one.of(kind) if change.booking_id in bookings]
        ordered = sorted(changes, key=lambda change: (change.starts_at, change.booking_id))
        return [Line(bookings[change.booking_id], change) for change in ordered]

    silent = (ChangeKind.REBIND, ChangeKind.REPLAN)
    return Side(
        name,
        lines(ChangeKind.MOVE),
        lines(ChangeKind.DROP),
        sum(len(one.of(*silent)) for one in variants),
        [bookings[number] for one in variants for number in one.stuck if number in bookings],
    )


def alike(both: Sequence[Side]) -> bool:
    """Whether there is nothing to choose between them."""
    return len({tuple(line.change for line in (*side.moves, *side.drops)) for side in both}) == 1


def cause_text(repair: Repair) -> str:
    """Why a repair was proposed."""
    return str(gettext(CAUSES[repair.cause]))


def is_unfinished(repair: Repair) -> bool:
    """Whether there is nothing to decide on yet."""
    return repair.state in (RepairState.WAITING, RepairState.FAILED)


def is_simple(repairs: Iterable[Repair]) -> bool:
    """Whether a better way was not looked for, as the search was not ready."""
    return any(repair.details.get("simple") for repair in repairs)


def step_names() -> list[str]:
    """What is done one after another to work a repair out."""
    return [str(gettext(step)) for step in STEPS.values()]


def step_number(repair: Repair) -> int:
    """Which of them is being done, from 1; 0: none yet."""
    return list(STEPS).index(repair.step) + 1 if repair.step else 0


def progress(repair: Repair) -> str:
    """How far it is, in a sentence that changes with the step only: it is read aloud."""
    if repair.state is RepairState.FAILED:
        return str(gettext("It could not be worked out."))
    if repair.step is None:
        return str(gettext("It will be worked out in a moment."))
    number, names = step_number(repair), step_names()
    return str(
        gettext(
            "It is being worked out. Step %(number)s of %(count)s: %(step)s.",
            number=number,
            count=len(names),
            step=names[number - 1],
        )
    )


def problem(repair: Repair) -> str:
    """Why it could not be worked out: in the reader's language where the words are ours."""
    text = repair.problem or ""
    return str(gettext(text)) if text == NEVER_DONE else text


def hits(repair: Repair) -> str:
    """How many bookings lose GPUs."""
    count = len(affected_of(repair))
    return str(ngettext("%(num)s booking loses GPUs.", "%(num)s bookings lose GPUs.", count))


def is_touched(both: Sequence[Side]) -> bool:
    """Whether anybody is affected at all."""
    return any(side.moves or side.drops or side.stuck or side.rebound for side in both)


__all__ = [
    "FEWEST_MOVES",
    "MOST_LINES",
    "Line",
    "Side",
    "alike",
    "cause_text",
    "hits",
    "is_simple",
    "is_touched",
    "is_unfinished",
    "problem",
    "progress",
    "sides",
    "step_names",
    "step_number",
]
