"""The headers that every answer carries, and what may be kept of it."""

from __future__ import annotations

from flask import Flask, Response, current_app

from web.identity import signed_in

# No nonce and no 'unsafe-inline': pages carry no inline script or style at all, so nothing injected can run.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
PERMISSIONS_POLICY = (
    "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), "
    "display-capture=(), publickey-credentials-get=(self)"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": PERMISSIONS_POLICY,
}
YEAR = 365 * 24 * 3600


def cache_control() -> str:
    """How long this answer may be kept, and by whom."""
    # A page of a signed-in person must not come back with the Back button after they have signed out on a
    # shared machine.
    return "private, no-store" if signed_in() else "private, no-cache"


def add_headers(response: Response) -> Response:
    """Put the headers on, leaving alone what a view has set itself (a feed, a download)."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if current_app.config["PREFERRED_URL_SCHEME"] == "https":
        response.headers.setdefault("Strict-Transport-Security", f"max-age={YEAR}; includeSubDomains")
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = cache_control()
    return response


def init_app(app: Flask) -> None:
    """Every answer of the application, errors included, gets the headers."""
    app.after_request(add_headers)
