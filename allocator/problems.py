"""Why a booking is not reserved on its cluster, or its account not right: codes and sentences for people.

Rows keep the code and an English sentence with details; pages show ``sentence(code)`` in one's language.
"""

from collections.abc import Mapping

from config.i18n import N_

FOREIGN = "foreign_in_the_way"
BUSY = "nodes_busy"
CLOCKS = "clocks_apart"
ACCOUNTING = "accounting_away"

UNKNOWN = N_("The cluster reported a problem. We keep trying.")

SENTENCES: Mapping[str, str] = {
    FOREIGN: N_("Another reservation, not made by Kezek, holds these nodes. The operators have to clear it."),
    BUSY: N_("The nodes are still busy. We try again until they are free."),
    CLOCKS: N_("The cluster's clock and ours are too far apart. Nothing is changed until they agree."),
    ACCOUNTING: N_("The cluster's accounting does not answer: usage and limits wait for it."),
    "cluster_conflict": N_("The nodes are still busy. We try again until they are free."),
    "cluster_refused": N_("The cluster refused. The operators have to look at it."),
    "cluster_under_delivered": N_(
        "The cluster gave fewer nodes than were booked. We gave them back and try again."
    ),
    "cluster_in_use": N_("Jobs still use it, so it cannot be changed yet. We try again."),
    "cluster_unreachable": N_("The cluster does not answer. We try again."),
    "cluster_missing": N_("The cluster lost it meanwhile. We make it again."),
    "cluster_exists": N_("The cluster has another one of this name. We try to correct it."),
    "cluster_garbled": N_("The cluster's answer could not be understood. The operators have to look at it."),
}


def sentence(code: str | None) -> str:
    """The msgid for a problem's code; an unknown code still gets a sentence."""
    return SENTENCES.get(code or "", UNKNOWN)
