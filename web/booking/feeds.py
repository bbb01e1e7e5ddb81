"""iCalendar feeds: make and revoke secret addresses, and answer calendar programs."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_babel import force_locale, gettext, lazy_gettext
from wtforms import SelectField

from allocator.authorization import Action, require
from allocator.booking import booking_queries, calendar_queries, feeds
from allocator.errors import Invalid
from config.clock import utcnow
from web import limits, once
from web.booking.feed_events import document
from web.forms import Form, choices
from web.i18n import LOCALES, NAMES
from web.identity import current_actor, preferred_language
from web.session import db, settings

bp = Blueprint("feeds", __name__)
# The secret of a new address waits in the person's own cookie for the one page that shows it.
SHOWN_ONCE = "feed_token"


class FeedForm(Form):
    """Whose bookings: one's own, or those of a quota."""

    quota = SelectField(lazy_gettext("Bookings"), validate_choice=True)


def _form() -> FeedForm:
    form = FeedForm() if request.method == "POST" else FeedForm(formdata=None)
    quotas = calendar_queries.quotas_to_book(db(), current_actor(), utcnow())
    form.quota.choices = choices(
        [("", gettext("All of mine")), *((str(quota.id), quota.application.title) for quota in quotas)]
    )
    return form


@bp.route("/account/calendars", methods=["GET", "POST"])
@limits.by_person
@once.guard
def index() -> ResponseReturnValue:
    """One's addresses; a new one is shown once, after it was made."""
    actor = current_actor()
    require(actor, Action.APPLICATION_CREATE)
    form, status = _form(), 200
    if request.method == "POST":
        if form.validate_on_submit():
            try:
                return _create(form)
            except Invalid as error:
                form.show(error)
        status = 422
    token = session.pop(SHOWN_ONCE, None) if request.method == "GET" else None
    return render_template(
        "calendar/feeds.html",
        form=form,
        feeds=db().scalars(feeds.list_own(actor)).all(),
        address=_address(token),
        # a calendar program has no language of its own to ask for
        letters=NAMES[preferred_language() or settings().default_language],
    ), status


def _create(form: FeedForm) -> ResponseReturnValue:
    quota = None
    if form.quota.data:
        quota = booking_queries.find_quota(db(), current_actor(), int(form.quota.data))
    made = feeds.create(db(), current_actor(), quota, now=utcnow())
    session[SHOWN_ONCE] = made.token
    return redirect(url_for("feeds.index"), 303)


def _address(token: str | None) -> str | None:
    return settings().base_url.rstrip("/") + url_for("feeds.read", token=token) if token else None


@bp.route("/account/calendars/<int:feed_id>/revoke", methods=["GET", "POST"])
@once.guard
def revoke(feed_id: int) -> ResponseReturnValue:
    """Ask, then end an address for good."""
    feed = feeds.find_own(db(), current_actor(), feed_id)
    if request.method == "GET":
        return render_template("calendar/revoke.html", feed=feed)
    feeds.revoke(db(), current_actor(), feed, now=utcnow())
    flash(gettext("The address no longer works."), "success")
    return redirect(url_for("feeds.index"), 303)


@bp.get("/calendar/feed/<token>.ics")
def read(token: str) -> Response:
    """The feed for a calendar program, which has no cookie: the address is the key."""
    content = feeds.read(db(), token, now=utcnow())
    with force_locale(LOCALES[content.feed.person.locale]):
        body = document(content)
    response = Response(body, content_type="text/calendar; charset=utf-8")
    response.headers["Content-Disposition"] = 'inline; filename="kezek.ics"'
    response.headers["Cache-Control"] = "private, no-cache"
    response.last_modified = content.changed_at
    response.set_etag(hashlib.sha256(body).hexdigest()[:32])
    response.make_conditional(request)
    return response
