"""The shapes of the forms about organisations."""

from __future__ import annotations

from flask_babel import lazy_gettext
from wtforms import EmailField, IntegerField, RadioField, StringField
from wtforms.validators import Optional
from wtforms.widgets import HiddenInput

from allocator.actors import MembershipRole
from web.account.forms import bounded, filled
from web.forms import Form, choices, no_control_characters

MEMBERSHIP_ROLES = {
    MembershipRole.MEMBER: lazy_gettext("Member"),
    MembershipRole.MANAGER: lazy_gettext("Manager"),
    MembershipRole.HEAD: lazy_gettext("Head"),
}


class OrganisationForm(Form):
    """What is known of an organisation; `version` tells which page this was."""

    name = StringField(lazy_gettext("Name of the organisation"), [filled(), bounded(), no_control_characters])
    region = StringField(lazy_gettext("Region (KATO)"), [Optional(), bounded(), no_control_characters])
    activity = StringField(lazy_gettext("Activity (OKED)"), [Optional(), bounded(), no_control_characters])
    version = IntegerField(widget=HiddenInput(), validators=[Optional()])


class NewOrganisationForm(OrganisationForm):
    """The same with the number that never changes."""

    bin = StringField(lazy_gettext("BIN"), [filled(), bounded(), no_control_characters])


class RoleForm(Form):
    """What a member may do."""

    role = RadioField(
        lazy_gettext("Role"),
        [filled()],
        choices=choices((role.value, label) for role, label in MEMBERSHIP_ROLES.items()),
    )


class MemberForm(RoleForm):
    """Whom to add."""

    email = EmailField(lazy_gettext("E-mail"), [filled(), bounded(), no_control_characters])
