"""The shapes of the account's forms; what their content must be, the domain says."""

from __future__ import annotations

from flask_babel import lazy_gettext
from wtforms import EmailField, IntegerField, PasswordField, SelectField, StringField, TelField
from wtforms.validators import DataRequired, InputRequired, Length, Optional
from wtforms.widgets import HiddenInput, PasswordInput

from config.i18n import LANGUAGES
from web.forms import Form, choices, no_control_characters
from web.i18n import NAMES

# Far more than anything may have: the domain names the true limit, this only stops a flood.
FLOOD = 1_000


def filled() -> DataRequired:
    """Must be filled in, and says so in the reader's language."""
    return DataRequired(lazy_gettext("Fill this in."))


def bounded(most: int = FLOOD) -> Length:
    """At most so many characters."""
    return Length(max=most, message=lazy_gettext("This is too long."))


def _password(label: str) -> PasswordField:
    # InputRequired, not DataRequired: a password of spaces is a password, and the domain judges it.
    return PasswordField(
        label, [InputRequired(lazy_gettext("Fill this in.")), bounded()], widget=PasswordInput()
    )


def _language() -> SelectField:
    return SelectField(
        lazy_gettext("Language of letters and pages"),
        [filled()],
        choices=choices((code, NAMES[code]) for code in LANGUAGES),
    )


class RegisterForm(Form):
    """Opening an account."""

    name = StringField(lazy_gettext("First and last name"), [filled(), bounded(), no_control_characters])
    email = EmailField(lazy_gettext("E-mail"), [filled(), bounded(), no_control_characters])
    password = _password(lazy_gettext("Password"))
    locale = _language()


class ConfirmForm(Form):
    """The password chosen at registration, beside the link of the letter."""

    password = _password(lazy_gettext("Password"))


class EmailForm(Form):
    """An address to send a link to."""

    email = EmailField(lazy_gettext("E-mail"), [filled(), bounded(), no_control_characters])


class SignInForm(Form):
    """Who, and the proof."""

    email = EmailField(lazy_gettext("E-mail"), [filled(), bounded(), no_control_characters])
    password = _password(lazy_gettext("Password"))


class NewPasswordForm(Form):
    """A new password through a mailed link."""

    new_password = _password(lazy_gettext("New password"))


class ChangePasswordForm(Form):
    """A new password for somebody who knows the present one."""

    current_password = _password(lazy_gettext("Present password"))
    new_password = _password(lazy_gettext("New password"))


class ProfileForm(Form):
    """What a person tells about themself; `version` tells which page this was."""

    name = StringField(lazy_gettext("First and last name"), [filled(), bounded(), no_control_characters])
    iin = StringField(lazy_gettext("IIN"), [Optional(), bounded(), no_control_characters])
    phone = TelField(lazy_gettext("Telephone"), [Optional(), bounded(), no_control_characters])
    locale = _language()
    version = IntegerField(widget=HiddenInput(), validators=[Optional()])
