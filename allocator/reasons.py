"""Reasons that people type: never missing where one is asked for, never longer than its column."""

from allocator.applying.application_checks import MAX_REASON, text_fault
from allocator.errors import Fault, Invalid
from config.i18n import N_

READ_BY_ALL = N_("Give the reason: whoever is affected is told it word for word.")


def given(text: str, *, most: int = MAX_REASON, field: str = "reason") -> str:
    """The reason without spaces around it. Raises Invalid for ``field`` when it is none or too long."""
    reason = text.replace("\r\n", "\n").strip()
    fault = text_fault(reason, most, lines=True) if reason else Fault(READ_BY_ALL)
    if fault:
        raise Invalid({field: [fault]})
    return reason
