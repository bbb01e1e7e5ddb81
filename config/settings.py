"""What a site sets, typed and frozen, read once from the environment and one TOML file.

`KEZEK_<NAME>` in the environment wins over `<name>` in the file that `KEZEK_CONFIG` names. Lists may be
written in the environment with commas or as JSON, clusters as JSON. Everything that is wrong is told at
once, with where it was set and never with the value, which may be a secret.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config.errors import KezekError
from config.i18n import LANGUAGES
from config.secret import read_or_create_secret as _demo_secret
from config.transport import MailTransport, parse_mail

ENV_PREFIX = "KEZEK_"
# Variables that share the prefix but are no settings: the file's name and what tests use.
NOT_SETTINGS = ("KEZEK_CONFIG", "KEZEK_CONTRACT_TABLE", "KEZEK_NO_SKIP", "KEZEK_CACHE", "KEZEK_TEST_")

# Accounts of the operating system and of Slurm itself: a person's jobs must never run as one of these.
FORBIDDEN_LOGINS = frozenset(
    """root slurm munge mysql mariadb postgres daemon nobody bin sys sync games man lp mail news uucp proxy
    www-data backup list irc gnats systemd-network systemd-resolve messagebus sshd ntp chrony kezek admin
    administrator operator prometheus""".split()
)


class SettingsError(KezekError):
    """The settings are wrong; `faults` holds one line for each."""

    code = "settings"
    exit_code = 2

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(["The settings are wrong:", *(f"  {fault}" for fault in faults)]))


def _listed(value: object) -> object:
    """Accept JSON or commas where the environment can only give text."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            # The message says where, not what: a cluster's env may hold a token.
            raise ValueError(f"is not valid JSON at character {error.pos}") from None
    return [part.strip() for part in text.split(",") if part.strip()]


Listed = BeforeValidator(_listed)


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError("is not a network such as 10.0.0.0/8 or ::1/128") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Seconds = Annotated[int, Field(gt=0, le=86_400)]
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class _Frozen(BaseModel):
    # A misspelt key must be an error, not a setting silently left at its default.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class ClusterSettings(_Frozen):
    """One Slurm cluster and how it is reached."""

    slug: Slug
    adapter: Literal["simulated", "slurm_cli", "pyslurm"] = "simulated"
    titles: dict[str, str] = {}
    # Put before every Slurm command, e.g. ["ssh", "login1"] or ["chroot", "/srv/slurm"].
    command_prefix: Annotated[tuple[str, ...], Listed] = ()
    slurm_conf: Path | None = None
    env: dict[str, str] = Field(default={}, repr=False)
    timeout: Seconds = 20
    # The site gives no parts of nodes here, though it could.
    whole_nodes: bool = False
    # Only the simulated adapter reads these; `speed` is simulated seconds per real second.
    database: Path | None = None
    speed: float = Field(default=1, gt=0, le=100_000)
    nodes: int = Field(default=64, ge=1, le=10_000)
    gpus: int = Field(default=8, ge=1, le=64)
    gpu_type: Slug = "h200"

    def title(self, lang: str) -> str:
        """What people call it; the slug when nobody named it."""
        return self.titles.get(lang) or self.titles.get("en") or self.slug


ALEM = ClusterSettings(slug="alem", titles={"kk": "Alem.cloud", "ru": "Alem.cloud", "en": "Alem.cloud"})


class Settings(_Frozen):
    """Every setting, with its default; README.md says what each is for.

    Calling it with values reads neither environment nor file, which is what tests want.
    """

    demo: bool = False
    data_dir: Path = Path("var")
    database_url: str = Field(
        default_factory=lambda data: f"sqlite+pysqlite:///{data['data_dir']}/kezek.sqlite3", repr=False
    )
    secret_key: SecretStr = Field(
        default_factory=lambda data: _demo_secret(data["data_dir"]) if data["demo"] else SecretStr("")
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65_535)
    base_url: str = Field(default_factory=lambda data: f"http://{data['host']}:{data['port']}")
    timezone: str = "Asia/Almaty"
    languages: Annotated[tuple[str, ...], Listed] = LANGUAGES
    default_language: str = "kk"
    mail: str = Field(default_factory=lambda data: f"file:{data['data_dir']}/mail", repr=False)
    mail_from: str = "Kezek <kezek@localhost>"
    clusters: Annotated[tuple[ClusterSettings, ...], Listed, Field(min_length=1)] = (ALEM,)
    policy_file: Path | None = None
    metrics_token: SecretStr | None = None
    metrics_allow: Annotated[tuple[Network, ...], Listed] = (
        IPv4Network("127.0.0.0/8"),
        IPv6Network("::1/128"),
    )
    trusted_proxies: int = Field(default=0, ge=0, le=10)
    forbidden_logins: Annotated[frozenset[str], Listed] = FORBIDDEN_LOGINS
    session_hours: int = Field(default=12, ge=1, le=24 * 30)
    session_idle_minutes: int = Field(default=60, ge=5, le=24 * 60)
    reset_token_minutes: int = Field(default=60, ge=5, le=24 * 60)
    confirm_token_hours: int = Field(default=48, ge=1, le=24 * 30)
    reconcile_seconds: Seconds = 30
    usage_seconds: Seconds = 60
    inventory_seconds: Seconds = 60
    plan_seconds: Seconds = 60
    repairs_seconds: Seconds = 3
    expiry_seconds: Seconds = 30
    outbox_seconds: Seconds = 10
    log_json: bool = Field(default_factory=lambda data: not data["demo"])
    web_workers: int = Field(default=2, ge=1, le=256)
    web_threads: int = Field(default=8, ge=1, le=256)

    @property
    def zone(self) -> ZoneInfo:
        """The zone that people read times in."""
        return ZoneInfo(self.timezone)

    @property
    def mail_transport(self) -> MailTransport:
        """`mail` taken apart."""
        return parse_mail(self.mail)

    def cluster(self, slug: str) -> ClusterSettings | None:
        """The cluster of that slug, or None."""
        return next((cluster for cluster in self.clusters if cluster.slug == slug), None)

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            raise ValueError("is required: give at least 32 random characters")
        if len(value.get_secret_value()) < 32:
            raise ValueError("is too short: give at least 32 random characters")
        return value

    @field_validator("database_url")
    @classmethod
    def _supported(cls, value: str) -> str:
        if not value.startswith(("sqlite+pysqlite:///", "postgresql+psycopg://")):
            raise ValueError("must begin with sqlite+pysqlite:/// or postgresql+psycopg://")
        return value

    @field_validator("base_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a time zone of the IANA database, such as Asia/Almaty") from None
        return value

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= set(LANGUAGES) or len(set(value)) != len(value):
            raise ValueError(f"must be some of {', '.join(LANGUAGES)}, each once")
        return value

    @field_validator("default_language")
    @classmethod
    def _one_of_languages(cls, value: str, info: ValidationInfo) -> str:
        if value not in info.data.get("languages", (value,)):
            raise ValueError("is not one of languages")
        return value

    @field_validator("mail")
    @classmethod
    def _mail_url(cls, value: str) -> str:
        parse_mail(value)
        return value

    @field_validator("clusters")
    @classmethod
    def _placed(cls, value: tuple[ClusterSettings, ...], info: ValidationInfo) -> tuple[ClusterSettings, ...]:
        slugs = [cluster.slug for cluster in value]
        if len(set(slugs)) != len(slugs):
            raise ValueError("has the same slug twice")
        # A simulated cluster's own file stands beside the database unless the site says where.
        data_dir: Path = info.data.get("data_dir", Path("var"))
        return tuple(
            cluster.model_copy(update={"database": data_dir / f"simulated-{cluster.slug}.sqlite3"})
            if cluster.adapter == "simulated" and cluster.database is None
            else cluster
            for cluster in value
        )

    @field_validator("policy_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("names no file")
        return value

    @model_validator(mode="after")
    def _not_demo_in_the_open(self) -> Self:
        # The demonstration's passwords are printed for everybody to read.
        if self.demo and self.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("host: the demonstration listens on this machine only; set demo = false")
        return self


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read, check and freeze; raises SettingsError with every fault at once."""
    faults: list[str] = []
    from_file, file_name = _read_file(environ, faults)
    values: dict[str, Any] = dict(from_file)
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable.startswith(NOT_SETTINGS):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name in Settings.model_fields:
            values[name] = text
        else:
            faults.append(f"{name}: there is no such setting (environment variable {variable})")
    try:
        settings = Settings(**values)
    except ValidationError as error:
        faults += [_fault(item, environ, from_file, file_name) for item in error.errors() if _telling(item)]
        raise SettingsError(faults) from None
    except OSError as error:
        raise SettingsError([*faults, f"data_dir: {error.strerror}: {error.filename}"]) from None
    if faults:
        raise SettingsError(faults)
    return settings


@cache
def load_settings() -> Settings:
    """This process's settings, read once."""
    return read_settings(os.environ)


def _read_file(environ: Mapping[str, str], faults: list[str]) -> tuple[dict[str, Any], str]:
    name = environ.get("KEZEK_CONFIG", "")
    if not name:
        return {}, name
    try:
        with open(name, "rb") as file:
            return tomllib.load(file), name
    except OSError as error:
        faults.append(f"KEZEK_CONFIG: {error.strerror}: {name}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"KEZEK_CONFIG: {name} is not valid TOML: {error}")
    return {}, name


def _telling(item: Any) -> bool:
    # A default that waits for another, wrong setting is no fault of its own.
    return bool(item["type"] != "default_factory_not_called")


def _fault(item: Any, environ: Mapping[str, str], from_file: Mapping[str, Any], file_name: str) -> str:
    """One fault as a line: setting, what is wrong, where it came from."""
    message = str(item["msg"]).removeprefix("Value error, ")
    # pydantic names the members of a union in square brackets; people do not.
    where = ".".join(str(part) for part in item["loc"] if "[" not in str(part))
    if not where:
        return message
    name = str(item["loc"][0])
    variable = f"{ENV_PREFIX}{name.upper()}"
    if variable in environ:
        origin = f"environment variable {variable}"
    elif name in from_file:
        origin = f"file {file_name}"
    else:
        origin = f"not set; set {variable} or {name} in the file of KEZEK_CONFIG"
    return f"{where}: {message} ({origin})"
