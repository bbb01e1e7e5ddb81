"""Addresses of static files that name their content, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from flask import Flask, current_app, url_for


@lru_cache(maxsize=256)
def content_hash(path: str, _modified: int) -> str:
    """Ten hex digits of the file's SHA-256.

    The time of change is in the key so that an edit shows without a restart.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:10]


def static_url(filename: str) -> str:
    """The address of a file under web/static with `?v=` and the hash of its content.

    Raises FileNotFoundError for a file that does not exist: a misspelt name fails in the tests, not in a
    browser.
    """
    file = Path(str(current_app.static_folder)) / filename
    return url_for("static", filename=filename, v=content_hash(str(file), file.stat().st_mtime_ns))


def init_app(app: Flask) -> None:
    """Let templates write `static_url('kezek.css')`."""
    app.add_template_global(static_url)
