"""The application factory: everything that makes the web is put together here, by name."""

from __future__ import annotations

import logging
from sys import exc_info
from types import TracebackType
from typing import Any

from flask import Blueprint, Flask, make_response, request
from flask.typing import ResponseReturnValue
from flask_compress import Compress
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from config.logging import without_link_tokens
from config.settings import Settings
from web import (
    account,
    addresses,
    assets,
    audit,
    clusters,
    errors,
    gallery,
    health,
    home,
    i18n,
    identity,
    limits,
    navigation,
    once,
    organisations,
    paging,
    people,
    policy,
    rules,
    security,
    session,
    states,
)
from web.applying import (
    applications,
    quotas,
    review,
)
from web.booking import (
    booking_pages,
    calendar,
    feeds,
)
from web.dividing import (
    fairness,
    grants,
    periods,
    proposals,
    shares,
)
from web.upkeep import (
    moves,
    outages,
    phases,
    repairs,
)

MEBIBYTE = 1024 * 1024
MAX_FORM_PARTS = 500
log = logging.getLogger("kezek.web")
csrf = CSRFProtect()

# Every module of views stands here, in the order of the menu; a module is registered nowhere else.
BLUEPRINTS: list[Blueprint] = [
    health.bp,
    home.bp,
    applications.bp,
    quotas.bp,
    booking_pages.bp,
    calendar.bp,
    feeds.bp,
    moves.bp,
    clusters.bp,
    phases.bp,
    outages.bp,
    repairs.bp,
    shares.bp,
    fairness.bp,
    periods.bp,
    proposals.bp,
    grants.bp,
    rules.bp,
    review.bp,
    account.bp,
    organisations.bp,
    people.bp,
    audit.bp,
]


class Kezek(Flask):
    """Flask, with the commit inside of what error handlers guard."""

    def dispatch_request(self) -> ResponseReturnValue:
        """Run the view, then finish its transaction: an error at commit becomes a page like any other."""
        with session.undone_by_errors():
            response = make_response(super().dispatch_request())
            session.finish(response)
        return response

    def log_exception(
        self, error: tuple[type, BaseException, TracebackType] | tuple[None, None, None] | Any
    ) -> None:
        """Log a fault with the reference that the person is shown.

        The query string may hold secrets and stays out, as does the secret of a mailed link.
        """
        path = without_link_tokens(request.path)
        reference = errors.new_reference()
        log.error("fault %s at %s %s", reference, request.method, path, exc_info=error or exc_info())


def create_app(settings: Settings) -> Flask:
    """The WSGI application of a site. Opens no connection.

    A database that is away shows at the first request.
    """
    app = Kezek("web", static_folder=None)
    app.config.update(_config(settings))
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    addresses.init_app(app)
    session.init_app(app, settings)
    health.init_app(app)  # first, so that what is refused below is measured too
    csrf.init_app(app)
    identity.init_app(app)
    i18n.init_app(app, settings)
    policy.init_app(app, settings)
    for module in (assets, errors, limits, navigation, once, paging, security, states):
        module.init_app(app)
    Compress(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    if settings.demo:
        app.register_blueprint(gallery.bp)
    _offer_macros(app, settings)
    return app


def _config(settings: Settings) -> dict[str, Any]:
    """Flask's and its extensions' settings from ours."""
    https = settings.base_url.startswith("https://")
    return {
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        "PREFERRED_URL_SCHEME": "https" if https else "http",
        # The prefix makes browsers refuse a cookie of that name from a neighbouring host or over plain HTTP.
        "SESSION_COOKIE_NAME": "__Host-kezek" if https else "kezek",
        "SESSION_COOKIE_SECURE": https,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "MAX_CONTENT_LENGTH": MEBIBYTE,
        "MAX_FORM_MEMORY_SIZE": MEBIBYTE,
        "MAX_FORM_PARTS": MAX_FORM_PARTS,
        # The token lives as long as the session: nobody should lose a long application to a clock.
        "WTF_CSRF_TIME_LIMIT": None,
        "COMPRESS_ALGORITHM": ["br", "gzip"],
        "COMPRESS_ALGORITHM_STREAMING": ["br", "gzip"],
        "COMPRESS_BR_LEVEL": 5,
        "COMPRESS_MIN_SIZE": 400,
    }


def _offer_macros(app: Flask, settings: Settings) -> None:
    """Give every template `ui`, the macros, and `demo`.

    Last, because macros bind the globals that stand by then.
    """
    app.jinja_env.globals["demo"] = settings.demo
    app.jinja_env.globals["simulated"] = all(c.adapter == "simulated" for c in settings.clusters)
    app.jinja_env.globals["site_zone"] = settings.timezone
    app.jinja_env.globals["ui"] = app.jinja_env.get_template("macros/ui.html").module
