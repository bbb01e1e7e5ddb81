"""The shapes of the forms about periods: hours are whole numbers, what they may be the domain says."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flask_babel import gettext, lazy_gettext
from wtforms import HiddenField, IntegerField, StringField, TextAreaField
from wtforms.validators import Length, Optional, ValidationError
from wtforms.widgets import HiddenInput

from allocator.dividing import what_if
from allocator.dividing.periods import Opening
from allocator.dividing.what_if import Scenario
from allocator.errors import Invalid
from allocator.models import Period, PeriodPool
from config.i18n import N_
from web.applying.application_forms import CountField, bounded
from web.days import DayField, end_of, first_day, last_day, start_of
from web.forms import AmountField, Conditional, Form, filled, no_control_characters, strip


class RatioField(AmountField):
    """A weight as people write it: `1,25`, and as pages show what no decimal says exactly: `25/16`."""

    ratio: Fraction | None = None

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Read the number exactly. Raises ValueError, shown beside the field."""
        self.ratio = None
        text = str(valuelist[0]).strip() if valuelist else ""
        above, slash, below = text.partition("/")
        if slash and _counts(above) and _counts(below) and int(below):
            self.data, self.ratio = None, Fraction(int(above), int(below))
            return
        super().process_formdata(valuelist)
        self.ratio = None if self.data is None else Fraction(self.data)


def _counts(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


class OpenForm(Form):
    """A period to be opened; maintenance and reserve left out are worked out."""

    hardware = HiddenField(validators=[bounded(200)])
    first = DayField(lazy_gettext("First day"), [filled()])
    last = DayField(lazy_gettext("Last day"), [filled()])
    maintenance = CountField(lazy_gettext("GPU-hours of planned maintenance"), [Optional()])
    reserve = CountField(lazy_gettext("GPU-hours kept in reserve"), [Optional()])

    def fill(self, hardware: str, opening: Opening) -> None:
        """Show a suggestion."""
        self.hardware.data = hardware
        self.first.data, self.last.data = first_day(opening.starts_at), last_day(opening.ends_at)

    def show(self, error: Invalid) -> None:
        """The domain speaks of moments, the form of days."""
        names = {"starts_at": "first", "ends_at": "last"}
        super().show(Invalid({names.get(name, name): faults for name, faults in error.fields.items()}))

    def opening(self, cluster_id: int, gpu_type: str) -> Opening:
        """What was filled in; call it on a form whose shape is right."""
        if self.first.data is None or self.last.data is None:
            raise ValueError("the form was not validated")
        starts_at, ends_at = start_of(self.first.data), end_of(self.last.data)
        return Opening(cluster_id, gpu_type, starts_at, ends_at, self.maintenance.data, self.reserve.data)


class ReasonForm(Form):
    """Why something is given up; `version` is that of the period on the page."""

    reason = TextAreaField(
        lazy_gettext("Reason"), [filled(), bounded(), no_control_characters], filters=[strip]
    )
    version = IntegerField(widget=HiddenInput(), validators=[Optional()])


class AdjustForm(Form):
    """One share fixed by a person."""

    hours = CountField(lazy_gettext("GPU-hours in this period"), [filled()])
    reason = TextAreaField(
        lazy_gettext("Reason"), [filled(), bounded(), no_control_characters], filters=[strip]
    )


class HoursForm(Form):
    """GPU-hours with a reason: from the reserve."""

    gpu_hours = CountField(lazy_gettext("GPU-hours"), [filled()])
    reason = TextAreaField(
        lazy_gettext("Reason"), [filled(), bounded(), no_control_characters], filters=[strip]
    )


class GiveBackForm(Form):
    """GPU-hours that will not be needed."""

    gpu_hours = CountField(lazy_gettext("GPU-hours to give back"), [filled()])
    reason = TextAreaField(
        lazy_gettext("Reason"), [Optional(), bounded(), no_control_characters], filters=[strip]
    )


class PlanForm(Form):
    """What the holder of a quota plans for a coming period."""

    request = CountField(lazy_gettext("GPU-hours that you plan to use"), [filled()])
    minimum = CountField(lazy_gettext("The least that would be of use"), [Optional()])
    uses_from = DayField(lazy_gettext("The first day of use"), [Optional()])
    uses_until = DayField(lazy_gettext("The last day of use"), [Optional()])


class IfAskedForm(Form):
    """Another request, only to see what it would bring."""

    request = CountField(lazy_gettext("If you had asked for"), [filled()])


def not_negative(_form: Any, field: Any) -> None:
    """A validator: hours are counted from 0 up."""
    if field.data is not None and field.data < 0:
        raise ValidationError(gettext(what_if.WHOLE))


def within_hundred(_form: Any, field: Any) -> None:
    """A validator: a percentage; what all of them make together, the domain says."""
    if field.data is not None and not 0 <= field.data <= what_if.PERCENT:
        raise ValidationError(gettext(what_if.PERCENTS))


def above_zero(_form: Any, field: Any) -> None:
    """A validator: a weight."""
    if field.ratio is not None and not 0 < field.ratio <= what_if.MOST:
        raise ValidationError(gettext(N_("A weight is above 0.")))


class WhatIfForm(Form):
    """Other capacity, pools, one weight or request. Pools come as three fields each: `what_if_form`."""

    capacity = CountField(lazy_gettext("Capacity"), [Optional(), not_negative])
    quota = CountField(lazy_gettext("Number of the quota"), [Optional()])
    weight = RatioField(lazy_gettext("Its weight"), [Optional(), above_zero])
    request = CountField(lazy_gettext("Its request"), [Optional(), not_negative])
    name = StringField(
        lazy_gettext("Title"), [Conditional(), Length(max=1000), no_control_characters], filters=[strip]
    )

    def pool_field(self, slug: str, kind: str) -> Any:
        """One of a pool's fields."""
        return self[f"{slug}_{kind}"]

    def show_caps(self, period: Period) -> None:
        """Fill in today's upper limits wherever none was sent: an empty one means that there is none."""
        for pool in period.pools:
            field = self.pool_field(pool.slug, "cap")
            if not field.raw_data:
                field.data = cap_percent(pool, period.capacity)

    def scenario(self, period: Period) -> Scenario | None:
        """What would be different; None when the quota is not in the period (its field then says so)."""
        claim = next((claim for claim in period.claims if claim.quota_id == self.quota.data), None)
        if claim is None and not self._names_nothing():
            self.quota.errors = [*self.quota.errors, gettext(N_("The period has no such claim."))]
            return None
        named = claim.reference if claim else ""
        return Scenario(
            capacity=self.capacity.data,
            guarantees=self._of_pools(period.pools, "percent"),
            caps=self._caps(period),
            pool_weights=self._of_pools(period.pools, "weight"),
            weights={named: self.weight.ratio} if claim and self.weight.ratio is not None else {},
            requests={named: self.request.data} if claim and self.request.data is not None else {},
        )

    def _names_nothing(self) -> bool:
        # a weight without a quota would otherwise be left out without a word
        return self.quota.data is None and self.weight.ratio is None and self.request.data is None

    def _caps(self, period: Period) -> dict[str, int | None]:
        """Only what differs: a field that was not sent, or as it was shown, leaves its pool alone."""
        caps: dict[str, int | None] = {}
        for pool in period.pools:
            field = self.pool_field(pool.slug, "cap")
            if field.raw_data and field.data != cap_percent(pool, period.capacity):
                caps[pool.slug] = field.data
        return caps

    def _of_pools(self, pools: list[PeriodPool], kind: str) -> dict[str, Any]:
        fields = {pool.slug: self.pool_field(pool.slug, kind) for pool in pools}
        values = {slug: field.ratio if kind == "weight" else field.data for slug, field in fields.items()}
        return {slug: value for slug, value in values.items() if value is not None}


def cap_percent(pool: PeriodPool, capacity: int) -> int | None:
    """A pool's upper limit as people read it, rounded up; None where it has none."""
    if pool.cap is None:
        return None
    return min(-(-pool.cap * what_if.PERCENT // capacity), what_if.PERCENT) if capacity else what_if.PERCENT


def what_if_form(pools: list[PeriodPool], titles: Mapping[str, str], sent: Any, csrf: bool) -> WhatIfForm:
    """The form with three fields for each pool. Empty ones stay as they are, but for an upper limit."""
    labels = {
        "percent": lazy_gettext("Guaranteed, percent of the capacity"),
        "cap": lazy_gettext("At most, percent of the capacity"),
        "weight": lazy_gettext("Weight of the pool"),
    }
    fields: dict[str, Any] = {}
    for pool in pools:
        for kind, label in labels.items():
            field = RatioField if kind == "weight" else CountField
            check = above_zero if kind == "weight" else within_hundred
            fields[f"{pool.slug}_{kind}"] = field(f"{titles[pool.slug]}: {label}", [Optional(), check])
    form: WhatIfForm = type("PoolsWhatIfForm", (WhatIfForm,), fields)(sent, meta={"csrf": csrf})
    return form
