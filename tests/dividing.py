"""What tests of periods share: a cluster, two operators, quotas that all fall into one month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from allocator.actors import Actor, Role
from allocator.dividing import periods, publication
from allocator.models import Cluster, Period, Proposal, Quota
from allocator.policy import load_policy
from tests import factories
from tests.factories import NOW

POLICY = load_policy()
KEY = b"only-for-tests"
# December 2026 as people in the country have it: 31 days from midnight in UTC+5
DECEMBER = (datetime(2026, 11, 30, 19, tzinfo=UTC), datetime(2026, 12, 31, 19, tzinfo=UTC))
HOUR = 3600


@dataclass
class Site:
    """4 nodes × 8 GPUs: 23,808 GPU-hours in December, 5 % in reserve."""

    session: Session
    cluster: Cluster
    one: Actor
    other: Actor

    def quota(self, category: str, hours: int, activity: str | None = None) -> Quota:
        head = factories.person(self.session)
        organisation = factories.organisation(self.session, head=head)
        organisation.activity = activity
        application = factories.application(
            self.session, head, self.cluster, organisation=organisation, category=category, gpu_hours=hours
        )
        # all of it falls into December, so that the request is the whole quota
        return factories.quota(
            self.session, application, valid_from=DECEMBER[0], valid_until=DECEMBER[1], gpu_hours=hours
        )

    def open(self, maintenance: int | None = None) -> Period:
        opening = periods.Opening(self.cluster.id, "h200", *DECEMBER, maintenance)
        return periods.open_period(self.session, self.one, opening, policy=POLICY, key=KEY, now=NOW)

    def propose(self) -> Proposal:
        return periods.propose(self.session, self.one, self.open(), now=NOW)

    def publish(self, proposal: Proposal) -> Period:
        return publication.publish(
            self.session, self.other, proposal, expected_version=proposal.period.version, now=NOW
        )


def make_site(session: Session) -> Site:
    cluster = factories.cluster(session)
    operators = [factories.person(session, roles=[Role.OPERATOR]) for _ in range(2)]
    return Site(session, cluster, *(factories.actor_of(person) for person in operators))


def shares(proposal: Proposal) -> dict[int, int]:
    return {share.claim.quota_id: share.gpu_hours for share in proposal.shares}
