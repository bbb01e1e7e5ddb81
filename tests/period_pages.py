"""A site for pages of periods: one published and running, one proposed, one that is still a draft."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.dividing import (
    adjustments,
    grants,
    period_plans,
    period_queries,
    periods,
    publication,
    what_if,
)
from allocator.models import Cluster, Organisation, Period, Person, Proposal, Quota, Reclaim
from allocator.policy import load_policy
from allocator.states import ReclaimState
from tests import factories
from tests.factories import HOUR

POLICY = load_policy()
KEY = b"only-for-tests"
DAY = timedelta(days=1)


@dataclass
class Scene:
    """Quotas of two thirds more than there is; `mine` is the applicant's, `late` has no grant."""

    session: Session
    cluster: Cluster
    one: Person
    other: Person
    applicant: Person
    firm: Organisation | None
    now: datetime
    quotas: list[Quota]

    def fill(self, count: int) -> dict[str, int]:
        """Everything that a page can show, and the numbers of it."""
        known = [category.slug for category in POLICY.categories]
        for number in range(count):
            self.quotas.append(self.quota(known[number % len(known)], 4_000 + 1_500 * number, number))
        mine = self.quotas[0]
        running, proposal = self.running(mine)
        late = self.quota("science", 500, 99)
        reclaim = self.reclaim(running)
        proposed = self.open(10, 40)
        first = periods.propose(self.session, actor(self.one), proposed, now=self.now)
        other = first.shares[1].claim
        adjustments.adjust(
            self.session,
            actor(self.one),
            first,
            other.quota_id,
            first.shares[1].gpu_hours // 2,
            "The data come a week later.",
            now=self.now,
        )
        scenario = what_if.Scenario(capacity=proposed.capacity // 2)
        what_if.keep(self.session, actor(self.one), proposed, scenario, "Half of it", now=self.now)
        draft = self.open(40, 70)
        return {
            "period": running.id,
            "proposed": proposed.id,
            "plannable": draft.id,
            "published_proposal": proposal.id,
            "proposal": first.id,
            "claimed": other.quota_id,
            "own": mine.id,
            "late": late.id,
            "reclaim": reclaim.id,
        }

    def running(self, mine: Quota) -> tuple[Period, Proposal]:
        """A published period in its middle, with a share that its holder cut and hours given back."""
        period = self.open(-10, 10, maintenance=240)
        stranger = self.quotas[1]
        minimum = stranger.gpu_seconds // HOUR
        holder = actor(stranger.application.applicant)
        period_plans.set_plan(self.session, holder, period, stranger, minimum, minimum, now=self.now)
        periods.collect(self.session, actor(self.one), period, policy=POLICY, key=KEY, now=self.now)
        proposal = periods.propose(self.session, actor(self.one), period, now=self.now)
        publication.publish(
            self.session, actor(self.other), proposal, expected_version=period.version, now=self.now
        )
        given = {grant.quota_id: grant for grant in period.grants}
        grants.give_back(
            self.session, actor(self.applicant), given[mine.id], 50, reason="", policy=POLICY, now=self.now
        )
        return period, proposal

    def open(self, first: int, last: int, maintenance: int | None = None) -> Period:
        """A draft from so many days ahead to so many."""
        opening = periods.Opening(
            self.cluster.id, "h200", self.now + first * DAY, self.now + last * DAY, maintenance
        )
        return periods.open_period(
            self.session, actor(self.one), opening, policy=POLICY, key=KEY, now=self.now
        )

    def quota(self, category: str, hours: int, number: int) -> Quota:
        """A quota that is valid in all of these periods."""
        mine = number == 0
        head = self.applicant if mine else factories.person(self.session, name="Daniyar Bek")
        firm = (self.firm if mine else None) or factories.organisation(
            self.session, head=head, name=f"Institute {number}"
        )
        application = factories.application(
            self.session,
            head,
            self.cluster,
            organisation=firm,
            category=category,
            gpu_hours=hours,
            title=f"Speech recognition for village schools {number}",
        )
        return factories.quota(
            self.session,
            application,
            valid_from=self.now - 12 * DAY,
            valid_until=self.now + 90 * DAY,
            gpu_hours=hours,
        )

    def reclaim(self, period: Period) -> Reclaim:
        """Hours of a share that nobody used, after the time to answer."""
        found = period_queries.grants_of(self.session, self.quotas[2])
        row = Reclaim(
            grant=found[0],
            state=ReclaimState.PROPOSED,
            planned=1_000 * HOUR,
            used=100 * HOUR,
            take_back=200 * HOUR,
            warned_at=self.now - 5 * DAY,
            answer_until=self.now - 1 * DAY,
            policy_version=POLICY.version,
        )
        self.session.add(row)
        self.session.flush()
        return row


def actor(person: Person) -> Actor:
    return factories.actor_of(person)


def make_scene(
    session: Session,
    now: datetime,
    applicant: Person | None = None,
    one: Person | None = None,
    firm: Organisation | None = None,
    cluster: Cluster | None = None,
) -> Scene:
    """Two operators, an applicant and a cluster of 32 GPUs."""
    return Scene(
        session,
        cluster or factories.cluster(session, slug="shares", now=now),
        one or factories.person(session, name="Aigerim Sapar", roles=[Role.OPERATOR]),
        factories.person(session, name="Serik Omar", roles=[Role.OPERATOR]),
        applicant or factories.person(session, name="Dana Omar"),
        firm,
        now.replace(minute=0, second=0, microsecond=0),
        [],
    )
