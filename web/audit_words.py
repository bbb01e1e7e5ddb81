"""Events in words, for whoever reads the record: what it is about, and what happened to it.

What one's own timelines say of the same event is said here too. An event without a word shows as it is.
"""

from __future__ import annotations

from flask_babel import gettext

from config.i18n import N_
from web.applying.application_words import WHAT as OF_APPLICATIONS
from web.booking.booking_words import EVENTS as OF_BOOKINGS
from web.upkeep.outage_words import EVENTS as OF_OUTAGES

SUBJECTS = {
    "application": N_("Application"),
    "booking": N_("Booking"),
    "booking_move": N_("Answer to a move"),
    "booking_series": N_("Series"),
    "calendar_feed": N_("Calendar address"),
    "cluster": N_("Cluster"),
    "grant": N_("Grant"),
    "node": N_("Node"),
    "organisation": N_("Organisation"),
    "outage": N_("Outage"),
    "period": N_("Period"),
    "person": N_("Person"),
    "plan_run": N_("Plan"),
    "policy_version": N_("Version of the rules"),
    "proposal": N_("Proposal"),
    "quota": N_("Quota"),
    "reclaim": N_("Unused hours"),
    "repair": N_("Repair"),
    "reservation": N_("Reservation"),
    "sign_in_session": N_("Sign-in"),
    "waitlist_entry": N_("Place on the waitlist"),
}
OTHERS = {
    "booking_move.told": N_("Told anew"),
    "booking_move.reopened": N_("Asked once more"),
    "booking_move.accepted": N_("Accepted"),
    "booking_move.changed": N_("Another time was chosen"),
    "booking_move.refunded": N_("Hours given back"),
    "booking_series.booked": N_("Booked"),
    "booking_series.given_back": N_("Given back"),
    "calendar_feed.created": N_("Created"),
    "calendar_feed.revoked": N_("Revoked"),
    "cluster.declared": N_("Set up in the settings"),
    "cluster.nodes_joined": N_("Nodes were seen for the first time"),
    "cluster.rebound": N_("Bookings were given other nodes"),
    "cluster.renamed": N_("Renamed"),
    "grant.returned": N_("Hours given back"),
    "grant.reclaimed": N_("Unused hours were taken back"),
    "grant.redivided": N_("More hours by dividing again"),
    "grant.reserve": N_("Hours from the reserve"),
    "node.up": N_("Works"),
    "node.down": N_("Down"),
    "node.drained": N_("Drained"),
    "node.expected": N_("Announced"),
    "node.gone": N_("Gone"),
    "node.changed": N_("Its hardware changed"),
    "node.joins": N_("The day it joins was set"),
    "node.leaves": N_("The day it leaves was set"),
    "node.stays": N_("It does not leave after all"),
    "organisation.created": N_("Created"),
    "organisation.edited": N_("Changed"),
    "organisation.member_added": N_("A member was added"),
    "organisation.member_changed": N_("A member's rights changed"),
    "organisation.member_removed": N_("A member was removed"),
    "period.opened": N_("Opened"),
    "period.collected": N_("Claims were collected"),
    "period.reminded": N_("Operators were reminded"),
    "period.proposed": N_("Proposed"),
    "period.published": N_("Published"),
    "period.granted": N_("Hours were granted"),
    "period.closed": N_("Closed"),
    "period.discarded": N_("Discarded"),
    "person.created": N_("Created"),
    "person.registered": N_("Registered"),
    "person.confirmed": N_("Address confirmed"),
    "person.edited": N_("Changed"),
    "person.disabled": N_("Disabled"),
    "person.enabled": N_("Enabled"),
    "person.cluster_login_set": N_("Name on the cluster was set"),
    "person.password_changed": N_("Password changed"),
    "person.password_reset": N_("Password set anew"),
    "person.reset_requested": N_("Asked for a new password"),
    "person.role_granted": N_("Was given a role"),
    "person.role_revoked": N_("Lost a role"),
    "person.sessions_ended": N_("Signed out everywhere"),
    "plan_run.made": N_("Made"),
    "policy_version.recorded": N_("Recorded"),
    "proposal.adjusted": N_("Adjusted by hand"),
    "proposal.kept": N_("Kept"),
    "proposal.published": N_("Published"),
    "quota.waits": N_("Waits for the next period"),
    "reclaim.warned": N_("Warned"),
    "reclaim.proposed": N_("Proposed to be taken back"),
    "reclaim.confirmed": N_("Taken back"),
    "reclaim.dropped": N_("Not taken back"),
    "sign_in_session.opened": N_("Signed in"),
    "sign_in_session.ended": N_("Signed out"),
    "waitlist_entry.joined": N_("Joined"),
    "waitlist_entry.waiting": N_("Waits on"),
    "waitlist_entry.offered": N_("Offered"),
    "waitlist_entry.skipped": N_("Passed over"),
    "waitlist_entry.accepted": N_("Accepted"),
    "waitlist_entry.lapsed": N_("Lapsed"),
    "waitlist_entry.withdrawn": N_("Withdrawn"),
}
WHAT = {kind: label for kind, (label, _) in {**OF_APPLICATIONS, **OF_BOOKINGS, **OF_OUTAGES}.items()} | OTHERS


def kind_text(kind: str) -> str:
    """`Booking: Made longer`."""
    subject, label = kind.partition(".")[0], WHAT.get(kind)
    return f"{subject_text(subject)}: {gettext(label)}" if label else kind


def subject_text(subject_type: str) -> str:
    """What an event is about, as a word."""
    label = SUBJECTS.get(subject_type)
    return str(gettext(label)) if label else subject_type


def subjects() -> list[tuple[str, str]]:
    """Everything that events may be about, in the order of the reader's words."""
    return sorted(((code, subject_text(code)) for code in SUBJECTS), key=lambda pair: pair[1])
