"""The forms around quotas and bookings: shape only, the domain knows the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from flask_babel import gettext, lazy_gettext
from wtforms import EmailField, Field, HiddenField, IntegerField, TextAreaField
from wtforms.fields import DateTimeLocalField
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError
from wtforms.widgets import HiddenInput

from allocator.booking.booking_checks import off_boundary
from allocator.booking.bookings import Ask
from allocator.errors import Fault, Invalid
from config.i18n import N_
from web.forms import AmountField, Conditional, Form, filled, no_control_characters, strip
from web.policy import policy

LOCAL = "%Y-%m-%dT%H:%M"  # what a datetime-local field sends
YEARS = range(2020, 2200)  # beyond them a conversion between zones may leave the calendar
MOST = 100_000


def sane_year(_form: Form, field: Field) -> None:
    """A validator: refuse what is no date of ours at all."""
    if field.data is not None and field.data.year not in YEARS:
        raise ValidationError(gettext(N_("Enter a date of this century.")))


def bounded(number: int | None) -> int | None:
    """A filter: less than nothing is refused like nothing, and no number is too large to reckon with."""
    return number if number is None else min(max(number, 0), MOST)


class HoursField(AmountField):
    """The length of a booking; what is too short or too long is the rules' to say (`exact_length`)."""

    unreadable = N_("Enter a number of hours, for example 12.")


def exact_length(hours: Decimal | None) -> timedelta:
    """Hours as a length of time. Raises Invalid unless it is whole minutes."""
    # less than nothing is as short as nothing, and nothing overflows: the rules refuse both
    minutes = min(max(hours or Decimal(0), Decimal(0)), Decimal(MOST)) * 60
    if minutes != int(minutes):
        raise Invalid({"hours": [off_boundary(policy().bookings)]})
    return timedelta(minutes=int(minutes))


class BookingForm(Form):
    """An exact window and shape; `asap` asks for the first start that is possible instead of `starts_at`."""

    starts_at = DateTimeLocalField(
        lazy_gettext("Start"), [Conditional(), Optional(), sane_year], format=LOCAL
    )
    hours = HoursField(lazy_gettext("Length in hours"), [filled()])
    nodes = IntegerField(lazy_gettext("Nodes"), [filled()], filters=[bounded])
    gpus_per_node = IntegerField(lazy_gettext("GPUs per node"), [filled()], filters=[bounded])
    asap = HiddenField(validators=[Length(max=1)])

    def length(self) -> timedelta:
        """The length, exactly. Raises Invalid unless it is whole minutes."""
        return exact_length(self.hours.data)

    def start(self, zone: ZoneInfo) -> datetime:
        """The start in UTC. Raises Invalid when it is missing."""
        if self.starts_at.data is None:
            raise Invalid({"starts_at": [Fault(N_("Choose when it should start."))]})
        return self.starts_at.data.replace(tzinfo=zone).astimezone(UTC)

    def ask_at(self, start: datetime) -> Ask:
        """What is asked for, with that start."""
        return Ask(self.nodes.data or 0, self.gpus_per_node.data or 0, start, start + self.length())


class CancelForm(Form):
    """Why a booking is given back; `version` is that of the booking on the page."""

    reason = TextAreaField(
        lazy_gettext("Reason"), [Optional(), Length(max=500), no_control_characters], filters=[strip]
    )
    version = IntegerField(widget=HiddenInput(), validators=[InputRequired(), NumberRange(1)])


class AnswerForm(Form):
    """A yes or no to what is on the page; `version` is that of the booking on it."""

    version = IntegerField(widget=HiddenInput(), validators=[InputRequired(), NumberRange(1)])


class MemberForm(Form):
    """Whom to let use a quota."""

    email = EmailField(lazy_gettext("E-mail address"), [filled(), Length(max=254)], filters=[strip])
