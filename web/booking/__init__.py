"""Pages of booked time: offers, bookings firm and flexible, series, the waitlist, calendar and feeds."""
