"""Holding rows until the commit, so that whoever else wants to change them waits.

Always FOR NO KEY UPDATE: a plain FOR UPDATE also stops everybody who only refers to the row. Every event
refers to a person, and most things to a cluster, so that somebody with the chain of events in hand would
wait for us while we wait for the chain. SQLite has one writer at a time and needs none of it.
"""

from typing import Any, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

T = TypeVar("T")

AGAINST_CHANGE = {"key_share": True}  # for Session.get()


def hold(session: Session, row: T) -> T:
    """The row as it stands now, held until the commit; what hangs on it stays as it was loaded.

    Not ``session.refresh()``: that repeats the joins with which a page has loaded the row, and PostgreSQL
    locks no nullable side of an outer join.
    """
    model: Any = type(row)
    held = session.scalars(
        select(model)
        .where(model.id == cast(Any, row).id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()
    return cast(T, held)
