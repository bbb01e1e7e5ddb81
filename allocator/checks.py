"""What `kezek doctor` asks of the database and of the policy."""

from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from allocator import migrate
from allocator.db import make_engine
from allocator.policy import PolicyError, load_policy
from config.doctor import Check
from config.settings import Settings


def database(settings: Settings) -> Iterator[Check]:
    """Reachable, and at the revision that this code needs."""
    engine = make_engine(settings.database_url)
    place = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        revision = migrate.current(engine)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        yield Check("database", False, f"{place}: {reason}", "Start the database or correct database_url.")
        return
    finally:
        engine.dispose()
    yield Check("database", True, place)
    wanted = migrate.head()
    detail = f"{revision or 'none'}, needed: {wanted}"
    yield Check("database revision", revision == wanted, detail, "Run `kezek db upgrade`.")


def policy(settings: Settings) -> Iterator[Check]:
    """The site's policy can be used; each of its faults is a line."""
    try:
        yield Check("policy", True, f"version {load_policy(settings.policy_file).version}")
    except PolicyError as error:
        advice = "Correct the file; `kezek policy check` tells when it is right."
        for line in error.lines:
            yield Check("policy", False, line, advice)
