"""Offers in words: why a time is offered, how crowded it is, what would fit instead, what is to be paid."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from flask_babel import gettext

from allocator.booking.booking_checks import Ask
from allocator.booking.offers import Offer, OfferKind, Offers
from allocator.booking.why_not import Change, ChangeKind
from allocator.errors import Fault
from config.i18n import N_
from web.booking.booking_forms import LOCAL
from web.booking.calendar_grid import LEVELS
from web.booking.calendar_words import demand_word
from web.formats import duration, in_words, moment
from web.session import settings

KINDS = {
    OfferKind.EARLIEST: N_("Earliest"),
    OfferKind.CHEAPEST: N_("Least in demand"),
    OfferKind.PREFERRED: N_("Nearest to your wish"),
}
CHANGES = {
    ChangeKind.EARLIER: N_("Earlier"),
    ChangeKind.LATER: N_("Later"),
    ChangeKind.FEWER: N_("With fewer GPUs"),
    ChangeKind.SHORTER: N_("For a shorter time"),
}


def kind_word(kind: OfferKind) -> str:
    return str(gettext(KINDS[kind]))


def crowding(offer: Offer, found: Offers) -> str:
    """How much others want the time; without a plan, how much of it is taken."""
    if not found.planned_prices:
        return str(gettext("%(percent)s %% of the GPUs are taken then", percent=round(offer.crowding * 100)))
    level = sum(offer.crowding >= bound for bound in LEVELS)
    return str(gettext("demand %(word)s", word=demand_word(level)))


def kinds(offer: Offer, found: Offers) -> tuple[OfferKind, ...]:
    """Why a time is offered; a single one needs no comparison with others."""
    if len(found.offers) > 1:
        return offer.kinds
    exact = offer.ask.starts_at == found.wish.preferred_at
    return (OfferKind.PREFERRED if exact else OfferKind.EARLIEST,)


def told(fault: Fault) -> str:
    """A fault of the domain as a sentence of the page."""
    text = str(gettext(fault.message))
    return text % in_words(fault.details) if fault.details else text


def change_word(change: Change) -> str:
    return str(gettext(CHANGES[change.kind]))


def change_line(change: Change) -> str:
    """`24 November 2026, 10:00, 12 hours, 1 × 8`."""
    ask = change.ask
    return f"{moment(ask.starts_at)}, {duration(ask.length)}, {ask.nodes} × {ask.gpus_per_node}"


def fields(ask: Ask) -> dict[str, str]:
    """An ask as the booking form's fields."""
    return {
        "starts_at": ask.starts_at.astimezone(settings().zone).strftime(LOCAL),
        "hours": hours(ask.length),
        "nodes": str(ask.nodes),
        "gpus_per_node": str(ask.gpus_per_node),
    }


def hours(length: timedelta) -> str:
    """Hours as the booking form takes them: `24`, `1.5`."""
    return f"{(Decimal(int(length.total_seconds())) / 3600).normalize():f}"
