"""The site's policy for views and templates: read once, at the start."""

from __future__ import annotations

from typing import cast

from flask import Flask, current_app

from allocator.policy import Policy, load_policy
from config.settings import Settings
from web.i18n import language

KEY = "kezek.policy"


def init_app(app: Flask, settings: Settings) -> None:
    """Read it now: with a faulty file no page would be right. Raises PolicyError."""
    app.extensions[KEY] = load_policy(settings.policy_file)


def policy() -> Policy:
    """The policy that this process decides by; a changed file takes effect with the next start."""
    return cast(Policy, current_app.extensions[KEY])


def category_title(slug: str) -> str:
    """A category's name in the reader's language; one that the policy no longer has shows as it is."""
    category = policy().category(slug)
    return category.titles.get(language(), category.titles["en"]) if category else slug
