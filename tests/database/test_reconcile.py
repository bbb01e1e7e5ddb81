"""Reconcile on both databases against the simulated cluster: what is made, healed, and told to people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from allocator.db import Database
from allocator.models import Booking, Node, Person, Quota, QuotaMember
from allocator.states import BookingState, QuotaState, ReservationState
from scheduler.apply import apply
from scheduler.clusters.base import (
    Account,
    Conflict,
    InUse,
    Refused,
    Reservation,
    UnderDelivered,
    Unreachable,
)
from scheduler.clusters.simulated_store import Fault
from scheduler.plan import Plan, RemoveAccount
from scheduler.reconcile import ClocksApart, NotKnown, look, reconcile
from tests import factories
from tests.factories import NOW
from tests.scheduling import WEEK, Site, site

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LOGINS = frozenset({"aigerim"})


@pytest.fixture
def here(database: Database, tmp_path: Path) -> Site:
    return site(database, tmp_path)


def held(here: Site, booking_id: int) -> Reservation:
    return next(one for one in here.cluster.reservations() if one.name == f"kezek-{booking_id}")


class TestFromBookingToReservation:
    def test_the_cluster_gets_what_was_booked(self, here: Site) -> None:
        booking = here.book(1, 2)
        outcome = here.reconcile()
        assert outcome.failures == {}
        account = f"kezek-q{here.quota_id}"
        assert held(here, booking) == Reservation(
            f"kezek-{booking}", NOW + DAY, NOW + 2 * DAY, ("gpu0001", "gpu0002"), (account,)
        )
        (made,) = here.cluster.accounts()
        assert (made.name, made.gpu_minutes, made.logins) == (account, 60_000, LOGINS)

    def test_it_is_written_down_and_told_once(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.clock.advance(seconds=30)
        here.reconcile()
        row = here.reservation(booking)
        assert (row.state, row.healed, row.problem_code) == (ReservationState.RESERVED, 0, None)
        assert (row.state_since, row.seen_at) == (NOW, here.clock.now)
        assert here.letters() == ["booking_reserved"]
        assert here.events() == ["reservation.reserved"]

    def test_nothing_to_do_the_second_time(self, here: Site) -> None:
        here.book(1)
        here.reconcile()
        assert here.reconcile().plan.steps == ()

    def test_limits_are_seen(self, here: Site) -> None:
        here.reconcile()
        quota = here.ask(lambda session: session.get_one(Quota, here.quota_id))
        assert (quota.limits_seen_at, quota.limits_problem) == (NOW, None)

    def test_what_is_far_away_waits(self, here: Site) -> None:
        booking = here.book(1, starts_at=NOW + 8 * DAY)
        here.reconcile()
        assert here.names() == []
        assert here.reservation(booking).state is ReservationState.PENDING
        here.clock.advance(days=1)
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]

    def test_part_of_a_node_is_a_part(self, here: Site) -> None:
        first = here.book(1, gpus_per_node=3)
        second = here.book(1, gpus_per_node=5, first_gpu=3)
        here.reconcile()
        assert (held(here, first).gpus_per_node, held(here, second).gpus_per_node) == (3, 5)

    def test_where_parts_cannot_be_reserved_accounts_are_limited(self, here: Site) -> None:
        first = here.book(1, gpus_per_node=3, starts_at=NOW + 3 * HOUR, hours=4)
        with here.database.transaction() as session:
            session.get_one(Booking, first).cluster.reserves_gpus = False
        limits = []
        for hours in (0, 2.98, 0.02, 3.99, 0.02):
            here.clock.advance(hours=hours)
            here.reconcile()
            limits.append(here.cluster.accounts()[0].gpus)
        # Two minutes before it begins until it ends, and the booking's own GPUs then.
        assert limits == [None, 3, 3, 3, None]

    def test_members_without_login_or_disabled_have_no_access(self, here: Site) -> None:
        with here.database.transaction() as session:
            quota = session.get_one(Quota, here.quota_id)
            people = [
                factories.person(session),
                factories.person(session, cluster_login="gone", disabled=True),
                factories.person(session, cluster_login="dana"),
            ]
            for person in people:
                session.add(QuotaMember(quota=quota, person=person))
        here.reconcile()
        assert here.cluster.accounts()[0].logins == {"aigerim", "dana"}

    def test_before_its_validity_a_quota_has_nothing_to_spend(self, here: Site) -> None:
        with here.database.transaction() as session:
            session.execute(update(Quota).values(valid_from=NOW + HOUR))
        here.reconcile()
        assert here.cluster.accounts()[0].gpu_minutes == 0
        here.clock.advance(hours=1)
        here.reconcile()
        assert here.cluster.accounts()[0].gpu_minutes == 60_000

    def test_one_that_should_run_already_starts_now(self, here: Site) -> None:
        booking = here.book(1, starts_at=NOW - 2 * HOUR, state=BookingState.STARTED)
        assert here.reconcile().failures == {}
        assert held(here, booking).starts_at == NOW

    def test_a_cluster_without_a_row_is_named(self, database: Database, tmp_path: Path) -> None:
        here = site(database, tmp_path)
        here.cluster.slug = "other"
        with pytest.raises(NotKnown):
            here.reconcile()


class TestTheEnd:
    def test_a_cancelled_one_goes(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.change(booking, state=BookingState.CANCELLED, slots=[])
        here.reconcile()
        assert here.names() == []
        assert here.reservation(booking).state is ReservationState.RELEASED

    def test_one_that_was_never_made_is_released_at_once(self, here: Site) -> None:
        booking = here.book(1, starts_at=NOW + 30 * DAY, state=BookingState.CANCELLED)
        here.reconcile()
        assert here.reservation(booking).state is ReservationState.RELEASED
        assert here.letters() == []

    def test_jobs_that_still_run_in_it_are_cancelled(self, here: Site) -> None:
        booking = here.book(1, starts_at=NOW - HOUR, state=BookingState.STARTED)
        here.reconcile()
        here.cluster.submit("aigerim", f"kezek-q{here.quota_id}", 8, reservation=f"kezek-{booking}")
        here.clock.advance(seconds=60)
        with pytest.raises(InUse):
            here.cluster.delete_reservation(f"kezek-{booking}")
        here.change(booking, state=BookingState.ENDED, ends_at=here.clock.now)
        here.reconcile()
        assert here.names() == []
        assert here.reservation(booking).state is ReservationState.RELEASED

    def test_by_its_own_clock_it_is_not_over_yet(self, here: Site) -> None:
        """Ours may be two minutes ahead: that is no reason to end jobs before the promised time."""
        booking = here.book(1, starts_at=NOW - HOUR, state=BookingState.STARTED)
        here.reconcile()
        here.cluster.submit("aigerim", f"kezek-q{here.quota_id}", 8, reservation=f"kezek-{booking}")
        here.change(booking, state=BookingState.ENDED, ends_at=NOW + timedelta(seconds=90))
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]
        assert [job.state for job, _ in here.cluster.jobs()] == ["RUNNING"]
        here.clock.advance(seconds=90)
        here.reconcile()
        assert here.names() == []

    def test_one_that_the_cluster_purged_at_its_end_is_not_healed(self, here: Site) -> None:
        booking = here.book(1, hours=2)
        here.reconcile()
        here.clock.advance(days=1, hours=3)
        here.cluster.delete_by_hand(f"kezek-{booking}")
        here.reconcile()
        # Nobody has ended the booking yet: whether it was delivered must still be readable.
        assert here.reservation(booking).state is ReservationState.RESERVED
        here.change(booking, state=BookingState.ENDED)
        here.reconcile()
        row = here.reservation(booking)
        assert (row.state, row.healed) == (ReservationState.RELEASED, 0)

    def test_an_expired_quotas_account_goes(self, here: Site) -> None:
        here.reconcile()
        with here.database.transaction() as session:
            session.execute(update(Quota).values(state=QuotaState.EXPIRED))
        here.reconcile()
        assert here.cluster.accounts() == []

    def test_while_its_jobs_run_nothing_more_can_start(self, here: Site) -> None:
        here.reconcile()
        account = f"kezek-q{here.quota_id}"
        here.cluster.submit("aigerim", account, 8)
        with here.database.transaction() as session:
            session.execute(update(Quota).values(state=QuotaState.EXPIRED))
        outcome = here.reconcile()
        assert isinstance(outcome.failures[account], InUse)
        (kept,) = here.cluster.accounts()
        assert (kept.gpu_minutes, kept.logins) == (0, LOGINS)
        here.clock.advance(hours=2)
        assert here.reconcile().failures == {}
        assert here.cluster.accounts() == []

    def test_a_closed_quotas_account_stays_for_its_bookings(self, here: Site) -> None:
        booking = here.book(1)
        with here.database.transaction() as session:
            session.execute(update(Quota).values(state=QuotaState.CLOSED))
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]


class TestHealing:
    def test_deleted_by_hand(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.cluster.delete_by_hand(f"kezek-{booking}")
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]
        assert here.reservation(booking).healed == 1
        assert here.events()[-1] == "reservation.healed"
        assert here.letters() == ["booking_reserved"]

    def test_changed_by_hand(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        good = held(here, booking)
        here.cluster.put_by_hand(replace(good, nodes=("gpu0003",), accounts=("root",), ends_at=NOW + 9 * DAY))
        here.reconcile()
        assert held(here, booking) == good
        assert here.reservation(booking).healed == 1

    def test_lost_by_a_controller_that_had_acknowledged_it(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.cluster.crash(lose_recent_seconds=3)
        assert here.names() == []
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]
        assert here.reservation(booking).healed == 1

    def test_an_account_changed_by_hand(self, here: Site) -> None:
        here.reconcile()
        name = f"kezek-q{here.quota_id}"
        here.cluster.save_accounts([Account(name, "", None, frozenset({"mallory"}))])
        here.reconcile()
        (account,) = here.cluster.accounts()
        assert (account.gpu_minutes, account.logins) == (60_000, LOGINS)

    def test_an_answer_that_got_lost(self, here: Site) -> None:
        booking = here.book(1)
        here.cluster.set_fault(Fault.LOST_ANSWER, 1)
        here.reconcile()
        here.reconcile()
        assert here.names() == [f"kezek-{booking}"]
        assert here.reservation(booking).state is ReservationState.RESERVED

    def test_what_this_database_did_not_make_stays(self, here: Site) -> None:
        """Another Kezek's, or our own from before the database was restored from last night's copy."""
        names = ("kezek-4711", "kezek-9999999999999999999", "kezek-test", "maintenance")
        for name in names:
            here.cluster.put_by_hand(Reservation(name, NOW + DAY, NOW + 2 * DAY, ("gpu0004",), ("root",)))
        accounts = ("kezek-q4711", "kezek-q9999999999999999999", "kezek-try")
        here.cluster.save_accounts([Account(name, "", 5_000, LOGINS) for name in accounts])
        here.cluster.submit("aigerim", "kezek-q4711", 8)
        here.reconcile()
        assert here.names() == sorted(names)
        assert {one.name for one in here.cluster.accounts()} == {f"kezek-q{here.quota_id}", *accounts}
        assert [job.state for job, _ in here.cluster.jobs()] == ["RUNNING"]

    def test_what_belongs_to_another_cluster_of_ours_stays(self, here: Site) -> None:
        """Clusters may share one accounting database, and then each sees the accounts of all."""
        with here.database.transaction() as session:
            other = factories.cluster(session, slug="other", nodes=1)
            application = factories.application(session, factories.person(session), other)
            quota = factories.quota(session, application, state=QuotaState.EXPIRED)
            booking = factories.booking(session, quota, state=BookingState.CANCELLED)
            account, name = quota.account, booking.reservation_name
        here.cluster.save_accounts([Account(account, "", 5)])
        here.cluster.put_by_hand(Reservation(name, NOW + DAY, NOW + 2 * DAY, ("gpu0004",), (account,)))
        here.reconcile()
        assert here.names() == [name]
        assert account in {one.name for one in here.cluster.accounts()}

    def test_a_released_one_that_comes_back_goes_again(self, here: Site) -> None:
        """slurmctld forgot a deletion that it had acknowledged."""
        booking = here.book(1)
        here.reconcile()
        there = held(here, booking)
        here.change(booking, state=BookingState.CANCELLED, slots=[])
        here.reconcile()
        assert here.reservation(booking).state is ReservationState.RELEASED
        here.cluster.put_by_hand(there)
        here.reconcile()
        assert here.names() == []


class TestTrouble:
    def test_a_foreign_reservation_in_the_way(self, here: Site) -> None:
        booking = here.book(1)
        foreign = Reservation("maintenance", NOW + DAY, NOW + 3 * DAY, ("gpu0001",), ("root",))
        here.cluster.put_by_hand(foreign)
        outcome = here.reconcile()
        assert isinstance(outcome.failures[f"kezek-{booking}"], Conflict)
        row = here.reservation(booking)
        assert (row.state, row.problem_code) == (ReservationState.BLOCKED, "foreign_in_the_way")
        assert "maintenance" in (row.problem or "")
        assert here.cluster.reservations() == [foreign]
        assert here.letters() == ["booking_blocked"]

    def test_the_booker_hears_when_it_is_out_of_the_way(self, here: Site) -> None:
        booking = here.book(1)
        here.cluster.put_by_hand(
            Reservation("maintenance", NOW + DAY, NOW + 3 * DAY, ("gpu0001",), ("root",))
        )
        here.reconcile()
        here.reconcile()
        here.cluster.delete_by_hand("maintenance")
        here.reconcile()
        row = here.reservation(booking)
        assert (row.state, row.problem, row.healed) == (ReservationState.RESERVED, None, 0)
        assert here.letters() == ["booking_blocked", "booking_reserved"]

    def test_a_bad_one_does_not_stop_the_others(self, here: Site) -> None:
        bad, good = here.book(1), here.book(2)
        here.cluster.put_by_hand(
            Reservation("maintenance", NOW + DAY, NOW + 3 * DAY, ("gpu0001",), ("root",))
        )
        here.reconcile()
        assert here.reservation(bad).state is ReservationState.BLOCKED
        assert here.reservation(good).state is ReservationState.RESERVED

    def test_half_a_promise_is_given_back(self, here: Site) -> None:
        booking = here.book(1, 2, 3)
        here.cluster.set_fault(Fault.UNDER_DELIVERY, 1)
        outcome = here.reconcile()
        assert isinstance(outcome.failures[f"kezek-{booking}"], UnderDelivered)
        assert here.names() == []
        assert here.reservation(booking).problem_code == "cluster_under_delivered"
        here.cluster.clear_faults()
        here.reconcile()
        assert held(here, booking).nodes == ("gpu0001", "gpu0002", "gpu0003")

    def test_a_correction_never_ends_peoples_jobs(self, here: Site) -> None:
        booking = here.book(1, starts_at=NOW - HOUR, state=BookingState.STARTED)
        here.reconcile()
        good = held(here, booking)
        here.cluster.submit("aigerim", f"kezek-q{here.quota_id}", 8, reservation=good.name)
        here.clock.advance(seconds=60)
        here.cluster.put_by_hand(replace(good, nodes=("gpu0002",)))
        here.cluster.set_fault(Fault.UNDER_DELIVERY, 1)
        here.reconcile()
        assert [job.state for job, _ in here.cluster.jobs()] == ["RUNNING"]

    def test_a_refused_correction_takes_nothing_away(self, here: Site) -> None:
        """A node left the cluster for good: what remains of the reservation still keeps others out."""
        booking = here.book(1, 2)
        here.reconcile()
        left = replace(held(here, booking), nodes=("gpu0001",))
        here.cluster.put_by_hand(left)
        with here.database.transaction() as session:
            session.execute(update(Node).where(Node.name == "gpu0002").values(name="gpu9999"))
        outcome = here.reconcile()
        assert isinstance(outcome.failures[f"kezek-{booking}"], Refused)
        assert here.cluster.reservations() == [left]
        assert here.reservation(booking).state is ReservationState.BLOCKED

    def test_one_that_somebody_let_begin_early_is_made_anew(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        good = held(here, booking)
        here.cluster.put_by_hand(replace(good, starts_at=NOW - HOUR))
        assert here.reconcile().failures == {}
        assert held(here, booking) == good

    def test_a_changed_association_does_not_keep_an_expired_quota_open(self, here: Site) -> None:
        here.reconcile()
        account = f"kezek-q{here.quota_id}"
        here.cluster.submit("aigerim", account, 8)
        with here.database.transaction() as session:
            session.execute(update(Quota).values(state=QuotaState.EXPIRED))
        shown = replace(here.cluster.accounts()[0], logins=frozenset({"aigerim (QOS normal)"}))
        applied = apply(here.cluster, Plan((RemoveAccount(shown),)))
        assert isinstance(applied.failures[account], InUse)
        (kept,) = here.cluster.accounts()
        assert (kept.gpu_minutes, kept.logins) == (0, LOGINS)

    def test_accounting_that_hangs_does_not_keep_reservations_waiting(
        self, here: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here.reconcile()
        booking = here.book(1)
        saves: list[int] = []

        def hang(accounts: Sequence[Account]) -> None:
            saves.append(len(accounts))
            here.cluster.set_fault(Fault.ACCOUNTING_DOWN)
            raise Unreachable.said(here.cluster.slug, "sacctmgr: no answer within 20 s")

        monkeypatch.setattr(here.cluster, "save_accounts", hang)
        monkeypatch.setattr("scheduler.apply.BATCH", 1)
        with here.database.transaction() as session:
            cluster = session.get_one(Quota, here.quota_id).cluster
            for _ in range(5):
                factories.quota(session, factories.application(session, factories.person(session), cluster))
        outcome = here.reconcile()
        assert saves == [1]
        assert here.names() == [f"kezek-{booking}"]
        assert len(outcome.failures) == 5

    def test_an_unknown_login_blocks_its_account_only(self, here: Site) -> None:
        with here.database.transaction() as session:
            cluster = session.get_one(Quota, here.quota_id).cluster
            for number in range(9):
                person = factories.person(session, cluster_login=f"user{number}")
                factories.quota(session, factories.application(session, person, cluster))
        here.cluster.set_unknown_logins(["user4"])
        outcome = here.reconcile()
        assert len(here.cluster.accounts()) == 9
        (error,) = outcome.failures.values()
        assert isinstance(error, Refused)
        problems = here.ask(
            lambda session: list(
                session.scalars(select(Quota.limits_problem).where(Quota.limits_problem != ""))
            )
        )
        assert len(problems) == 1
        assert "user4" in str(problems[0])
        here.cluster.set_unknown_logins([])
        here.reconcile()
        assert here.ask(lambda session: session.scalars(select(Quota.limits_problem)).all()) == [None] * 10

    def test_an_unreachable_controller_changes_no_row(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.cluster.set_fault(Fault.CONTROLLER_DOWN)
        with pytest.raises(Unreachable):
            here.reconcile()
        assert here.reservation(booking).state is ReservationState.RESERVED

    def test_without_accounting_reservations_are_still_kept(self, here: Site) -> None:
        booking = here.book(1)
        here.reconcile()
        here.cluster.set_fault(Fault.ACCOUNTING_DOWN)
        here.cluster.delete_by_hand(f"kezek-{booking}")
        outcome = here.reconcile()
        assert here.names() == [f"kezek-{booking}"]
        assert "accounting does not answer" in "\n".join(outcome.plan.lines())

    def test_clocks_apart_stop_everything(self, here: Site) -> None:
        here.book(1)
        here.cluster.set_fault(Fault.CLOCK_SKEW, 400)
        with pytest.raises(ClocksApart):
            here.reconcile()
        here.cluster.clear_faults()
        assert here.names() == []

    def test_told_to_stop_it_writes_down_what_is_done(self, here: Site) -> None:
        bookings = [here.book(number) for number in (1, 2, 3)]
        answers = iter([True, True, True, False])
        outcome = reconcile(here.database, here.cluster, WEEK, NOW, lambda: next(answers))
        assert not outcome.finished
        states = [here.reservation(booking).state for booking in bookings]
        assert states == [ReservationState.RESERVED, ReservationState.RESERVED, ReservationState.PENDING]

    def test_a_booking_cancelled_while_we_work_is_not_brought_back(self, here: Site) -> None:
        booking = here.book(1)
        found = look(here.database, here.cluster, WEEK)
        here.change(booking, state=BookingState.CANCELLED)
        assert found.plan.steps
        here.reconcile()
        here.reconcile()
        assert here.names() == []
        assert here.reservation(booking).state is ReservationState.RELEASED


def test_the_number_of_queries_does_not_grow(
    here: Site, count_queries: Callable[[Engine], AbstractContextManager[list[str]]]
) -> None:
    def queries() -> int:
        with count_queries(here.database.engine) as statements:
            look(here.database, here.cluster, WEEK)
        return len(statements)

    here.book(1)
    few = queries()
    for day in range(2, 7):
        here.book(1, starts_at=NOW + day * DAY)
    with here.database.transaction() as session:
        assert session.scalars(select(Person)).first()
    assert queries() == few
