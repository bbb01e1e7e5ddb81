"""Nobody decides on their own hours, and an organisation's hours stay with the organisation (R-22)."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator.accounts import organisations, people
from allocator.actors import Actor, MembershipRole, Role
from allocator.applying import decisions, quotas
from allocator.applying.decisions import Verdict
from allocator.authorization import Action, may, own_quotas, visible_applications
from allocator.errors import Conflict, Forbidden, Invalid
from allocator.models import Application, DecisionKind, Person, Quota
from allocator.policy import load_policy
from allocator.states import ApplicationState
from tests import factories
from tests.factories import NOW


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
