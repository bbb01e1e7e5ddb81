"""The rules in plain words, for everybody: who rents, how hours are divided, who decides, what they cost."""

from __future__ import annotations

from flask import Blueprint, Response, render_template

from allocator.policy import Policy, Price
from web import policy_words as words
from web.policy import policy

bp = Blueprint("policy", __name__)
EXAMPLE_HOURS = 1_000
HOUR = 3600


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
        largest=max(pool.percent for pool in rules.pools),
    )


@bp.get("/policy.json")
def document() -> Response:
    """The policy as it is recorded: the SHA-256 of these bytes begins with what the version ends with."""
    rules = policy()
    response = Response(rules.document(), mimetype="application/json")
    response.headers["Content-Disposition"] = f'inline; filename="policy-{rules.version}.json"'
    return response


def _prices(rules: Policy) -> dict[str, Price]:
    """What the example costs each category, none of the year's free hours being used."""
    return {
        category.slug: rules.price_of(category.slug, EXAMPLE_HOURS * HOUR) for category in rules.categories
    }
