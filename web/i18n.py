"""The reader's language, and numbers, money and time as they are written here (R-31, R-33, R-34)."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_request_context,
    make_response,
    redirect,
    request,
    url_for,
)
from flask_babel import Babel
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from config import i18n as catalogues
from config.settings import Settings
from web.formats import FILTERS
from web.identity import preferred_language
from web.session import settings

# Bare "en" would put the month before the day, which nobody here does.
LOCALES = {**catalogues.LOCALES, "en": "en_GB"}
# Each language is named in itself: a reader who is lost in the wrong one must recognise their own.
NAMES = {"kk": "Қазақша", "ru": "Русский", "en": "English"}
COOKIE = "kezek_language"
COOKIE_SECONDS = 365 * 24 * 3600

bp = Blueprint("language", __name__)


def language() -> str:
    """The language of this page.

    Asked for, else remembered, else of the profile, else of the browser, else the site's.
    """
    if not has_request_context():
        return settings().default_language
    if "language" not in g:
        g.language = _choose()
    return str(g.language)


def _choose() -> str:
    for wish in (request.args.get("lang"), request.cookies.get(COOKIE), preferred_language()):
        if wish in settings().languages:
            return str(wish)
    # A browser that asks for ru-RU before en wants Russian; werkzeug's own match would prefer the exact "en".
    asked = (tag.partition("-")[0].lower() for tag, quality in request.accept_languages if quality > 0)
    return next((code for code in asked if code in settings().languages), settings().default_language)


def locale() -> str:
    """The locale for Flask-Babel."""
    return LOCALES[language()]


def safe_path(target: str | None) -> str | None:
    """The path and query of `target` if it leads to this site, else None.

    A link must not send people elsewhere.
    """
    if not target or not target.startswith("/") or "\\" in target or any(ord(sign) < 32 for sign in target):
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    # `//host` and `/\host` are other sites to a browser, though they begin with a slash.
    return None if parts.scheme or parts.netloc or target.startswith("//") else target


@bp.get("/language/<code>")
def switch(code: str) -> Response:
    """Remember the reader's language and go back to where they were."""
    if code not in settings().languages:
        abort(404)
    answer = make_response(redirect(safe_path(request.args.get("next")) or "/", 303))
    answer.set_cookie(
        COOKIE,
        code,
        max_age=COOKIE_SECONDS,
        secure=bool(current_app.config["SESSION_COOKIE_SECURE"]),
        httponly=True,
        samesite="Lax",
    )
    return answer


def _page_address() -> str:
    """This page's path if it can be asked for, else that of the page with its form, else the index."""
    if _can_be_asked_for(request.path):
        return request.path
    came_from = urlsplit(request.referrer or "")
    path = safe_path(came_from.path) if came_from.netloc == request.host else None
    if path and _can_be_asked_for(path):
        return path
    index = f"{request.blueprint}.index"
    return url_for(index) if index in current_app.view_functions else "/"


def _can_be_asked_for(path: str) -> bool:
    """Whether the address answers to GET; one that does not exist says so itself."""
    adapter = current_app.create_url_adapter(request)
    try:
        if adapter is not None:
            adapter.match(path, method="GET")
    except MethodNotAllowed:
        return False
    except HTTPException:
        return True
    return True


def language_links() -> list[tuple[str, str, str, bool]]:
    """(code, own name, address, chosen) of every language, leading back to the page being read."""
    # A page that answered a POST cannot be asked for again: its switch leads to the path alone. A `lang` in
    # the address would win over the reader's new choice.
    query = [(key, value) for key, value in request.args.items(multi=True) if key != "lang"]
    here = _page_address()
    here = f"{here}?{urlencode(query)}" if query and request.method == "GET" else here
    return [
        (code, NAMES[code], url_for("language.switch", code=code, next=here), code == language())
        for code in settings().languages
    ]


def init_app(app: Flask, site: Settings) -> None:
    """Catalogues, filters and the switch."""
    app.config.update(
        BABEL_DEFAULT_LOCALE=LOCALES[site.default_language],
        BABEL_DEFAULT_TIMEZONE=site.timezone,
        BABEL_TRANSLATION_DIRECTORIES=str(catalogues.LOCALE_DIR),
        BABEL_DOMAIN="messages",
    )
    Babel(app, locale_selector=locale)
    app.jinja_env.filters.update(FILTERS)
    app.add_template_global(language)
    app.add_template_global(language_links)
    app.register_blueprint(bp)
