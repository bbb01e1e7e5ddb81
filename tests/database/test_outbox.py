"""The outbox on both databases against a real SMTP server: every letter at least once, none for ever."""

from __future__ import annotations

import email
import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import select, update

from allocator import outbox as letters
from allocator.db import Database
from allocator.models import OutboxItem, OutboxState
from config.settings import Settings
from scheduler import outbox
from scheduler.outbox import LEASE, MOST_TRIES, claim, send_due
from tests import factories
from tests.factories import NOW

SECRET = "only-for-tests-only-for-tests-only-for-tests"


class Mailbox:
    """What an SMTP server got; `answer` is what it says to the next letters."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.answer = "250 OK"
        self.refuse = ""

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address == self.refuse:
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("250") and isinstance(envelope.content, bytes):
            message: Any = email.message_from_bytes(envelope.content, policy=policy.default)
            self.messages.append(message)
        return self.answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def site(tmp_path: Path, mailbox: Mailbox) -> Iterator[Settings]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield Settings(
            data_dir=tmp_path,
            secret_key=SECRET,
            mail=f"smtp://127.0.0.1:{controller.port}",
            mail_from="Kezek <kezek@example.kz>",
            base_url="https://kezek.example.kz",
        )
    finally:
        controller.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def post(database: Database, *addresses: str, token: str = "abc") -> None:
    with database.transaction() as session:
        for address in addresses or ("dana@example.kz",):
            person = factories.person(session, email=address, name="Дана Әлім", locale="en")
            letters.post(session, "confirm_email", person.id, {"token": token, "hours": 48}, now=NOW)


def items(database: Database) -> list[OutboxItem]:
    with database.reader() as session:
        rows = list(session.scalars(select(OutboxItem).order_by(OutboxItem.id)))
        session.expunge_all()
        return rows


def test_a_letter_arrives_as_it_was_meant(database: Database, site: Settings, mailbox: Mailbox) -> None:
    post(database)
    assert send_due(database, site, NOW) == {"sent": 1, "put_off": 0, "failed": 0}
    (message,) = mailbox.messages
    assert message["To"] == "Дана Әлім <dana@example.kz>"
    assert message["From"] == "Kezek <kezek@example.kz>"
    assert "https://kezek.example.kz/account/confirm/abc" in message.get_content()
    (item,) = items(database)
    assert (item.state, item.sent_at, item.tries) == (OutboxState.SENT, NOW, 1)


def test_once_sent_the_database_forgets_the_key(database: Database, site: Settings) -> None:
    post(database)
    send_due(database, site, NOW)
    assert items(database)[0].details == {"hours": 48}


def test_what_was_sent_is_not_sent_again(database: Database, site: Settings, mailbox: Mailbox) -> None:
    post(database)
    send_due(database, site, NOW)
    send_due(database, site, NOW + timedelta(days=1))
    assert len(mailbox.messages) == 1


def test_a_server_that_is_away_gets_more_and_more_time(database: Database, tmp_path: Path) -> None:
    site = Settings(data_dir=tmp_path, secret_key=SECRET, mail=f"smtp://127.0.0.1:{free_port()}")
    post(database)
    now, waits = NOW, []
    for _ in range(5):
        assert send_due(database, site, now)["put_off"] == 1
        (item,) = items(database)
        waits.append((item.due_at - now).total_seconds())
        now = item.due_at
    assert waits == [30, 60, 120, 240, 480]
    assert "Connection refused" in (item.problem or "")


def test_after_many_tries_it_is_given_up_with_the_reason(database: Database, tmp_path: Path) -> None:
    site = Settings(data_dir=tmp_path, secret_key=SECRET, mail=f"smtp://127.0.0.1:{free_port()}")
    post(database)
    with database.transaction() as session:
        session.execute(update(OutboxItem).values(tries=MOST_TRIES - 1))
    assert send_due(database, site, NOW)["failed"] == 1
    (item,) = items(database)
    assert (item.state, bool(item.problem)) == (OutboxState.FAILED, True)
    assert "token" not in item.details  # the link in it still works


def test_an_address_that_does_not_exist_stops_nobody_else(
    database: Database, site: Settings, mailbox: Mailbox
) -> None:
    mailbox.refuse = "nobody@example.kz"
    post(database, "nobody@example.kz", "dana@example.kz")
    assert send_due(database, site, NOW) == {"sent": 1, "put_off": 0, "failed": 1}
    assert items(database)[0].problem == "550 no such person"


def test_a_busy_server_is_asked_again(database: Database, site: Settings, mailbox: Mailbox) -> None:
    mailbox.answer = "451 try later"
    post(database)
    assert send_due(database, site, NOW)["put_off"] == 1
    mailbox.answer = "250 OK"
    assert send_due(database, site, NOW + timedelta(seconds=30))["sent"] == 1


def test_a_letter_that_cannot_be_written_is_given_up(database: Database, site: Settings) -> None:
    with database.transaction() as session:
        person = factories.person(session)
        letters.post(session, "confirm_email", person.id, {}, now=NOW)
    assert send_due(database, site, NOW)["failed"] == 1
    assert "confirm_email cannot be written" in (items(database)[0].problem or "")


def test_a_letter_that_kills_its_sender_is_given_up(database: Database, site: Settings) -> None:
    post(database, "a@example.kz")
    now = NOW
    for _ in range(MOST_TRIES):
        assert len(claim(database, now)) == 1
        now += LEASE
    assert claim(database, now) == []
    (item,) = items(database)
    assert (item.state, item.problem) == (OutboxState.FAILED, "no try came to an end")
    assert "token" not in item.details


def test_whoever_dies_after_claiming_loses_nothing(
    database: Database, site: Settings, mailbox: Mailbox
) -> None:
    post(database)
    assert len(claim(database, NOW)) == 1
    assert send_due(database, site, NOW + LEASE / 2)["sent"] == 0
    assert send_due(database, site, NOW + LEASE)["sent"] == 1
    assert len(mailbox.messages) == 1


def test_told_to_stop_it_leaves_the_rest_for_later(
    database: Database, site: Settings, mailbox: Mailbox
) -> None:
    post(database, "dana@example.kz", "erlan@example.kz")
    answers = iter([True, True, False])
    assert send_due(database, site, NOW, lambda: next(answers))["sent"] == 1
    assert send_due(database, site, NOW + LEASE)["sent"] == 1
    assert [message["To"].addresses[0].username for message in mailbox.messages] == ["dana", "erlan"]


def test_two_tries_of_a_letter_can_be_recognised(
    database: Database, site: Settings, mailbox: Mailbox
) -> None:
    post(database)
    for _ in range(2):
        send_due(database, site, NOW)
        with database.transaction() as session:
            session.execute(update(OutboxItem).values(state=OutboxState.WAITING, due_at=NOW))
            session.execute(update(OutboxItem).values(details={"token": "abc", "hours": 48}))
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"]


def test_two_senders_share_the_work(database: Database, site: Settings, mailbox: Mailbox) -> None:
    post(database, *(f"person{number}@mail.kz" for number in range(120)))
    threads = [threading.Thread(target=send_due, args=(database, site, NOW)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({message["To"] for message in mailbox.messages}) == len(mailbox.messages) == 120


def test_no_transaction_is_open_while_the_server_thinks(
    database: Database, site: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(database)
    checked_out: list[int] = []
    send = outbox.SmtpSender.send

    def watched(self: outbox.SmtpSender, item_id: int, message: EmailMessage) -> None:
        checked_out.append(database.engine.pool.checkedout())  # type: ignore[attr-defined]
        send(self, item_id, message)

    monkeypatch.setattr(outbox.SmtpSender, "send", watched)
    send_due(database, site, NOW)
    assert checked_out == [0]


def test_files_of_letters_are_readable_as_they_are(database: Database, tmp_path: Path) -> None:
    with database.transaction() as session:
        person = factories.person(session, email="dana@example.kz", name="Дана Әлім", locale="kk")
        details = {"id": 7, "title": "Егіс алқаптарын спутник суреттерінен тану", "hours": "80"}
        letters.post(session, "application_submitted", person.id, details, now=NOW)
    send_due(database, Settings(data_dir=tmp_path, secret_key=SECRET), NOW)
    (path,) = (tmp_path / "mail").iterdir()
    text = path.read_text(encoding="utf-8")
    assert "Content-Transfer-Encoding: 8bit" in text
    assert "To: Дана Әлім <dana@example.kz>\n" in text
    assert "=?utf-8?" not in text
    message = email.message_from_string(text, policy=policy.default)
    assert f"Subject: {message['Subject']}\n" in text
    assert text.count(str(details["title"])) >= 2  # in the subject and in the letter


def test_in_the_demonstration_letters_are_files(database: Database, tmp_path: Path) -> None:
    site = Settings(data_dir=tmp_path, secret_key=SECRET)
    post(database)
    assert send_due(database, site, NOW)["sent"] == 1
    (path,) = (tmp_path / "mail").iterdir()
    message = email.message_from_bytes(path.read_bytes(), policy=policy.default)
    assert message["Date"].datetime == datetime(2026, 11, 23, 6, tzinfo=NOW.tzinfo)
    assert path.stat().st_mode & 0o077 == 0 or (tmp_path / "mail").stat().st_mode & 0o077 == 0
