"""What can go wrong in the domain, as one tree.

The web makes HTTP of it in one place, the command line exit codes.
"""

from collections.abc import Mapping

from config.errors import KezekError
from config.i18n import N_

__all__ = [
    "ChainBroken",
    "Conflict",
    "Forbidden",
    "Invalid",
    "KezekError",
    "NoCapacity",
    "NotFound",
    "SignInRequired",
    "Stale",
    "Throttled",
    "WrongState",
]


class NotFound(KezekError):
    """The thing does not exist, or the actor may not know that it does."""

    code = "not_found"
    http_status = 404

    def __init__(
        self,
        message: str = N_("There is nothing here that you may see."),
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, details)


class SignInRequired(KezekError):
    """An anonymous visitor asked for something that needs a person."""

    code = "sign_in_required"
    http_status = 401

    def __init__(self) -> None:
        super().__init__(N_("Please sign in first."))


class Forbidden(KezekError):
    """The actor may see the thing but not do this to it."""

    code = "forbidden"
    http_status = 403

    def __init__(
        self, message: str = N_("You may not do this."), details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message, details)


class Invalid(KezekError):
    """One or more fields break a rule; ``fields`` maps a field's name to its messages (msgid, details)."""

    code = "invalid"
    http_status = 422

    def __init__(self, fields: Mapping[str, list["Fault"]]) -> None:
        self.fields = dict(fields)
        super().__init__(N_("Please correct the marked fields."))

    def __str__(self) -> str:
        """The faults themselves: logs and the command line have no fields to mark."""
        return "; ".join(f"{field}: {fault}" for field, faults in self.fields.items() for fault in faults)


class Conflict(KezekError):
    """The request cannot be done beside what exists already."""

    code = "conflict"
    http_status = 409


class NoCapacity(Conflict):
    """The GPUs asked for are not free in that window."""

    code = "no_capacity"


class WrongState(Conflict):
    """The lifecycle has no such step from here."""

    code = "wrong_state"


class Stale(Conflict):
    """Somebody changed the thing after the person's page was made; ``details`` says what and when."""

    code = "stale"


class Throttled(KezekError):
    """Too many tries; ``details['seconds']`` says how long to wait."""

    code = "throttled"
    http_status = 429


class ChainBroken(KezekError):
    """The hash chain of events does not hold; ``details['seq']`` is the first broken link."""

    code = "chain_broken"
    exit_code = 3


class Fault:
    """Why one field is wrong: an English msgid with named placeholders and their values."""

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        self.message = message
        self.details = dict(details or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fault) and (self.message, self.details) == (other.message, other.details)

    def __hash__(self) -> int:
        return hash(self.message)

    def __str__(self) -> str:
        return self.message % self.details if self.details else self.message

    def __repr__(self) -> str:
        return f"Fault({str(self)!r})"
