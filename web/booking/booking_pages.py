"""All pages of bookings: their modules put their views on one blueprint, which the application takes here."""

from __future__ import annotations

from web.booking import (
    booking_changes,
    booking_series,
    flexible,
    offers,
    waitlist,
    window_changes,
)
from web.booking.bookings import bp

__all__ = ["booking_changes", "booking_series", "bp", "flexible", "offers", "waitlist", "window_changes"]
