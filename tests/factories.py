"""Builders of rows for tests: sensible by default, every part can be given. They flush and never commit.

`person(session, roles=[Role.OPERATOR])`, `organisation(session, head=…)`, `cluster(session, nodes=4)`,
`application(session, applicant, cluster)`, `quota(session, …)`, `booking(session, quota, …)`. Everybody's
password is PASSWORD. No events are written: a test that needs one uses the use case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count

from sqlalchemy.orm import Session

from allocator.accounts.identity_numbers import check_digit
from allocator.accounts.passwords import hash_password
from allocator.actors import Actor, MembershipRole, Role
from allocator.models import (
    Application,
    Booking,
    Cluster,
    Decision,
    DecisionKind,
    Membership,
    Node,
    NodeSlot,
    Organisation,
    Person,
    Quota,
    QuotaMember,
    Reservation,
    RoleGrant,
    TeamMember,
)
from allocator.states import ApplicationState, BookingState, QuotaState, ReservationState

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)  # a Monday, 11:00 in Almaty
PASSWORD = "four calm grey camels"
HOUR = 3600
_numbers = count(1)


@cache
def password_hash() -> str:
    """The hash of PASSWORD, made once a process: argon2 is slow on purpose."""
    return hash_password(PASSWORD)


def identity_number(serial: int) -> str:
    """A valid IIN or BIN that no other serial gives."""
    for filler in range(10):
        digits = f"{90_000_000 + serial % 1_000_000_000:010d}{filler}"
        digit = check_digit(digits)
        if digit is not None:
            return f"{digits}{digit}"
    raise AssertionError("one of ten neighbours always has a check digit")


def person(
    session: Session,
    *,
    email: str | None = None,
    name: str = "Aigerim Sapar",
    roles: Iterable[Role] = (),
    locale: str = "en",
    iin: str | None = None,
    cluster_login: str | None = None,
    confirmed: bool = True,
    disabled: bool = False,
    now: datetime = NOW,
) -> Person:
    """Somebody with a confirmed address and the password PASSWORD."""
    row = Person(
        email=email or f"person{next(_numbers)}@example.kz",
        name=name,
        locale=locale,
        iin=iin,
        cluster_login=cluster_login,
        password_hash=password_hash(),
        email_confirmed_at=now if confirmed else None,
        disabled_at=now if disabled else None,
        created_at=now,
    )
    row.role_grants = [RoleGrant(role=role, granted_at=now) for role in roles]
    row.memberships = []
    session.add(row)
    session.flush()
    return row


def actor_of(row: Person) -> Actor:
    """The actor of a person as the domain sees it."""
    organisations = {membership.organisation_id: membership.role for membership in row.memberships}
    return Actor(row.id, row.roles, organisations)


def organisation(
    session: Session,
    *,
    name: str = "Dala Labs LLP",
    bin: str | None = None,
    head: Person | None = None,
    members: Mapping[Person, MembershipRole] | None = None,
    now: datetime = NOW,
) -> Organisation:
    """An organisation with a valid BIN; `head` and `members` get their memberships."""
    row = Organisation(bin=bin or identity_number(next(_numbers)), name=name, created_at=now)
    session.add(row)
    session.flush()
    belongs = ({head: MembershipRole.HEAD} if head else {}) | dict(members or {})
    for who, role in belongs.items():
        session.add(Membership(organisation=row, person=who, role=role, created_at=now))
    session.flush()
    return row


def cluster(
    session: Session,
    *,
    slug: str = "alem",
    nodes: int = 4,
    gpus: int = 8,
    gpu_type: str = "h200",
    partition: str = "gpu",
    shares_nodes: bool = True,
    now: datetime = NOW,
) -> Cluster:
    """A cluster that has just been seen, with `nodes` nodes of `gpus` GPUs each."""
    row = Cluster(
        slug=slug,
        title=slug.capitalize(),
        shares_nodes=shares_nodes,
        created_at=now,
        checked_at=now,
        reachable_at=now,
        version="22.05.8",
        clock_skew_seconds=0,
    )
    row.nodes = [
        Node(
            name=f"{slug}{number:03d}",
            partition=partition,
            gpu_type=gpu_type,
            gpus=gpus,
            seen_at=now,
        )
        for number in range(1, nodes + 1)
    ]
    session.add(row)
    session.flush()
    return row


def application(
    session: Session,
    applicant: Person,
    cluster: Cluster,
    *,
    organisation: Organisation | None = None,
    state: ApplicationState = ApplicationState.DRAFT,
    category: str | None = None,
    title: str = "Speech recognition for village schools",
    nodes: int = 2,
    gpus_per_node: int = 8,
    gpu_hours: int = 1_600,
    earliest: datetime = NOW + timedelta(days=7),
    latest: datetime = NOW + timedelta(days=67),
    team: Iterable[str] = (),
    now: datetime = NOW,
) -> Application:
    """An application in any state; all but drafts count as submitted at `now`. See also `decision()`."""
    row = Application(
        applicant=applicant,
        organisation=organisation,
        category=category or ("science" if organisation else "citizen"),
        title=title,
        purpose="Train an acoustic model on recorded lessons and publish it.",
        cluster=cluster,
        gpu_type=cluster.nodes[0].gpu_type if cluster.nodes else "h200",
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        gpu_seconds=gpu_hours * HOUR,
        earliest=earliest,
        latest=latest,
        state=state,
        created_at=now,
        updated_at=now,
        submitted_at=None if state is ApplicationState.DRAFT else now,
    )
    row.team = [TeamMember(email=email) for email in team]
    session.add(row)
    session.flush()
    return row


def decision(
    session: Session,
    application: Application,
    decided_by: Person,
    *,
    kind: DecisionKind = DecisionKind.APPROVED,
    gpu_seconds: int | None = None,
    reason: str = "",
    now: datetime = NOW,
) -> Decision:
    """A decision on an application, which takes the state that follows from it."""
    refused = kind is DecisionKind.REFUSED
    row = Decision(
        application=application,
        kind=kind,
        gpu_seconds=None if refused else gpu_seconds or application.gpu_seconds,
        reason=reason or ("" if kind is DecisionKind.APPROVED else "The purpose does not need this much."),
        decided_by=decided_by,
        decided_at=now,
        policy_version="2026-11-01-test",
    )
    application.state = ApplicationState.REFUSED if refused else ApplicationState.APPROVED
    session.add(row)
    session.flush()
    return row


def quota(
    session: Session,
    application: Application | None = None,
    *,
    gpu_hours: int | None = None,
    valid_from: datetime = NOW - timedelta(days=1),
    valid_until: datetime = NOW + timedelta(days=60),
    state: QuotaState = QuotaState.ACTIVE,
    members: Iterable[Person] = (),
    now: datetime = NOW,
) -> Quota:
    """A quota with its approved application (made with an own applicant and cluster if none is given).

    The applicant is the lead; `members` may use it too.
    """
    application = application or _approved_application(session)
    if application.state is not ApplicationState.APPROVED:
        application.state = ApplicationState.APPROVED
        application.submitted_at = application.submitted_at or now
    row = Quota(
        application=application,
        cluster=application.cluster,
        gpu_type=application.gpu_type,
        gpu_seconds=application.gpu_seconds if gpu_hours is None else gpu_hours * HOUR,
        valid_from=valid_from,
        valid_until=valid_until,
        state=state,
        created_at=now,
    )
    row.members = [
        QuotaMember(person=application.applicant, is_lead=True),
        *(QuotaMember(person=who, is_lead=False) for who in members),
    ]
    session.add(row)
    session.flush()
    return row


def _approved_application(session: Session) -> Application:
    number = next(_numbers)
    applicant = person(session, cluster_login=f"u{number}")
    return application(
        session, applicant, cluster(session, slug=f"c{number}"), state=ApplicationState.APPROVED
    )


def booking(
    session: Session,
    quota: Quota,
    *,
    booked_by: Person | None = None,
    on: Iterable[Node] | None = None,
    gpus_per_node: int = 8,
    first_gpu: int = 0,
    starts_at: datetime = NOW + timedelta(days=1),
    hours: int = 24,
    state: BookingState = BookingState.CONFIRMED,
    reservation: ReservationState = ReservationState.PENDING,
    now: datetime = NOW,
) -> Booking:
    """A booking of `gpus_per_node` GPUs from `first_gpu` on the nodes `on` (else the first one)."""
    chosen = list(on) if on is not None else sorted(quota.cluster.nodes, key=lambda node: node.name)[:1]
    ends_at = starts_at + timedelta(hours=hours)
    row = Booking(
        quota=quota,
        cluster=quota.cluster,
        booked_by=booked_by or quota.application.applicant,
        nodes=len(chosen),
        gpus_per_node=gpus_per_node,
        starts_at=starts_at,
        ends_at=ends_at,
        state=state,
        created_at=now,
    )
    # a cancelled booking has given its GPUs back
    row.slots = [
        NodeSlot(
            node=node,
            gpu_from=first_gpu,
            gpu_to=first_gpu + gpus_per_node,
            starts_at=starts_at,
            ends_at=ends_at,
        )
        for node in (chosen if state is not BookingState.CANCELLED else [])
    ]
    session.add(row)
    session.flush()
    session.add(
        Reservation(
            booking=row,
            cluster=quota.cluster,
            name=row.reservation_name,
            state=reservation,
            state_since=now,
            seen_at=now if reservation is ReservationState.RESERVED else None,
        )
    )
    session.flush()
    return row
