"""Alembic's environment: on the caller's connection or by the site's settings; no long wait for a lock."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON, Connection, text

from allocator.db import make_engine
from allocator.models import Base
from allocator.models.base import UtcDateTime
from config.settings import load_settings

LOCK_TIMEOUT = "4s"


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Types that Alembic would write with names that it does not import."""
    if kind == "type" and isinstance(item, UtcDateTime):
        context.imports.add("from allocator.models.base import UtcDateTime")
        return "UtcDateTime()"
    if kind == "type" and isinstance(item, JSON):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
        compare_type=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with make_engine(load_settings().database_url).connect() as connection:
        run(connection)
