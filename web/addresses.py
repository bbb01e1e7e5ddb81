"""What may stand in addresses: numbers that the database holds and printable names; all else is not found."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import IntegerConverter, Map, UnicodeConverter

MOST = 2**63 - 1


class Key(IntegerConverter):
    """`<int:…>` as every route uses it: plain digits, within what a BIGINT holds."""

    regex = "[0-9]{1,19}"  # one thing has one address, so no digits of other scripts

    def __init__(
        self,
        map: Map,
        fixed_digits: int = 0,
        min: int | None = None,
        max: int | None = MOST,
        signed: bool = False,
    ) -> None:
        super().__init__(map, fixed_digits, min, max, signed)


class Name(UnicodeConverter):
    """`<…>` as every route uses it: asked for a NUL, PostgreSQL fails instead of finding nothing."""

    def __init__(
        self, map: Map, minlength: int = 1, maxlength: int | None = None, length: int | None = None
    ) -> None:
        super().__init__(map, minlength, maxlength, length)
        self.regex = self.regex.replace("[^/]", r"[^/\x00-\x1f\x7f]")


def init_app(app: Flask) -> None:
    """Replace the converters; must come before the first route."""
    app.url_map.converters["int"] = Key
    app.url_map.converters["default"] = app.url_map.converters["string"] = Name
