"""What pages hand to the use cases: rows loaded with their neighbours, which the use case then locks.

PostgreSQL locks no nullable side of an outer join, so a lock must not take along what the page joined.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from allocator import capacity, events
from allocator.accounts import people
from allocator.actors import Actor
from allocator.applying import quotas
from allocator.booking import booking_queries, bookings
from allocator.db import Database
from allocator.models import Booking, Cluster, Person, Quota
from allocator.states import BookingState
from tests import factories
from tests.factories import NOW


def test_a_booking_that_a_page_has_loaded_can_be_given_back(database: Database) -> None:
    with database.transaction() as session:
        booking = factories.booking(session, factories.quota(session), starts_at=NOW + timedelta(days=1))
        number, actor = booking.id, factories.actor_of(booking.booked_by)
    with database.transaction() as session:
        booking = booking_queries.find_booking(session, actor, number)
        version = booking.version
        bookings.cancel(session, actor, booking, reason="", expected_version=version, now=NOW)
    with database.reader() as session:
        assert session.get_one(Booking, number).state is BookingState.CANCELLED


def test_a_quota_that_a_page_has_loaded_gains_and_loses_members(database: Database) -> None:
    with database.transaction() as session:
        quota, friend = factories.quota(session), factories.person(session)
        number, friend_id, email = quota.id, friend.id, friend.email
        actor = factories.actor_of(quota.application.applicant)
    with database.transaction() as session:
        quotas.add_member(session, actor, booking_queries.find_quota(session, actor, number), email, now=NOW)
    with database.transaction() as session:
        found = booking_queries.find_quota(session, actor, number)
        assert friend_id in {member.person_id for member in found.members}
        quotas.remove_member(session, actor, found, friend_id, now=NOW)
    with database.reader() as session:
        assert len(session.get_one(Quota, number).members) == 1


def test_booking_and_approving_on_one_cluster_do_not_wait_for_each_other(database: Database) -> None:
    """Who books holds the cluster and wants the chain; who approves has the chain and names the cluster."""
    if database.engine.dialect.name == "sqlite":
        return  # one writer at a time
    with database.transaction() as session:
        quota = factories.quota(session)
        cluster_id, person_id = quota.cluster_id, quota.application.applicant_id
    with database.transaction() as booker, database.transaction() as decider:
        capacity.lock(booker, booker.get_one(Cluster, cluster_id))
        people.get(booker, Actor(person_id), person_id, lock=True)
        decider.execute(text("SET LOCAL lock_timeout = '2s'"))
        applicant, cluster = decider.get_one(Person, person_id), decider.get_one(Cluster, cluster_id)
        row = factories.application(decider, applicant, cluster)
        events.record(decider, Actor(person_id), row, "application.draft", now=NOW)
