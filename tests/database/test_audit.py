"""Looking at the record of events, on both databases."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from sqlalchemy import Engine

from allocator import audit, events
from allocator.actors import SYSTEM
from allocator.db import Database
from tests import factories

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CountQueries = Callable[[Engine], AbstractContextManager[list[str]]]


def test_kinds_are_each_told_once_in_one_query(database: Database, count_queries: CountQueries) -> None:
    with database.transaction() as session:
        person = factories.person(session)
        for kind in ("person.seen", "person.added", "person.seen", "person.closed"):
            events.record(session, SYSTEM, person, kind, now=NOW)
    with database.reader() as session, count_queries(database.engine) as statements:
        assert audit.kinds(session, SYSTEM) == ["person.added", "person.closed", "person.seen"]
    assert len(statements) == 1


def test_no_events_have_no_kinds(database: Database) -> None:
    with database.reader() as session:
        assert audit.kinds(session, SYSTEM) == []
