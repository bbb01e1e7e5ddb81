"""The letters that people get by mail: plain, short, in the reader's language (R-31)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.i18n import N_, translate


@dataclass(frozen=True)
class Letter:
    """Msgids with named placeholders; ``path`` is where the letter leads, below the site's address."""

    subject: str
    body: str
    path: str = ""
    greets: bool = True


LETTERS: Mapping[str, Letter] = {
    "confirm_email": Letter(
        N_("Confirm your e-mail address"),
        N_(
            "Somebody, probably you, registered at Kezek with this address.\n"
            "To confirm it, open this link within %(hours)s hours. If it was not you, do nothing."
        ),
        path="/account/confirm/%(token)s",
        # the name is whatever somebody typed beside anybody's address: no text of theirs goes there from us
        greets=False,
    ),
    "already_registered": Letter(
        N_("You have an account at Kezek already"),
        N_(
            "Somebody, probably you, tried to register at Kezek with this address, which has an account.\n"
            "Sign in with it. If you have forgotten the password, ask for a new one on this page."
        ),
        path="/account/forgotten",
    ),
    "reset_password": Letter(
        N_("A new password for Kezek"),
        N_(
            "Somebody, probably you, asked for a new password.\n"
            "To choose one, open this link within %(minutes)s minutes. If it was not you, do nothing: "
            "your password stays as it is."
        ),
        path="/account/reset/%(token)s",
    ),
    "password_changed": Letter(
        N_("Your password at Kezek was changed"),
        N_(
            "The password of your account was changed, and it was signed out everywhere else.\n"
            "If it was not you, ask for a new password on this page at once, and write to the operator."
        ),
        path="/account/forgotten",
    ),
    "membership_added": Letter(
        N_("You were added to %(organisation)s"),
        N_("You now belong to %(organisation)s at Kezek. If this is a mistake, you can leave it here."),
        path="/organisations",
    ),
    "application_submitted": Letter(
        N_("Your application was received: %(title)s"),
        N_(
            "We have received your application “%(title)s” for %(hours)s GPU-hours.\n"
            "Next step: an operator considers it in the order of receipt. You need to do nothing; "
            "we write to you when it is decided."
        ),
        path="/applications/%(id)s",
    ),
    "application_approved": Letter(
        N_("Your application is approved: %(title)s"),
        N_(
            "Your application “%(title)s” is approved: you have a quota of %(hours)s GPU-hours.\n"
            "Next step: book the GPUs for the days and hours when you will work."
        ),
        path="/applications/%(id)s",
    ),
    "application_reduced": Letter(
        N_("Your application is approved for fewer hours: %(title)s"),
        N_(
            "Your application “%(title)s” is approved for %(hours)s GPU-hours "
            "of the %(asked)s that you asked for.\n"
            "The reason: %(reason)s\n"
            "Next step: book the GPUs for the days and hours when you will work."
        ),
        path="/applications/%(id)s",
    ),
    "application_refused": Letter(
        N_("Your application is refused: %(title)s"),
        N_(
            "Your application “%(title)s” is refused.\n"
            "The reason: %(reason)s\n"
            "Next step: if the reason can be met, apply again; your answers stay on the application's page."
        ),
        path="/applications/%(id)s",
    ),
    "quota_joined": Letter(
        N_("You may use a quota: %(title)s"),
        N_("You are in the team of “%(title)s” and may now book and use its GPU-hours."),
        path="/quotas/%(id)s",
    ),
    "quota_expired": Letter(
        N_("A quota has ended: %(title)s"),
        N_(
            "The time of your quota of %(hours)s GPU-hours for “%(title)s” is over: "
            "nothing more can be booked from it.\n"
            "Next step: if you need more hours, apply again."
        ),
        path="/quotas/%(id)s",
    ),
    "period_opened": Letter(
        N_("A period is open: %(cluster)s %(gpu_type)s from %(starts_at)s"),
        N_(
            "The period from %(starts_at)s to %(ends_at)s of %(cluster)s %(gpu_type)s "
            "was opened as a draft by itself. Claims so far: %(claims)s.\n"
            "Nothing is divided yet, and nobody is bound by it.\n"
            "Next step: check its capacity, propose by %(propose_by)s; "
            "another operator publishes by %(publish_by)s."
        ),
        path="/periods/%(id)s",
    ),
    "period_proposal_due": Letter(
        N_("A proposal is due: %(cluster)s %(gpu_type)s from %(starts_at)s"),
        N_(
            "The period from %(starts_at)s to %(ends_at)s of %(cluster)s %(gpu_type)s is still a draft. "
            "Claims so far: %(claims)s.\n"
            "Next step: propose; another operator publishes by %(publish_by)s."
        ),
        path="/periods/%(id)s",
    ),
    "period_publication_due": Letter(
        N_("A publication is due: %(cluster)s %(gpu_type)s from %(starts_at)s"),
        N_(
            "The period from %(starts_at)s to %(ends_at)s of %(cluster)s %(gpu_type)s is not published. "
            "Without that nobody has a grant in it.\n"
            "Next step: propose if that is still to be done; "
            "somebody who neither proposed nor adjusted it publishes."
        ),
        path="/periods/%(id)s",
    ),
    "grant_published": Letter(
        N_("GPU-hours from %(starts_at)s to %(ends_at)s: %(title)s"),
        N_(
            "The capacity from %(starts_at)s to %(ends_at)s is divided. “%(title)s” gets %(hours)s GPU-hours "
            "of the %(asked)s that it asked for.\n"
            "The page of the quota explains the number, with everything that it was computed from.\n"
            "Next step: book the GPUs. What you will not need can be given back there, and earns credit."
        ),
        path="/quotas/%(id)s",
    ),
    "grant_adjusted": Letter(
        N_("GPU-hours from %(starts_at)s to %(ends_at)s: %(title)s"),
        N_(
            "The capacity from %(starts_at)s to %(ends_at)s is divided. “%(title)s” gets %(hours)s GPU-hours "
            "of the %(asked)s that it asked for; by the rules alone it would have been %(before)s.\n"
            "An operator set this, for this reason: %(reason)s\n"
            "Next step: book the GPUs. What you will not need can be given back on the quota's page, "
            "and earns credit."
        ),
        path="/quotas/%(id)s",
    ),
    "grant_none": Letter(
        N_("No GPU-hours from %(starts_at)s to %(ends_at)s: %(title)s"),
        N_(
            "The capacity from %(starts_at)s to %(ends_at)s is divided. “%(title)s” gets none of the "
            "%(asked)s GPU-hours that it asked for. They stay in your quota for later periods.\n"
            "The page of the quota says why, and what would have changed it."
        ),
        path="/quotas/%(id)s",
    ),
    "quota_waits": Letter(
        N_("Approved after the division: %(title)s"),
        N_(
            "The capacity from %(starts_at)s to %(ends_at)s was divided before “%(title)s” was approved, "
            "so that it has no hours there yet.\n"
            "It takes part in the next division by itself; days from %(next)s on can be booked.\n"
            "If an operator gives it hours of the reserve before that, we write to you at once. "
            "You need to do nothing."
        ),
        path="/quotas/%(id)s",
    ),
    "grant_raised": Letter(
        N_("%(more)s more GPU-hours: %(title)s"),
        N_(
            "From %(starts_at)s to %(ends_at)s “%(title)s” may use %(more)s GPU-hours more: "
            "%(hours)s in all.\n"
            "Next step: book the GPUs."
        ),
        path="/quotas/%(id)s",
    ),
    "grant_warning": Letter(
        N_("GPU-hours that you may lose: %(title)s"),
        N_(
            "By its plan “%(title)s” would have used %(planned)s GPU-hours of its grant "
            "from %(starts_at)s to %(ends_at)s by now; used or booked are %(used)s.\n"
            "If that stays so, %(take_back)s GPU-hours can be proposed for taking back after %(until)s.\n"
            "Next step: book what you need until then, or give back what you will not: that earns credit."
        ),
        path="/quotas/%(id)s",
    ),
    "grant_reclaimed": Letter(
        N_("%(back)s GPU-hours were taken back: %(title)s"),
        N_(
            "An operator has taken back %(back)s GPU-hours that “%(title)s” neither used nor booked "
            "from %(starts_at)s to %(ends_at)s, as we had warned you; %(hours)s remain in all.\n"
            "They go to others who asked for more. Bookings stay as they are."
        ),
        path="/quotas/%(id)s",
    ),
    "booking_confirmed": Letter(
        N_("Your GPUs are booked: booking %(booking)s"),
        N_(
            "Booked on %(cluster)s: %(shape)s GPUs, %(gpu_hours)s GPU-hours.\n"
            "From %(starts_at)s to %(ends_at)s, Astana and Almaty time.\n"
            "The cluster reserves them by itself. "
            "This page shows how far it is, and the command to start jobs with:"
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_cancelled": Letter(
        N_("Booking %(booking)s was given back"),
        N_(
            "The booking of %(shape)s GPUs on %(cluster)s from %(starts_at)s was given back and ends.\n"
            "%(given_back)s GPU-hours are in the quota again. The page says who did it and why:"
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_reserved": Letter(
        N_("Your GPUs are reserved: booking %(booking)s"),
        N_(
            "The cluster %(cluster)s now holds %(shape)s GPUs for you "
            "from %(starts_at)s to %(ends_at)s, Astana and Almaty time.\n"
            "Start jobs with: sbatch --account=%(account)s --qos=%(account)s --reservation=%(reservation)s"
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_blocked": Letter(
        N_("Booking %(booking)s is not reserved yet"),
        N_(
            "The cluster %(cluster)s does not accept the reservation of %(shape)s GPUs from %(starts_at)s.\n"
            "It says: %(problem)s\n"
            "We keep trying, and the operators see it too. You need not do anything. "
            "This page shows how it stands:"
        ),
        path="/bookings/%(booking)s",
    ),
}


def render(letter: str, lang: str, name: str, details: Mapping[str, Any], base_url: str) -> tuple[str, str]:
    """Subject and text of ``letter`` for a reader called ``name``."""
    template = LETTERS[letter]
    if "problem" in details:
        # Queued as a msgid (allocator.problems): only now is the reader's language known.
        details = {**details, "problem": translate(lang, str(details["problem"]))}
    parts = [translate(lang, N_("Hello, %(name)s."), {"name": name})] if template.greets else []
    parts.append(translate(lang, template.body, details))
    if template.path:
        parts.append(base_url.rstrip("/") + template.path % details)
    parts.append(translate(lang, N_("Kezek, the national supercomputer's queue.")))
    return translate(lang, template.subject, details), "\n\n".join(parts) + "\n"
