"""Letters that wait to be sent.

They are queued in the transaction that gives cause, claimed and sent by the scheduler.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from allocator.letters import LETTERS
from allocator.models import OutboxItem, OutboxState


def post(
    session: Session, letter: str, recipient_id: int, details: Mapping[str, Any], *, now: datetime
) -> OutboxItem:
    """Queue ``letter`` (a key of LETTERS) for a person; ``details`` are JSON values for its placeholders."""
    if letter not in LETTERS:
        raise ValueError(f"no such letter: {letter}")
    item = OutboxItem(
        letter=letter,
        recipient_id=recipient_id,
        details=dict(details),
        state=OutboxState.WAITING,
        created_at=now,
        due_at=now,
    )
    session.add(item)
    return item
