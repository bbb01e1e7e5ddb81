"""The operator's pages: the queue in order of receipt, and one application with all that a decision needs."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select

from allocator import ledger
from allocator.actors import Actor
from allocator.applying import application_queries as queries
from allocator.applying import decisions
from allocator.applying.application_queries import QueueFilter
from allocator.authorization import Action, may, require
from allocator.errors import Invalid, Stale
from allocator.models import Application, Cluster
from allocator.states import ApplicationState
from config.clock import utcnow
from web import once
from web.applying import (
    application_words as words,
)
from web.applying.application_forms import KINDS, DecisionForm, decision_form
from web.exports import csv_response, read_rows
from web.identity import current_actor
from web.paging import paginate
from web.policy import category_title, policy
from web.policy_words import band_of, sector_text, weight_facts
from web.session import db, settings

bp = Blueprint("review", __name__, url_prefix="/review")
STATES = [state for state in ApplicationState if state is not ApplicationState.DRAFT]
ANY = "any"


@bp.get("")
def queue() -> ResponseReturnValue:
    """What waits, in order of receipt; decided ones by filter."""
    wanted = _wanted()
    page = paginate(db(), queries.review_queue(current_actor(), wanted))
    clusters = db().execute(select(Cluster.slug, Cluster.title).order_by(Cluster.title)).all()
    return render_template(
        "review/queue.html",
        page=page,
        wanted=wanted,
        states=STATES,
        categories=[(category.slug, category_title(category.slug)) for category in policy().categories],
        clusters=clusters,
        now=utcnow(),
    )


@bp.get("/export.csv")
def export() -> Response:
    """The list with the same filters as CSV."""
    rows = read_rows(queries.review_queue(current_actor(), _wanted()), words.table_row)
    return csv_response("queue.csv", [gettext(title) for title in words.HEADER], rows)


@bp.get("/<int:application_id>")
def show(application_id: int) -> ResponseReturnValue:
    """One application with what stands behind it, and the form to decide."""
    application = _find(application_id)
    return _page(application, _form(application))


@bp.get("/<int:application_id>/decide")
def decide_again(application_id: int) -> ResponseReturnValue:
    """Where a reload lands after a decision that came back: the page with the form."""
    return redirect(url_for("review.show", application_id=_find(application_id).id), 303)


@bp.post("/<int:application_id>/decide")
@once.guard
def decide(application_id: int) -> ResponseReturnValue:
    """First show what the decision will do; with `confirmed` do it. What was typed survives every answer."""
    actor = current_actor()
    application = _find(application_id)
    require(actor, Action.APPLICATION_DECIDE, application)
    form = _form(application)
    # the chosen version decides whether the page is stale, so it comes before everything else
    act = decisions.decide if request.form.get("confirmed") else decisions.preview
    if not form.validate():
        return _page(application, form), 422
    if request.form.get("change"):
        return _page(application, form)
    try:
        done: Any = act(
            db(),
            actor,
            application,
            form.verdict(),
            expected_version=form.version.data or 0,
            policy=policy(),
            forbidden_logins=settings().forbidden_logins,
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _page(application, form), 422
    except Stale:
        return _page(application, form, _changes(application, form)), 409
    if isinstance(done, decisions.Outcome):
        return render_template(
            "review/confirm.html", application=application, form=form, outcome=done, band_of=band_of
        )
    flash(gettext("The decision is recorded, and the applicant gets a letter."), "success")
    return redirect(url_for("review.show", application_id=application_id), 303)


def _wanted() -> QueueFilter:
    """The filters of the query string; what is no such thing is left open."""
    asked = request.args.get("state", ApplicationState.SUBMITTED.value)
    known = {state.value: state for state in STATES}
    category = request.args.get("category", "")
    # no slug has such characters, and PostgreSQL refuses a NUL instead of finding nothing
    cluster = request.args.get("cluster", "")
    return QueueFilter(
        state=None if asked == ANY else known.get(asked, ApplicationState.SUBMITTED),
        category=category if policy().category(category) else None,
        cluster=cluster if cluster.isprintable() and cluster else None,
        text=request.args.get("q", ""),
    )


def _find(application_id: int) -> Application:
    actor = current_actor()
    # whoever has no business in the queue learns nothing from this page
    application = queries.find(db(), actor, application_id)
    require(actor, Action.APPLICATION_QUEUE)
    return application


def _form(application: Application) -> DecisionForm:
    team = list(queries.accounts_of_team(db(), application).values())
    members = [application.applicant, *team]
    logins = decisions.suggest_logins(db(), members, settings().forbidden_logins)
    return decision_form(application, members, logins)


def _changes(application: Application, form: DecisionForm) -> list[Any]:
    """What happened meanwhile; deciding again is deciding on what stands here now."""
    seen = form.version.data or 0
    form.version.data, form.version.raw_data = application.version, None
    return words.happenings(queries.changes_since(db(), application, seen))


def _sector(application: Application) -> str:
    organisation = application.organisation
    return sector_text(policy().sector_of(organisation.activity if organisation else None))


def _following() -> Application | None:
    """The application that has waited longest: what an operator opens after a decision."""
    return db().scalar(queries.review_queue(current_actor(), QueueFilter()).limit(1))


def _page(application: Application, form: DecisionForm, changes: list[Any] | None = None) -> str:
    actor: Actor = current_actor()
    waits = application.state is ApplicationState.SUBMITTED
    earlier = paginate(db(), queries.earlier_quotas(application), limit=10, name="earlier")
    return render_template(
        "review/show.html",
        application=application,
        form=form,
        changes=changes,
        facts=words.facts(application),
        weight_facts=weight_facts(application.decision, application.category, application.organisation),
        accounts=queries.accounts_of_team(db(), application),
        happenings=words.happenings(queries.timeline(db(), application)),
        earlier=earlier,
        balances=ledger.balances(db(), [quota.id for quota in earlier.items]),
        sector=_sector(application),
        capacity=queries.capacity_now(db(), application),
        quota=queries.quota_of(db(), application),
        following=None if waits else _following(),
        kinds=KINDS,
        waits=waits,
        may_decide=may(actor, Action.APPLICATION_DECIDE, application),
    )
