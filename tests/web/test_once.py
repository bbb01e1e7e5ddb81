"""A form that is sent twice is acted on once; the request's transaction is all or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from flask import Flask, redirect
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from allocator.db import Database
from allocator.models.records import JobHealth, SubmittedForm
from config.clock import utcnow
from config.settings import Settings
from web import once
from web.session import DATABASE, db

MakeApp = Callable[[Settings], Flask]
TOKEN = "A" * 22  # as many letters as 16 bytes take in base64url


def add_row() -> str:
    """Write one row and give its name."""
    name = once.token()
    db().add(JobHealth(name=name, leader="", interval_seconds=1, started_at=utcnow()))
    db().flush()
    return name


@once.guard
def submit() -> ResponseReturnValue:
    name = add_row()
    time.sleep(0.2)
    return redirect(f"/result/{name}", 303)


@once.guard
def come_back() -> ResponseReturnValue:
    add_row()
    return "please correct", 422


@once.guard
def explain() -> ResponseReturnValue:
    add_row()
    return "done", 200


@once.guard
def break_down() -> ResponseReturnValue:
    add_row()
    raise RuntimeError("on purpose")


def break_at_commit() -> ResponseReturnValue:
    name = add_row()
    db().execute(text("INSERT INTO job_health SELECT * FROM job_health WHERE name = :name"), {"name": name})
    return "never"


@pytest.fixture
def app(make_app: MakeApp, demo_settings: Settings, database_url: str) -> Flask:
    app = make_app(demo_settings.model_copy(update={"database_url": database_url}))
    app.config["WTF_CSRF_ENABLED"] = False
    for view in (submit, come_back, explain, break_down, break_at_commit):
        app.add_url_rule(f"/{view.__name__}", view.__name__, view, methods=["POST"])
    app.add_url_rule("/peek", "peek", add_row)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def count(app: Flask, model: type[JobHealth] | type[SubmittedForm] = JobHealth) -> int:
    database: Database = app.extensions[DATABASE]
    with database.reader() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_a_repeat_leads_to_the_first_result(app: Flask, client: FlaskClient) -> None:
    first = client.post("/submit", data={"submission": TOKEN})
    second = client.post("/submit", data={"submission": TOKEN})
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.location == second.location
    assert count(app) == 1


def test_two_at_once_do_it_once(app: Flask) -> None:
    locations: list[str | None] = []
    start = threading.Barrier(4)

    def send() -> None:
        start.wait()
        locations.append(app.test_client().post("/submit", data={"submission": TOKEN}).location)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(locations) == 4
    assert len(set(locations)) == 1
    assert locations[0]
    assert count(app) == 1


def test_other_forms_are_other_submissions(app: Flask, client: FlaskClient) -> None:
    client.post("/submit", data={"submission": TOKEN})
    client.post("/submit", data={"submission": "B" * len(TOKEN)})
    client.post("/submit")
    assert count(app) == 3


def test_a_form_with_errors_can_be_sent_again(app: Flask, client: FlaskClient) -> None:
    assert client.post("/come_back", data={"submission": TOKEN}).status_code == 422
    assert count(app) == count(app, SubmittedForm) == 0
    assert client.post("/come_back", data={"submission": TOKEN}).status_code == 422


def test_only_a_redirect_uses_the_token_up(app: Flask, client: FlaskClient) -> None:
    assert client.post("/explain", data={"submission": TOKEN}).status_code == 200
    assert (count(app), count(app, SubmittedForm)) == (1, 0)


def test_a_failure_takes_its_token_along(app: Flask, client: FlaskClient) -> None:
    assert client.post("/break_down", data={"submission": TOKEN}).status_code == 500
    assert count(app) == count(app, SubmittedForm) == 0


def test_a_token_of_another_form_is_refused(app: Flask, client: FlaskClient) -> None:
    client.post("/submit", data={"submission": TOKEN})
    assert client.post("/explain", data={"submission": TOKEN}).status_code == 409
    assert client.post("/submit", data={"submission": "x" * 500}).status_code == 400
    assert count(app) == 1


def test_reading_requests_change_nothing(app: Flask, client: FlaskClient) -> None:
    assert client.get("/peek").status_code == 200
    assert count(app) == 0


def test_a_refusal_of_the_database_undoes_all(app: Flask, client: FlaskClient) -> None:
    assert client.post("/break_at_commit").status_code == 500
    assert count(app) == 0


def test_the_token_is_unique_in_the_database_too(app: Flask) -> None:
    database: Database = app.extensions[DATABASE]

    def store() -> None:
        with database.transaction() as session:
            session.add(SubmittedForm(token=TOKEN, person_id=None, path="/", location="/", at=utcnow()))

    store()
    with pytest.raises(IntegrityError):
        store()


def test_a_page_about_an_error_can_still_ask_the_database(app: Flask, client: FlaskClient) -> None:
    """A failed flush leaves a session unusable until it is rolled back; error pages may want to read."""

    def clash() -> str:
        add_row()
        db().add(SubmittedForm(token=TOKEN, person_id=-5, path="/", location="/", at=utcnow()))
        db().flush()
        return "never"

    def read_again(_error: Exception) -> ResponseReturnValue:
        return str(db().scalar(select(func.count()).select_from(JobHealth))), 500

    app.add_url_rule("/clash", "clash", clash, methods=["POST"])
    app.register_error_handler(IntegrityError, read_again)
    answer = client.post("/clash")
    assert (answer.status_code, answer.text) == (500, "0")
