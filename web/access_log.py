"""The web server's log of requests, without the secrets that some addresses are."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from config.logging import without_link_tokens


class AccessLogger(Logger):  # type: ignore[misc]
    """gunicorn's own, for its setting `logger_class`."""

    def atoms(self, *request: Any) -> dict[str, Any]:
        """What a line is made of; the address stands in several of them, the referring page's too."""
        found: dict[str, Any] = super().atoms(*request)
        return {
            name: without_link_tokens(value) if isinstance(value, str) else value
            for name, value in found.items()
        }
