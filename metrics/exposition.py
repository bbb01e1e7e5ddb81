"""The answer to a scrape: one pass over the families, then the web's own latencies."""

import logging
import time
from collections.abc import Iterator
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from metrics import families, planning
from metrics.text import Family

FAMILIES = (*families.FAMILIES, *planning.FAMILIES)
SCRAPE_OK = Family("scrape_ok", "gauge", "Whether the database could be read for this answer.")
SCRAPE_SECONDS = Family(
    "scrape_duration_seconds", "gauge", "How long reading the database for this answer took."
)

log = logging.getLogger("kezek.metrics")


def exposition(sessions: sessionmaker[Session], now: datetime) -> str:
    """All families as text; when the database fails ``kezek_scrape_ok 0`` alone: not silence, not zeros."""
    began = time.perf_counter()
    try:
        with sessions() as session:
            text, ok = "".join(_families(session, now)), True
    except SQLAlchemyError as error:
        log.warning("metrics could not be read: %s", type(error).__name__)
        text, ok = "", False
    took = time.perf_counter() - began
    return text + "".join([*SCRAPE_OK.lines([((), ok)]), *SCRAPE_SECONDS.lines([((), took)])])


def _families(session: Session, now: datetime) -> Iterator[str]:
    for family, query in FAMILIES:
        yield from family.lines(query(session, now))
