"""What every form shares: the shape of input is checked here, its meaning in the domain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

import wtforms
from flask import request
from flask_babel import gettext, lazy_gettext
from flask_wtf import FlaskForm
from wtforms import Field
from wtforms.validators import InputRequired, StopValidation, ValidationError
from wtforms.widgets import TextInput

from allocator.errors import Invalid
from config.i18n import N_
from web.formats import in_words

# Spaces of every kind between thousands, as people copy them from our own pages.
SPACES = re.compile(r"[\s\u00a0\u202f]")
PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,4})?")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Form(FlaskForm):  # type: ignore[misc]
    """A form with the CSRF token; `show` puts the domain's faults beside the fields."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """What a form reads."""

        def wrap_formdata(self, form: FlaskForm, formdata: Any) -> Any:
            """Only the fields of the request: a file or JSON in their place would be no text."""
            if formdata is None or hasattr(formdata, "getlist"):
                return formdata
            return request.form if form.is_submitted() else None

    def show(self, error: Invalid) -> None:
        """Put each fault beside its field; what has no field here goes to the summary (`form_errors`)."""
        for name, faults in error.fields.items():
            texts = [
                gettext(f.message) % in_words(f.details) if f.details else gettext(f.message) for f in faults
            ]
            field = self._fields.get(name)
            if field is None:
                self.form_errors.extend(texts)
            else:
                field.errors = [*field.errors, *texts]


class Filled(InputRequired):
    """Something has to stand there; what could not be read is said by the field, and by it alone."""

    def __call__(self, form: Any, field: Field) -> None:
        super().__call__(form, field)
        if field.process_errors:
            raise StopValidation


def filled() -> InputRequired:
    """Must be filled in, and says so in the reader's language."""
    return Filled(lazy_gettext("Fill this in."))


class Conditional:
    """Not marked as optional nor as required: the hint says when it is needed, and the domain decides."""

    field_flags: ClassVar[dict[str, bool]] = {"conditional": True}

    def __call__(self, _form: Any, _field: Any) -> None:
        """Nothing to check in the field alone."""


def text(field: Field) -> str:
    """What was typed into a text field; empty when the field was not sent at all."""
    return str(field.data or "")


def strip(value: str | None) -> str | None:
    """A filter for text fields: no space at the ends."""
    return value.strip() if value else value


def no_control_characters(_form: Any, field: Field) -> None:
    """A validator: refuse what no keyboard types (it breaks letters, CSV and the database)."""
    if isinstance(field.data, str) and CONTROL.search(field.data):
        raise ValidationError(gettext(N_("Remove the invisible control characters.")))


def choices(pairs: Iterable[tuple[str, Any]]) -> list[Any]:
    """Choices of a select or radio field from (value, label)."""
    # The published types of WTForms do not know this class yet.
    return [wtforms.SelectChoice(value, label) for value, label in pairs]  # type: ignore[attr-defined]


class AmountField(Field):
    """A number as people write it here: `1 234,5` or `1234.5`. `data` is a Decimal, None when left empty."""

    data: Decimal | None
    widget = TextInput()
    unreadable = N_("Enter a number, for example 1 500 or 0,5.")

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else str(self.data).replace(".", ",")

    def process_formdata(self, valuelist: list[Any]) -> None:
        """Read the number exactly.

        Raises ValueError, shown beside the field, for anything else (NaN, 1e9 …).
        """
        self.data = None
        if not valuelist or not str(valuelist[0]).strip():
            return
        text = SPACES.sub("", str(valuelist[0])).replace(",", ".")
        if not text.isascii() or not PLAIN_NUMBER.fullmatch(text):
            raise ValueError(gettext(self.unreadable))
        try:
            self.data = Decimal(text)
        except InvalidOperation as error:
            raise ValueError(gettext(self.unreadable)) from error

    def pre_validate(self, form: Any) -> None:
        """What is no number needs no second word about its size."""
        if self.process_errors:
            raise StopValidation
