"""All pieces of the pages in all their states, for eyes and for the browser tests; demonstration only."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext, lazy_gettext
from wtforms import BooleanField, DateField, IntegerField, RadioField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, InputRequired, Length, NumberRange, Optional

from allocator.ledger import Balance
from config.clock import utcnow
from config.i18n import N_
from web.forms import AmountField, Form, choices, no_control_characters
from web.paging import Page, Sorting, sorting
from web.states import FACES, Happening

bp = Blueprint("gallery", __name__)
HOUR = 3600
ROWS = [
    (N_("Language model, second stage"), "submitted", 64512 * HOUR, Decimal("90316800")),
    (N_("Crop monitoring"), "approved", 2400 * HOUR, Decimal("3360000")),
    (N_("Speech laboratory"), "draft", 1500 * HOUR + 900, Decimal("0")),
]


class SampleForm(Form):
    """One field of each kind."""

    title = StringField(lazy_gettext("Title"), [DataRequired(), Length(max=120), no_control_characters])
    purpose = TextAreaField(lazy_gettext("Purpose"), [DataRequired(), Length(max=4000)])
    category = SelectField(
        lazy_gettext("Category"),
        choices=choices([("", ""), ("startup", lazy_gettext("Start-up"))]),
        validators=[DataRequired()],
    )
    hours = AmountField(lazy_gettext("GPU-hours"), [InputRequired(), NumberRange(1, 1_000_000)])
    nodes = IntegerField(lazy_gettext("Nodes"), [InputRequired(), NumberRange(1, 64)])
    earliest = DateField(lazy_gettext("Earliest start"), [Optional()])
    nights = RadioField(
        lazy_gettext("Are nights fine?"),
        choices=choices([("yes", lazy_gettext("Yes")), ("no", lazy_gettext("No"))]),
        validators=[InputRequired()],
    )
    agreed = BooleanField(lazy_gettext("I have read the rules"), [InputRequired()])


@bp.get("/gallery")
def show() -> str:
    """The page of all pieces.

    `?errors=1` shows the form as it comes back with errors, `?flash=1` a message.
    """
    if request.args.get("flash"):
        flash(gettext("Your application was sent."), "success")
    form = SampleForm(formdata=None, meta={"csrf": False})
    form.earliest.data = date(2026, 12, 1)
    if request.args.get("errors"):
        form.validate()
    by = sorting({"title": None, "hours": None}, "title")
    rows = sorted(ROWS, key=lambda row: (row[0], row[2])[by.key == "hours"], reverse=by.descending)
    return render_template("gallery.html", form=form, **_samples(Page(rows, 2, 9, 213, 25), by))


@bp.post("/gallery")
def send() -> ResponseReturnValue:
    """What the sample form answers: errors beside the fields, or the message of success."""
    form = SampleForm()
    if form.validate_on_submit():
        return redirect(url_for("gallery.show", flash=1), 303)
    return render_template(
        "gallery.html", form=form, **_samples(Page(ROWS, 2, 9, 213, 25), Sorting("title", False))
    ), 422


@bp.get("/gallery/confirm")
def confirm() -> str:
    """The page that asks before something that cannot be undone."""
    return render_template(
        "confirm.html",
        heading=gettext("Cancel this booking?"),
        text=gettext("The GPUs go back to everybody. Unused hours return to your quota."),
        label=gettext("Cancel the booking"),
        back_url=url_for("gallery.show"),
        action=url_for("gallery.send"),
        facts=[(gettext("GPU-hours"), "2\u00a0400")],
    )


@bp.get("/gallery/fault")
def fault() -> str:
    """Breaks, so that the page about a fault can be seen."""
    raise RuntimeError("a fault made on purpose")


def _samples(page: Page[tuple[str, str, int, Decimal]], by: Sorting) -> dict[str, object]:
    now = utcnow()
    return {
        "page": page,
        "sorting": by,
        "states": list(FACES),
        "balances": [
            Balance(8640000, 1440000, 1000800, 1100000, 25450),
            Balance(3600),
            Balance(3600000, 200000, 3800000, 3500000, 200000),
        ],
        "now": now,
        "happenings": [
            Happening(gettext("Sent"), now - timedelta(days=3), "Aigerim S.", tone="waiting"),
            Happening(
                gettext("Reduced to %(hours)s GPU-hours", hours="2\u00a0000"),
                now - timedelta(days=1),
                gettext("Operator"),
                gettext("Your estimate covers 1 800 GPU-hours; the rest is for restarts."),
                "attention",
            ),
            Happening(gettext("Approved"), now, gettext("Operator"), tone="good"),
        ],
    }
