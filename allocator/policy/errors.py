"""What can be wrong with a policy file, told all at once, and what a policy may not know."""

from collections.abc import Sequence
from dataclasses import dataclass

from config.errors import KezekError


@dataclass(frozen=True)
class PolicyFault:
    """One thing that is wrong: ``key`` as in the file, ``line`` from 1, or None where none is known."""

    key: str
    line: int | None
    message: str


class PolicyError(KezekError):
    """A policy that cannot be used; ``faults`` lists everything that is wrong with it, top to bottom."""

    code = "policy_wrong"
    exit_code = 2

    def __init__(self, name: str, faults: Sequence[PolicyFault]) -> None:
        self.faults = tuple(faults)
        self.lines = tuple(_line(name, fault) for fault in self.faults)
        super().__init__("%(faults)s", {"faults": "\n".join(self.lines)})


class PolicyGap(KezekError):
    """The rules are asked for something that this version of them does not have."""

    code = "policy_gap"


def _line(name: str, fault: PolicyFault) -> str:
    place = name if fault.line is None else f"{name}:{fault.line}"
    return f"{place}: {fault.key}: {fault.message}" if fault.key else f"{place}: {fault.message}"
