"""Static files: addresses that name their content, and bodies compressed once as small as they get (R-21)."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import brotli
from flask import Flask, Response, abort, request, url_for
from werkzeug.security import safe_join

FOLDER = Path(__file__).parent / "static"
TEXT = ("text/", "application/javascript", "image/svg+xml")
LASTING = "public, max-age=31536000, immutable"
SMALL = 400  # below this compressing saves no packet


class Asset(NamedTuple):
    """A file as it goes over the wire: body by content encoding ("" is the plain one)."""

    digest: str
    mimetype: str
    bodies: dict[str, bytes]


@lru_cache(maxsize=256)
def _load(path: str, _modified: int) -> Asset:
    """Read and compress a file; the time of change is in the key so that an edit shows without a restart."""
    plain = Path(path).read_bytes()
    mimetype = mimetypes.guess_type(path)[0] or "application/octet-stream"
    bodies = {"": plain}
    if mimetype.startswith(TEXT) and len(plain) >= SMALL:
        # The best level costs half a second for Bootstrap, once a process, and saves every visitor 5 kB.
        bodies |= {"br": brotli.compress(plain, quality=11), "gzip": gzip.compress(plain, 9, mtime=0)}
    return Asset(hashlib.sha256(plain).hexdigest()[:10], mimetype, bodies)


def asset(filename: str) -> Asset:
    """The static file of that name. Raises FileNotFoundError when there is none."""
    path = safe_join(str(FOLDER), filename)
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(filename)
    return _load(path, Path(path).stat().st_mtime_ns)


def static_url(filename: str) -> str:
    """The address of a file under web/static with `?v=` and the hash of its content.

    Raises FileNotFoundError: a misspelt name fails in the tests, not in a browser.
    """
    return url_for("static", filename=filename, v=asset(filename).digest)


def send(filename: str) -> Response:
    """The file in the best encoding that the browser takes."""
    try:
        found = asset(filename)
    except FileNotFoundError:
        abort(404)
    accepted = request.accept_encodings
    encoding = next((name for name in ("br", "gzip") if name in found.bodies and accepted[name] > 0), "")
    response = Response(found.bodies[encoding], mimetype=found.mimetype)
    if encoding:
        response.headers["Content-Encoding"] = encoding
    response.headers["Vary"] = "Accept-Encoding"
    # Only an address that names this very content may be kept for ever.
    lasting = request.args.get("v") == found.digest
    response.headers["Cache-Control"] = LASTING if lasting else "public, max-age=300"
    response.set_etag(f"{found.digest}{encoding}")
    response.make_conditional(request)
    return response


def init_app(app: Flask) -> None:
    """The route, and `static_url('kezek.css')` for templates."""
    app.add_url_rule("/static/<path:filename>", "static", send)
    app.add_template_global(static_url)
