"""What only the database can promise: no two slots on one GPU, and events that nobody can rewrite

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SQLITE_OVERLAP = """
CREATE TRIGGER node_slots_overlap_{name} BEFORE {event} ON node_slots
WHEN EXISTS (
    SELECT 1 FROM node_slots AS other
    WHERE other.node_id = NEW.node_id AND other.id IS NOT NEW.id
      AND other.ends_at > NEW.starts_at AND other.starts_at < NEW.ends_at
      AND other.gpu_to > NEW.gpu_from AND other.gpu_from < NEW.gpu_to
)
BEGIN SELECT RAISE(ABORT, 'node_slots_no_overlap'); END
"""

SQLITE_APPEND_ONLY = """
CREATE TRIGGER events_no_{name} BEFORE {event} ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
"""

# INSERT OR REPLACE deletes without asking the trigger above.
SQLITE_NO_REPLACE = """
CREATE TRIGGER events_no_replace BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq OR hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
"""

POSTGRESQL_APPEND_ONLY = """
CREATE FUNCTION refuse_event_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'events are append-only'; END $$
"""

SQLITE_EVENTS = (("update", "UPDATE"), ("delete", "DELETE"))
SQLITE_OVERLAPS = (("insert", "INSERT"), ("update", "UPDATE"))


def upgrade() -> None:
    op.bulk_insert(
        sa.table("event_chain", sa.column("id"), sa.column("seq"), sa.column("hash")),
        [{"id": 1, "seq": 0, "hash": "0" * 64}],
    )
    if op.get_bind().dialect.name == "sqlite":
        for name, event in SQLITE_OVERLAPS:
            op.execute(SQLITE_OVERLAP.format(name=name, event=event))
        for name, event in SQLITE_EVENTS:
            op.execute(SQLITE_APPEND_ONLY.format(name=name, event=event))
        op.execute(SQLITE_NO_REPLACE)
        return
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    op.execute(
        "ALTER TABLE node_slots ADD CONSTRAINT node_slots_no_overlap EXCLUDE USING gist ("
        "node_id WITH =, int4range(gpu_from, gpu_to) WITH &&, tstzrange(starts_at, ends_at) WITH &&)"
    )
    op.execute(POSTGRESQL_APPEND_ONLY)
    op.execute(
        "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events "
        "FOR EACH ROW EXECUTE FUNCTION refuse_event_change()"
    )
    op.execute(
        "CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_event_change()"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, _ in SQLITE_OVERLAPS:
            op.execute(f"DROP TRIGGER node_slots_overlap_{name}")
        for name, _ in SQLITE_EVENTS:
            op.execute(f"DROP TRIGGER events_no_{name}")
        op.execute("DROP TRIGGER events_no_replace")
    else:
        op.execute("DROP TRIGGER events_no_truncate ON events")
        op.execute("DROP TRIGGER events_append_only ON events")
        op.execute("DROP FUNCTION refuse_event_change")
        op.execute("ALTER TABLE node_slots DROP CONSTRAINT node_slots_no_overlap")
    op.execute("DELETE FROM event_chain")
