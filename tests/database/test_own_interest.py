"""Nobody decides on their own hours, and an organisation's hours stay with the organisation (R-22)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.accounts import organisations, people
from allocator.actors import Actor, MembershipRole, Role
from allocator.applying import decisions, quotas
from allocator.applying.decisions import Verdict
from allocator.authorization import Action, may, own_quotas, visible_applications
from allocator.errors import Conflict, Forbidden, Invalid
from allocator.models import (
    Application,
    DecisionKind,
    Node,
    OutageKind,
    Person,
    Quota,
    QuotaMember,
    Repair,
    RepairCause,
)
from allocator.policy import load_policy
from allocator.states import ApplicationState, OutageState, RepairState
from allocator.upkeep import moves, outages, repair_steps, repairs
from allocator.upkeep.mending import Loss
from allocator.upkeep.outage_checks import OutagePlan
from tests import factories, upkeep
from tests.factories import NOW

RULES = load_policy().bookings


def _actor(session: Session, person: Person) -> Actor:
    session.flush()
    session.refresh(person)
    return people.load_actor(session, person)


def test_an_operator_does_not_decide_on_a_team_that_names_them(session: Session) -> None:
    operator = factories.person(session, roles=[Role.OPERATOR])
    application = factories.application(
        session,
        factories.person(session),
        factories.cluster(session),
        state=ApplicationState.SUBMITTED,
        team=[operator.email],
    )
    with pytest.raises(Forbidden):
        decisions.decide(
            session,
            _actor(session, operator),
            application,
            Verdict(DecisionKind.APPROVED),
            expected_version=application.version,
            policy=load_policy(),
            now=NOW,
        )


def test_who_decided_never_spends_what_they_granted(session: Session) -> None:
    head, operator = factories.person(session), factories.person(session, roles=[Role.OPERATOR])
    organisation = factories.organisation(session, head=head)
    application = factories.application(
        session, head, factories.cluster(session), organisation=organisation, state=ApplicationState.APPROVED
    )
    factories.decision(session, application, operator)
    quota = factories.quota(session, application)
    with pytest.raises(Invalid, match="cannot use its quota"):
        quotas.add_member(session, _actor(session, head), quota, operator.email, now=NOW)
    organisations.add_member(
        session,
        _actor(session, head),
        organisation.id,
        email=operator.email,
        role=MembershipRole.MANAGER,
        now=NOW,
    )
    assert not may(_actor(session, operator), Action.BOOKING_CREATE, quota)
    assert may(_actor(session, head), Action.BOOKING_CREATE, quota)


def test_who_leaves_an_organisation_leaves_its_hours_behind(session: Session) -> None:
    head, leaver = factories.person(session), factories.person(session)
    organisation = factories.organisation(session, head=head, members={leaver: MembershipRole.MEMBER})
    cluster = factories.cluster(session)
    draft = factories.application(session, leaver, cluster, organisation=organisation)
    submitted = factories.application(
        session, leaver, cluster, organisation=organisation, state=ApplicationState.SUBMITTED
    )
    approved = factories.application(
        session, leaver, cluster, organisation=organisation, state=ApplicationState.APPROVED
    )
    quota = factories.quota(session, approved)
    lead = _actor(session, leaver)
    assert all(may(lead, Action.APPLICATION_EDIT, one) for one in (draft, submitted))
    assert may(lead, Action.QUOTA_MANAGE, quota)
    manager = _actor(session, head)
    with pytest.raises(Conflict):
        quotas.remove_member(session, manager, quota, leaver.id, now=NOW)

    membership = leaver.memberships[0]
    organisations.remove_member(session, manager, organisation.id, membership.id, now=NOW)
    left = _actor(session, leaver)
    assert not may(left, Action.APPLICATION_EDIT, submitted)
    assert not may(left, Action.QUOTA_MANAGE, quota)
    assert may(left, Action.APPLICATION_EDIT, draft)  # their own text, for another organisation
    assert may(left, Action.APPLICATION_VIEW, submitted)
    assert set(session.scalars(select(Application).where(visible_applications(left)))) == {
        draft,
        submitted,
        approved,
    }
    quotas.remove_member(session, manager, quota, leaver.id, now=NOW)
    assert not may(left, Action.BOOKING_CREATE, quota)
    assert not may(left, Action.QUOTA_VIEW, quota)
    assert not session.scalars(select(Quota).where(own_quotas(left))).all()


SOON = NOW + timedelta(hours=30)


def _loss(session: Session, quota: Quota, proposer: Actor) -> Repair:
    """The node of the quota's booking fails; there is room for it on another."""
    factories.booking(session, quota, on=[_first(quota)], starts_at=SOON, hours=6)
    return upkeep.propose(
        session,
        proposer,
        quota.cluster,
        "h200",
        RepairCause.NODES_DOWN,
        [Loss(_first(quota).id, NOW, SOON + timedelta(days=1))],
        details={"nodes": [_first(quota).name]},
        rules=RULES,
        now=NOW,
    )


def _first(quota: Quota) -> Node:
    return min(quota.cluster.nodes, key=lambda node: node.name)


def _mend(session: Session, actor: Actor, repair: Repair) -> None:
    repair_steps.apply(
        session,
        actor,
        repair,
        "fewest_drops",
        reason="The node failed.",
        expected_version=repair.version,
        rules=RULES,
        now=NOW,
    )


@pytest.fixture(params=["applicant", "member", "organisation"])
def own(request: pytest.FixtureRequest, session: Session) -> tuple[Person, Quota]:
    """An operator and a quota that is theirs in one of three ways."""
    operator, head = factories.person(session, roles=[Role.OPERATOR]), factories.person(session)
    cluster = factories.cluster(session)
    if request.param == "applicant":
        application = factories.application(session, operator, cluster)
    elif request.param == "member":
        application = factories.application(session, head, cluster)
    else:
        firm = factories.organisation(session, head=head, members={operator: MembershipRole.MEMBER})
        application = factories.application(session, head, cluster, organisation=firm)
    application.submitted_at = NOW
    quota = factories.quota(session, application)
    if request.param == "member":
        quota.members.append(QuotaMember(person_id=operator.id))
    return operator, quota


def test_nobody_mends_their_own_alone(session: Session, own: tuple[Person, Quota]) -> None:
    operator, quota = own
    other = factories.person(session, roles=[Role.OPERATOR])
    repair = _loss(session, quota, _actor(session, operator))
    with pytest.raises(Forbidden, match="another operator has to do it"):
        _mend(session, _actor(session, operator), repair)
    assert (repair.state, repair.chosen) == (RepairState.PROPOSED, None)
    _mend(session, _actor(session, other), repair)
    assert repair.decided_by_id == other.id


def test_the_only_operator_is_told_who_can(session: Session, own: tuple[Person, Quota]) -> None:
    operator, quota = own
    gone = factories.person(session, roles=[Role.OPERATOR])
    gone.disabled_at = NOW
    repair = _loss(session, quota, _actor(session, operator))
    with pytest.raises(Forbidden, match="administrator has to make somebody else an operator"):
        _mend(session, _actor(session, operator), repair)


def test_nobody_publishes_an_outage_over_their_own_alone(session: Session, own: tuple[Person, Quota]) -> None:
    operator, quota = own
    other = factories.person(session, roles=[Role.OPERATOR])
    factories.booking(session, quota, on=[_first(quota)], starts_at=SOON, hours=6)
    plan = OutagePlan(
        OutageKind.MAINTENANCE, SOON, SOON + timedelta(hours=6), "New fans.", (_first(quota).id,)
    )
    outage = upkeep.draft(session, _actor(session, operator), quota.cluster, plan, rules=RULES, now=NOW)

    def publish(person: Person) -> None:
        outages.publish(
            session,
            _actor(session, person),
            outage,
            "fewest_moves",
            expected_version=outage.version,
            rules=RULES,
            now=NOW,
        )

    with pytest.raises(Forbidden, match="another operator"), session.begin_nested():
        publish(operator)
    assert (outage.state, outage.published_at) == (OutageState.DRAFT, None)
    publish(other)
    assert outage.published_by_id == other.id


def test_who_is_not_touched_mends_alone(session: Session) -> None:
    operator = factories.person(session, roles=[Role.OPERATOR])
    quota = factories.quota(session)
    repair = _loss(session, quota, _actor(session, operator))
    _mend(session, _actor(session, operator), repair)
    assert repair.state is RepairState.APPLIED


def test_nobody_leaves_their_own_where_it_is_alone(session: Session, own: tuple[Person, Quota]) -> None:
    operator, quota = own
    other = factories.person(session, roles=[Role.OPERATOR])
    repair = _loss(session, quota, _actor(session, operator))

    def discard(person: Person) -> None:
        repairs.discard(
            session,
            _actor(session, person),
            repair,
            reason="It stays.",
            expected_version=repair.version,
            now=NOW,
        )

    with pytest.raises(Forbidden, match="another operator"):
        discard(operator)
    with pytest.raises(Forbidden, match="another operator"):
        # by this date the booking would not be hit any more
        repairs.again(
            session,
            _actor(session, operator),
            repair,
            expected_version=repair.version,
            until=SOON - timedelta(hours=1),
            now=NOW,
        )
    assert repair.state is RepairState.PROPOSED
    discard(other)
    assert repair.decided_by_id == other.id


def test_nobody_places_their_own_by_hand(session: Session, own: tuple[Person, Quota]) -> None:
    operator, quota = own
    other = factories.person(session, roles=[Role.OPERATOR])
    booking = factories.booking(session, quota, on=[_first(quota)], starts_at=SOON, hours=6)
    with pytest.raises(Forbidden):
        moves.pin(
            session,
            _actor(session, operator),
            booking,
            reason="Mine.",
            expected_version=booking.version,
            now=NOW,
        )
    assert may(_actor(session, other), Action.BOOKING_PLACE, booking)
