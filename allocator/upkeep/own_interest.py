"""Nobody mends the plan alone where a booking of their own is at stake (R-22)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from allocator.accounts import people
from allocator.actors import Actor, Role
from allocator.authorization import Action, may
from allocator.errors import Forbidden
from allocator.models import Application, Booking, Person, Quota, Repair, RoleGrant
from allocator.upkeep.mending import ChangeKind
from allocator.upkeep.repair_documents import affected_from_json, variants_from_json
from config.i18n import N_

ANOTHER = N_("This touches a booking of your own project or organisation: another operator has to do it.")
NOBODY = N_(
    "This touches a booking of your own project or organisation, and no other operator can do it either: an "
    "administrator has to make somebody else an operator first."
)


def refuse(session: Session, actor: Actor, repair: Repair) -> None:
    """Raises Forbidden, with who can do it instead, if a booking that is at stake is the actor's own."""
    if why := refusal(session, actor, [repair]):
        raise Forbidden(why)


def refusal(session: Session, actor: Actor, repairs: Iterable[Repair]) -> str:
    """Why the actor may carry none of these out, and who can do it instead; empty if nothing is their own."""
    quotas = _at_stake(session, repairs)
    if may(actor, Action.REPAIR_APPLY, quotas):
        return ""
    return ANOTHER if _somebody_else(session, actor, quotas) else NOBODY


def _at_stake(session: Session, repairs: Iterable[Repair]) -> Sequence[Quota]:
    """Whose bookings lose GPUs, or another time by any of the variants: choosing one decides on all."""
    numbers: set[int] = set()
    for repair in repairs:
        changes = [
            change for variant in variants_from_json(repair.variants).values() for change in variant.changes
        ]
        numbers |= {change.booking_id for change in changes if change.kind is not ChangeKind.REBIND}
        numbers |= affected_from_json(repair.details["affected"]).keys()
    ids = select(Booking.quota_id).where(Booking.id.in_(numbers))
    return session.scalars(
        select(Quota)
        .where(Quota.id.in_(ids))
        .options(joinedload(Quota.application).selectinload(Application.team), selectinload(Quota.members))
        .order_by(Quota.id)
    ).all()


def _somebody_else(session: Session, actor: Actor, quotas: Sequence[Quota]) -> bool:
    operators = session.scalars(
        select(Person)
        .where(
            Person.role_grants.any(RoleGrant.role == Role.OPERATOR),
            Person.disabled_at.is_(None),
            Person.id != actor.person_id,
        )
        .options(selectinload(Person.memberships), selectinload(Person.role_grants))
    )
    return any(may(people.load_actor(session, one), Action.REPAIR_APPLY, quotas) for one in operators)
