"""`/healthz` for whoever watches the site, `/metrics` for Prometheus, and the clock on every answer."""

from __future__ import annotations

import hmac
import time
from ipaddress import ip_address

from flask import Blueprint, Flask, Response, abort, g, jsonify, request
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from allocator.health import scheduler_health
from config.clock import utcnow
from metrics.exposition import exposition
from metrics.http import latencies, observe
from metrics.text import CONTENT_TYPE
from web.session import database, db, settings

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """200 when web, database and scheduler work, else 503 with the reason."""
    try:
        health = scheduler_health(db(), utcnow())
    except SQLAlchemyError:
        return jsonify(status="failing", reason="The database cannot be read."), 503
    if health.problem:
        return jsonify(status="failing", reason=health.problem, late=health.late), 503
    return jsonify(status="ok", failing_jobs=health.failing)


@bp.get("/metrics")
def metrics() -> ResponseReturnValue:
    """Everything for Prometheus; to others there is nothing here."""
    if not _may_scrape():
        abort(404)
    text = exposition(database().reader, utcnow()) + latencies()
    return Response(text, content_type=CONTENT_TYPE)


def _may_scrape() -> bool:
    """From an allowed address, and with the token where the site has set one."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:
        return False
    if "X-Forwarded-For" in request.headers and not settings().trusted_proxies:
        # A proxy that the site has not told us of: the address is the proxy's, and the reader may be anybody.
        return False
    if not any(address in network for network in settings().metrics_allow):
        return False
    token = settings().metrics_token
    given = request.headers.get("Authorization", "")
    return token is None or hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode())


def _start_clock() -> None:
    g.began = time.perf_counter()


def _stop_clock(response: Response) -> Response:
    if "began" in g:
        observe(request.endpoint, request.method, response.status_code, time.perf_counter() - g.began)
    return response


def init_app(app: Flask) -> None:
    """Measure every answer of ``app``."""
    app.before_request(_start_clock)
    app.after_request(_stop_clock)
