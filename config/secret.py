"""The demonstration's own secret key: made once, kept beside its data."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr


def read_or_create_secret(data_dir: Path) -> SecretStr:
    """The key in `data_dir`/secret_key, made on first use and readable by its owner only.

    Web and scheduler start at the same moment, so the file appears whole (a link of a finished file) and
    whoever comes second reads the first one's key. Raises OSError when the folder cannot be written.
    """
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f".secret_key.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # somebody else was first; theirs is the key
        finally:
            draft.unlink()
    return SecretStr(path.read_text(encoding="ascii").strip())
