"""Letters in Kazakh and Russian read back as they were written, however long their headers are."""

from __future__ import annotations

import email
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr

import pytest

from scheduler.mail_format import POLICY, readable

SUBJECT = "Өтініміңіз қабылданды: Егіс алқаптарын спутник суреттерінен тану, GPU — 2027 жылға дейін"
NAMES = ["Dana Omar", "Дана Әлім", "Айгерім Сапарқызы Нұрмұхамедова-Әбдіғаппарова, Til Labs (Алматы)"]


def written(subject: str, name: str) -> EmailMessage:
    message = EmailMessage(policy=POLICY)
    message["Subject"] = subject
    message["To"] = Address(name, "dana", "example.kz")
    message.set_content("Сәлеметсіз бе!\n" + "Өтініміңіз қабылданды. " * 20 + "\n")
    return message


@pytest.mark.parametrize("length", range(1, len(SUBJECT) + 1))
def test_a_subject_of_any_length_keeps_every_space(length: int) -> None:
    subject = SUBJECT[-length:].strip()
    raw = written(subject, NAMES[0]).as_bytes(policy=POLICY.clone(linesep="\r\n"))
    assert raw.isascii()
    assert email.message_from_bytes(raw, policy=policy.default)["Subject"] == subject
    assert max(len(line) for line in raw.split(b"\r\n")) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reads_back_beside_its_address(name: str) -> None:
    # The legacy decoder: the new parser puts spaces between the encoded words of a name.
    header = email.message_from_bytes(written(SUBJECT, name).as_bytes())["To"]
    shown, address = parseaddr("".join(header.splitlines()))
    assert (str(make_header(decode_header(shown))), address) == (name, "dana@example.kz")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_plain_text_and_the_message_stays_as_it_was(name: str) -> None:
    message = written(SUBJECT, name)
    before = message.as_bytes()
    raw = readable(message)
    text = raw.decode()
    assert f"Subject: {SUBJECT}\n" in text
    assert name in text
    assert "Өтініміңіз қабылданды. Өтініміңіз" in text
    headers = email.message_from_string(text, policy=policy.default)
    assert headers["To"].addresses[0].display_name == name
    assert email.message_from_bytes(raw, policy=policy.default).get_content() == message.get_content()
    assert message.as_bytes() == before
