"""Decisions and the quotas that they make, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.accounts import people
from allocator.actors import SYSTEM, Role
from allocator.applying import application_queries as queries
from allocator.applying import decisions, quotas
from allocator.applying.decisions import Verdict
from allocator.db import Database
from allocator.errors import Conflict, Forbidden, Invalid, NotFound, Stale, WrongState
from allocator.models import (
    Application,
    Decision,
    DecisionKind,
    Event,
    NodeState,
    OutboxItem,
    Person,
    Quota,
    RoleGrant,
)
from allocator.policy import load_policy
from allocator.states import ApplicationState, QuotaState
from tests import factories as make

NOW = make.NOW
LATER = NOW + timedelta(hours=2)
POLICY = load_policy()
APPROVE = Verdict(DecisionKind.APPROVED)


def waiting(session: Session, **changes: object) -> tuple[Application, Person]:
    """A submitted application and an operator who may decide on it."""
    operator = make.person(session, roles=[Role.OPERATOR], name="Oraz Operator")
    application = make.application(
        session,
        make.person(session),
        make.cluster(session),
        state=ApplicationState.SUBMITTED,
        **changes,  # type: ignore[arg-type]
    )
    return application, operator


def decide(session: Session, operator: Person, application: Application, verdict: Verdict) -> Decision:
    return decisions.decide(
        session,
        make.actor_of(operator),
        application,
        verdict,
        expected_version=application.version,
        policy=POLICY,
        now=LATER,
    )


def the_quota(session: Session, application: Application) -> Quota:
    quota = queries.quota_of(session, application)
    assert quota is not None
    return quota


def test_an_approval_makes_a_quota_of_all_the_hours_in_the_applications_window(session: Session) -> None:
    application, operator = waiting(session)
    decision = decide(session, operator, application, APPROVE)
    quota = the_quota(session, application)
    assert application.state is ApplicationState.APPROVED
    assert quota.gpu_seconds == decision.gpu_seconds == application.gpu_seconds
    assert (quota.valid_from, quota.valid_until) == (application.earliest, application.latest)
    assert (decision.decided_by_id, decision.policy_version) == (operator.id, POLICY.version)
    kinds = session.scalars(select(Event.kind).order_by(Event.seq)).all()
    assert kinds == [
        "policy_version.recorded",
        "application.approved",
        "person.cluster_login_set",
        "quota.granted",
    ]
    letter = session.scalars(select(OutboxItem)).one()
    assert (letter.letter, letter.recipient_id) == ("application_approved", application.applicant_id)
    session.commit()
    assert events.verify(session) == 4


def test_the_team_with_accounts_joins_and_everybody_gets_a_login(session: Session) -> None:
    application, operator = waiting(
        session, team=["dana@example.kz", "late@example.kz", "closed@example.kz", "new@example.kz"]
    )
    dana = make.person(session, email="dana@example.kz", name="Дана Ахметова")
    make.person(session, email="closed@example.kz", disabled=True)
    make.person(session, email="late@example.kz", confirmed=False)
    decide(session, operator, application, Verdict(DecisionKind.APPROVED, cluster_logins={dana.id: "dana"}))
    quota = the_quota(session, application)
    assert {(member.person_id, member.is_lead) for member in quota.members} == {
        (application.applicant_id, True),
        (dana.id, False),
    }
    assert dana.cluster_login == "dana"
    assert application.applicant.cluster_login == "asapar"


def test_who_confirms_an_account_later_joins_then_and_only_once(session: Session) -> None:
    application, operator = waiting(session, team=["late@example.kz"])
    decide(session, operator, application, APPROVE)
    late = make.person(session, email="late@example.kz", confirmed=False)
    assert quotas.link_team(session, late, LATER) == []
    people.mark_confirmed(session, late, now=LATER)
    assert late.id in {member.person_id for member in the_quota(session, application).members}
    assert quotas.link_team(session, late, LATER) == []
    assert late.cluster_login
    assert session.scalars(select(OutboxItem.letter).where(OutboxItem.recipient_id == late.id)).all() == [
        "quota_joined"
    ]


def test_reducing_gives_fewer_hours_and_the_operators_dates(session: Session) -> None:
    application, operator = waiting(session)
    verdict = Verdict(
        DecisionKind.REDUCED,
        reason="The model is smaller than that.",
        gpu_hours=Decimal("712.25"),
        valid_from=application.earliest + timedelta(days=1),
        valid_until=application.latest - timedelta(days=1),
    )
    decide(session, operator, application, verdict)
    quota = the_quota(session, application)
    assert quota.gpu_seconds == 712 * 3600 + 900
    assert (quota.valid_from, quota.valid_until) == (verdict.valid_from, verdict.valid_until)
    letter = session.scalars(select(OutboxItem)).one()
    assert (letter.details["hours"], letter.details["asked"]) == ("712,25", "1\N{NO-BREAK SPACE}600")
    assert letter.details["reason"] == verdict.reason


def test_a_refusal_keeps_the_reason_and_makes_no_quota(session: Session) -> None:
    application, operator = waiting(session)
    decision = decide(session, operator, application, Verdict(DecisionKind.REFUSED, " No purpose. "))
    assert (application.state, decision.reason) == (ApplicationState.REFUSED, "No purpose.")
    assert decision.gpu_seconds is None
    assert queries.quota_of(session, application) is None
    assert application.applicant.cluster_login is None


@pytest.mark.parametrize(
    ("verdict", "fields"),
    [
        (Verdict(DecisionKind.REFUSED), {"reason"}),
        (Verdict(DecisionKind.REFUSED, "x" * 2001), {"reason"}),
        (Verdict(DecisionKind.APPROVED, "a\x00b"), {"reason"}),
        (Verdict(DecisionKind.REDUCED), {"reason", "gpu_hours"}),
        (Verdict(DecisionKind.REDUCED, "r", Decimal(1600)), {"gpu_hours"}),
        (Verdict(DecisionKind.REDUCED, "r", Decimal(0)), {"gpu_hours"}),
        (Verdict(DecisionKind.REDUCED, "r", Decimal(-1)), {"gpu_hours"}),
        (Verdict(DecisionKind.REDUCED, "r", Decimal("NaN")), {"gpu_hours"}),
        (Verdict(DecisionKind.REDUCED, "r", Decimal("0.0001")), {"gpu_hours"}),
        (Verdict(DecisionKind.APPROVED, valid_until=NOW), {"valid_until"}),
        (Verdict(DecisionKind.APPROVED, valid_from=NOW - timedelta(9), valid_until=NOW), {"valid_until"}),
        (Verdict(DecisionKind.APPROVED, valid_until=NOW + timedelta(days=9)), {"valid_until"}),
        (Verdict(DecisionKind.APPROVED, valid_until=NOW + timedelta(days=9999)), {"valid_until"}),
    ],
)
def test_a_wrong_verdict_is_told_beside_its_fields(
    session: Session, verdict: Verdict, fields: set[str]
) -> None:
    application, operator = waiting(session)
    with pytest.raises(Invalid) as caught:
        decide(session, operator, application, verdict)
    assert set(caught.value.fields) == fields
    assert application.state is ApplicationState.SUBMITTED


@pytest.mark.parametrize("login", ["root", "Dana", "a b", "x" * 33, "taken"])
def test_a_wrong_login_is_told_beside_the_person(session: Session, login: str) -> None:
    application, operator = waiting(session)
    make.person(session, cluster_login="taken")
    verdict = Verdict(DecisionKind.APPROVED, cluster_logins={application.applicant_id: login})
    with pytest.raises(Invalid) as caught:
        decide(session, operator, application, verdict)
    assert set(caught.value.fields) == {f"login_{application.applicant_id}"}


def test_the_preview_tells_what_would_happen_and_changes_nothing(session: Session) -> None:
    application, operator = waiting(session, team=["new@example.kz"])
    outcome = decisions.preview(
        session,
        make.actor_of(operator),
        application,
        APPROVE,
        expected_version=application.version,
        policy=POLICY,
        now=LATER,
    )
    assert outcome.gpu_seconds == application.gpu_seconds
    assert [person.id for person in outcome.members] == [application.applicant_id]
    assert outcome.awaited == ["new@example.kz"]
    assert outcome.new_logins == {application.applicant_id: "asapar"}
    assert not session.dirty
    assert session.scalar(select(func.count()).select_from(Event)) == 0


def test_nobody_decides_on_an_own_application_or_an_own_organisations(session: Session) -> None:
    application, _ = waiting(session)
    applicant = application.applicant
    applicant.role_grants.append(RoleGrant(role=Role.OPERATOR, granted_at=NOW))
    session.flush()
    with pytest.raises(Forbidden):
        decide(session, applicant, application, APPROVE)
    for role in (Role.COUNCIL_MEMBER, Role.AUDITOR):
        with pytest.raises(Forbidden):
            decide(session, make.person(session, roles=[role]), application, APPROVE)
    with pytest.raises(NotFound):
        decide(session, make.person(session), application, APPROVE)


def test_a_draft_does_not_exist_for_the_operator(session: Session) -> None:
    operator = make.person(session, roles=[Role.OPERATOR])
    draft = make.application(session, make.person(session), make.cluster(session))
    with pytest.raises(NotFound):
        decide(session, operator, draft, APPROVE)


def test_a_second_decision_is_told_who_decided_first(session: Session) -> None:
    application, operator = waiting(session)
    seen = application.version
    decide(session, operator, application, Verdict(DecisionKind.REFUSED, "Too vague."))
    with pytest.raises(Stale) as caught:
        decisions.decide(
            session,
            make.actor_of(make.person(session, roles=[Role.OPERATOR])),
            application,
            APPROVE,
            expected_version=seen,
            policy=POLICY,
            now=LATER,
        )
    changes: Any = caught.value.details["changes"]
    assert [(change["kind"], change["by"], change["reason"]) for change in changes] == [
        ("application.refused", operator.name, "Too vague.")
    ]
    with pytest.raises(WrongState):
        decide(session, operator, application, APPROVE)


def test_of_two_operators_at_the_same_moment_exactly_one_decides(database: Database) -> None:
    with database.transaction() as session:
        application, first = waiting(session)
        second = make.person(session, roles=[Role.OPERATOR])
        number, seen = application.id, application.version
        actors = [make.actor_of(first), make.actor_of(second)]
    together = Barrier(2)

    def rival(index: int) -> str:
        verdict = [APPROVE, Verdict(DecisionKind.REFUSED, "Too vague.")][index]
        together.wait(timeout=20)
        try:
            with database.transaction() as session:
                decisions.decide(
                    session,
                    actors[index],
                    session.get_one(Application, number),
                    verdict,
                    expected_version=seen,
                    policy=POLICY,
                    now=LATER,
                )
        except Stale as error:
            return str(len(error.details["changes"]))  # type: ignore[arg-type]
        return "decided"

    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(rival, range(2)))
    assert results == ["1", "decided"]
    with database.reader() as session:
        assert session.scalar(select(func.count()).select_from(Decision)) == 1
        approved = session.get_one(Application, number).state is ApplicationState.APPROVED
        assert session.scalar(select(func.count()).select_from(Quota)) == int(approved)
        assert session.scalar(select(func.count()).select_from(OutboxItem)) == 1
        events.verify(session)


def test_quotas_end_with_their_time_and_their_leads_are_told(session: Session) -> None:
    over = make.quota(session, valid_until=NOW)
    running = make.quota(session, valid_until=NOW + timedelta(seconds=1))
    assert quotas.expire_due(session, NOW) == 1
    assert quotas.expire_due(session, NOW) == 0
    assert (over.state, running.state) == (QuotaState.EXPIRED, QuotaState.ACTIVE)
    assert session.scalars(select(Event.kind)).all() == ["quota.expired"]
    assert session.scalars(select(OutboxItem.recipient_id)).all() == [over.application.applicant_id]


def test_members_come_and_go_but_the_lead_stays(session: Session) -> None:
    quota = make.quota(session)
    lead = quota.application.applicant
    actor, newcomer = make.actor_of(lead), make.person(session)
    quotas.add_member(session, actor, quota, newcomer.email.upper(), now=NOW)
    with pytest.raises(Invalid):
        quotas.add_member(session, actor, quota, newcomer.email, now=NOW)
    with pytest.raises(Invalid):
        quotas.add_member(session, actor, quota, "nobody@example.kz", now=NOW)
    with pytest.raises(Forbidden):
        quotas.remove_member(session, make.actor_of(newcomer), quota, lead.id, now=NOW)
    with pytest.raises(Conflict):
        quotas.remove_member(session, actor, quota, lead.id, now=NOW)
    with pytest.raises(NotFound):
        quotas.remove_member(session, actor, quota, 10**9, now=NOW)
    quotas.remove_member(session, actor, quota, newcomer.id, now=NOW)
    session.expire_all()
    assert [member.person_id for member in quota.members] == [lead.id]
    quota.state = QuotaState.EXPIRED
    with pytest.raises(Conflict):
        quotas.add_member(session, SYSTEM, quota, newcomer.email, now=NOW)


def test_the_operator_sees_what_stands_behind_an_application(session: Session) -> None:
    application, _ = waiting(session)
    before = make.quota(
        session, make.application(session, application.applicant, application.cluster), gpu_hours=100
    )
    make.quota(session)
    application.cluster.nodes[0].state = NodeState.DOWN
    session.flush()
    assert session.scalars(queries.earlier_quotas(application)).all() == [before]
    capacity = queries.capacity_now(session, application)
    assert (capacity.gpus, capacity.gpus_up, capacity.nodes, capacity.nodes_up) == (32, 24, 4, 3)
    assert capacity.promised_gpu_seconds == 100 * 3600
