"""The rules in plain words, for everybody: who rents, how hours are divided, who decides, what they cost.

Every version that something was decided or divided under stays readable, with what it changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flask import Blueprint, Response, render_template, url_for
from flask_babel import gettext

from allocator import policies
from allocator.policy import Policy, PolicyError, Price, document_differences
from web import policy_words as words
from web.paging import paginate, paginate_list
from web.policy import policy
from web.session import db

bp = Blueprint("policy", __name__)
VERSION = "/policy/versions/<version>"
EXAMPLE_HOURS = 1_000
HOUR = 3600


class Part(NamedTuple):
    """A part of a period's capacity, as a row with its bar."""

    title: str
    percent: int
    cap_percent: int | None


@bp.get("/policy")
def show() -> str:
    """The policy that decisions are taken under now."""
    return _page(policy())


@bp.get("/policy.json")
def document() -> Response:
    """The policy as it is recorded: the SHA-256 of these bytes begins with what the version ends with."""
    return _document(policy().version, policy().document())


@bp.get("/policy/versions")
def versions() -> str:
    """Every version that was ever used here, and the one of today."""
    page = paginate(db(), policies.used())
    return render_template("policy/versions.html", page=page, rules=policy())


@bp.get(VERSION)
def version(version: str) -> str:
    """One version, with what changed from the one before it."""
    try:
        return _page(_find(version))
    except PolicyError:
        # an old one may lack what every policy must have today; what it said is still on record
        row = policies.recorded(db(), version)
        return render_template("policy/unreadable.html", row=row, **_history(row.version, row.document))


@bp.get(f"{VERSION}/policy.json")
def version_document(version: str) -> Response:
    """One version as it was recorded; also one that the program of today could not read."""
    rules = policy()
    text = rules.document() if version == rules.version else policies.recorded(db(), version).document
    return _document(version, text)


def _find(version: str) -> Policy:
    """Today's version before it was ever used, too. Raises NotFound for what never was one here."""
    rules = policy()
    return rules if version == rules.version else policies.find(db(), version)


def _page(rules: Policy) -> str:
    return render_template(
        "policy/show.html",
        rules=rules,
        current=policy().version,
        words=words,
        example_hours=EXAMPLE_HOURS,
        prices=_prices(rules),
        parts=_parts(rules),
        document_url=_document_url(rules),
        **_history(rules.version, rules.document()),
    )


def _history(version: str, text: str) -> dict[str, Any]:
    """The version that was used before this one, and what changed from it."""
    before = policies.before(db(), version)
    changes = document_differences(before.document, text) if before else []
    return {"before": before, "changes": paginate_list(changes, name="changes")}


def _document_url(rules: Policy) -> str:
    if rules.version == policy().version:
        return url_for("policy.document")
    return url_for("policy.version_document", version=rules.version)


def _document(version: str, text: str) -> Response:
    response = Response(text, mimetype="application/json")
    response.headers["Content-Disposition"] = f'inline; filename="policy-{version}.json"'
    return response


def _parts(rules: Policy) -> list[Part]:
    """The pools, then the reserve: together the whole capacity."""
    parts = [Part(words.text_in(pool.titles), pool.percent, pool.cap_percent) for pool in rules.pools]
    reserve = rules.periods.reserve_percent
    return [*parts, Part(gettext("Reserve"), reserve, reserve)]


def _prices(rules: Policy) -> dict[str, Price]:
    """What the example costs each category, none of the year's free hours being used."""
    return {
        category.slug: rules.price_of(category.slug, EXAMPLE_HOURS * HOUR) for category in rules.categories
    }
