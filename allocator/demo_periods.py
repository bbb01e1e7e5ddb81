"""Demonstration data of periods: one that is over, one that runs, and proposals for the next month.

It goes through the use cases with times in the past, as the rest of the demonstration does.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from allocator.applying import decisions
from allocator.applying.decisions import Verdict
from allocator.booking.windows import ceil
from allocator.dividing import adjustments, grants, periods, publication, what_if
from allocator.models import Application, DecisionKind, Organisation, Period, Quota

if TYPE_CHECKING:
    from allocator.demo import Scene

HOURS_A_DAY = 24

# who, category, title, purpose, part of a month's capacity in percent; the head's organisation applies
WORK = (
    (
        "science",
        "science",
        "Қазақ сөйлеу корпусы",
        "2 000 сағат жазба бойынша акустикалық модельді оқыту; салмақтары ашық болады.",
        55,
    ),
    (
        "strategic",
        "strategic",
        "Қазақ тілі моделінің бірінші кезеңі",
        "13 млрд параметр: токенизатор мен оқыту қоспасын салыстыру.",
        70,
    ),
    (
        "startup",
        "priority",
        "Су пайдалануды болжау",
        "Суармалы егіс үшін ылғал мен шығынды болжау; бассейн инспекцияларымен бірге.",
        35,
    ),
    (
        "citizen",
        "citizen",
        "Словарь жестового языка",
        "Распознавание казахского жестового языка по открытым записям.",
        2,
    ),
)


def play(scene: Scene, key: bytes) -> None:
    """Other quotas, a period that is over, one that runs, the next month with two proposals and a what-if."""
    for who, category, title, purpose, percent in WORK:
        _quota(scene, who, category, (title, purpose), percent)
    _past(scene, key)
    _running(scene, key)
    _next(scene, key)


def _quota(scene: Scene, who: str, category: str, texts: tuple[str, str], percent: int) -> Quota:
    at = scene.now - timedelta(days=28)
    application = _apply(scene, who, category, texts, percent, at)
    decisions.decide(
        scene.session,
        scene.actor("operator"),
        application,
        Verdict(DecisionKind.APPROVED),
        expected_version=application.version,
        policy=scene.policy,
        now=at + timedelta(days=1),
    )
    return scene.session.scalars(select(Quota).where(Quota.application_id == application.id)).one()


def _apply(
    scene: Scene, who: str, category: str, texts: tuple[str, str], percent: int, at: datetime
) -> Application:
    head = scene.people[who]
    organisation = scene.session.scalar(
        select(Organisation).where(Organisation.memberships.any(person_id=head.id)).order_by(Organisation.id)
    )
    month = scene.most.gpus * HOURS_A_DAY * 30
    days = (0, 90)
    nodes = scene.most.nodes
    gpu_hours = min(max(month * 3 * percent // 100, 1), scene.policy.applications.max_gpu_hours)
    application = scene.propose(
        who, category, organisation, texts, (nodes, scene.most.gpus_per_node), gpu_hours, days, at=at
    )
    scene.submit(who, application, at + timedelta(hours=3))
    return application


def _past(scene: Scene, key: bytes) -> None:
    """Divided three weeks ago, some hours given back and divided again, and over."""
    ends_at = _turn(scene)
    starts_at = ends_at - timedelta(days=12)
    period = _published(scene, key, starts_at, ends_at)
    _give_back(scene, period, starts_at + timedelta(days=6))
    periods.close_due(scene.session, ends_at + timedelta(minutes=1))


def _running(scene: Scene, key: bytes) -> None:
    """In force until the month ends: booked from by the start-up alone, so that the others are warned."""
    month = periods.suggestion(scene.session, scene.cluster, scene.gpu_type, scene.now)
    _published(scene, key, _turn(scene), month.starts_at)


def _turn(scene: Scene) -> datetime:
    """The midnight between the period that is over and the one that runs."""
    return ceil(scene.now).replace(hour=19, minute=0) - timedelta(days=11)


def _published(scene: Scene, key: bytes, starts_at: datetime, ends_at: datetime) -> Period:
    """Opened, proposed by one operator and published by another before it begins."""
    opened = starts_at - timedelta(days=3)
    opening = periods.Opening(scene.cluster.id, scene.gpu_type, starts_at, ends_at)
    period = periods.open_period(
        scene.session, scene.actor("operator"), opening, policy=scene.policy, key=key, now=opened
    )
    proposal = periods.propose(scene.session, scene.actor("operator"), period, now=opened)
    publication.publish(
        scene.session,
        scene.actor("publisher"),
        proposal,
        expected_version=period.version,
        now=opened + timedelta(days=1),
    )
    return period


def _give_back(scene: Scene, period: Period, at: datetime) -> None:
    grant = next(
        grant
        for grant in grants.of_period(scene.session, period)
        if grant.quota.application.category == "science"
    )
    hours = grant.gpu_seconds // grants.HOUR // 5
    if not hours:
        return
    grants.give_back(
        scene.session,
        scene.actor("science"),
        grant,
        hours,
        reason="Деректер келесі айда ғана дайын болады.",
        policy=scene.policy,
        now=at,
    )
    grants.redivide(scene.session, scene.actor("operator"), period, now=at + timedelta(days=1))


def _next(scene: Scene, key: bytes) -> None:
    """Next month: the machine's proposal, an operator's correction of it, and a what-if that was kept."""
    now = scene.now - timedelta(hours=2)
    operator = scene.actor("operator")
    opening = periods.suggestion(scene.session, scene.cluster, scene.gpu_type, scene.now)
    period = periods.open_period(scene.session, operator, opening, policy=scene.policy, key=key, now=now)
    proposal = periods.propose(scene.session, operator, period, now=now + timedelta(minutes=10))
    strategic = max(
        (share for share in proposal.shares if share.claim.category == "strategic"),
        key=lambda share: share.gpu_hours,
    )
    adjustments.adjust(
        scene.session,
        operator,
        proposal,
        strategic.claim.quota_id,
        strategic.gpu_hours * 9 // 10,
        "Оқыту қоспасы толық дайын емес: айдың алғашқы үш күні қажет болмайды.",
        now=now + timedelta(minutes=30),
    )
    fewer = what_if.Scenario(capacity=period.capacity * 3 // 4)
    what_if.keep(
        scene.session,
        operator,
        period,
        fewer,
        "Торабтардың төрттен бірі жөндеуде",
        now=now + timedelta(minutes=50),
    )
