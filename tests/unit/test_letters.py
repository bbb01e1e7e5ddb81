"""Letters: every one can be written in every language, with nothing left in another."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from allocator.letters import LETTERS, render
from allocator.problems import BUSY, sentence
from config.i18n import LANGUAGES

NAMES = re.compile(r"%\((\w+)\)s")


def details_of(letter: str) -> Mapping[str, str]:
    template = LETTERS[letter]
    return {name: f"<{name}>" for name in NAMES.findall(template.subject + template.body + template.path)}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("letter", LETTERS)
def test_a_letter_tells_all_its_details(letter: str, lang: str) -> None:
    details = details_of(letter)
    subject, text = render(letter, lang, "Айгерім", details, "https://kezek.example/")
    # a stranger may have typed the name beside somebody's address: the first letter carries none of it
    assert ("Айгерім" in text) is (letter != "confirm_email")
    assert "%(" not in subject + text
    assert [name for name in details if f"<{name}>" not in subject + text] == []


@pytest.mark.parametrize("lang", ["kk", "ru"])
def test_the_clusters_problem_is_told_in_the_readers_language(lang: str) -> None:
    details = {**details_of("booking_blocked"), "problem": sentence(BUSY)}
    _subject, text = render("booking_blocked", lang, "Айгерім", details, "https://kezek.example")
    assert "<cluster>" in text
    assert sentence(BUSY) not in text
