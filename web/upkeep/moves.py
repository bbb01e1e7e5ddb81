"""Single bookings: an operator pins and moves them; whoever was moved answers here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from sqlalchemy import select
from sqlalchemy.orm import SessionTransaction

from allocator import ledger
from allocator.authorization import Action, may, require
from allocator.booking import booking_queries
from allocator.errors import Invalid, NoCapacity, Stale
from allocator.models import Booking, BookingMove, Node, NodeSlot
from allocator.states import MoveState
from allocator.upkeep import moves
from allocator.upkeep.moves import Placement
from allocator.upkeep.node_names import expand
from config.clock import utcnow
from web import once
from web.errors import translated
from web.formats import gpu_hours, moment
from web.forms import Form
from web.identity import current_actor
from web.policy import policy
from web.session import db, settings
from web.upkeep.outage_forms import ChooseForm, ConfirmForm, PlaceForm, ReasonForm, local, utc

bp = Blueprint("moves", __name__)
LOOK = "look"  # the button that shows what a move would be, and moves nothing
MOVE = "/moves/<int(max=9223372036854775807):move_id>"
BOOKING = "/bookings/<int(max=9223372036854775807):booking_id>"


@dataclass(frozen=True)
class Look:
    """A move as it would be; `told`: whoever booked it hears of it by letter."""

    starts_at: datetime
    ends_at: datetime
    nodes: str
    told: bool = False

    @classmethod
    def of(cls, booking: Booking, told: bool = False) -> Look:
        """A booking just moved, before that is undone."""
        slots = select(NodeSlot.node_id).where(NodeSlot.booking_id == booking.id)
        names = db().scalars(select(Node.name).where(Node.id.in_(slots)))
        return cls(booking.starts_at, booking.ends_at, ", ".join(sorted(names)), told)


@bp.app_template_global("move_is_open")
def _is_open(moved: BookingMove) -> bool:
    """Whether the reader can still answer a move, for the booking's page."""
    return moves.may_answer(current_actor(), moved, utcnow())


@bp.app_template_global("may_place_booking")
def _may_place(booking: Booking) -> bool:
    """Whether the reader may pin or move a booking, and it can still be moved."""
    movable = booking.state in moves.MOVABLE and booking.starts_at > utcnow()
    return movable and may(current_actor(), Action.BOOKING_PLACE, booking)


def _undo(savepoint: SessionTransaction) -> None:
    """As if nothing had been tried: states are written beside the session, so that it has to forget them."""
    savepoint.rollback()
    db().expire_all()


@bp.get(MOVE)
def show(move_id: int) -> str:
    """What was moved and why, and the three answers."""
    return _answer_page(_move(move_id))


def _move(move_id: int) -> BookingMove:
    return moves.find(db(), current_actor(), move_id)


def _answer_page(
    moved: BookingMove, form: ChooseForm | None = None, problem: str = "", look: Look | None = None
) -> str:
    actor, now, booking = current_actor(), utcnow(), moved.booking
    open_ = moves.may_answer(actor, moved, now)
    starts: list[datetime] = []
    if open_:
        starts = moves.free_starts(db(), moved, rules=policy().bookings, now=now)
    if form is None:
        form = ChooseForm(formdata=None)
        form.starts_at.data = local(booking.starts_at, settings().zone)
    form.version.data, form.version.raw_data = booking.version, None
    return render_template(
        "moves/show.html",
        moved=moved,
        booking=booking,
        form=form,
        look=look,
        open=open_,
        problem=problem,
        starts=[(start, local(start, settings().zone).strftime("%Y-%m-%dT%H:%M")) for start in starts],
        lost=moved.to_starts_at is None,
        told=moved.state is MoveState.TOLD,
        available=ledger.balance(db(), booking.quota).available,
        may_book=may(actor, Action.BOOKING_CREATE, booking.quota),
    )


@bp.post(f"{MOVE}/accept")
@once.guard
def accept(move_id: int) -> ResponseReturnValue:
    """The new time is fine."""
    moved = _move(move_id)
    moves.accept(db(), current_actor(), moved, now=utcnow())
    flash(gettext("Thank you: the new time stays."), "success")
    return redirect(url_for("bookings.show", booking_id=moved.booking_id), 303)


@bp.post(f"{MOVE}/choose")
@once.guard
def choose(move_id: int) -> ResponseReturnValue:
    """Another time of one's own choice: first as it would be, then done."""
    moved = _move(move_id)
    require(current_actor(), Action.BOOKING_ANSWER, moved.booking)
    form = ChooseForm()
    if not form.validate_on_submit():
        return _answer_page(moved, form), 422
    start, look = utc(form.starts_at.data, settings().zone), None
    try:
        with db().begin_nested() as undone:
            booking = moves.choose(
                db(),
                current_actor(),
                moved,
                start,
                expected_version=form.version.data or 0,
                rules=policy().bookings,
                now=utcnow(),
            )
            if LOOK in request.form:
                look = Look.of(booking)
                _undo(undone)
    except Invalid as error:
        form.show(error)
        return _answer_page(moved, form), 422
    except (NoCapacity, Stale) as error:
        return _answer_page(moved, form, translated(error)), 409
    if look is not None:
        return _answer_page(moved, form, look=look)
    flash(gettext("The booking now begins on %(start)s.", start=moment(start)), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


@bp.route(f"{MOVE}/refund", methods=["GET", "POST"])
@once.guard
def refund(move_id: int) -> ResponseReturnValue:
    """Have all of it back, after a question."""
    moved = _move(move_id)
    require(current_actor(), Action.BOOKING_ANSWER, moved.booking)
    form = ConfirmForm() if request.method == "POST" else ConfirmForm(formdata=None)
    if request.method == "GET":
        form.version.data = moved.booking.version
        return render_template("moves/refund.html", moved=moved, booking=moved.booking, form=form)
    if not form.validate_on_submit():
        return render_template("moves/refund.html", moved=moved, booking=moved.booking, form=form), 422
    given_back = moves.refund(
        db(), current_actor(), moved, expected_version=form.version.data or 0, now=utcnow()
    )
    flash(gettext("%(hours)s GPU-hours were given back.", hours=gpu_hours(given_back)), "success")
    return redirect(url_for("bookings.show", booking_id=moved.booking_id), 303)


def _booking(booking_id: int) -> Booking:
    booking = booking_queries.find_booking(db(), current_actor(), booking_id)
    require(current_actor(), Action.BOOKING_PLACE, booking)
    return booking


def _page(template: str, booking: Booking, form: Form, problem: str = "", look: Look | None = None) -> str:
    return render_template(f"moves/{template}.html", booking=booking, form=form, problem=problem, look=look)


@bp.route(f"{BOOKING}/pin", methods=["GET", "POST"])
@once.guard
def pin(booking_id: int) -> ResponseReturnValue:
    """Keep machines from moving it, with a reason."""
    booking = _booking(booking_id)
    form = ReasonForm() if request.method == "POST" else ReasonForm(formdata=None)
    if request.method == "GET":
        form.version.data = booking.version
        return _page("pin", booking, form)
    if not form.validate_on_submit():
        return _page("pin", booking, form), 422
    try:
        moves.pin(
            db(),
            current_actor(),
            booking,
            reason=form.reason.data or "",
            expected_version=form.version.data or 0,
            now=utcnow(),
        )
    except Invalid as error:
        form.show(error)
        return _page("pin", booking, form), 422
    flash(gettext("The booking is pinned: no machine moves it."), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


@bp.post(f"{BOOKING}/unpin")
@once.guard
def unpin(booking_id: int) -> ResponseReturnValue:
    """Let machines move it again."""
    booking = _booking(booking_id)
    form = ConfirmForm()
    version = form.version.data if form.validate_on_submit() else 0
    moves.unpin(db(), current_actor(), booking, expected_version=version or 0, now=utcnow())
    flash(gettext("The booking is not pinned any more."), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)


@bp.route(f"{BOOKING}/place", methods=["GET", "POST"])
@once.guard
def place(booking_id: int) -> ResponseReturnValue:
    """Move it by hand, with a reason: first as it would be, then done."""
    booking = _booking(booking_id)
    form = PlaceForm() if request.method == "POST" else PlaceForm(formdata=None)
    if request.method == "GET":
        form.version.data = booking.version
        form.starts_at.data = local(booking.starts_at, settings().zone)
        return _page("place", booking, form)
    if not form.validate_on_submit():
        return _page("place", booking, form), 422
    wanted = Placement(utc(form.starts_at.data, settings().zone), tuple(expand(form.nodes.data or "")))
    look = None
    try:
        with db().begin_nested() as undone:
            moved = moves.by_hand(
                db(),
                current_actor(),
                booking,
                wanted,
                reason=form.reason.data or "",
                expected_version=form.version.data or 0,
                rules=policy().bookings,
                now=utcnow(),
            )
            if LOOK in request.form:
                look = Look.of(booking, told=moved is not None)
                _undo(undone)
    except Invalid as error:
        form.show(error)
        return _page("place", booking, form), 422
    except NoCapacity as error:
        return _page("place", booking, form, translated(error)), 409
    if look is not None:
        return _page("place", booking, form, look=look)
    flash(gettext("Moved; a letter is on its way.") if moved else gettext("It has other nodes."), "success")
    return redirect(url_for("bookings.show", booking_id=booking.id), 303)
