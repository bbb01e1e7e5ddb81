"""For everybody: how each published period was divided, how fair it came out, and files to check it with."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, render_template

from allocator import fairshare
from allocator.dividing import period_queries
from allocator.errors import NotFound
from allocator.models import Period, Proposal
from web.dividing import (
    period_words as words,
)
from web.dividing.period_charts import pool_bars
from web.dividing.period_summary import summary_of
from web.dividing.proposals import division_csv, division_json
from web.paging import paginate
from web.policy import category_title
from web.session import db

bp = Blueprint("fairness", __name__)
PERIOD = "/fairness/<int(max=9223372036854775807):period_id>"
CHECKER = Path(fairshare.__file__).parent / "check_division.py"


@bp.get("/fairness")
def index() -> str:
    """Published periods, the latest first."""
    page = paginate(db(), period_queries.published_periods())
    return render_template("fairness/index.html", page=page, words=words)


@bp.get("/fairness/check_division.py")
def checker() -> Response:
    """The stand-alone script: Python's own library is all that it needs."""
    response = Response(CHECKER.read_bytes(), mimetype="text/x-python")
    response.headers["Content-Disposition"] = 'attachment; filename="check_division.py"'
    return response


@bp.get(PERIOD)
def show(period_id: int) -> str:
    """The aggregate result of one period, its pools and its figures; no names."""
    period, proposal = _find(period_id)
    summary = summary_of(proposal)
    return render_template(
        "fairness/show.html",
        period=period,
        proposal=proposal,
        words=words,
        category_title=category_title,
        summary=summary,
        bars=pool_bars(summary.pools),
    )


@bp.get(f"{PERIOD}/division.json")
def as_json(period_id: int) -> Response:
    """Inputs and result by pseudonyms, as the checker reads them."""
    return division_json(_find(period_id)[1])


@bp.get(f"{PERIOD}/division.csv")
def as_csv(period_id: int) -> Response:
    """The same as a table."""
    return division_csv(_find(period_id)[1])


def _find(period_id: int) -> tuple[Period, Proposal]:
    period = period_queries.find_published(db(), period_id)
    proposal = period_queries.published_proposal(db(), period)
    if proposal is None:
        raise NotFound()
    return period, proposal
