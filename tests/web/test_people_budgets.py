"""Pages about people cost the same number of queries for many rows as for few."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Engine

from allocator import administration
from allocator.actors import SYSTEM, MembershipRole, Role
from tests import factories
from tests.browsing import Site

CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]


@pytest.mark.parametrize(
    ("path", "budget"),
    [
        ("/people?limit=100", 7),
        ("/organisations?limit=100", 5),
        ("/organisations/1?limit=100", 7),
        ("/account", 5),
        ("/account/sessions", 5),
        ("/audit?limit=100", 8),
        ("/audit/person/5?limit=100", 5),
    ],
)
def test_budget(site: Site, count_queries: CountQueries, path: str, budget: int) -> None:
    with site.data() as session:
        me = factories.person(session, roles=[Role.ADMINISTRATOR])
        crowd = [factories.person(session) for _ in range(60)]
        factories.organisation(session, head=me, members=dict.fromkeys(crowd, MembershipRole.MEMBER))
        for person in crowd:
            factories.organisation(session, head=person)
            administration.grant_role(session, SYSTEM, person, Role.OPERATOR, now=factories.NOW)
    browser = site.browser_of(me)
    with count_queries(site.database.engine) as statements:
        answer = browser.get(path)
    assert answer.status_code == 200
    # BEGIN is a statement to SQLite's driver
    queries = [statement for statement in statements if not statement.startswith("BEGIN")]
    assert len(queries) <= budget, "\n".join(queries)
