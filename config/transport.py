"""The `mail` setting as data: a folder, or an SMTP server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

Security = Literal["none", "tls", "starttls"]
_SCHEMES: dict[str, tuple[Security, int]] = {
    "smtp": ("none", 25),
    "smtps": ("tls", 465),
    "smtp+starttls": ("starttls", 587),
}


@dataclass(frozen=True)
class FileTransport:
    """Messages are written as .eml files into `directory` (demonstration, tests)."""

    directory: Path


@dataclass(frozen=True)
class SmtpTransport:
    """Messages go to an SMTP server; `user` is empty when the server asks for no sign-in."""

    host: str
    port: int
    security: Security
    user: str = ""
    password: str = field(default="", repr=False)


MailTransport = FileTransport | SmtpTransport


def parse_mail(url: str) -> MailTransport:
    """Read `file:DIR`, `smtp://`, `smtps://` or `smtp+starttls://[user:password@]host[:port]`.

    Raises ValueError; its text never repeats the URL, which may hold a password.
    """
    if url.startswith("file:"):
        directory = url.removeprefix("file:")
        if not directory:
            raise ValueError("names no folder: write file:DIRECTORY")
        return FileTransport(Path(directory))
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise ValueError("must be file:DIRECTORY or smtp://, smtps://, smtp+starttls:// and a server")
    security, default_port = _SCHEMES[scheme]
    # urlsplit does not know smtp+starttls as a scheme with a host on every Python version.
    parts = urlsplit(f"//{rest}")
    try:
        port = parts.port or default_port
    except ValueError:
        raise ValueError("has a port that is not a number between 1 and 65535") from None
    if not parts.hostname:
        raise ValueError("names no server")
    return SmtpTransport(
        parts.hostname, port, security, unquote(parts.username or ""), unquote(parts.password or "")
    )
