"""The site's policy for views and templates: read once, at the first request that needs it."""

from __future__ import annotations

from typing import cast

from flask import current_app

from allocator.policy import Policy, load_policy
from web.i18n import language
from web.session import settings

KEY = "kezek.policy"


def policy() -> Policy:
    """The policy that this process decides by; a changed file takes effect with the next start."""
    if KEY not in current_app.extensions:
        current_app.extensions[KEY] = load_policy(settings().policy_file)
    return cast(Policy, current_app.extensions[KEY])


def category_title(slug: str) -> str:
    """A category's name in the reader's language; one that the policy no longer has shows as it is."""
    category = policy().category(slug)
    return category.titles.get(language(), category.titles["en"]) if category else slug
