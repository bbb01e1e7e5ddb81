"""One line a thing that happened: JSON in production, readable in the demonstration; never a secret."""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from config.settings import Settings

HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(r"(?i)(password|secret|token|cookie|authorization|api_key|iin)")
# A database or mail URL in the text of an error has its password between colon and at sign.
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
# Whoever reads the address of a mailed link can set that person's password; a feed's shows their bookings.
_LINK_TOKEN = re.compile(r"(/account/(?:reset|confirm)/|/calendar/feed/)[^/?#\s\"']+")


def without_link_tokens(text: str) -> str:
    """The text with the secret part of every mailed link and calendar address hidden."""
    return _LINK_TOKEN.sub(rf"\1{HIDDEN}", text)


def hide_secrets(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Blank what is named like a secret, passwords in URLs and mailed links, also in tracebacks."""
    for name, value in event.items():
        if name != "event" and _SECRET_NAME.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = without_link_tokens(_URL_PASSWORD.sub(rf"\1{HIDDEN}@", value))
    return event


def set_up(settings: Settings, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to `stream` (stderr) in one form."""
    target = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    last: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if not settings.log_json:
        last = structlog.dev.ConsoleRenderer(colors=target.isatty())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    # APScheduler tells of every run of every job; our own jobs log what they did.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
