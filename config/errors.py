"""The root of Kezek's tree of errors: a code for machines, a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class KezekError(Exception):
    """Something a person can be told.

    `message` is an English msgid with named placeholders (`%(name)s`) that are filled from `details`;
    the web translates it, the command line prints it as it is. Subclasses set `code` (stable, dotted,
    lower case) and may set `exit_code`, the command line's answer.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, object] = dict(details or {})

    def __str__(self) -> str:
        # Without details a literal per cent sign in the message must survive.
        return self.message % self.details if self.details else self.message
