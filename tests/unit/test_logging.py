"""Log lines: one form for ours and the libraries', and no secrets in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from config.logging import HIDDEN, set_up, without_link_tokens
from config.settings import Settings


@pytest.fixture
def stream(settings: Settings) -> Iterator[io.StringIO]:
    """The output of JSON logging; the process's own logging is put back afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    output = io.StringIO()
    set_up(settings.model_copy(update={"log_json": True}), output)
    yield output
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ours_and_the_libraries_lines_have_one_form(stream: io.StringIO) -> None:
    structlog.get_logger("kezek").info("booked", gpu_seconds=3600, title="Қазақ тілі")
    logging.getLogger("library").warning("slow %s", "query")
    ours, theirs = records(stream)
    assert (ours["event"], ours["gpu_seconds"], ours["title"]) == ("booked", 3600, "Қазақ тілі")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("slow query", "warning", "library")
    assert str(ours["timestamp"]).endswith("Z")


def test_secrets_are_hidden_in_fields_urls_and_tracebacks(stream: io.StringIO) -> None:
    log = structlog.get_logger("kezek")
    log.info("sign-in", password="hush", session_token="hush", url="postgresql+psycopg://u:hush@db/kezek")
    try:
        raise ConnectionError("cannot reach smtp://u:hush@mail.example.org")
    except ConnectionError:
        log.exception("failed")
    assert "hush" not in stream.getvalue()
    assert records(stream)[0]["password"] == HIDDEN
    assert "ConnectionError" in str(records(stream)[1]["exception"])


def test_mailed_links_are_hidden_wherever_they_stand(stream: io.StringIO) -> None:
    logging.getLogger("kezek").error("fault at GET %s", "/account/reset/hush?lang=ru")
    structlog.get_logger("kezek").info("opened", address="https://kezek.example/account/confirm/hush")
    assert "hush" not in stream.getvalue()
    assert without_link_tokens('"GET /account/reset/hush HTTP/1.1" 200') == (
        f'"GET /account/reset/{HIDDEN} HTTP/1.1" 200'
    )
