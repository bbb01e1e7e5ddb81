"""The migrations go up and down on both databases, and end where the models are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from allocator import events, migrate
from allocator.actors import SYSTEM
from allocator.db import Database, make_engine
from allocator.errors import ChainBroken
from allocator.models import Base, Cluster, Event, Node, NodeSlot

NOW = datetime(2026, 11, 1, 5, tzinfo=UTC)


@pytest.fixture
def migrated(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


def test_models_and_migrations_agree(migrated: Engine) -> None:
    with migrated.connect() as connection:
        command.check(migrate.alembic_config(connection))  # raises when autogenerate finds a difference
    assert migrate.current(migrated) == migrate.head()


def test_down_leaves_nothing_and_up_works_again(migrated: Engine) -> None:
    migrate.downgrade(migrated, "base")
    assert migrate.current(migrated) is None
    with migrated.connect() as connection:
        for table in Base.metadata.tables:
            assert not migrated.dialect.has_table(connection, table)
    migrate.upgrade(migrated)
    assert migrate.current(migrated) == migrate.head()


def a_node(session: Session) -> Node:
    cluster = Cluster(slug="alem", title="Alem", created_at=NOW)
    node = Node(cluster=cluster, name="gpu0001", partition="gpu", gpu_type="h200", gpus=8, seen_at=NOW)
    session.add(node)
    session.flush()
    return node


def slot(node: Node, gpus: tuple[int, int], hours: tuple[int, int]) -> dict[str, object]:
    return {
        "booking_id": 1,
        "node_id": node.id,
        "gpu_from": gpus[0],
        "gpu_to": gpus[1],
        "starts_at": NOW + timedelta(hours=hours[0]),
        "ends_at": NOW + timedelta(hours=hours[1]),
    }


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        (((0, 8), (2, 3)), True),
        (((4, 8), (0, 5)), True),
        (((0, 4), (3, 5)), False),  # touches the end
        (((0, 4), (-2, 0)), False),  # touches the start
        (((6, 8), (0, 3)), False),  # other GPUs
    ],
)
def test_database_refuses_two_slots_on_one_gpu(
    session: Session, second: tuple[tuple[int, int], tuple[int, int]], refused: bool
) -> None:
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql(
            "PRAGMA defer_foreign_keys=ON"
        )  # bookings are not the point here
    else:
        session.execute(text("ALTER TABLE node_slots DISABLE TRIGGER ALL"))
    node = a_node(session)
    session.execute(insert(NodeSlot), [slot(node, (0, 6), (0, 3))])
    if not refused:
        session.execute(insert(NodeSlot), [slot(node, *second)])
        return
    with pytest.raises(DBAPIError, match="node_slots_no_overlap"):
        session.execute(insert(NodeSlot), [slot(node, *second)])


def three_events(database: Database) -> None:
    with database.transaction() as session:
        node = a_node(session)
        for reason in ("one", "екі", "три"):
            events.record(session, SYSTEM, node, "node.seen", now=NOW, reason=reason, after={"gpus": 8})


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET reason = 'x' WHERE seq = 2", "DELETE FROM events WHERE seq = 3"]
)
def test_events_are_append_only(database: Database, statement: str) -> None:
    three_events(database)
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement))


def test_no_event_is_replaced_on_sqlite(sqlite_database: Database) -> None:
    three_events(sqlite_database)
    replace = "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 2"
    with pytest.raises(DBAPIError, match="append-only"), sqlite_database.transaction() as session:
        session.execute(text(replace))


def test_truncate_is_refused_on_postgresql(postgres_url: str) -> None:
    database = Database(postgres_url)
    three_events(database)
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text("TRUNCATE events"))
    database.dispose()


def disarm(session: Session) -> None:
    """What somebody with full rights on the database could do before rewriting history."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("DROP TRIGGER events_no_update"))
        session.execute(text("DROP TRIGGER events_no_delete"))
    else:
        session.execute(text("ALTER TABLE events DISABLE TRIGGER ALL"))


@pytest.mark.parametrize(
    ("statement", "link"),
    [
        ("UPDATE events SET reason = 'x' WHERE seq = 2", 2),
        ("UPDATE events SET actor_id = NULL, at = at, kind = 'node.lost' WHERE seq = 1", 1),
        ("DELETE FROM events WHERE seq = 2", 2),
        ("DELETE FROM events WHERE seq = 3", 3),
    ],
)
def test_verify_names_the_first_broken_link(database: Database, statement: str, link: int) -> None:
    three_events(database)
    with database.reader() as session:
        assert events.verify(session, batch=2) == 3
    with database.transaction() as session:
        disarm(session)
        session.execute(text(statement))
    with database.reader() as session, pytest.raises(ChainBroken) as caught:
        events.verify(session)
    assert caught.value.details["seq"] == link


def test_concurrent_writers_make_one_chain(database: Database) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with database.transaction() as session:
        node_id = a_node(session).id

    def write(number: int) -> None:
        with database.transaction() as session:
            node = session.get_one(Node, node_id)
            events.record(session, SYSTEM, node, "node.seen", now=NOW, after={"number": number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    with database.reader() as session:
        assert events.verify(session) == 40
        assert session.scalar(select(func.count()).select_from(Event)) == 40
