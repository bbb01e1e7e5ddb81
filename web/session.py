"""One database session a request, opened at first use and finished once.

A view asks for `db()`. A safe request (GET, HEAD, OPTIONS) reads and is rolled back. Any other request may
write: it commits once, after the view has returned a response below 400, and rolls back on everything else,
so that a form which comes back with an error has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import Flask, Response, current_app, g, request
from sqlalchemy.orm import Session

from allocator.db import Database
from config.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
DATABASE = "kezek.database"
SETTINGS = "kezek.settings"


def settings() -> Settings:
    """What the site has set for this application."""
    return cast(Settings, current_app.extensions[SETTINGS])


def database() -> Database:
    """Where sessions come from, for the rare write outside the request's own transaction."""
    return cast(Database, current_app.extensions[DATABASE])


def db() -> Session:
    """The session of this request; views and services use it and never commit."""
    if "db" not in g:
        g.db = database().reader() if request.method in SAFE_METHODS else database().writer()
    return cast(Session, g.db)


def finish(response: Response) -> None:
    """Commit what the view has done if its answer says that it worked, else undo it.

    Raises whatever the database says to the commit; the caller answers that like any other error.
    """
    session = cast("Session | None", g.get("db"))
    if session is None:
        return
    if request.method not in SAFE_METHODS and response.status_code < 400:
        session.commit()
    else:
        session.rollback()


@contextmanager
def undone_by_errors() -> Iterator[None]:
    """Undo at once what a failing view has done.

    The page about the error may need the session again, and on SQLite others wait for its lock.
    """
    try:
        yield
    except Exception:
        session = cast("Session | None", g.get("db"))
        if session is not None:
            session.rollback()
        raise


def close(_error: BaseException | None = None) -> None:
    """Give the connection back, undoing whatever was not committed."""
    session = cast("Session | None", g.pop("db", None))
    if session is not None:
        session.close()


def init_app(app: Flask, site: Settings) -> None:
    """Give the application its settings and its database."""
    app.extensions[SETTINGS] = site
    app.extensions[DATABASE] = Database(site.database_url)
    app.teardown_appcontext(close)
