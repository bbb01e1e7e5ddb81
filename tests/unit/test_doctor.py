"""`kezek doctor`: its own checks against a real mail server, and parts that are broken or missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from config.doctor import GROUP, Check, _run, check_mail, check_settings
from config.errors import KezekError
from config.settings import Settings
from config.transport import parse_mail

SECRET = "d" * 32


@pytest.fixture
def smtp_port() -> Iterator[int]:
    controller = Controller(Sink(), hostname="127.0.0.1", port=0)
    # Port 0 is chosen by the system; aiosmtpd's own readiness probe needs to know it.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        controller.port = probe.getsockname()[1]
    controller.start()
    yield controller.port
    controller.stop()


def site(tmp_path: Path, mail: str) -> Settings:
    return Settings(data_dir=tmp_path, secret_key=SECRET, mail=mail)


def raise_error(_settings: Settings) -> list[Check]:
    """A part's check that fails before it has said anything."""
    raise KezekError("the database is %(state)s", {"state": "away"})


def test_a_mail_server_that_answers(tmp_path: Path, smtp_port: int) -> None:
    (check,) = check_mail(site(tmp_path, f"smtp://127.0.0.1:{smtp_port}"))
    assert check.ok


def test_a_mail_server_that_refuses_our_sign_in(tmp_path: Path, smtp_port: int) -> None:
    (check,) = check_mail(site(tmp_path, f"smtp://someone:hushhush@127.0.0.1:{smtp_port}"))
    assert not check.ok
    assert check.advice
    assert "hushhush" not in check.detail


def test_a_mail_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        (check,) = check_mail(site(tmp_path, f"smtp://127.0.0.1:{port}"))
    assert not check.ok
    assert "refused" in check.detail


def test_mail_into_a_folder_is_right_for_a_demonstration_only(tmp_path: Path) -> None:
    (production,) = check_mail(site(tmp_path, f"file:{tmp_path}/mail"))
    (demonstration,) = check_mail(Settings(demo=True, data_dir=tmp_path))
    assert (production.ok, demonstration.ok) == (False, True)


def test_plain_http_to_the_world_is_a_fault(tmp_path: Path) -> None:
    open_site = Settings(
        data_dir=tmp_path, secret_key=SECRET, host="0.0.0.0", base_url="http://kezek.example"
    )
    assert [check.name for check in check_settings(open_site) if not check.ok] == ["address"]
    assert all(check.ok for check in check_settings(site(tmp_path, "file:x")))


def test_a_data_folder_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = [check for check in check_settings(site(tmp_path / "file", "file:x")) if not check.ok]
    assert [check.name for check in failed] == ["data folder"]
    assert failed[0].advice


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("nowhere.checks:cluster", "cannot be loaded"),
        ("config.doctor:no_such_check", "cannot be loaded"),
        (f"{__name__}:raise_error", "the database is away"),
    ],
)
def test_a_broken_part_is_a_failed_line(tmp_path: Path, target: str, detail: str) -> None:
    (check,) = _run(EntryPoint("part", target, GROUP), site(tmp_path, "file:x"))
    assert (check.name, check.ok) == ("part", False)
    assert detail in check.detail
    assert check.advice


def test_the_password_of_a_mail_url_is_not_shown() -> None:
    assert "hush" not in repr(parse_mail("smtp://u:hush@mail.example.org"))
