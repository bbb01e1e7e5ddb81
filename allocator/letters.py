"""The letters that people get by mail: plain, short, in the reader's language (R-31)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.i18n import N_, translate


@dataclass(frozen=True)
class Letter:
    """Msgids with named placeholders; ``path`` is where the letter leads, below the site's address."""

    subject: str
    body: str
    path: str = ""


LETTERS: Mapping[str, Letter] = {
    "confirm_email": Letter(
        N_("Confirm your e-mail address"),
        N_(
            "Somebody, probably you, registered at Kezek with this address.\n"
            "To confirm it, open this link within %(hours)s hours. If it was not you, do nothing."
        ),
        path="/account/confirm/%(token)s",
    ),
}


def render(letter: str, lang: str, name: str, details: Mapping[str, Any], base_url: str) -> tuple[str, str]:
    """Subject and text of ``letter`` for a reader called ``name``."""
    template = LETTERS[letter]
    parts = [
        translate(lang, N_("Hello, %(name)s."), {"name": name}),
        translate(lang, template.body, details),
    ]
    if template.path:
        parts.append(base_url.rstrip("/") + template.path % details)
    parts.append(translate(lang, N_("Kezek, the national supercomputer's queue.")))
    return translate(lang, template.subject, details), "\n\n".join(parts) + "\n"
