"""The menu: one list, in the order of the page. A module of views adds its own line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, current_app, request, url_for
from flask_babel import gettext

from allocator.actors import Actor, Role
from config.i18n import N_
from web.identity import current_actor


def everybody(_actor: Actor) -> bool:
    """Shown to visitors too."""
    return True


def people(actor: Actor) -> bool:
    """Shown to whoever has signed in."""
    return actor.is_signed_in


def staff(*roles: Role) -> Callable[[Actor], bool]:
    """Shown to people with one of these roles. It only tidies the menu.

    What a person may do, the domain decides.
    """
    return lambda actor: not actor.roles.isdisjoint(roles)


@dataclass(frozen=True)
class Item:
    """One line of the menu; `label` is a msgid, `also` other blueprints whose pages belong to it."""

    endpoint: str
    label: str
    shown: Callable[[Actor], bool] = everybody
    also: tuple[str, ...] = ()

    @property
    def for_everybody(self) -> bool:
        """Whether it needs no role."""
        return self.shown in (everybody, people)


ITEMS: list[Item] = [
    Item("applications.index", N_("Applications"), people),
    Item("quotas.index", N_("Quotas"), people, also=("shares",)),
    Item("bookings.index", N_("Bookings"), people),
    Item("calendar.show", N_("Calendar"), people),
    Item("clusters.index", N_("Clusters")),
    Item("fairness.index", N_("Fairness")),
    Item("organisations.index", N_("Organisations"), people),
    Item("review.queue", N_("To decide"), staff(Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR)),
    Item(
        "periods.index",
        N_("Periods"),
        staff(Role.OPERATOR, Role.COUNCIL_MEMBER, Role.AUDITOR, Role.ADMINISTRATOR),
        also=("proposals", "grants"),
    ),
    Item("outages.index", N_("Outages"), staff(Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR)),
    Item("people.index", N_("People"), staff(Role.ADMINISTRATOR)),
    Item("audit.index", N_("Events"), staff(Role.AUDITOR, Role.ADMINISTRATOR)),
]


@dataclass(frozen=True)
class Link:
    """A line of the menu as this reader sees it."""

    label: str
    url: str
    here: bool
    for_staff: bool = False


def has_endpoint(endpoint: str) -> bool:
    """Whether a page exists in this installation: the menu must not break over a module that is not there."""
    return endpoint in current_app.view_functions


def menu() -> list[Link]:
    """The lines that this reader may use; the one they are in is marked."""
    actor = current_actor()
    return [
        Link(gettext(item.label), url_for(item.endpoint), _is_here(item), not item.for_everybody)
        for item in ITEMS
        if has_endpoint(item.endpoint) and item.shown(actor)
    ]


def duties() -> list[Link]:
    """The lines that only a role brings: what staff come for."""
    actor = current_actor()
    return [
        Link(gettext(item.label), url_for(item.endpoint), False)
        for item in ITEMS
        if not item.for_everybody and has_endpoint(item.endpoint) and item.shown(actor)
    ]


def _is_here(item: Item) -> bool:
    """Whether this page belongs to the line: the page itself, or another of its blueprints."""
    blueprint = item.endpoint.partition(".")[0]
    lines = [other.endpoint for other in ITEMS if other.endpoint.partition(".")[0] == blueprint]
    if request.endpoint in lines:
        return request.endpoint == item.endpoint
    return request.blueprint in item.also or (blueprint == request.blueprint and item.endpoint == lines[0])


def init_app(app: Flask) -> None:
    """Let the base template draw the menu."""
    app.add_template_global(menu)
    app.add_template_global(has_endpoint)
