"""Catalogues: complete, compiled, with the same placeholders in every language."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from babel import Locale, numbers
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from config.i18n import LANGUAGES, LOCALE_DIR, LOCALES, N_, locale_of, ntranslate, translate

ROOT = Path(__file__).parents[2]
PACKAGES = ["allocator", "config", "metrics", "scheduler", "web"]
KEYWORDS = ["--keywords=lazy_gettext", "--keywords=lazy_ngettext:1,2"]
PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


def po_path(lang: str) -> Path:
    return LOCALE_DIR / lang / "LC_MESSAGES" / "messages.po"


def catalogue(lang: str) -> Catalog:
    with po_path(lang).open("rb") as file:
        return read_po(file, locale=lang)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """What the code says today, extracted as `make i18n` does."""
    pot = tmp_path_factory.mktemp("i18n") / "messages.pot"
    command = [
        sys.executable,
        "-m",
        "babel.messages.frontend",
        "-q",
        "extract",
        "-F",
        "config/locale/babel.cfg",
    ]
    subprocess.run([*command, *KEYWORDS, "-o", str(pot), *PACKAGES], cwd=ROOT, check=True)
    with pot.open("rb") as file:
        return read_po(file)


def texts(of: str | tuple[str, ...] | list[str] | None) -> list[str]:
    """A msgid or translation as its forms: one, or one for each plural."""
    return [of] if isinstance(of, str) else list(of or [""])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_string_of_the_code_is_translated(lang: str, template: Catalog) -> None:
    known = catalogue(lang)
    missing = []
    for message in template:
        if not message.id:
            continue
        found = known.get(message.id if isinstance(message.id, str) else message.id[0], message.context)
        # English is the language of the msgids: an empty translation reads the msgid.
        done = found is not None and (lang == "en" or all(texts(found.string)))
        if not done or (found is not None and found.fuzzy):
            missing.append(message.id)
    assert missing == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_translations_keep_their_placeholders(lang: str) -> None:
    wrong = []
    for message in catalogue(lang):
        ids = texts(message.id)
        for text in texts(message.string):
            # A plural form may leave out the count itself ("one hour").
            expected = set(PLACEHOLDER.findall(ids[-1]))
            if message.id and text and not set(PLACEHOLDER.findall(text)) ^ expected <= {"num", "count"}:
                wrong.append((message.id, text))
    assert wrong == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_compiled_catalogues_are_fresh(lang: str) -> None:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(lang))
    assert po_path(lang).with_suffix(".mo").read_bytes() == compiled.getvalue(), "run `make i18n`"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_money_prints_the_tenge_sign(lang: str) -> None:
    text = numbers.format_currency(1500, "KZT", locale=Locale.parse(LOCALES[lang]))
    assert ("₸" in text) == (lang != "en")


def test_a_missing_translation_reads_the_msgid() -> None:
    assert translate("xx", N_("%(hours)s hours of nothing"), {"hours": 3}) == "3 hours of nothing"
    assert translate("kk", "") == ""
    assert ntranslate("xx", "%(num)s wolf", "%(num)s wolves", 2) == "2 wolves"
    assert locale_of("xx") == "en"
