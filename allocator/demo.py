"""Demonstration data: one person per role, and the applications of REQUIREMENTS.md at different stages.

Everything goes through the use cases with times in the past, so that events, letters and numbers are as if
it had happened; only the jobs of bookings long over are written down as accounting would have told them.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from allocator import capacity, demo_bookings, demo_periods, states
from allocator.accounts import administration, organisations, people
from allocator.actors import SYSTEM, Actor, MembershipRole, Role
from allocator.applying import applications, decisions
from allocator.applying.application_checks import Proposal
from allocator.applying.decisions import Verdict
from allocator.booking import bookings
from allocator.booking.booking_checks import Ask, grid_of
from allocator.booking.windows import ceil
from allocator.errors import Conflict
from allocator.models import (
    Application,
    Booking,
    Cluster,
    DecisionKind,
    JobRecord,
    Node,
    Organisation,
    Person,
    Quota,
)
from allocator.policy import Policy
from allocator.states import ReservationState
from config.i18n import N_

PASSWORD = "kezek-demo-2026"  # noqa: S105 - printed for everybody; the demonstration listens on loopback only


@dataclass(frozen=True)
class DemoPerson:
    email: str
    name: str
    what: str
    roles: tuple[Role, ...] = ()
    iin: str = ""


PEOPLE = {
    "startup": DemoPerson(
        "aigerim@demo.kz", "Айгерім Сапарова", "applicant, head of a start-up with a quota"
    ),
    "science": DemoPerson("dana@demo.kz", "Дана Ибраева", "applicant of a university, with a draft"),
    "strategic": DemoPerson("yerlan@demo.kz", "Ерлан Жақсыбеков", "applicant of the national language model"),
    "citizen": DemoPerson(
        "timur@demo.kz", "Тимур Ахметов", "citizen, waiting for a decision", iin="850101300015"
    ),
    "engineer": DemoPerson("maksat@demo.kz", "Мақсат Оразбай", "member of the start-up's team"),
    "operator": DemoPerson(
        "operator@demo.kz", "Гүлнар Ермекова", "operator: decides, proposes periods", (Role.OPERATOR,)
    ),
    "publisher": DemoPerson(
        "publisher@demo.kz", "Нұрлан Сейтқали", "second operator: publishes periods", (Role.OPERATOR,)
    ),
    "council": DemoPerson("council@demo.kz", "Бауыржан Тілеуов", "council member", (Role.COUNCIL_MEMBER,)),
    "auditor": DemoPerson("auditor@demo.kz", "Ольга Ким", "auditor: reads everything", (Role.AUDITOR,)),
    "admin": DemoPerson(
        "admin@demo.kz", "Асхат Нұрланов", "administrator: people and roles", (Role.ADMINISTRATOR,)
    ),
}


def is_loaded(session: Session) -> bool:
    email = PEOPLE["operator"].email
    return session.scalar(select(Person.id).where(Person.email == email)) is not None


def load(
    session: Session,
    cluster: Cluster,
    policy: Policy,
    *,
    login: str | None,
    key: bytes = b"demonstration",
    now: datetime,
) -> Node | None:
    """Fill an empty site; ``cluster`` has its nodes, ``login`` is the start-up's head's there.

    ``key`` makes the pseudonyms of the periods' public files. Returns the node that has failed by the story:
    a simulated cluster has to be told, or the next inventory finds it well.
    """
    if not capacity.gpu_types(session, cluster):
        raise Conflict(N_("The cluster has no nodes yet: run `kezek slurm inventory` first."))
    scene = Scene(session, cluster, policy, now)
    if login:
        scene.people["startup"].cluster_login = login
    scene.national_model_waits()
    scene.startup_computes()
    scene.university_drafts()
    scene.citizen_waits()
    demo_periods.play(scene, key)
    return demo_bookings.play(scene)


class Scene:
    """The people, and what each of them has done so far."""

    def __init__(self, session: Session, cluster: Cluster, policy: Policy, now: datetime) -> None:
        self.session, self.cluster, self.policy, self.now = session, cluster, policy, now
        offered = capacity.gpu_types(session, cluster)
        self.gpu_type, self.most = max(offered.items(), key=lambda item: item[1].gpus)
        month_ago = now - timedelta(days=30)
        self.people = {
            key: administration.create(
                session,
                SYSTEM,
                email=person.email,
                name=person.name,
                password=PASSWORD,
                roles=person.roles,
                now=month_ago,
            )
            for key, person in PEOPLE.items()
        }
        for key, person in PEOPLE.items():
            self.people[key].iin = person.iin or None

    def actor(self, key: str) -> Actor:
        self.session.flush()
        self.session.refresh(self.people[key], ["memberships", "role_grants"])
        return people.load_actor(self.session, self.people[key])

    def organisation(self, head: str, bin: str, name: str, activity: str) -> Organisation:
        month_ago = self.now - timedelta(days=29)
        return organisations.create(
            self.session,
            self.actor(head),
            bin=bin,
            name=name,
            region="750000000",
            activity=activity,
            now=month_ago,
        )

    def propose(
        self,
        key: str,
        category: str,
        organisation: Organisation | None,
        texts: tuple[str, str],
        shape: tuple[int, int],
        gpu_hours: int,
        days: tuple[int, int],
        team: tuple[str, ...] = (),
        *,
        at: datetime,
    ) -> Application:
        """A draft for [days[0], days[1]) after midnight of ``at``, no larger than the cluster."""
        midnight = at.replace(hour=19, minute=0, second=0, microsecond=0)
        proposal = Proposal(
            category=category,
            organisation_id=organisation.id if organisation else None,
            title=texts[0],
            purpose=texts[1],
            cluster=self.cluster.slug,
            gpu_type=self.gpu_type,
            nodes=min(shape[0], self.most.nodes),
            gpus_per_node=min(shape[1], self.most.gpus_per_node),
            gpu_hours=Decimal(gpu_hours),
            earliest=midnight + timedelta(days=days[0]),
            latest=midnight + timedelta(days=days[1]),
            team=team,
        )
        return applications.save_draft(self.session, self.actor(key), proposal, policy=self.policy, now=at)

    def submit(self, key: str, application: Application, at: datetime) -> None:
        version = application.version
        applications.submit(
            self.session, self.actor(key), application, expected_version=version, policy=self.policy, now=at
        )

    def national_model_waits(self) -> None:
        """Application 1: 12 nodes × 8 GPUs × 28 days, far above what an operator decides alone."""
        body = self.organisation("strategic", "490140000012", "Ұлттық тілдік модель тобы", "72190")
        at = self.now - timedelta(days=2)
        nodes = min(12, self.most.nodes)
        application = self.propose(
            "strategic",
            "strategic",
            body,
            (
                "70 млрд параметрлі қазақ тілі моделін жалғастыра оқыту",
                "150 млрд токенмен оқыту: 6·N·D = 6,3e22 FLOP; қайта іске қосуға 35 % қор қосылды.",
            ),
            (nodes, 8),
            nodes * 8 * 24 * 28,
            (9, 51),
            at=at,
        )
        self.submit("strategic", application, at + timedelta(hours=1))

    def startup_computes(self) -> None:
        """Application 2: approved three weeks ago, with booked and used hours, one booking about to begin."""
        company = self.organisation("startup", "490240000026", "«Egin AI» ЖШС", "01610")
        organisations.add_member(
            self.session,
            self.actor("startup"),
            company.id,
            email=PEOPLE["engineer"].email,
            role=MembershipRole.MEMBER,
            now=self.now - timedelta(days=28),
        )
        at = self.now - timedelta(days=22)
        application = self.propose(
            "startup",
            "startup",
            company,
            (
                "Егіс алқаптарын спутник арқылы бақылау",
                "Өсімдік ауруын ерте табатын модельді Sentinel-2 суреттерімен оқыту (Astana Hub).",
            ),
            (1, 8),
            2400,
            (0, 60),
            (PEOPLE["engineer"].email,),
            at=at,
        )
        self.submit("startup", application, at + timedelta(hours=2))
        decided = at + timedelta(days=1)
        decisions.decide(
            self.session,
            self.actor("operator"),
            application,
            Verdict(DecisionKind.APPROVED),
            expected_version=application.version,
            policy=self.policy,
            now=decided,
        )
        quota = self.session.scalars(select(Quota).where(Quota.application_id == application.id)).one()
        for days, hours, used in ((12, 24, 81_000), (6, 12, 40_500)):
            self.past_booking(quota, days, hours, used)
        soon = ceil(self.now + timedelta(minutes=2))
        self.book(quota, soon, 6, self.now)
        # whole hours, as people book it
        self.book(quota, grid_of(self.policy.bookings).ceil(soon + timedelta(days=3)), 24, self.now)

    def book(self, quota: Quota, starts_at: datetime, hours: int, at: datetime) -> Booking:
        # to the minute, so that whoever tries it out sees a booking begin and need not wait for the hour
        ask = Ask(1, self.most.gpus_per_node, starts_at, starts_at + timedelta(hours=hours))
        rules = replace(self.policy.bookings, boundary=timedelta(minutes=1))
        return bookings.book(self.session, self.actor("startup"), quota, ask, rules=rules, now=at)

    def past_booking(self, quota: Quota, days: int, hours: int, used_seconds: int) -> None:
        """A booking that was reserved, used by one job for ``used_seconds``, and is over."""
        starts_at = ceil(self.now - timedelta(days=days))
        booking = self.book(quota, starts_at, hours, starts_at - timedelta(days=2))
        reserved_at = starts_at - timedelta(days=2, minutes=-1)
        states.move(booking.reservation, ReservationState.RESERVED, actor=SYSTEM, now=reserved_at)
        booking.reservation.seen_at = reserved_at
        for moment in (starts_at, booking.ends_at):
            bookings.advance(self.session, moment)
        self.session.refresh(booking)
        states.move(booking.reservation, ReservationState.RELEASED, actor=SYSTEM, now=booking.ends_at)
        self.session.add(self.job_in(booking, starts_at + timedelta(minutes=4), used_seconds))

    def job_in(self, booking: Booking, began: datetime, seconds: int) -> JobRecord:
        """A finished job on all GPUs of a booking."""
        gpus = booking.nodes * booking.gpus_per_node
        return JobRecord(
            cluster_id=booking.cluster_id,
            job_id=booking.id,
            submitted_at=began - timedelta(minutes=1),
            login=self.people["startup"].cluster_login or "demo",
            account=booking.quota.account,
            state="COMPLETED",
            started_at=began,
            ended_at=began + timedelta(seconds=seconds),
            elapsed_seconds=seconds,
            gpus=gpus,
            gpu_seconds=gpus * seconds,
            reservation=booking.reservation_name,
            quota_id=booking.quota_id,
            booking_id=booking.id,
            read_at=booking.ends_at,
        )

    def university_drafts(self) -> None:
        """Application 3: written, not handed in yet."""
        university = self.organisation("science", "490340000031", "Өңірлік университет", "85420")
        self.propose(
            "science",
            "science",
            university,
            (
                "Распознавание речи для сельских школ",
                "Акустическая модель казахской и русской речи; можно считать по ночам весь семестр.",
            ),
            (1, 4 if self.cluster.shares_nodes else self.most.gpus_per_node),
            1500,
            (5, 120),
            at=self.now - timedelta(hours=20),
        )

    def citizen_waits(self) -> None:
        """A small application that an operator can decide at once."""
        at = self.now - timedelta(hours=5)
        application = self.propose(
            "citizen",
            "citizen",
            None,
            (
                "Перевод субтитров на казахский язык",
                "Дообучение небольшой модели перевода на открытых субтитрах; код и веса будут открыты.",
            ),
            (1, 2 if self.cluster.shares_nodes else self.most.gpus_per_node),
            100,
            (1, 40),
            at=at,
        )
        self.submit("citizen", application, at + timedelta(minutes=20))
