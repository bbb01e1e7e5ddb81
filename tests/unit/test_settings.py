"""Settings: where they come from, how they fail, and that they keep secrets."""

from __future__ import annotations

import json
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.i18n import LANGUAGES
from config.settings import Settings, SettingsError, read_settings
from config.transport import FileTransport, SmtpTransport, parse_mail

SECRET = "s" * 32
REQUIRED = {"KEZEK_SECRET_KEY": SECRET}


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(environ)
    return caught.value.faults


def test_defaults_follow_the_data_folder_and_the_address(tmp_path: Path) -> None:
    settings = read_settings({**REQUIRED, "KEZEK_DATA_DIR": str(tmp_path), "KEZEK_PORT": "9000"})
    assert settings.database_url == f"sqlite+pysqlite:///{tmp_path}/kezek.sqlite3"
    assert settings.base_url == "http://127.0.0.1:9000"
    assert settings.mail_transport == FileTransport(tmp_path / "mail")
    assert settings.clusters[0].slug == "alem"
    assert settings.clusters[0].database == tmp_path / "simulated-alem.sqlite3"
    assert settings.languages == LANGUAGES
    assert settings.log_json is True


def test_a_demonstration_makes_its_secret_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = Settings(demo=True, data_dir=tmp_path)
    again = Settings(demo=True, data_dir=tmp_path)
    assert first.secret_key.get_secret_value() == again.secret_key.get_secret_value()
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret_key"]


def test_production_asks_for_a_secret(tmp_path: Path) -> None:
    assert faults({"KEZEK_DATA_DIR": str(tmp_path)})[0].startswith("secret_key: is required")
    assert faults({"KEZEK_SECRET_KEY": "short"})[0].startswith("secret_key: is too short")
    assert list(tmp_path.iterdir()) == []


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kezek.toml"
    file.write_text(
        f'port = 7000\nhost = "::1"\nsecret_key = "{SECRET}"\nlanguages = ["ru", "kk"]\n'
        '[[clusters]]\nslug = "north"\nadapter = "slurm_cli"\ncommand_prefix = ["ssh", "login"]\n'
    )
    settings = read_settings({"KEZEK_CONFIG": str(file), "KEZEK_PORT": "7001"})
    assert (settings.port, settings.host, settings.languages) == (7001, "::1", ("ru", "kk"))
    assert settings.clusters[0].command_prefix == ("ssh", "login")
    assert settings.clusters[0].database is None


def test_lists_come_with_commas_or_as_json() -> None:
    commas = read_settings({**REQUIRED, "KEZEK_METRICS_ALLOW": "10.0.0.0/8, ::1", "KEZEK_LANGUAGES": "kk,ru"})
    as_json = read_settings({**REQUIRED, "KEZEK_METRICS_ALLOW": '["10.0.0.0/8", "::1"]'})
    assert commas.metrics_allow == as_json.metrics_allow == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert commas.languages == ("kk", "ru")


def test_every_fault_is_told_at_once_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "kezek.toml"
    file.write_text('port = "many"\ncolour = "blue"\n')
    environ = {
        "KEZEK_CONFIG": str(file),
        "KEZEK_TIMEZONE": "Asia/Nowhere",
        "KEZEK_CLUSTERS": "[{",
        "KEZEK_METRICS_ALLOW": "10.0.0.0/8,x",
        "KEZEK_RECONCILE_SECONDS": "0",
        "KEZEK_DEFAULT_LANGUAGE": "fr",
        "KEZEK_BASE_URL": "kezek.example",
        "KEZEK_TIMEZOME": "UTC",
    }
    told = faults(environ)
    starts = {line.partition(":")[0] for line in told}
    assert starts == {
        "port", "colour", "timezone", "clusters", "metrics_allow.1", "reconcile_seconds", "default_language",
        "base_url", "timezome", "secret_key",
    }  # fmt: skip
    assert len(told) == len(starts)
    assert f"(file {file})" in next(line for line in told if line.startswith("port"))
    assert "(environment variable KEZEK_TIMEZONE)" in next(
        line for line in told if line.startswith("timezone")
    )


@pytest.mark.parametrize(
    "name", ["PORT", "SESSION_HOURS", "WEB_THREADS", "TRUSTED_PROXIES", "OUTBOX_SECONDS"]
)
@pytest.mark.parametrize("value", ["-5", "NaN", "1e400", "99999999999999999999", "", "٣x"])
def test_numbers_are_bounded(name: str, value: str) -> None:
    assert len(faults({**REQUIRED, f"KEZEK_{name}": value})) == 1


def test_no_secret_reaches_a_message_or_a_log() -> None:
    secret = "p4ss-very-secret"
    environ = {
        "KEZEK_SECRET_KEY": secret,
        "KEZEK_DATABASE_URL": f"mysql://u:{secret}@h/d",
        "KEZEK_MAIL": f"smtp://u:{secret}@",
        "KEZEK_CLUSTERS": json.dumps([{"slug": "a", "env": {"TOKEN": [secret]}}]),
        "KEZEK_METRICS_TOKEN": secret,
    }
    assert secret not in "\n".join(faults(environ))
    good = read_settings(
        {
            "KEZEK_SECRET_KEY": secret * 2,
            "KEZEK_DATABASE_URL": f"postgresql+psycopg://u:{secret}@h/d",
            "KEZEK_MAIL": f"smtp://u:{secret}@h",
            "KEZEK_METRICS_TOKEN": secret,
            "KEZEK_CLUSTERS": json.dumps([{"slug": "a", "env": {"TOKEN": secret}}]),
        }
    )
    assert secret not in repr(good)
    assert secret not in repr(good.mail_transport)


def test_a_missing_or_broken_file_is_a_fault(tmp_path: Path) -> None:
    missing = faults({**REQUIRED, "KEZEK_CONFIG": str(tmp_path / "none.toml")})
    assert "No such file" in missing[0]
    broken = tmp_path / "broken.toml"
    broken.write_text("port = = 3")
    assert "is not valid TOML" in faults({**REQUIRED, "KEZEK_CONFIG": str(broken)})[0]


def test_the_demonstration_stays_on_this_machine(tmp_path: Path) -> None:
    told = faults({"KEZEK_DEMO": "1", "KEZEK_HOST": "0.0.0.0", "KEZEK_DATA_DIR": str(tmp_path)})
    assert told == ["host: the demonstration listens on this machine only; set demo = false"]


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = faults({"KEZEK_DEMO": "1", "KEZEK_DATA_DIR": str(tmp_path / "file" / "below")})
    assert told[0].startswith("data_dir: Not a directory")


def test_settings_are_frozen(settings: Settings) -> None:
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_two_clusters_may_not_share_a_slug() -> None:
    told = faults({**REQUIRED, "KEZEK_CLUSTERS": '[{"slug": "a"}, {"slug": "a"}]'})
    assert told[0].startswith("clusters: has the same slug twice")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:/var/mail/kezek", FileTransport(Path("/var/mail/kezek"))),
        ("smtp://mail.example.org", SmtpTransport("mail.example.org", 25, "none")),
        ("smtps://u:p%40ss@[::1]:4650", SmtpTransport("::1", 4650, "tls", "u", "p@ss")),
        (
            "smtp+starttls://u:p@mail.example.org",
            SmtpTransport("mail.example.org", 587, "starttls", "u", "p"),
        ),
    ],
)
def test_mail_urls(url: str, expected: FileTransport | SmtpTransport) -> None:
    assert parse_mail(url) == expected


@pytest.mark.parametrize(
    "url", ["", "file:", "http://x", "smtp://", "smtp://h:99999", "smtp://u:p@", "mail.kz"]
)
def test_bad_mail_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_mail(url)
