"""What web tests do like a browser: sign in, fill in a form that a page has shown, read errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from html import unescape

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from allocator.accounts.tokens import new_token, token_hash
from allocator.db import Database
from allocator.models import Person, SignInSession
from config.clock import utcnow
from web.session import DATABASE

HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')
VERSION = re.compile(r'<input id="version" name="version" type="hidden" value="([^"]*)">')


@dataclass(frozen=True)
class Site:
    """An application with its database."""

    app: Flask

    @property
    def database(self) -> Database:
        """The database of the application."""
        database = self.app.extensions[DATABASE]
        assert isinstance(database, Database)
        return database

    @contextmanager
    def data(self) -> Iterator[Session]:
        """A session that commits at the end; its objects stay readable."""
        with self.database.writer(expire_on_commit=False) as session, session.begin():
            yield session

    def visitor(self) -> FlaskClient:
        """A browser that nobody has signed in with."""
        return self.app.test_client()

    def browser_of(self, person: Person) -> FlaskClient:
        """A browser that `person` (committed) has signed in with."""
        client = self.visitor()
        sign_in(client, person)
        return client


def sign_in(client: FlaskClient, person: Person) -> int:
    """Sign a committed person in without the page and its slow hash; returns the number of the session."""
    now, token = utcnow(), new_token()
    database: Database = client.application.extensions[DATABASE]
    with database.transaction() as session:
        row = SignInSession(
            token_hash=token_hash(token),
            person_id=person.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now + timedelta(hours=1),
            address="127.0.0.1",
            user_agent="a test",
        )
        session.add(row)
        session.flush()
        number = row.id
    with client.session_transaction() as cookie:
        cookie["_user_id"], cookie["_fresh"] = token, True
    return number


def text_of(response: TestResponse) -> str:
    """The page as a reader sees it, near enough: no tags, single spaces."""
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", response.text, flags=re.DOTALL)
    whole = body.replace("<wbr>", "")  # where a word may break, it has no space
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", whole)).split())


def hidden_fields(response: TestResponse) -> dict[str, str]:
    """The tokens (and version) of the last form on a page: the header has one of its own."""
    fields = {name: unescape(value) for name, value in HIDDEN.findall(response.text)}
    version = VERSION.search(response.text)
    return fields | ({"version": version.group(1)} if version else {})


def submit(
    client: FlaskClient, path: str, data: Mapping[str, str], *, action: str | None = None
) -> TestResponse:
    """Open the page at `path`, fill in `data` and send the form to it (or to `action`)."""
    page = client.get(path)
    return client.post(action or path, data=hidden_fields(page) | dict(data))
