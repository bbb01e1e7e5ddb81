"""The first page, a visitor's or one's own, and the help."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, render_template
from sqlalchemy import Row

from allocator import audit, overview
from allocator.audit import EventFilter
from allocator.authorization import Action, may
from allocator.models import Event
from allocator.upkeep import moves, outage_queries
from config.clock import utcnow
from web import audit_words
from web.booking.bookings import waiting_for_a_yes
from web.dividing import (
    period_words,
)
from web.identity import current_actor
from web.navigation import duties
from web.policy import policy
from web.session import db

bp = Blueprint("home", __name__)


@bp.get("/")
def index() -> str:
    """What Kezek is for, or what waits for the person who has signed in."""
    actor = current_actor()
    if not actor.is_signed_in:
        return render_template("home/welcome.html", offers=overview.offers(db()))
    now = utcnow()
    held, offered = waiting_for_a_yes(now)
    work = overview.own_work(db(), actor, policy().bookings, now)
    repairs = outage_queries.repairs_waiting(db()) if may(actor, Action.CLUSTER_CHANGE) else 0
    return render_template(
        "home/index.html",
        work=work,
        rules=policy().bookings,
        waiting=overview.waiting(db(), actor),
        periods=overview.undecided(db(), actor),
        words=period_words,
        duties=duties(),
        answers=db().scalars(moves.open_moves(actor, now).limit(overview.MOST)).all(),
        repairs=repairs,
        latest=_latest_events(),
        event_words=audit_words,
        held=held,
        offered=offered,
    )


def _latest_events() -> Sequence[Row[Event, str]]:
    """What has just happened, for whoever reads the record; nothing for anybody else."""
    actor = current_actor()
    if not may(actor, Action.AUDIT_VIEW):
        return ()
    return db().execute(audit.search(actor, EventFilter()).limit(overview.MOST)).all()


@bp.get("/help")
def guide() -> str:
    """How to apply, get a share, book and run a job, in one page."""
    staff = may(current_actor(), Action.PERIOD_VIEW)
    return render_template("home/help.html", policy=policy(), staff=staff)
