"""The shapes of the administrator's forms about people."""

from __future__ import annotations

from flask_babel import lazy_gettext
from wtforms import SelectField, StringField

from allocator.actors import Role
from web.account.forms import bounded, filled
from web.forms import Form, choices, no_control_characters

ROLES = {
    Role.OPERATOR: lazy_gettext("Operator"),
    Role.COUNCIL_MEMBER: lazy_gettext("Council member"),
    Role.AUDITOR: lazy_gettext("Auditor"),
    Role.ADMINISTRATOR: lazy_gettext("Administrator"),
}


class GrantForm(Form):
    """A staff role to give."""

    role = SelectField(
        lazy_gettext("Role"),
        [filled()],
        choices=choices((role.value, label) for role, label in ROLES.items()),
    )


class ClusterLoginForm(Form):
    """The name that jobs run under."""

    cluster_login = StringField(
        lazy_gettext("Login on the cluster"), [filled(), bounded(), no_control_characters]
    )


class ReasonForm(Form):
    """Why."""

    reason = StringField(lazy_gettext("Reason"), [filled(), bounded(), no_control_characters])
