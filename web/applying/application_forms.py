"""The shapes of the forms about applications; what their content must be, the domain says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from flask_babel import gettext, lazy_gettext
from wtforms import IntegerField, RadioField, SelectField, StringField, TextAreaField
from wtforms.validators import AnyOf, DataRequired, InputRequired, Length, Optional
from wtforms.widgets import HiddenInput, TextInput

from allocator.applying.application_checks import HOUR, Offer, Proposal, most_gpu_seconds
from allocator.applying.decisions import Verdict
from allocator.models import Application, DecisionKind, Organisation, Person
from config.i18n import N_
from web.days import DayField, end_of, first_day, last_day, start_of
from web.formats import gpu_hours
from web.forms import SPACES, AmountField, Conditional, Form, choices, filled
from web.i18n import language
from web.policy import policy
from web.policy_words import band_text

# Far more than anything may have: the domain names the true limit, this only stops a flood.
FLOOD = 20_000
MAX_DIGITS = 9
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def bounded(most: int = FLOOD) -> Length:
    """At most so many characters."""
    return Length(max=most, message=lazy_gettext("This is too long."))


class NeededLater:
    """Not marked as optional, though a draft may leave it empty."""

    field_flags: ClassVar[dict[str, bool]] = {"required": True}

    def __call__(self, _form: Any, _field: Any) -> None:
        """Submitting asks for it, saving does not."""


class CountField(IntegerField):
    """A whole number, spaces between thousands allowed; what is none is told in the reader's language."""

    widget = TextInput()

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Read the number. Raises ValueError, shown beside the field."""
        self.data = None
        text = SPACES.sub("", str(valuelist[0])) if valuelist else ""
        if not text:
            return
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
            raise ValueError(gettext(N_("Enter a whole number, for example 4.")))
        self.data = int(text)


def _version() -> IntegerField:
    return IntegerField(widget=HiddenInput(), validators=[Optional()])


class ApplicationForm(Form):
    """Everything that an applicant is asked; `version` tells which state of the draft the page showed."""

    # what may be chosen is the domain's to judge: WTForms' own answer exists in no Kazakh
    category = RadioField(
        lazy_gettext("Category"), [InputRequired(lazy_gettext("Choose one."))], validate_choice=False
    )
    organisation = SelectField(lazy_gettext("Organisation"), [Optional()], validate_choice=False)
    title = StringField(lazy_gettext("Title"), [filled(), bounded()])
    purpose = TextAreaField(lazy_gettext("What the hours are for"), [NeededLater(), bounded()])
    hardware = SelectField(
        lazy_gettext("Cluster and GPU type"),
        [DataRequired(lazy_gettext("Choose one."))],
        validate_choice=False,
    )
    nodes = CountField(lazy_gettext("Nodes at a time"), [filled()], default=1)
    gpus_per_node = CountField(lazy_gettext("GPUs per node"), [filled()], default=1)
    gpu_hours = AmountField(lazy_gettext("GPU-hours in all"), [filled()])
    earliest = DayField(lazy_gettext("Earliest day"), [filled()])
    latest = DayField(lazy_gettext("Latest day"), [filled()])
    team = TextAreaField(lazy_gettext("Team"), [bounded()])
    version = _version()

    def offer(self, offers: Sequence[Offer], organisations: Sequence[Organisation]) -> None:
        """Fill in what can be chosen."""
        lang = language()
        self.category.choices = choices(
            (category.slug, f"{category.titles[lang]} — {category.hints[lang]}")
            for category in policy().categories
        )
        none = ("", gettext(N_("None: I apply as a citizen")))
        self.organisation.choices = choices(
            [none, *((str(row.id), f"{row.name} ({row.bin})") for row in organisations)]
        )
        self.hardware.choices = choices((hardware_key(offer), hardware_label(offer)) for offer in offers)

    def fill(self, application: Application) -> None:
        """Show what is stored; for the first view of the page, not for one that comes back."""
        self.category.data = application.category
        self.organisation.data = str(application.organisation_id or "")
        self.title.data = application.title
        self.purpose.data = application.purpose
        self.hardware.data = f"{application.cluster.slug}/{application.gpu_type}"
        self.nodes.data = application.nodes
        self.gpus_per_node.data = application.gpus_per_node
        self.gpu_hours.data = Decimal(application.gpu_seconds) / HOUR
        self.earliest.data = first_day(application.earliest)
        self.latest.data = last_day(application.latest)
        self.team.data = "\n".join(sorted(member.email for member in application.team))
        self.version.data = application.version

    def proposal(self) -> Proposal:
        """What was filled in, for the domain; a field whose shape is wrong holds nothing that counts."""
        cluster, _, gpu_type = str(self.hardware.data).partition("/")
        first, last = self.earliest.data, self.latest.data
        return Proposal(
            category=self.category.data or "",
            organisation_id=_organisation_id(self.organisation.data),
            title=self.title.data or "",
            purpose=self.purpose.data or "",
            cluster=cluster,
            gpu_type=gpu_type,
            nodes=self.nodes.data or 0,
            gpus_per_node=self.gpus_per_node.data or 0,
            gpu_hours=self.gpu_hours.data or Decimal(0),
            earliest=start_of(first) if first else NEVER,
            latest=end_of(last) if last else NEVER,
            team=tuple((self.team.data or "").replace(",", "\n").replace(";", "\n").splitlines()),
        )

    def most(self) -> str | None:
        """The GPU-hours that nodes × GPUs give between the dates, or None while one of them is missing."""
        nodes, gpus = self.nodes.data, self.gpus_per_node.data
        first, last = self.earliest.data, self.latest.data
        if not (nodes and gpus and first and last) or nodes < 0 or gpus < 0 or first > last:
            return None
        return gpu_hours(most_gpu_seconds(nodes, gpus, start_of(first), end_of(last)))


class DecisionForm(Form):
    """What an operator decides; the logins of people who have none yet are added by `decision_form`."""

    kind = RadioField(
        lazy_gettext("Decision"),
        [
            InputRequired(lazy_gettext("Choose one.")),
            AnyOf([kind.value for kind in DecisionKind], lazy_gettext("Choose one.")),
        ],
        validate_choice=False,
    )
    gpu_hours = AmountField(lazy_gettext("GPU-hours approved"), [Conditional(), Optional()])
    reason = TextAreaField(lazy_gettext("Reason"), [Conditional(), bounded()])
    valid_from = DayField(lazy_gettext("Valid from"), [Optional()])
    valid_until = DayField(lazy_gettext("Valid until"), [Optional()])
    merit_band = RadioField(
        lazy_gettext("Merit band"),
        [Conditional()],
        default=lambda: policy().default_band,
        validate_choice=False,
    )
    merit_reason = TextAreaField(lazy_gettext("Reason for the band"), [Conditional(), bounded()])
    version = _version()

    @property
    def login_fields(self) -> list[Any]:
        """The fields for logins, in the order of the team."""
        return [field for field in self if field.name.startswith("login_")]

    def verdict(self) -> Verdict:
        """What was filled in, for the domain."""
        first, last = self.valid_from.data, self.valid_until.data
        return Verdict(
            kind=DecisionKind(self.kind.data),
            reason=self.reason.data or "",
            gpu_hours=self.gpu_hours.data,
            valid_from=start_of(first) if first else None,
            valid_until=end_of(last) if last else None,
            cluster_logins={
                int(field.name.removeprefix("login_")): field.data or "" for field in self.login_fields
            },
            merit_band=self.merit_band.data or "",
            merit_reason=self.merit_reason.data or "",
        )


def _organisation_id(chosen: str | None) -> int | None:
    """The id that was sent, or one that belongs to nobody when it is no number."""
    if not chosen:
        return None
    return int(chosen) if chosen.isascii() and chosen.isdigit() and len(chosen) <= MAX_DIGITS else -1


KINDS: Mapping[DecisionKind, str] = {
    DecisionKind.APPROVED: N_("Approve all the hours"),
    DecisionKind.REDUCED: N_("Approve fewer hours"),
    DecisionKind.REFUSED: N_("Refuse"),
}


def decision_form(
    application: Application, people: Sequence[Person], logins: Mapping[int, str]
) -> DecisionForm:
    """The form for this application, with a field for the login of each of `people` that is in `logins`."""
    fields = {
        f"login_{person.id}": StringField(
            lazy_gettext("Login of %(name)s", name=person.name), [bounded(100)], default=logins[person.id]
        )
        for person in people
        if person.id in logins
    }
    form: DecisionForm = type("DecisionForm", (DecisionForm,), fields)()
    form.kind.choices = choices((kind.value, gettext(label)) for kind, label in KINDS.items())
    form.merit_band.choices = choices((band.slug, band_text(band)) for band in policy().merit_bands)
    if not form.is_submitted():
        form.valid_from.data = first_day(application.earliest)
        form.valid_until.data = last_day(application.latest)
        form.version.data = application.version
    return form


def hardware_key(offer: Offer) -> str:
    """How a choice of hardware is sent; a cluster's slug has no slash."""
    return f"{offer.cluster}/{offer.gpu_type}"


def hardware_label(offer: Offer) -> str:
    """`Alem.cloud, H200: 64 × 8`; short, since a phone cuts what is longer."""
    label: str = gettext(
        N_("%(cluster)s, %(type)s: %(nodes)s × %(gpus)s"),
        cluster=offer.cluster_title,
        type=offer.gpu_type.upper(),
        nodes=sum(offer.nodes_by_gpus.values()),
        gpus=offer.most_gpus,
    )
    return label
