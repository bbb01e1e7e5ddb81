"""What a WSGI server calls: the application of the site that the environment describes."""

from flask import Flask

from config.settings import load_settings
from web.app import create_app


def application() -> Flask:
    return create_app(load_settings())
