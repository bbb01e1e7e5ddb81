"""Versions of the policy: kept whole from the first use, once, and read back as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from allocator import checks, events, policies
from allocator.db import Database
from allocator.errors import NotFound
from allocator.models import Event, PolicyVersion
from allocator.policy import load_policy
from config.settings import Settings
from tests.factories import NOW

POLICY = load_policy()


def test_the_first_use_keeps_the_version_and_later_ones_find_it(session: Session) -> None:
    first = policies.record(session, POLICY, NOW)
    again = policies.record(session, POLICY, NOW + timedelta(days=1))
    assert again is first
    assert (first.version, first.sha256) == (POLICY.version, POLICY.sha256)
    assert (first.effective, first.recorded_at) == (POLICY.effective, NOW)
    event = session.scalars(select(Event)).one()
    assert (event.kind, event.subject_id) == ("policy_version.recorded", first.id)
    session.commit()
    assert events.verify(session) == 1


def test_what_was_kept_is_the_same_policy(session: Session) -> None:
    policies.record(session, POLICY, NOW)
    session.commit()
    session.expire_all()
    assert policies.find(session, POLICY.version) == POLICY


def test_a_version_that_was_never_used(session: Session) -> None:
    with pytest.raises(NotFound, match="2020-01-01-none"):
        policies.find(session, "2020-01-01-none")


def test_first_uses_at_the_same_time_keep_one_row_and_wait_for_nobody_for_ever(database: Database) -> None:
    together = 4
    barrier = Barrier(together)

    def use(_: int) -> int:
        barrier.wait()
        with database.transaction() as session:
            return policies.record(session, POLICY, NOW).id

    with ThreadPoolExecutor(together) as pool:
        ids = set(pool.map(use, range(together)))
    assert len(ids) == 1
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(PolicyVersion)) == 1
        assert session.scalar(select(func.count()).select_from(Event)) == 1


def test_the_doctor_reads_the_policy(settings: Settings, tmp_path: Path) -> None:
    [well] = checks.policy(settings)
    assert (well.ok, well.detail) == (True, f"version {POLICY.version}")
    broken = tmp_path / "broken.toml"
    broken.write_text("effective = 2026-11-01\n[pools]\n", encoding="utf-8")
    found = list(checks.policy(settings.model_copy(update={"policy_file": broken})))
    assert len(found) > 5
    assert not any(check.ok for check in found)
    assert any(check.detail.startswith("broken.toml:2: pools: ") for check in found)


@pytest.mark.parametrize(
    "change", ["UPDATE policy_versions SET document = '{}'", "DELETE FROM policy_versions"]
)
def test_the_database_lets_nobody_change_what_was_kept(session: Session, change: str) -> None:
    policies.record(session, POLICY, NOW)
    session.commit()
    with pytest.raises(DBAPIError):
        session.execute(text(change))
    session.rollback()
    assert policies.find(session, POLICY.version) == POLICY
