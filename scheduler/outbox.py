"""Sending the letters that wait in the outbox: at least once each, never while a transaction is open.

A claimed letter is due again after its lease: whoever dies between claiming and sending loses nothing.
A letter sent twice has the same Message-ID both times.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import select, update

from allocator.db import Database
from allocator.letters import render
from allocator.models import OutboxItem, OutboxState, Person
from config.settings import Settings
from config.transport import FileTransport, SmtpTransport
from scheduler.apply import GoOn, always
from scheduler.mail_format import POLICY, readable

log = structlog.get_logger(__name__)

BATCH = 50
LEASE = timedelta(minutes=5)
TIMEOUT_SECONDS = 20
# 30 s, 1 min, 2 min … 6 h: a server that is away for two days loses nobody's letter.
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
MOST_TRIES = 18
# SMTP's replies from 500 on are final.
PERMANENT = 500
LONGEST_PROBLEM = 500
# Letters carry links that let one in: once sent or given up, the database forgets them.
SECRET_DETAILS = frozenset({"token"})


class Undeliverable(Exception):
    """The server refused this letter for good, or it cannot even be written."""


class Sender(Protocol):
    """Hands over one message; raises Undeliverable, or OSError and SMTPException worth another try."""

    def send(self, item_id: int, message: EmailMessage) -> None: ...


@dataclass(frozen=True)
class Claimed:
    """A letter and its reader, detached from any session."""

    id: int
    letter: str
    details: dict[str, Any]
    tries: int
    email: str
    name: str
    locale: str
    created_at: datetime


def send_due(database: Database, settings: Settings, now: datetime, go_on: GoOn = always) -> dict[str, int]:
    """Send what is due, in batches; returns how many were sent, put off and given up."""
    counts = {"sent": 0, "put_off": 0, "failed": 0}
    while go_on() and (batch := claim(database, now)):
        try:
            with _open(settings) as sender:
                for item in batch:
                    if not go_on():
                        # The rest is due again when our lease is over.
                        return counts
                    counts[_send(database, settings, sender, item, now)] += 1
        except (OSError, smtplib.SMTPException) as error:
            # The server is away: it was asked once for all of them.
            for item in batch:
                counts[_put_off(database, item, _reason(error), now)] += 1
            break
    return counts


def claim(database: Database, now: datetime) -> list[Claimed]:
    """Take letters that are due out of others' reach for the length of the lease."""
    with database.transaction() as session:
        rows = session.execute(
            select(OutboxItem, Person)
            .join(Person, Person.id == OutboxItem.recipient_id)
            .where(OutboxItem.state == OutboxState.WAITING, OutboxItem.due_at <= now)
            .order_by(OutboxItem.due_at, OutboxItem.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, of=OutboxItem)
        ).all()
        claimed = []
        for item, person in rows:
            if item.tries >= MOST_TRIES:
                # Whoever tried it never came back to say how it went: it must not stop the others again.
                item.state, item.problem = OutboxState.FAILED, item.problem or "no try came to an end"
                item.details = _without_secrets(item.details)
                continue
            item.due_at = now + LEASE
            item.tries += 1
            claimed.append(
                Claimed(
                    item.id,
                    item.letter,
                    dict(item.details),
                    item.tries,
                    person.email,
                    person.name,
                    person.locale,
                    item.created_at,
                )
            )
        return claimed


def _send(database: Database, settings: Settings, sender: Sender, item: Claimed, now: datetime) -> str:
    try:
        sender.send(item.id, compose(item, settings))
    except Undeliverable as error:
        return _give_up(database, item, str(error), now)
    except (OSError, smtplib.SMTPException) as error:
        return _put_off(database, item, _reason(error), now)
    details = _without_secrets(item.details)
    told = {"state": OutboxState.SENT, "sent_at": now, "problem": None, "details": details}
    _note(database, item, told)
    return "sent"


def _put_off(database: Database, item: Claimed, problem: str, now: datetime) -> str:
    if item.tries >= MOST_TRIES:
        return _give_up(database, item, problem, now)
    wait = min(FIRST_WAIT * 2 ** (item.tries - 1), LONGEST_WAIT)
    _note(database, item, {"due_at": now + wait, "problem": problem[:LONGEST_PROBLEM]})
    return "put_off"


def _give_up(database: Database, item: Claimed, problem: str, now: datetime) -> str:
    log.warning("letter given up", letter=item.letter, outbox=item.id, tries=item.tries, problem=problem)
    problem = problem[:LONGEST_PROBLEM]
    _note(
        database,
        item,
        {"state": OutboxState.FAILED, "problem": problem, "details": _without_secrets(item.details)},
    )
    return "failed"


def _without_secrets(details: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if key not in SECRET_DETAILS}


def _note(database: Database, item: Claimed, values: dict[str, Any]) -> None:
    with database.transaction() as session:
        session.execute(
            update(OutboxItem)
            # Ours only while nobody else has claimed it after our lease ran out.
            .where(OutboxItem.id == item.id, OutboxItem.tries == item.tries)
            .values(values)
        )


def compose(item: Claimed, settings: Settings) -> EmailMessage:
    """The letter as a message; raises Undeliverable when it cannot be written: a value is missing."""
    try:
        subject, body = render(item.letter, item.locale, item.name, item.details, settings.base_url)
        message = EmailMessage(policy=POLICY)
        message["Subject"] = " ".join(subject.split())
        message["From"] = settings.mail_from
        user, _, domain = item.email.rpartition("@")
        message["To"] = Address(item.name, user, domain)
        message.set_content(body)
        message.as_bytes()  # what cannot be sent shows here, and not in the middle of a conversation
    except (LookupError, ValueError, TypeError) as error:
        raise Undeliverable(f"the letter {item.letter} cannot be written: {error!r}") from error
    sender_domain = parseaddr(settings.mail_from)[1].rpartition("@")[2] or "localhost"
    # The same for every try, so that a letter sent twice is recognised as one.
    message["Message-ID"] = f"<kezek-{item.id}-{int(item.created_at.timestamp())}@{sender_domain}>"
    message["Date"] = item.created_at
    message["Auto-Submitted"] = "auto-generated"
    return message


@dataclass(frozen=True)
class FolderSender:
    """Writes messages as .eml files (demonstration, tests)."""

    folder: Path

    def send(self, item_id: int, message: EmailMessage) -> None:
        path = self.folder / f"{item_id:06}.eml"
        part = path.with_suffix(".part")
        part.write_bytes(readable(message))
        # A reader never sees half a letter.
        part.replace(path)


@dataclass(frozen=True)
class SmtpSender:
    """Hands messages over one open connection."""

    client: smtplib.SMTP

    def send(self, item_id: int, message: EmailMessage) -> None:
        try:
            self.client.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            if code >= PERMANENT:
                raise Undeliverable(_said(code, said)) from error
            raise
        except smtplib.SMTPDataError as error:
            if error.smtp_code >= PERMANENT:
                raise Undeliverable(_said(error.smtp_code, error.smtp_error)) from error
            raise
        except (smtplib.SMTPNotSupportedError, UnicodeError) as error:
            raise Undeliverable(str(error)) from error


@contextmanager
def _open(settings: Settings) -> Iterator[Sender]:
    transport = settings.mail_transport
    if isinstance(transport, FileTransport):
        transport.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield FolderSender(transport.directory)
        return
    client = _connect(transport)
    try:
        yield SmtpSender(client)
    finally:
        # What was accepted stays accepted, however the goodbye goes.
        with suppress(OSError, smtplib.SMTPException):
            client.quit()


def _connect(transport: SmtpTransport) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if transport.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            transport.host, transport.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        client = smtplib.SMTP(transport.host, transport.port, timeout=TIMEOUT_SECONDS)
    try:
        if transport.security == "starttls":
            client.starttls(context=context)
        if transport.user:
            client.login(transport.user, transport.password)
    except BaseException:
        client.close()
        raise
    return client


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return _said(*next(iter(error.recipients.values())))
    if isinstance(error, smtplib.SMTPAuthenticationError):
        # Its text may repeat what we sent.
        return f"the mail server refused our sign-in ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPResponseException):
        return _said(error.smtp_code, error.smtp_error)
    return f"{type(error).__name__}: {error}"


def _said(code: int, said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{code} {text}"
