"""Proposing a login for the clusters from a person's name: `Айгерім Сапар` becomes `asapar`."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from itertools import count

from sqlalchemy import false, or_, select
from sqlalchemy.orm import Session

from allocator.models import Person

# Kazakh and Russian letters as passports here write them, near enough to be recognised.
LATIN = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюяәғқңөұүһі",
        "a b v g d e e zh z i y k l m n o p r s t u f kh ts ch sh sh _ y _ e yu ya a g q n o u u h i".split(),
        strict=True,
    )
)
MAX_BASE = 24


def suggest_cluster_login(session: Session, person: Person, *, forbidden: Collection[str] = ()) -> str:
    """A login that is free and not forbidden: first letter and last name, then a number."""
    return suggest_cluster_logins(session, [person], forbidden=forbidden)[person.id]


def suggest_cluster_logins(
    session: Session, people: Sequence[Person], *, forbidden: Collection[str] = ()
) -> dict[int, str]:
    """One for each of these people, by the person's id; no two are alike. One query whatever their number."""
    bases = {person.id: _base(person) for person in people}
    alike = [Person.cluster_login.startswith(base, autoescape=True) for base in sorted(set(bases.values()))]
    statement = select(Person.cluster_login).where(or_(false(), *alike), Person.id.not_in(bases))
    taken = {*forbidden, *session.scalars(statement)}
    for who, base in bases.items():
        bases[who] = _first_free(base, taken)
        taken.add(bases[who])
    return bases


def _first_free(base: str, taken: Collection[str | None]) -> str:
    return next(
        login for number in count(1) if (login := base if number == 1 else f"{base}{number}") not in taken
    )


def _base(person: Person) -> str:
    words = [word for word in map(_latin, person.name.split()) if word]
    if len(words) > 1:
        base = words[0][0] + words[1]
    else:
        base = (words or [_latin(person.email.partition("@")[0])])[0]
    return base[:MAX_BASE] if base[:1].isalpha() else f"u{person.id}"


def _latin(word: str) -> str:
    letters = "".join(LATIN.get(letter, letter) for letter in word.lower())
    plain = unicodedata.normalize("NFKD", letters).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain)
