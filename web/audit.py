"""The record of events, for auditors and administrators: found, read, taken away as CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from operator import itemgetter

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from allocator import audit
from allocator.audit import EventFilter
from allocator.authorization import Action, require
from config.clock import utcnow
from web import audit_words as words
from web.exports import csv_response
from web.identity import current_actor
from web.paging import paginate_rows
from web.session import database, db, settings

bp = Blueprint("audit", __name__, url_prefix="/audit")
NAME = re.compile(r"[a-z_.]{1,60}")
COLUMNS = (
    "seq",
    "at",
    "actor_id",
    "actor",
    "kind",
    "subject_type",
    "subject_id",
    "reason",
    "before",
    "after",
    "previous_hash",
    "hash",
)


@bp.get("")
def index() -> ResponseReturnValue:
    """Events, the latest first, narrowed by kind, subject, person and days."""
    actor = current_actor()
    require(actor, Action.AUDIT_VIEW)
    wanted, misread = _filter()
    page = paginate_rows(db(), audit.search(actor, wanted))
    return render_template(
        "audit/index.html",
        page=page,
        kinds=sorted(((kind, words.kind_text(kind)) for kind in audit.kinds(db(), actor)), key=itemgetter(1)),
        words=words,
        asked=request.args,
        misread=misread,
        details=details,
    )


@bp.get("/events.csv")
def export() -> Response:
    """The same events as a file, the oldest first, with their hashes."""
    actor = current_actor()
    require(actor, Action.AUDIT_VIEW)
    wanted, _ = _filter()

    def rows() -> Iterator[list[object]]:
        with database().reader() as session:
            for event, name in audit.stream(session, actor, wanted):
                yield [
                    event.seq,
                    event.at.isoformat(),
                    event.actor_id,
                    name or "Kezek",
                    event.kind,
                    event.subject_type,
                    event.subject_id,
                    event.reason,
                    json.dumps(event.before, ensure_ascii=False, sort_keys=True),
                    json.dumps(event.after, ensure_ascii=False, sort_keys=True),
                    event.previous_hash,
                    event.hash,
                ]

    return csv_response(f"events-{utcnow():%Y%m%dT%H%M%SZ}.csv", COLUMNS, rows())


@bp.get("/<subject_type>/<int:subject_id>")
def timeline(subject_type: str, subject_id: int) -> ResponseReturnValue:
    """Everything that happened to one thing."""
    actor = current_actor()
    statement = audit.search(actor, EventFilter(subject_type=subject_type, subject_id=subject_id))
    page = paginate_rows(db(), statement)
    return render_template(
        "audit/timeline.html",
        page=page,
        subject_type=subject_type,
        subject_id=subject_id,
        words=words,
        details=details,
    ), 200 if page.total else 404


def details(values: Mapping[str, object]) -> str:
    """What an event says was before or after, on one line."""
    return "; ".join(
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    )


def _filter() -> tuple[EventFilter, list[str]]:
    """What the query string asks for, and what of it could not be read."""
    misread: list[str] = []
    since, until = _day("since", misread), _day("until", misread)
    wanted = EventFilter(
        kind=_name("kind"),
        subject_type=_name("subject_type"),
        subject_id=_number("subject_id", misread),
        actor_id=_number("actor_id", misread),
        since=_midnight(since) if since else None,
        until=_midnight(until + timedelta(days=1)) if until else None,
    )
    return wanted, misread


def _name(name: str) -> str:
    text = request.args.get(name, "").strip()
    # What cannot be a name is one that nothing has, rather than no condition at all.
    return text if not text or NAME.fullmatch(text) else "?"


def _number(name: str, misread: list[str]) -> int | None:
    text = request.args.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    misread.append(gettext("“%(text)s” is not a number.", text=text[:40]))
    return None


def _day(name: str, misread: list[str]) -> date | None:
    text = request.args.get(name, "").strip()
    if not text:
        return None
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        day = None
    if day is None or not 2000 <= day.year <= 2200:
        misread.append(gettext("“%(text)s” is not a date.", text=text[:40]))
        return None
    return day


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), settings().zone)
