"""`kezek doctor`: is everything that Kezek needs there, and what to do about what is not."""

from __future__ import annotations

import os
import smtplib
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import click

from config.errors import KezekError
from config.settings import Settings, SettingsError, load_settings
from config.transport import FileTransport, SmtpTransport

GROUP = "kezek.checks"
MAIL_TIMEOUT_SECONDS = 10
# What fails first explains what fails below.
ORDER = ("settings", "policy", "database", "cluster", "mail")


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do when it is not as it should be."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


Checker = Callable[[Settings], Iterable[Check]]


def run_checks(settings: Settings) -> list[Check]:
    """Every installed part's checks, in a stable order."""
    known = {name: place for place, name in enumerate(ORDER)}
    found = sorted(
        entry_points(group=GROUP), key=lambda entry: (known.get(entry.name, len(known)), entry.name)
    )
    return [check for entry in found for check in _run(entry, settings)]


def _run(entry: EntryPoint, settings: Settings) -> list[Check]:
    try:
        checker: Checker = entry.load()
    except (ImportError, AttributeError) as error:
        return [Check(entry.name, False, f"cannot be loaded: {error}", "Install Kezek with all its parts.")]
    try:
        return list(checker(settings))
    except (KezekError, OSError) as error:
        return [Check(entry.name, False, str(error), "Put this right and run `kezek doctor` again.")]


def check_settings(settings: Settings) -> Iterator[Check]:
    """The settings were read, the data folder takes files, and production is encrypted."""
    yield Check("settings", True, "demonstration" if settings.demo else "production")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
    except OSError as error:
        advice = f"Give the user that runs Kezek (uid {os.geteuid()}) a writable data_dir."
        yield Check("data folder", False, f"{settings.data_dir}: {error.strerror}", advice)
    else:
        yield Check("data folder", True, str(settings.data_dir))
    if not settings.demo and settings.base_url.startswith("http://"):
        yield Check(
            "address",
            settings.host in {"127.0.0.1", "::1", "localhost"},
            f"{settings.base_url} is not encrypted",
            "Put a proxy with TLS in front and set base_url to its https address.",
        )


def check_mail(settings: Settings) -> Iterator[Check]:
    """Mail can be handed over; nothing is sent."""
    transport = settings.mail_transport
    if isinstance(transport, FileTransport):
        yield _check_folder(transport, settings.demo)
        return
    try:
        greeting = _greet(transport)
    except (OSError, smtplib.SMTPException) as error:
        advice = "Check server, port, user and password in the setting mail, and the firewall."
        yield Check("mail", False, f"{transport.host}:{transport.port}: {_reason(error)}", advice)
    else:
        yield Check("mail", True, f"{transport.host}:{transport.port} {greeting}")


def _check_folder(transport: FileTransport, demo: bool) -> Check:
    detail = f"written to {transport.directory}, sent to nobody"
    # A folder is right for a demonstration; a site whose people wait for mail must know.
    return Check(
        "mail", demo, detail, "Set mail to your SMTP server, for example smtp+starttls://mail.example.org"
    )


def _greet(transport: SmtpTransport) -> str:
    context = ssl.create_default_context()
    if transport.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            transport.host, transport.port, timeout=MAIL_TIMEOUT_SECONDS, context=context
        )
    else:
        client = smtplib.SMTP(transport.host, transport.port, timeout=MAIL_TIMEOUT_SECONDS)
    with client:
        if transport.security == "starttls":
            client.starttls(context=context)
        if transport.user:
            client.login(transport.user, transport.password)
            return "accepts our sign-in"
        client.noop()
        return "answers"


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        # The server's words only: smtplib's own text may repeat what we sent.
        return f"answered {error.smtp_code}"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _print(checks: Iterable[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {check.name:<{width}}  {check.detail}")
        if not check.ok and check.advice:
            click.echo(f"      {'':<{width}}  → {check.advice}")


@click.command(help="Check settings, database, cluster, clock and mail.")
def doctor() -> None:
    """Print one line a check; exit 1 if one fails."""
    try:
        settings = load_settings()
    except SettingsError as error:
        _print([Check("settings", False, fault, "Put this setting right.") for fault in error.faults])
        sys.exit(SettingsError.exit_code)
    checks = run_checks(settings)
    _print(checks)
    failed = sum(not check.ok for check in checks)
    if failed:
        click.echo(f"{failed} of {len(checks)} checks failed.")
        sys.exit(1)
