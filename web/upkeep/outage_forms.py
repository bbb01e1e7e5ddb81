"""The forms of operators about outages, repairs, nodes and single bookings: shape only."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from flask_babel import lazy_gettext
from wtforms import HiddenField, IntegerField, RadioField, StringField, TextAreaField
from wtforms.fields import DateTimeLocalField
from wtforms.validators import AnyOf, InputRequired, NumberRange, Optional
from wtforms.widgets import HiddenInput

from allocator.models import Node, Outage, OutageKind
from allocator.upkeep.mending import VARIANTS
from allocator.upkeep.node_names import fold
from allocator.upkeep.outages import OutagePlan
from allocator.upkeep.phases import Announcement
from web.applying.application_forms import CountField, bounded
from web.booking.booking_forms import LOCAL, sane_year
from web.forms import Conditional, Form, choices, filled, no_control_characters, strip

KINDS = (
    (OutageKind.MAINTENANCE.value, lazy_gettext("Planned maintenance")),
    (OutageKind.OUTAGE.value, lazy_gettext("Outage: the nodes do not work")),
)


def moment_field(label: str) -> DateTimeLocalField:
    """A required moment by the site's clock."""
    return DateTimeLocalField(label, [filled(), sane_year], format=LOCAL)


def reason_field() -> TextAreaField:
    """Why: always asked for, never kept from whom it concerns."""
    return TextAreaField(
        lazy_gettext("Reason"), [filled(), bounded(), no_control_characters], filters=[strip]
    )


def version_field() -> IntegerField:
    """The version of what the page shows."""
    return IntegerField(widget=HiddenInput(), validators=[InputRequired(), NumberRange(1)])


def utc(moment: datetime | None, zone: ZoneInfo) -> datetime:
    """What a validated moment field means."""
    if moment is None:
        raise ValueError("the form was not validated")
    return moment.replace(tzinfo=zone).astimezone(UTC)


def local(moment: datetime, zone: ZoneInfo) -> datetime:
    """A moment as a field shows it."""
    return moment.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0)


class OutageForm(Form):
    """Which nodes, when, and why."""

    kind = RadioField(
        lazy_gettext("What it is"), [InputRequired(lazy_gettext("Choose one."))], choices=choices(KINDS)
    )
    starts_at = moment_field(lazy_gettext("From"))
    ends_at = moment_field(lazy_gettext("Until"))
    nodes = StringField(lazy_gettext("Nodes"), [filled(), bounded(), no_control_characters], filters=[strip])
    reason = reason_field()
    version = IntegerField(widget=HiddenInput(), validators=[Optional(), NumberRange(1)])

    def fill(self, outage: Outage, zone: ZoneInfo) -> None:
        """Show a draft as it stands."""
        self.kind.data, self.reason.data = outage.kind.value, outage.reason
        self.starts_at.data = local(outage.starts_at, zone)
        self.ends_at.data = local(outage.ends_at, zone)
        self.nodes.data = fold(one.node.name for one in outage.nodes)
        self.version.data = outage.version

    def plan(self, nodes: list[Node], zone: ZoneInfo) -> OutagePlan:
        """What was filled in; call it on a form whose shape is right."""
        return OutagePlan(
            OutageKind(self.kind.data),
            utc(self.starts_at.data, zone),
            utc(self.ends_at.data, zone),
            self.reason.data or "",
            tuple(node.id for node in nodes),
        )


class ConfirmForm(Form):
    """A yes to what the page shows."""

    version = version_field()


class PublishForm(ConfirmForm):
    """Which way to mend."""

    variant = HiddenField(validators=[InputRequired(), AnyOf(VARIANTS)])


class ReasonForm(ConfirmForm):
    """A yes with a reason."""

    reason = reason_field()


class ApplyForm(PublishForm):
    """Which way to mend, and what people are told."""

    reason = reason_field()


class AgainForm(ConfirmForm):
    """When failed nodes are expected back."""

    until = DateTimeLocalField(
        lazy_gettext("The nodes are expected back"), [Conditional(), Optional(), sane_year], format=LOCAL
    )


class AnnounceForm(Form):
    """Nodes that are to come."""

    names = StringField(lazy_gettext("Nodes"), [filled(), bounded(), no_control_characters], filters=[strip])
    partition = StringField(lazy_gettext("Partition"), [filled(), bounded(64)], filters=[strip])
    gpu_type = StringField(lazy_gettext("GPU type"), [filled(), bounded(40)], filters=[strip])
    gpus = CountField(lazy_gettext("GPUs per node"), [filled()])
    joins_at = moment_field(lazy_gettext("They join"))

    def announcement(self, zone: ZoneInfo) -> Announcement:
        """What was filled in; call it on a form whose shape is right."""
        return Announcement(
            self.names.data or "",
            self.partition.data or "",
            self.gpu_type.data or "",
            self.gpus.data or 0,
            utc(self.joins_at.data, zone),
        )


class LeaveForm(Form):
    """Nodes that are to go."""

    nodes = StringField(lazy_gettext("Nodes"), [filled(), bounded(), no_control_characters], filters=[strip])
    leaves_at = moment_field(lazy_gettext("They leave"))


class JoinForm(Form):
    """Another day on which a node joins."""

    joins_at = moment_field(lazy_gettext("It joins"))


class FreezeForm(Form):
    """Until when no machine moves anything; left empty the freeze ends."""

    until = DateTimeLocalField(
        lazy_gettext("No booking that begins before this is moved by the machine"),
        [Optional(), sane_year],
        format=LOCAL,
    )
    reason = reason_field()


class WhyForm(Form):
    """Only a reason."""

    reason = reason_field()


class PlaceForm(ConfirmForm):
    """Another start or other nodes for one booking."""

    starts_at = moment_field(lazy_gettext("Start"))
    nodes = StringField(
        lazy_gettext("Nodes"), [Optional(), bounded(), no_control_characters], filters=[strip]
    )
    reason = reason_field()


class ChooseForm(ConfirmForm):
    """Another start of one's own choice."""

    starts_at = moment_field(lazy_gettext("Start"))
