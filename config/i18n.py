"""Catalogues of what people read: Kazakh, Russian and English.

Outside the web nobody has a request, so a language is always named: `translate(lang, msgid, params)`.
The web uses Flask-Babel over the same catalogues (`LOCALE_DIR`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from babel.support import NullTranslations, Translations

LANGUAGES: tuple[str, ...] = ("kk", "ru", "en")
# The territory matters: only kk_KZ and ru_KZ print the tenge as ₸.
LOCALES: Mapping[str, str] = {"kk": "kk_KZ", "ru": "ru_KZ", "en": "en"}
LOCALE_DIR = Path(__file__).parent / "locale"


def N_(msgid: str) -> str:  # noqa: N802 - gettext's own name for the marker
    """Mark a string for extraction where its reader's language is not known yet."""
    return msgid


def locale_of(lang: str) -> str:
    """Babel's locale for a language; an unknown language reads English."""
    return LOCALES.get(lang, "en")


@cache
def translations(lang: str) -> NullTranslations:
    """The catalogue of a language, or one that returns msgids when there is none."""
    return Translations.load(LOCALE_DIR, [lang], domain="messages")


def translate(lang: str, msgid: str, params: Mapping[str, object] | None = None) -> str:
    """`msgid` in `lang`, its `%(name)s` placeholders filled from `params`."""
    if not msgid:
        # gettext answers the empty string with the catalogue's header.
        return ""
    text = translations(lang).ugettext(msgid)
    return text % params if params else text


def ntranslate(lang: str, one: str, many: str, count: int, params: Mapping[str, object] | None = None) -> str:
    """The plural form of `count` in `lang`; `%(num)s` is the count itself."""
    text = translations(lang).ungettext(one, many, count)
    return text % {"num": count, **(params or {})}
