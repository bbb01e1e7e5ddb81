"""All pages of bookings: their modules put their views on one blueprint, which the application takes here."""

from __future__ import annotations

from web import offers
from web.bookings import bp

__all__ = ["bp", "offers"]
