"""The rules in plain words, for everybody: who rents, how hours are divided, who decides, what they cost."""

from __future__ import annotations

from typing import NamedTuple

from flask import Blueprint, Response, render_template
from flask_babel import gettext

from allocator.policy import Policy, Price
from web import policy_words as words
from web.policy import policy

bp = Blueprint("policy", __name__)
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
    rules = policy()
    return render_template(
        "policy/show.html",
        rules=rules,
        words=words,
        example_hours=EXAMPLE_HOURS,
        prices=_prices(rules),
        parts=_parts(rules),
    )


@bp.get("/policy.json")
def document() -> Response:
    """The policy as it is recorded: the SHA-256 of these bytes begins with what the version ends with."""
    rules = policy()
    response = Response(rules.document(), mimetype="application/json")
    response.headers["Content-Disposition"] = f'inline; filename="policy-{rules.version}.json"'
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
