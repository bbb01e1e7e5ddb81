"""What a WSGI server calls: the application of the site that the environment describes."""

from flask import Flask

from config.logging import set_up
from config.settings import load_settings
from web.app import create_app


def application() -> Flask:
    """The application, with its log lines in the site's form."""
    settings = load_settings()
    set_up(settings)
    return create_app(settings)
