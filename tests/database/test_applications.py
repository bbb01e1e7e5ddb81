"""Applications from draft to the queue, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from allocator import events
from allocator.actors import ANONYMOUS, MembershipRole, Role
from allocator.applying import application_queries as queries
from allocator.applying import applications
from allocator.applying.application_checks import Proposal
from allocator.applying.application_queries import QueueFilter
from allocator.errors import Forbidden, Invalid, NotFound, SignInRequired, Stale, WrongState
from allocator.models import Application, Event, NodeState, OutboxItem, Person
from allocator.policy import load_policy
from allocator.states import ApplicationState
from tests import factories as make

NOW = make.NOW
POLICY = load_policy()
LATER = NOW + timedelta(minutes=5)
COUNTER = Callable[[Engine], AbstractContextManager[list[str]]]


def proposal(organisation_id: int | None, **changes: object) -> Proposal:
    """What a lab of two nodes would ask for."""
    whole = Proposal(
        category="science",
        organisation_id=organisation_id,
        title=" Speech of the villages ",
        purpose="Train it.\r\nPublish it.",
        cluster="alem",
        gpu_type="h200",
        nodes=2,
        gpus_per_node=8,
        gpu_hours=Decimal("1600.5"),
        earliest=NOW + timedelta(days=7),
        latest=NOW + timedelta(days=67),
        team=("Dana@Example.kz", " "),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def drafted(session: Session) -> tuple[Person, Application]:
    """An applicant and its stored draft."""
    make.cluster(session)
    applicant = make.person(session)
    organisation = make.organisation(session, head=applicant)
    actor = make.actor_of(applicant)
    return applicant, applications.save_draft(
        session, actor, proposal(organisation.id), policy=POLICY, now=NOW
    )


def submit(session: Session, applicant: Person, application: Application) -> None:
    applications.submit(
        session,
        make.actor_of(applicant),
        application,
        expected_version=application.version,
        policy=POLICY,
        now=NOW,
    )


def kinds(session: Session) -> list[str]:
    return list(session.scalars(select(Event.kind).order_by(Event.seq)))


def test_a_draft_is_stored_exactly_and_tidily(session: Session) -> None:
    _, application = drafted(session)
    session.expire_all()
    assert application.gpu_seconds == 1600 * 3600 + 1800
    assert application.title == "Speech of the villages"
    assert application.purpose == "Train it.\nPublish it."
    assert [member.email for member in application.team] == ["dana@example.kz"]
    assert (application.state, application.submitted_at) == (ApplicationState.DRAFT, None)
    assert applications.proposal_of(application).gpu_hours == Decimal("1600.5")


def test_submitting_takes_a_place_in_the_queue_and_writes_an_event_and_a_letter(session: Session) -> None:
    applicant, application = drafted(session)
    submit(session, applicant, application)
    assert (application.state, application.submitted_at) == (ApplicationState.SUBMITTED, NOW)
    assert kinds(session) == ["application.draft", "application.submitted"]
    letter = session.scalars(select(OutboxItem)).one()
    assert (letter.letter, letter.recipient_id) == ("application_submitted", applicant.id)
    assert letter.details["hours"] == "1\N{NO-BREAK SPACE}600,5"
    session.commit()
    assert events.verify(session) == 2


def test_a_draft_can_be_revised_and_its_event_tells_only_what_changed(session: Session) -> None:
    applicant, application = drafted(session)
    before = application.version
    applications.revise(
        session,
        make.actor_of(applicant),
        application,
        proposal(application.organisation_id, nodes=3, team=("a@example.kz", "dana@example.kz")),
        expected_version=before,
        policy=POLICY,
        now=LATER,
    )
    assert application.version == before + 1
    event = session.scalars(select(Event).order_by(Event.seq.desc())).first()
    assert event is not None
    assert event.before == {"nodes": 2, "team_size": 1}
    assert event.after == {"nodes": 3, "team_size": 2, "version": application.version}


def test_a_stale_page_is_told_what_changed_and_by_whom(session: Session) -> None:
    applicant, application = drafted(session)
    seen = application.version
    submit(session, applicant, application)
    with pytest.raises(Stale) as caught:
        applications.withdraw(
            session, make.actor_of(applicant), application, expected_version=seen, now=LATER
        )
    changes: Any = caught.value.details["changes"]
    assert [(change["kind"], change["by"]) for change in changes] == [
        ("application.submitted", applicant.name)
    ]


def test_what_is_submitted_cannot_be_revised_or_submitted_again(session: Session) -> None:
    applicant, application = drafted(session)
    submit(session, applicant, application)
    with pytest.raises(WrongState):
        submit(session, applicant, application)
    with pytest.raises(WrongState):
        applications.revise(
            session,
            make.actor_of(applicant),
            application,
            proposal(application.organisation_id),
            expected_version=application.version,
            policy=POLICY,
            now=LATER,
        )


@pytest.mark.parametrize("submitted", [False, True])
def test_an_undecided_application_can_be_withdrawn_once(session: Session, submitted: bool) -> None:
    applicant, application = drafted(session)
    if submitted:
        submit(session, applicant, application)
    actor = make.actor_of(applicant)
    applications.withdraw(session, actor, application, expected_version=application.version, now=LATER)
    assert application.state is ApplicationState.WITHDRAWN
    with pytest.raises(WrongState):
        applications.withdraw(session, actor, application, expected_version=application.version, now=LATER)


def test_every_fault_comes_at_once_and_nothing_is_stored(session: Session) -> None:
    make.cluster(session)
    applicant = make.person(session)
    with pytest.raises(Invalid) as caught:
        applications.save_draft(
            session,
            make.actor_of(applicant),
            proposal(99, cluster="mars", gpu_hours=Decimal("NaN"), title=""),
            policy=POLICY,
            now=NOW,
        )
    assert set(caught.value.fields) == {"organisation", "hardware", "gpu_hours", "title"}
    assert kinds(session) == []


def test_somebody_elses_organisation_is_refused(session: Session) -> None:
    make.cluster(session)
    foreign = make.organisation(session, head=make.person(session))
    with pytest.raises(Invalid) as caught:
        applications.save_draft(
            session,
            make.actor_of(make.person(session)),
            proposal(foreign.id),
            policy=POLICY,
            now=NOW,
        )
    assert set(caught.value.fields) == {"organisation"}


def test_a_citizen_submits_with_an_iin_only(session: Session) -> None:
    make.cluster(session)
    applicant = make.person(session)
    own = make.organisation(session, head=applicant)
    actor = make.actor_of(applicant)
    with pytest.raises(Invalid) as refused:
        applications.save_draft(session, actor, proposal(own.id, category="citizen"), policy=POLICY, now=NOW)
    assert set(refused.value.fields) == {"organisation"}
    application = applications.save_draft(
        session, actor, proposal(None, category="citizen"), policy=POLICY, now=NOW
    )
    with pytest.raises(Invalid) as caught:
        submit(session, applicant, application)
    assert set(caught.value.fields) == {"category"}
    applicant.iin = make.identity_number(5)
    submit(session, applicant, application)


def test_a_window_that_passed_while_it_was_a_draft_is_told_when_submitting(session: Session) -> None:
    applicant, application = drafted(session)
    late = NOW + timedelta(days=9)
    actor = make.actor_of(applicant)
    assert applications.readiness(session, actor, application, policy=POLICY, now=NOW) == {}
    wrong = applications.readiness(session, actor, application, policy=POLICY, now=late)
    assert set(wrong) == {"earliest"}


def test_who_sees_a_draft_and_who_sees_it_after_it_is_submitted(session: Session) -> None:
    applicant, application = drafted(session)
    stranger, operator = make.person(session), make.person(session, roles=[Role.OPERATOR])
    for other in (stranger, operator):
        with pytest.raises(NotFound):
            queries.find(session, make.actor_of(other), application.id)
    submit(session, applicant, application)
    assert queries.find(session, make.actor_of(operator), application.id) is application
    with pytest.raises(NotFound):
        queries.find(session, make.actor_of(stranger), application.id)
    with pytest.raises(SignInRequired):
        queries.find(session, ANONYMOUS, application.id)
    with pytest.raises(Forbidden):
        applications.withdraw(
            session, make.actor_of(operator), application, expected_version=application.version, now=NOW
        )


def test_a_manager_sees_the_organisations_applications_and_a_plain_member_does_not(session: Session) -> None:
    make.cluster(session)
    head, manager, member = (make.person(session) for _ in range(3))
    organisation = make.organisation(
        session,
        head=head,
        members={manager: MembershipRole.MANAGER, member: MembershipRole.MEMBER},
    )
    session.expire_all()
    mine = applications.save_draft(
        session, make.actor_of(head), proposal(organisation.id), policy=POLICY, now=NOW
    )
    assert session.scalars(queries.own_applications(make.actor_of(manager))).all() == [mine]
    assert session.scalars(queries.own_applications(make.actor_of(member))).all() == []


def test_the_queue_is_in_order_of_receipt_and_can_be_narrowed(session: Session) -> None:
    cluster = make.cluster(session)
    other = make.cluster(session, slug="bilim")
    applicant = make.person(session)
    university = make.organisation(session, name="Солтүстік университеті")
    operator = make.actor_of(make.person(session, roles=[Role.OPERATOR]))
    state = ApplicationState.SUBMITTED
    late = make.application(session, applicant, cluster, state=state, now=LATER, title="100% of it")
    early = make.application(session, applicant, other, state=state, organisation=university)
    twin = make.application(session, applicant, cluster, state=state)
    make.application(session, applicant, cluster)
    refused = make.application(session, applicant, cluster, state=ApplicationState.REFUSED, now=LATER)

    def queue(wanted: QueueFilter) -> list[Application]:
        return list(session.scalars(queries.review_queue(operator, wanted)))

    assert queue(QueueFilter()) == [early, twin, late]
    assert queue(QueueFilter(state=None)) == [early, twin, late, refused]
    assert queue(QueueFilter(category="science")) == [early]
    assert queue(QueueFilter(cluster="bilim")) == [early]
    assert queue(QueueFilter(text="100%")) == [late]
    assert queue(QueueFilter(text="солтүстік")) == [early]
    assert queue(QueueFilter(text=university.bin)) == [early]
    assert queue(QueueFilter(text="_")) == []
    assert [queries.place_in_queue(session, a) for a in (early, twin, late)] == [1, 2, 3]


def test_the_queue_is_for_staff(session: Session) -> None:
    with pytest.raises(Forbidden):
        queries.review_queue(make.actor_of(make.person(session)), QueueFilter())
    with pytest.raises(SignInRequired):
        queries.review_queue(ANONYMOUS, QueueFilter())


def test_a_page_of_a_thousand_waiting_applications_is_one_query(
    session: Session, engine: Engine, count_queries: COUNTER
) -> None:
    cluster = make.cluster(session)
    applicant = make.person(session)
    organisation = make.organisation(session, head=applicant)
    for _ in range(1000):
        make.application(
            session, applicant, cluster, organisation=organisation, state=ApplicationState.SUBMITTED
        )
    operator = make.actor_of(make.person(session, roles=[Role.OPERATOR]))
    session.commit()
    session.expunge_all()
    with count_queries(engine) as statements:
        rows = session.scalars(queries.review_queue(operator, QueueFilter()).limit(100)).all()
        names = {row.applicant.name + (row.organisation.name if row.organisation else "") for row in rows}
        clusters = {row.cluster.title for row in rows}
    assert (len(rows), len(names), len(clusters)) == (100, 1, 1)
    # SQLite's BEGIN is counted too
    assert len([text for text in statements if text.lstrip().upper().startswith("SELECT")]) == 1


def test_what_can_be_asked_for_leaves_out_nodes_that_are_gone(session: Session) -> None:
    cluster = make.cluster(session, nodes=3)
    cluster.nodes[0].state = NodeState.GONE
    cluster.nodes[1].gpus = 4
    session.flush()
    [offer] = queries.offers(session)
    assert (offer.nodes_by_gpus, offer.most_gpus, offer.nodes_with(4)) == ({8: 1, 4: 1}, 8, 2)
    assert queries.offer(session, "alem", "h100") is None
