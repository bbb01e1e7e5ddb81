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
    "booking_planned": Letter(
        N_("Your GPUs are in the plan: booking %(booking)s"),
        N_(
            "Booked on %(cluster)s: %(shape)s GPUs, %(gpu_hours)s GPU-hours, "
            "at some time from %(earliest_at)s to %(latest_at)s, Astana and Almaty time.\n"
            "By today's plan it begins on %(starts_at)s; that may still change.\n"
            "Next step: none. We write to you when the time is fixed."
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_fixed": Letter(
        N_("The time of booking %(booking)s is fixed: %(starts_at)s"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s is from %(starts_at)s to %(ends_at)s, "
            "Astana and Almaty time: %(gpu_hours)s GPU-hours. From now on this stays.\n"
            "Next step: prepare your jobs. This page shows the command to start them with:"
        ),
        path="/bookings/%(booking)s",
    ),
    "waitlist_offer": Letter(
        N_("GPUs that you wait for are free: from %(starts_at)s"),
        N_(
            "You wait for %(shape)s GPUs on %(cluster)s. They are free from %(starts_at)s to %(ends_at)s, "
            "Astana and Almaty time, and held for you until %(answer_until)s.\n"
            "Next step: say on this page whether you take them. After that they are offered to the next one."
        ),
        path="/waitlist/%(entry)s",
    ),
    "waitlist_passed": Letter(
        N_("The GPUs from %(starts_at)s were offered to others"),
        N_(
            "You were offered %(shape)s GPUs on %(cluster)s from %(starts_at)s and did not take them.\n"
            "You stay on the waitlist, and we write again when there is something else.\n"
            "Next step: none. If you do not need them any more, leave the waitlist on this page."
        ),
        path="/waitlist/%(entry)s",
    ),
    "waitlist_lost": Letter(
        N_("The offer of GPUs from %(starts_at)s is withdrawn"),
        N_(
            "You were offered %(shape)s GPUs on %(cluster)s from %(starts_at)s. They are needed to repair "
            "the plan after nodes were lost, so the offer has ended.\n"
            "You keep your place on the waitlist, and we write again when there is something else.\n"
            "Next step: none."
        ),
        path="/waitlist/%(entry)s",
    ),
    "waitlist_over": Letter(
        N_("You do not wait for GPUs any more"),
        N_(
            "You waited for %(shape)s GPUs on %(cluster)s from %(earliest_at)s to %(latest_at)s.\n"
            "The reason why that is over: %(problem)s\n"
            "Next step: if you still need GPUs, ask for another time on this page."
        ),
        path="/waitlist/%(entry)s",
    ),
    "series_booked": Letter(
        N_("Your series of bookings from %(first)s"),
        N_(
            "Booked on %(cluster)s: %(shape)s GPUs, from %(first)s to %(last)s, Astana and Almaty time.\n"
            "Bookings in the series: %(count)s, %(all_gpu_hours)s GPU-hours in all.\n"
            "Each can be changed or given back by itself. This page shows them:"
        ),
        path="/series/%(series)s",
    ),
    "series_cancelled": Letter(
        N_("Bookings of a series were given back"),
        N_(
            "Bookings of %(shape)s GPUs on %(cluster)s from %(first)s to %(last)s were given back.\n"
            "Bookings that ended by it: %(count)s. In the quota again: %(given_back)s GPU-hours. "
            "The page says who did it and why:"
        ),
        path="/series/%(series)s",
    ),
    "booking_changed": Letter(
        N_("Booking %(booking)s has another time"),
        N_(
            "The booking of %(shape)s GPUs on %(cluster)s was changed.\n"
            "It is now from %(starts_at)s to %(ends_at)s, Astana and Almaty time, "
            "%(gpu_hours)s GPU-hours. The page says who did it:"
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_no_show_warning": Letter(
        N_("Nothing runs in booking %(booking)s"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s began on %(starts_at)s, and no job ran in it.\n"
            "If none runs until %(until)s, the rest of it is given back, so that others can use the GPUs.\n"
            "Next step: start a job in it, or give it back if you do not need it. "
            "This page shows the command to start jobs with:"
        ),
        path="/bookings/%(booking)s",
    ),
    "booking_no_show_released": Letter(
        N_("The rest of booking %(booking)s was given back"),
        N_(
            "No job ran in your booking of %(shape)s GPUs on %(cluster)s from %(starts_at)s, "
            "and it has ended, as we had warned you.\n"
            "%(given_back)s GPU-hours are in the quota again; the time that had passed stays charged.\n"
            "Next step: book again when you are ready."
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
    "booking_moved": Letter(
        N_("Booking %(booking)s was moved to %(to_starts_at)s"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s from %(from_starts_at)s had to be moved.\n"
            "The reason: %(reason)s\n"
            "It is now from %(to_starts_at)s to %(to_ends_at)s, Astana and Almaty time.\n"
            "Until %(answer_until)s you can agree, choose another time or have the hours back. "
            "If you do nothing, the new time stays."
        ),
        path="/moves/%(move)s",
    ),
    "booking_dropped": Letter(
        N_("Booking %(booking)s cannot take place"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s from %(from_starts_at)s to %(from_ends_at)s "
            "cannot take place, and nothing as long is free at another time.\n"
            "The reason: %(reason)s\n"
            "All of its %(gpu_hours)s GPU-hours are in the quota again.\n"
            "Next step: book another time, or fewer GPUs. This page leads there:"
        ),
        path="/moves/%(move)s",
    ),
    "booking_time_free": Letter(
        N_("The old time of booking %(booking)s is free again"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s had to be moved away from %(from_starts_at)s. "
            "That outage does not take place now, or ends earlier.\n"
            "The reason: %(reason)s\n"
            "Your booking stays at %(starts_at)s, Astana and Almaty time, unless you want it back: "
            "until %(answer_until)s you can choose the old time, if nobody else has taken it, or another one."
        ),
        path="/moves/%(move)s",
    ),
    "dropped_time_free": Letter(
        N_("The time of your former booking %(booking)s is free again"),
        N_(
            "Your booking of %(shape)s GPUs on %(cluster)s from %(from_starts_at)s to %(from_ends_at)s "
            "could not take place. The outage that was in its way does not take place now, or ends earlier.\n"
            "The reason: %(reason)s\n"
            "Next step: book it again, if nobody else has taken it. This page leads there:"
        ),
        path="/moves/%(move)s",
    ),
    "repair_proposed": Letter(
        N_("%(count)s bookings lost their nodes on %(cluster)s"),
        N_(
            "These nodes of %(cluster)s do not work: %(nodes)s. Bookings that lose GPUs by it: %(count)s.\n"
            "Kezek works out two ways to mend the plan and has moved nobody yet.\n"
            "Next step: look at both and choose one, or leave it."
        ),
        path="/repairs/%(repair)s",
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
