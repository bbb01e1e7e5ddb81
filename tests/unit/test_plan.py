"""The plan is pure: two states and a moment in, steps in order and a readable diff out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.clusters.base import Account, Reservation
from scheduler.plan import (
    AccountingAway,
    Actual,
    CreateReservation,
    DeleteReservation,
    ForeignInTheWay,
    NotOurs,
    Plan,
    RemoveAccount,
    SaveAccount,
    UpdateReservation,
    Wanted,
    make_plan,
)

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACCOUNT = Account("kezek-q3", "kezek quota 3", 600, frozenset({"aigerim"}))
BOOKED = Reservation("kezek-5", NOW + HOUR, NOW + 5 * HOUR, ("gpu1", "gpu2"), ("kezek-q3",))


def wanted(
    *reservations: Reservation, accounts: tuple[Account, ...] = (ACCOUNT,), retired: tuple[str, ...] = ()
) -> Wanted:
    known = {one.name: one for one in accounts}
    return Wanted(known, {one.name: one for one in reservations}, frozenset(retired))


def actual(
    *reservations: Reservation, accounts: tuple[Account, ...] | None = (ACCOUNT,), now: datetime = NOW
) -> Actual:
    known = None if accounts is None else {one.name: one for one in accounts}
    return Actual(now, known, {one.name: one for one in reservations})


def test_nothing_to_do_when_both_are_alike() -> None:
    assert make_plan(wanted(BOOKED), actual(BOOKED)) == Plan()


def test_order_of_names_and_parts_of_seconds_are_no_difference() -> None:
    shown = replace(BOOKED, nodes=("gpu2", "gpu1"), starts_at=BOOKED.starts_at + timedelta(milliseconds=300))
    assert make_plan(wanted(BOOKED), actual(shown)).steps == ()


def test_accounts_come_first_and_go_last() -> None:
    old = Account("kezek-q1", "", 60)
    over = replace(BOOKED, name="kezek-4")
    moved = replace(BOOKED, name="kezek-6", nodes=("gpu3",))
    should = wanted(BOOKED, replace(moved, nodes=("gpu4",)), retired=("kezek-4", "kezek-q1"))
    plan = make_plan(should, actual(over, moved, accounts=(old,)))
    assert [type(step) for step in plan.steps] == [
        SaveAccount,
        DeleteReservation,
        UpdateReservation,
        CreateReservation,
        RemoveAccount,
    ]


def test_a_booking_that_should_run_already_starts_now() -> None:
    late = replace(BOOKED, starts_at=NOW - 3 * HOUR)
    (step,) = make_plan(wanted(late), actual()).steps
    assert step == CreateReservation(replace(late, starts_at=NOW))


def test_one_made_again_in_the_middle_counts_as_right() -> None:
    begun = replace(BOOKED, starts_at=NOW - 3 * HOUR)
    again = replace(begun, starts_at=NOW - HOUR)
    assert make_plan(wanted(begun), actual(again)).steps == ()


def test_one_moved_into_the_future_by_hand_is_brought_back() -> None:
    begun = replace(BOOKED, starts_at=NOW - HOUR)
    (step,) = make_plan(wanted(begun), actual(replace(begun, starts_at=NOW + HOUR))).steps
    assert isinstance(step, UpdateReservation)
    assert step.reservation.starts_at == NOW


def test_a_correction_of_a_running_one_does_not_touch_its_start() -> None:
    begun = replace(BOOKED, starts_at=NOW - 3 * HOUR)
    shown = replace(begun, starts_at=NOW - HOUR, nodes=("gpu1",))
    (step,) = make_plan(wanted(begun), actual(shown)).steps
    assert isinstance(step, UpdateReservation)
    assert step.reservation == replace(begun, starts_at=NOW - HOUR)
    assert [difference.field for difference in step.differences] == ["nodes"]


def test_every_field_is_compared_and_printed() -> None:
    shown = replace(
        BOOKED,
        starts_at=NOW + 2 * HOUR,
        ends_at=NOW + 9 * HOUR,
        nodes=("gpu1",),
        accounts=("root",),
        gpus_per_node=4,
    )
    plan = make_plan(wanted(BOOKED), actual(shown))
    assert list(plan.lines()) == [
        "- reservation kezek-5: start 2026-11-23T08:00:00Z",
        "+ reservation kezek-5: start 2026-11-23T07:00:00Z",
        "- reservation kezek-5: end 2026-11-23T15:00:00Z",
        "+ reservation kezek-5: end 2026-11-23T11:00:00Z",
        "- reservation kezek-5: nodes gpu1",
        "+ reservation kezek-5: nodes gpu1,gpu2",
        "- reservation kezek-5: accounts root",
        "+ reservation kezek-5: accounts kezek-q3",
        "- reservation kezek-5: GPUs a node 4",
        "+ reservation kezek-5: GPUs a node all",
    ]


def test_a_cluster_that_does_not_tell_gpus_is_not_corrected_for_ever() -> None:
    part = replace(BOOKED, gpus_per_node=4)
    assert make_plan(wanted(part), actual(BOOKED)).steps == ()


def test_limit_and_logins_are_corrected_the_description_is_not() -> None:
    changed = replace(ACCOUNT, description="somebody's words")
    assert make_plan(wanted(), actual(accounts=(changed,))).steps == ()
    changed = replace(ACCOUNT, gpu_minutes=None, logins=frozenset({"aigerim", "mallory"}))
    assert list(make_plan(wanted(), actual(accounts=(changed,))).lines()) == [
        "- account kezek-q3: GPU-minutes unlimited",
        "+ account kezek-q3: GPU-minutes 600",
        "- account kezek-q3: logins aigerim,mallory",
        "+ account kezek-q3: logins aigerim",
    ]


def test_what_is_over_goes_and_what_we_did_not_make_stays() -> None:
    names = ("kezek-77", "kezek-78", "kezek-test", "kezek-007", "kezek-5-old", "maintenance")
    shown = [replace(BOOKED, name=name, nodes=(f"n{name}",)) for name in names]
    accounts = tuple(Account(name, "", None) for name in ("kezek-q9", "kezek-q10", "kezek-quota"))
    plan = make_plan(
        Wanted(retired=frozenset({"kezek-77", "kezek-q9", "kezek-5-old"})), actual(*shown, accounts=accounts)
    )
    assert [step.name for step in plan.steps] == ["kezek-77", "kezek-q9"]
    assert {notice.name for notice in plan.notices if isinstance(notice, NotOurs)} == {
        "kezek-78", "kezek-test", "kezek-007", "kezek-q10", "kezek-quota",
    }  # fmt: skip


def test_a_foreign_one_in_the_way_is_named() -> None:
    foreign = Reservation("maintenance", NOW + 4 * HOUR, NOW + 8 * HOUR, ("gpu2", "gpu3"), ("root",))
    plan = make_plan(wanted(BOOKED), actual(foreign))
    assert plan.notices == (ForeignInTheWay("kezek-5", foreign, ("gpu2",)),)
    assert "! kezek-5: reservation maintenance has gpu2 2026-11-23T10:00:00Z" in "\n".join(plan.lines())


def test_one_of_another_kezek_in_the_way_is_named_too() -> None:
    foreign = replace(BOOKED, name="kezek-4711", nodes=("gpu2",))
    plan = make_plan(wanted(BOOKED), actual(foreign))
    assert plan.notices == (
        ForeignInTheWay("kezek-5", foreign, ("gpu2",)),
        NotOurs("reservation", "kezek-4711"),
    )


def test_a_foreign_one_before_or_beside_is_not_in_the_way() -> None:
    before = Reservation("before", NOW - HOUR, NOW + HOUR, ("gpu1",), ("root",))
    beside = Reservation("beside", NOW, NOW + 9 * HOUR, ("gpu3",), ("root",))
    assert make_plan(wanted(BOOKED), actual(before, beside)).notices == ()


def test_accounts_wait_while_accounting_is_away() -> None:
    plan = make_plan(wanted(BOOKED), actual(accounts=None))
    assert [type(step) for step in plan.steps] == [CreateReservation]
    assert plan.notices == (AccountingAway(),)


NODES = st.lists(st.sampled_from(["gpu1", "gpu2", "gpu3"]), min_size=1, unique=True).map(tuple)
OURS = st.builds(
    Reservation,
    name=st.integers(1, 5).map(lambda number: f"kezek-{number}"),
    starts_at=st.integers(-5, 5).map(lambda hours: NOW + hours * HOUR),
    ends_at=st.integers(6, 9).map(lambda hours: NOW + hours * HOUR),
    nodes=NODES,
    accounts=st.just(("kezek-q3",)),
)


@given(st.lists(OURS, unique_by=lambda one: one.name), st.lists(OURS, unique_by=lambda one: one.name))
def test_what_a_plan_did_leaves_nothing_to_do(should: list[Reservation], shown: list[Reservation]) -> None:
    before = actual(*shown)
    after = dict(before.reservations)
    for step in make_plan(wanted(*should), before).steps:
        if isinstance(step, DeleteReservation):
            del after[step.name]
        elif isinstance(step, CreateReservation | UpdateReservation):
            after[step.name] = step.reservation
    assert make_plan(wanted(*should), actual(*after.values())).steps == ()


def test_shares_are_corrected_only_where_they_are_wanted() -> None:
    there = replace(ACCOUNT, shares=1)
    assert make_plan(wanted(), actual(accounts=(there,))).steps == ()
    more = replace(ACCOUNT, shares=400)
    plan = make_plan(wanted(accounts=(more,)), actual(accounts=(there,)))
    assert list(plan.lines()) == ["- account kezek-q3: shares 1", "+ account kezek-q3: shares 400"]
