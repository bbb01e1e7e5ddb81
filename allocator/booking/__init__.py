"""Booked time: offers, bookings firm and flexible, series, the waitlist, the plan and the calendar."""
