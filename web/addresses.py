"""Numbers in addresses: never longer than the database's own, so that a longer one is simply not found."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import IntegerConverter, Map

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


def init_app(app: Flask) -> None:
    """Replace the converter; must come before the first route."""
    app.url_map.converters["int"] = Key
