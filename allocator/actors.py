"""Who acts: passed to every use case, so that the domain never asks a request or a global."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """Staff roles; everybody who is signed in is an applicant."""

    OPERATOR = "operator"
    COUNCIL_MEMBER = "council_member"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"


class MembershipRole(StrEnum):
    HEAD = "head"
    MANAGER = "manager"
    MEMBER = "member"


@dataclass(frozen=True)
class Actor:
    """A person (or the system itself) with what decides what it may do.

    ``organisations`` maps an organisation's id to the role there; ``email`` tells whether a team names them.
    """

    person_id: int | None = None
    roles: frozenset[Role] = frozenset()
    organisations: Mapping[int, MembershipRole] = field(default_factory=dict)
    is_system: bool = False
    email: str = ""

    @property
    def is_signed_in(self) -> bool:
        return self.person_id is not None


ANONYMOUS = Actor()
SYSTEM = Actor(is_system=True)
